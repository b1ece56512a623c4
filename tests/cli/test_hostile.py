"""Command lines that cannot be what anybody wants: each ends with status 2 and its own line, and no weight is loaded.

hostile.txt has them, each with its line behind it, of which `…` stands for the rest.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, NoReturn

import pytest

from arcmtp.cli import main
from arcmtp.engine import loading
from arcmtp.engine.llm import bundled_model

LINES = Path(__file__).with_name("hostile.txt").read_text(encoding="utf-8").splitlines()
CASES = list(zip(LINES[::2], LINES[1::2], strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the bundled model as model.gguf, and the files empty, text and long."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "model.gguf").write_bytes(bundled_model().read_bytes())
    for name, content in (("empty", ""), ("text", "some text\n"), ("long", "word and more words " * 20000)):
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(("command", "message"), CASES, ids=[command for command, _ in CASES])
def test_it_is_refused_in_one_line_before_anything_is_loaded(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, message: str
) -> None:
    def load(*arguments: Any) -> NoReturn:
        raise AssertionError("weights would be loaded")

    monkeypatch.setattr(loading, "load", load)
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    assert main([word.replace(r"\n", "\n") for word in shlex.split(command.removeprefix("$ "))]) == 2
    shown = capsys.readouterr()
    message = message.replace("{folder}", str(folder)).replace("{bundled}", str(bundled_model()))
    expected, rest, _ = f"arcmtp: {message}".partition("…")
    (line,) = shown.err.splitlines()
    assert line.startswith(expected) if rest else line == expected
    assert line.isprintable() and not shown.out.strip().startswith("{")
    assert sorted(folder.iterdir()) == before
