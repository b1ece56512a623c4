"""The commands in README and docs/*.md work as they are printed, on the bundled model.

What is run: lines of blocks that begin with a command, and `arcmtp` commands with options between backticks. In each
page's folder lie the files that its commands name, all of them the bundled model or texts. Rules:

- options are appended that make a command short (`SHORT`); of an option that is there twice the last one counts;
- `P` and `N` stand for 0.5 and 1, brackets for what may be left out, `…` and COMMAND for anything: those are not run;
- 127.0.0.1:8080 is a server that the page's own command has started, on a free port;
- a conversation is told "Hello"; commands with `hf:` need a hub and are not run: tests/hub has one;
- a line with `# needs …`, or below a comment that says so, is not run; `make` must have the target.
"""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from arcmtp.cli import main
from arcmtp.engine.llm import bundled_model
from tests.mtp.models import rewritten
from tests.serve.conftest import Server

ROOT = Path(__file__).parents[1]
NAMES = ["models", "generate", "chat", "files", "mtp", "serve", "bench", "profile", "doctor", "selftest"]
PAGES = ["README.md", *(f"docs/{name}.md" for name in NAMES)]
PROGRAMS = ("arcmtp", ".venv/bin/arcmtp", "scripts/", ".venv/bin/python", "make", "curl", "llama-server")
MODELS = ("MODEL.gguf", "FILE", "IN", "DONOR", "ggml-vocab-qwen35.gguf")
TEXTS = ("prompt.txt", "TEXT", "CORPUS", "tests/data/perplexity.txt")
SHORT = {
    "arcmtp generate": "-n 8 --device cpu",
    "arcmtp chat": "-n 8 --device cpu",
    "arcmtp perplexity": "--device cpu",
    "arcmtp profile": "-n 16 --device cpu",
    "arcmtp bench": "-n 4 -r 1 --device cpu",
    "arcmtp bench mtp": "-n 2 -r 1 --device cpu",
    "arcmtp bench mtp --matrix": "--max-prompt 1024 --draft off,1 --tolerance 100000",
    "arcmtp bench ops": "-r 1 --only draft_chain --device cpu",
    "arcmtp selftest": "--device cpu --only draft_chain",
    "arcmtp bench serve": "-p 16 -n 4 --requests 4",
    "scripts/bench_auto.py": "--tokens 8 --rounds 2 --draft off,1",
}


@dataclass(frozen=True)
class Command:
    """As it is printed; needs: what it is not run for."""

    text: str
    needs: str = ""


def commands(page: str) -> list[Command]:
    """All of a page, each once."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE):
        needs = ""
        for line in re.sub(r"\\\n *", "", block).splitlines():
            if mark := re.search(r"# needs ([^;:]+)", line):
                needs = mark[1]
            if line.strip().startswith(PROGRAMS):
                found.append(Command(re.sub(r" +# .*", "", line.strip()), needs))
                needs = ""
    inline = re.findall(r"`(arcmtp [a-z]+ [^`]*-[^`]+)`", text)
    found += [Command(one, "other words" if "…" in one or "COMMAND" in one else "") for one in inline]
    return [replace(one, needs="a hub") if "hf:" in one.text else one for one in dict.fromkeys(found)]


def short(text: str) -> str:
    """The options to append."""
    kinds = [kind for kind in SHORT if f"{text} ".startswith(f"{kind} ") or (kind in text and "--matrix" in kind)]
    if text.startswith("arcmtp bench ") and "--compare" in text:
        return ""
    if "--matrix" in text:
        kinds = ["arcmtp bench mtp", "arcmtp bench mtp --matrix"]
    elif kinds:
        kinds = [max(kinds, key=len)]
    return " ".join(SHORT[kind] for kind in kinds)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a page's commands run."""
    for name in MODELS:
        shutil.copy(bundled_model(), tmp_path / name)
    words = (ROOT / "tests/data/perplexity.txt").read_text(encoding="utf-8")
    (tmp_path / "tests/data").mkdir(parents=True)
    for name in TEXTS:
        (tmp_path / name).write_text(words[:300] if name == "prompt.txt" else words[:6000], encoding="utf-8")
    changes = {"qwen35moe.block_count": 8, "qwen35moe.nextn_predict_layers": 0}
    rewritten(bundled_model(), tmp_path / "TRUNK", changes, lambda name: not name.startswith("blk.8."))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # verdicts; compiled kernels stay where they are
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What the first command of docs/serve.md starts."""
    folder = tmp_path_factory.mktemp("server")
    (printed,) = [one.text for one in commands("docs/serve.md") if one.text == "arcmtp serve -m MODEL.gguf --ctx 4096"]
    arguments = printed.replace("MODEL.gguf", str(bundled_model())).split()[2:]
    started = Server(folder / "log", *arguments)
    started.wait_ready()
    yield started
    started.close()


def run(command: str, url: str) -> None:
    """Run one command; AssertionError if it fails."""
    text = re.sub(r"\[-[^]]*\]", "", command).removeprefix(".venv/bin/").replace("http://127.0.0.1:8080", url)
    text = re.sub(r"(-p-min|--seed) ([PN])", lambda match: f"{match[1]} {'0.5' if match[2] == 'P' else '1'}", text)
    text = text.partition(" > ")[0]
    if "-m FILE" in text:  # which another command may have written
        shutil.copy(bundled_model(), "FILE")
    program, *arguments = shlex.split(f"{text} {short(text)}")
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "curl" and not shutil.which("curl"):
        print(f"not run, curl is not installed: {text}")
    elif program == "curl":
        done = subprocess.run([program, "-sS", *arguments], capture_output=True, text=True, check=True)
        assert '"content":' in done.stdout, done.stdout
    elif program == "arcmtp":
        assert main(arguments) in ((0, 1) if arguments[0] == "doctor" else (0,))
    elif program.startswith("scripts/"):
        sys.argv = [program, *arguments]
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / program), run_name="__main__")
        assert ended.value.code in (0, None)


@pytest.mark.parametrize("page", PAGES)
def test_commands_work_as_printed(
    page: str, folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Hello\n")))
    served: list[Any] = []

    def serve(settings: Any, listener: Any, load: Any, say: Any) -> None:
        with load() as llm:
            served.append(llm.context)

    monkeypatch.setattr("arcmtp.serve.run.serve", serve)
    monkeypatch.setattr("arcmtp.serve.options.bind", lambda settings, insecure: contextlib.nullcontext())
    wanted = [command for command in commands(page) if not command.needs]
    for command in wanted:
        url = request.getfixturevalue("server").url if "127.0.0.1:8080" in command.text else ""
        capsys.readouterr()
        try:
            run(command.text, url)
        except BaseException as error:
            raise AssertionError(f"{command.text}: {error!r}\n{capsys.readouterr().err[-1000:]}") from error
        if " > " in command.text:
            Path(command.text.rpartition(" > ")[2]).write_text(capsys.readouterr().out, encoding="utf-8")
    assert len(served) == sum(command.text.startswith("arcmtp serve") for command in wanted)


def test_every_page_has_commands_and_what_is_not_run_says_why() -> None:
    found = {page: commands(page) for page in PAGES}
    assert all(any(not command.needs for command in each) for each in found.values())
    others = [command for each in found.values() for command in each if command.text.startswith("llama-server")]
    assert others and all(command.needs == "llama.cpp" for command in others)
    assert sum(map(len, found.values())) > 40
