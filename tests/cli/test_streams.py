"""The process around the command: standard streams that are closed or full, an interruption, locales, little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from arcmtp.cli import loading, main
from arcmtp.cli.options import unicode_text
from arcmtp.cli.streams import Forgiving
from arcmtp.runtime import environment

COMMAND = str(Path(sys.executable).with_name("arcmtp"))


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A line of `sh`, in which $A is the command."""
    environment = {**os.environ, "A": COMMAND, **variables}
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, env=environment, timeout=300)


def test_a_closed_standard_input_is_told() -> None:
    done = shell("$A perplexity -f - <&-")
    assert (done.returncode, done.stderr) == (2, "arcmtp: -: standard input is closed; expected a text\n")


def test_without_standard_error_the_error_is_no_output_and_the_status_stays() -> None:
    done = shell("$A generate -p x -m none.gguf 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_what_cannot_be_said_on_standard_error_changes_nothing() -> None:
    done = shell("$A mtp count-tokens /dev/stdin -n 1 2>/dev/full; echo $?")
    assert done.stdout.splitlines()[-1] == "2"
    done = shell("echo a text > text; $A mtp count-tokens text -n 1 2>/dev/full <&-; echo $?; rm text")
    assert [len(line.split()) for line in done.stdout.splitlines()] == [2, 1] and done.stdout.endswith("0\n")


def test_all_streams_closed_is_no_traceback_and_no_file_is_written_over(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_text("no model")
    done = shell(f"$A generate -p x -m {model} <&- >&- 2>&-")
    assert (done.returncode, model.read_text()) == (2, "no model")


def test_a_stream_that_is_full_becomes_the_null_device(tmp_path: Path) -> None:
    with open("/dev/full", "w", buffering=1) as full:
        stream = Forgiving(full)
        print("lost", file=stream)
        print("lost too", file=stream)
        stream.flush()
        assert os.readlink(f"/proc/self/fd/{full.fileno()}") == os.devnull


def test_an_interruption_while_modules_are_imported_is_quiet(tmp_path: Path) -> None:
    (tmp_path / "tqdm.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = shell("$A devices", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_text_on_the_command_line_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    assert unicode_text(os.fsdecode("größer 日本".encode())) == "größer 日本"
    assert unicode_text("\udcff") == "\udcff"
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = shell("$A generate --raw -p 'größer 日本' -c 1", **ascii_only)
    assert (done.returncode, done.stderr) == (
        2, "arcmtp: the prompt has 14 tokens, the context holds 1: raise ctx\n"
    )  # fmt: skip
    done = shell("$A generate -p x -m größer.gguf", **ascii_only)
    assert (done.returncode, done.stderr) == (2, "arcmtp: gr\\udcc3\\udcb6\\udcc3\\udc9fer.gguf: no such file\n")


def test_without_proc_the_command_ends_at_once_instead_of_never(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != "/proc/self/maps")
    assert main(["generate", "-p", "x"]) == 2
    message = "arcmtp: /proc is not mounted, which the SYCL runtime needs: mount -t proc proc /proc\n"
    assert capsys.readouterr().err == message


def test_control_characters_of_the_command_line_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "-p", "x", "-m", "a\x1b[2J\nb.gguf"]) == 2
    assert capsys.readouterr().err == "arcmtp: a\\x1b[2J\\nb.gguf: no such file\n"


def test_too_little_memory_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def allocate(*arguments: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("arcmtp.cli.perplexity.read_text", allocate)
    assert main(["perplexity", "-f", "x"]) == 2
    message = "arcmtp: this machine, or what it allows the process, has too little memory left\n"
    assert capsys.readouterr().err == message


def test_a_cache_that_cannot_be_written_is_said_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SYCL_CACHE_DIR", str(tmp_path / "file" / "cache"))
    loading._tell_cache_problem.cache_clear()
    loading._tell_cache_problem()
    loading._tell_cache_problem()
    shown = f"{tmp_path}/file/cache: Not a directory: no kernel is kept, each start compiles them all\n"
    assert capsys.readouterr().err == shown
    monkeypatch.setenv("SYCL_CACHE_DIR", str(tmp_path / "new" / "cache"))
    assert environment.cache_problem() is None and (tmp_path / "new" / "cache").is_dir()
    monkeypatch.setenv("SYCL_CACHE_PERSISTENT", "0")
    monkeypatch.setenv("SYCL_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert environment.cache_problem() is None


def test_standard_output_that_is_full_names_itself_and_another_file_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(options: Any) -> Any:
        raise OSError(28, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr("arcmtp.cli.devices._devices", fail)
    monkeypatch.setattr(sys.modules["arcmtp.cli.main"], "to_nowhere", lambda stream: None)
    assert main(["devices"]) == 2
    assert capsys.readouterr().err == f"arcmtp: {tmp_path}/x: No space left on device\n"


def test_a_draft_log_that_does_not_fit_names_its_file(tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    done = shell(f"ulimit -f 0; $A generate --raw -p x -n 4 -c 64 --draft 1 --device cpu --draft-log {log}")
    assert done.returncode == 2 and list(tmp_path.iterdir()) == []
    assert done.stderr.splitlines()[-1] == f"arcmtp: {log}: File too large; expected a file that can be written"
