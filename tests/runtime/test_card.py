from dataclasses import fields
from pathlib import Path

import pytest

from arcmtp.errors import ArcmtpError
from arcmtp.runtime.card import Geometry, cards, for_device, load
from arcmtp.runtime.paths import profile_dir

B70 = (profile_dir() / "arc-pro-b70.toml").read_text()


@pytest.mark.parametrize(
    ("device_name", "profile"),
    [
        ("Intel(R) Graphics [0xe223]", "arc-pro-b70"),
        ("Intel(R) Graphics [0xe211]", "arc-pro-b60"),
        ("Intel(R) Graphics [0xe20b]", "arc-b580"),
        ("Intel(R) Graphics [0xe20c]", "arc-b570"),
        ("Intel(R) Graphics [0xe212]", "arc-pro-b50"),
        ("Intel(R) Arc(TM) Pro B70 Graphics", "arc-pro-b70"),
        ("Intel(R) Arc(TM) B580 Graphics", "arc-b580"),
    ],
)
def test_a_battlemage_gpu_gets_its_own_profile(device_name: str, profile: str) -> None:
    assert for_device(device_name, is_cpu=False).profile == profile


def test_every_cpu_gets_the_cpu_profile() -> None:
    assert for_device("Intel(R) Xeon(R) B580", is_cpu=True) is cards()["cpu"]


def test_an_unknown_gpu_gets_a_generic_geometry_and_a_note_naming_it() -> None:
    card = for_device("Intel(R) Arc(TM) A770 Graphics", is_cpu=False)
    assert card.geometry == cards()["arc-b580"].geometry
    assert card.hardware is None
    assert "Intel(R) Arc(TM) A770 Graphics" in card.note


def test_no_two_profiles_match_the_same_part_of_a_name() -> None:
    parts = [part for card in cards().values() for part in card.matches]
    assert len(parts) == len(set(parts)) == 10


def test_a_geometry_runs_in_the_work_groups_that_its_card_allows() -> None:
    for card in cards().values():
        teams = [getattr(card.geometry, f.name) for f in fields(Geometry) if f.name.endswith("_team")]
        assert len(teams) == 6
        assert max(teams) <= card.limits.work_group


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("xe_cores = 32", "xe_cores = 32\nxe_core = 1", "unknown key hardware.xe_core;"),
        ("xe_cores = 32\n", "", "hardware.xe_cores is missing"),
        ("xe_cores = 32", 'xe_cores = "32"', "hardware.xe_cores is '32' and should be a whole number from 1 to 1024"),
        ("xe_cores = 32", "xe_cores = true", "hardware.xe_cores is True and should be a whole number"),
        ("mul_mat_rows = 8", "mul_mat_rows = 9", "geometry.mul_mat_rows is 9 and should be a whole number from 1 to 8"),
        ("expert_columns = 32", "expert_columns = 40", "geometry.expert_columns is 40"),
        ("chunk_rows = 2048", "chunk_rows = 1000", "geometry.chunk_rows is 1000 and should be a whole number from 64"),
        ("prompt_rows = 16", "prompt_rows = 12", "geometry.prompt_rows is 12 and should be a whole number from 0"),
        ('kind = "gpu"', 'kind = "npu"', "geometry.kind is 'npu' and should be \"cpu\" or \"gpu\""),
        ("sub_groups = [16, 32]", "sub_groups = []", "limits.sub_groups is []"),
        ("spec_bandwidth_gbs = 608", "spec_bandwidth_gbs = nan", "hardware.spec_bandwidth_gbs is nan"),
        ("measured_bandwidth_gbs = 536\n", "", "hardware.bandwidth_source go together"),
        ("pcie_lanes = 16\n", "", "hardware.pcie_lanes is missing; it should be a whole number from 1 to 16"),
        ("pcie_generation = 5", "pcie_generation = 6", "hardware.pcie_generation is 6 and should be a whole"),
        ("[limits]", "[limit]", "unknown key limit;"),
        ("[limits]", "[limits", "not a readable TOML file"),
    ],
)
def test_a_wrong_key_is_named_in_one_line_with_its_file(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in B70
    path = tmp_path / "card.toml"
    path.write_text(B70.replace(before, after, 1))
    with pytest.raises(ArcmtpError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_profile_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ArcmtpError, match=r"none\.toml: not a readable TOML file"):
        load(tmp_path / "none.toml")


def test_the_documentation_lists_exactly_the_keys_that_profiles_have() -> None:
    text = (profile_dir().parent / "docs" / "profiles.md").read_text()
    documented = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
    profiles = "\n".join(path.read_text() for path in profile_dir().glob("*.toml"))
    keys = {line.split("=")[0].strip() for line in profiles.splitlines() if "=" in line}
    assert documented == keys
