"""Names of repositories and quantisations, and which files are models."""

import pytest

from arcmtp.errors import ArcmtpError
from arcmtp.hub import HubFile, HubName
from arcmtp.hub.names import HubModel, find, models

LARGE = 1000  # bytes


def listed(*paths: str, nbytes: int = LARGE) -> list[HubModel]:
    return models(HubFile(path, nbytes) for path in paths)


@pytest.mark.parametrize(
    ("text", "repository", "quant"),
    [
        ("hf:unsloth/Qwen3.6-35B-A3B-GGUF", "unsloth/Qwen3.6-35B-A3B-GGUF", None),
        ("hf:a/b.c_d:UD-Q4_K_XL", "a/b.c_d", "UD-Q4_K_XL"),
        ("hf:a/b:some file", "a/b", "some file"),
    ],
)
def test_a_name_is_a_repository_and_perhaps_a_quantisation(text: str, repository: str, quant: str | None) -> None:
    assert HubName.parse(text) == HubName(repository, quant)


@pytest.mark.parametrize("text", ["hf:", "hf:owner", "hf:owner/", "hf:a/b/c", "hf:a/b:", "hf:../b", "hf:a/b c"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(ArcmtpError, match="is not hf:OWNER/NAME or hf:OWNER/NAME:QUANT"):
        HubName.parse(text)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("Q-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("q-q4_k_m.gguf", "Q4_K_M"),
        ("Q.i1-IQ4_XS.gguf", "IQ4_XS"),
        ("Q.Q4_0.gguf", "Q4_0"),
        ("Q3.6-35B-A3B-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("Q-TQ1_0.GGUF", "TQ1_0"),
        ("BF16/Q.gguf", "BF16"),
        ("UD-Q2_K_XL/Q-UD-Q2_K_XL.gguf", "UD-Q2_K_XL"),
        ("Q-Q4_K_M-imatrix.gguf", "Q4_K_M"),
        ("Q-F16-to-Q8_0.gguf", "Q8_0"),
        ("Qwen3.gguf", "Qwen3"),
        ("deep/down/model.gguf", "model"),
    ],
)
def test_a_model_is_called_after_its_quantisation(path: str, name: str) -> None:
    assert [model.name for model in listed(path)] == [name]


def test_the_same_quantisation_twice_is_told_apart_by_the_files_names() -> None:
    assert [model.name for model in listed("A-Q8_0.gguf", "B-Q8_0.gguf")] == ["A-Q8_0", "B-Q8_0"]


def test_what_is_no_model_is_left_out() -> None:
    assert listed("mmproj-F16.gguf", "Q.mmproj-Q8_0.gguf", "imatrix.gguf", "Q-imatrix.gguf", "README.md", "x.bin") == []


def test_a_file_whose_name_steers_a_terminal_is_left_out() -> None:
    assert listed("a\x1b[2J-Q8_0.gguf", "a\n-Q8_0.gguf") == []


def test_a_split_model_is_one_and_complete() -> None:
    parts = [f"Q8_0/Q-Q8_0-0000{number}-of-00003.gguf" for number in (3, 1, 2)]
    (model,) = listed(*parts)
    assert [file.path for file in model.files] == sorted(parts) and model.nbytes == 3 * LARGE
    assert listed(*parts[1:]) == []


def test_the_largest_comes_first() -> None:
    assert [model.name for model in models([HubFile("Q-Q2_K.gguf", 1), HubFile("Q-Q8_0.gguf", 3)])] == ["Q8_0", "Q2_K"]


@pytest.mark.parametrize(
    ("path", "only_mtp"),
    [("mtp-Q-Q8_0.gguf", True), ("Q-MTP-Q8_0.gguf", True), ("MTP/Q-Q8_0.gguf", True), ("Q-MTP-Q4_0.gguf", False)],
)
def test_a_block_alone_is_told_apart_from_a_whole_model(path: str, only_mtp: bool) -> None:
    found = models([HubFile("Q-Q8_0.gguf", LARGE), HubFile(path, 100)])
    assert {model.files[0].path: model.only_mtp for model in found} == {"Q-Q8_0.gguf": False, path: only_mtp}
    assert [model.name for model in found if model.only_mtp] == ["MTP-Q8_0"] * only_mtp


def test_a_larger_file_is_no_block_alone() -> None:
    found = models([HubFile("Q-Q8_0.gguf", LARGE), HubFile("Q-MTP-Q8_0.gguf", LARGE + 1)])
    assert not any(model.only_mtp for model in found)


def test_a_quantisation_is_found_in_any_case_and_by_the_end_of_its_name() -> None:
    found = listed("Q-Q4_K_M.gguf", "Q-UD-Q4_K_M.gguf", "Q-UD-Q4_K_XL.gguf", "A-Q8_0.gguf", "B-Q8_0.gguf")
    names = {
        quant: model and model.name
        for quant in ("q4_k_m", "ud-q4_k_m", "Q4_K_XL", "b-q8_0", "K_XL", "Q5_K")
        for model in [find(found, quant)]
    }
    assert names == {
        "q4_k_m": "Q4_K_M", "ud-q4_k_m": "UD-Q4_K_M", "Q4_K_XL": "UD-Q4_K_XL", "b-q8_0": "B-Q8_0", "K_XL": None,
        "Q5_K": None,
    }  # fmt: skip
    with pytest.raises(ArcmtpError, match="Q8_0 could be A-Q8_0 or B-Q8_0"):
        find(found, "Q8_0")
