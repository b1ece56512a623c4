"""The plots of `arcmtp bench mtp --matrix`."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from arcmtp import ArcmtpError
from arcmtp.bench.matrix import Cell, Matrix, Speed
from arcmtp.bench.matrix_text import Setup
from arcmtp.bench.plot import Plot
from arcmtp.cli import main

SETUP = Setup("m.gguf", 1_000_000, "a card", "1.2", "generic", False, {"tokens": 8})
MATRIX = Matrix(
    [Cell(n, k, 8, k, 0, Speed(9.0, 9.0), [Speed(900.0, 50.0 + k)]) for n in (1024, 2048) for k in (0, 1, 3)], []
)


def test_both_files_are_drawn_with_a_line_for_each_prompt_and_setting(tmp_path: Path) -> None:
    Plot(tmp_path / "speed").draw(MATRIX, SETUP)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["speed.png", "speed.svg"]
    png = (tmp_path / "speed.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n") and b"IEND" in png[-12:]
    svg = ElementTree.parse(tmp_path / "speed.svg")
    assert svg.getroot().tag == "{http://www.w3.org/2000/svg}svg"
    lines = [group for group in svg.iter() if group.get("id", "").startswith("line2d_")]
    text = (tmp_path / "speed.svg").read_text()
    for label in ("m.gguf on a card", "1 K tokens", "2 K tokens", "off", "tokens drafted before each step"):
        assert f"<!-- {label} -->" in text
    assert len(lines) > 2 + 3 + 3


@pytest.mark.parametrize("name", ["a.png", "a.svg"])
def test_an_ending_chooses_one_of_them(tmp_path: Path, name: str) -> None:
    Plot(tmp_path / name).draw(MATRIX, SETUP)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ArcmtpError, match=r"a\.png: Is a directory; the plot cannot be written"):
        Plot(tmp_path / "a.png").draw(MATRIX, SETUP)


def test_without_matplotlib_one_line_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", "mtp", "--matrix", "--plot", "x"]) == 2
    assert capsys.readouterr().err == "arcmtp: plots need matplotlib: pip install 'arcmtp[plot]'\n"
