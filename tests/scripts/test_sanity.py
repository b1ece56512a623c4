"""What the check of a machine compares and says."""

from pathlib import Path

import pytest

from arcmtp.bench.matrix import Cell, Matrix, Speed
from arcmtp.bench.matrix_text import Setup, as_json
from arcmtp.cli import main
from arcmtp.errors import ArcmtpError
from scripts import sanity

SETUP = Setup("m.gguf", 1_000_000, "a card", "1.2", "generic", False, {"tokens": 8})


def matrix(output: float = 50.0, differences: tuple[str, ...] = ()) -> Matrix:
    return Matrix([Cell(1024, k, 8, k, 0, Speed(9, 9), [Speed(90, output)] * 2) for k in (0, 2)], [*differences])


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Matrix]:
    """What the next cold starts measure."""
    left: list[Matrix] = []

    def run_cold(output: Path, device: str | None) -> float:
        output.write_text(as_json(left.pop(0), SETUP))
        return 12.34

    monkeypatch.setattr(sanity, "run_cold", run_cold)
    return left


def test_a_line_says_pass_or_fail_for_each_cell(
    measured: list[Matrix], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = ["--baseline", str(tmp_path / "new" / "sanity.json")]
    measured += [matrix(), matrix(49.0), matrix(30.0), matrix(differences=("the text differs",))]
    assert sanity.main(["--write", *baseline]) == 0
    capsys.readouterr()
    assert sanity.main(baseline) == 0
    assert capsys.readouterr().out.splitlines() == [
        "12.3 s from a cold start to the end",
        "pass  texts are the same with every draft setting",
        "pass  1024 tokens, draft off: input × 1.00, output × 0.98",
        "pass  1024 tokens, draft 2: input × 1.00, output × 0.98",
    ]
    assert sanity.main(baseline) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in lines[1:]] == ["pass", "FAIL", "FAIL"]
    assert lines[2].startswith("FAIL  1024 tokens, draft off: output has 0.60 times the baseline's speed")
    assert sanity.main(baseline) == 1
    assert capsys.readouterr().out.splitlines()[1] == "FAIL  the text differs"


def test_a_text_that_depends_on_drafts_makes_no_baseline(measured: list[Matrix], tmp_path: Path) -> None:
    measured.append(matrix(differences=("the text differs",)))
    assert sanity.main(["--write", "--baseline", str(tmp_path / "a.json")]) == 1
    assert not list(tmp_path.iterdir())


def test_without_a_baseline_nothing_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sanity.main(["--baseline", str(tmp_path / "none.json")]) == 2
    assert capsys.readouterr().err.startswith(f"sanity: {tmp_path / 'none.json'}: No such file or directory")


def test_its_command_is_one_that_bench_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def measure(options: object) -> int:
        seen.append(options)
        return 0

    monkeypatch.setattr("arcmtp.cli.matrix.measure", measure)
    assert main([*sanity.MATRIX, "-o", "json", "--device", "cpu"]) == 0
    assert len(seen) == 1


def test_a_process_that_fails_gives_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(ArcmtpError, match=r"^arcmtp: no device 'warp'; there are: "):
        sanity.run_cold(tmp_path / "out", "warp")
