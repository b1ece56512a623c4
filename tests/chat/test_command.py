"""`arcmtp chat` as a process: with lines from a pipe, and in a terminal."""

import codecs
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from arcmtp import LLM, SamplingOptions
from arcmtp.chat.conversation import Asking, Conversation
from arcmtp.chat.screen import PlainScreen
from arcmtp.chat.terminal import History, TerminalScreen
from arcmtp.cli import main
from arcmtp.engine.llm import bundled_model
from tests.mtp.models import rewritten

ROOT = Path(__file__).parents[2]
OPTIONS = ["--device", "cpu", "--ctx", "2048", "--draft", "0", "--temp", "0"]
ANSWER = "Let me look.\n\n<tool_call>\n"
PROMPT = "\x1b[?2004h"  # pasting is allowed from now on
SECONDS = 120  # without any output, after which a test gives up


def start(script: Path, *options: str, **streams: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "arcmtp", "chat", "-m", str(script), *OPTIONS, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    environment["XDG_STATE_HOME"] = str(script.parent / "state")
    return subprocess.Popen(command, env=environment, **streams)  # type: ignore[call-overload]


def test_lines_of_a_pipe_are_answered_without_a_terminal(script: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved.json"
    typed = f"Look\\\nhere\n/stats\n/load none\nlast words \xff\n/save {saved}".encode("latin-1")
    done = start(script, "--system", "Be.", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = (stream.decode() for stream in done.communicate(typed, timeout=SECONDS))
    messages = json.loads(saved.read_text())
    assert done.returncode == 0 and "\x1b" not in output + errors
    assert [message["content"] for message in messages if message["role"] != "assistant"] == [
        "Be.", "Look\nhere", "last words �"
    ]  # fmt: skip
    assert output.startswith(ANSWER) and output.count(ANSWER) == 2 and "\nprompt " in output and "should" not in output
    assert errors.splitlines() == [
        "loading weights …", "compiling kernels …", "thinking… 3 tokens",
        "none: no such file; expected a JSON list of messages, as /save writes it", "thinking… 3 tokens",
        f"{saved}: 5 messages",
    ]  # fmt: skip


def test_no_standard_input_is_the_end(script: Path) -> None:
    command = ["sh", "-c", '"$@" <&-', "sh", sys.executable, "-m", "arcmtp", "chat", "-m", str(script), *OPTIONS]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "") and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top-p", "2"], "top_p is 2.0; it must be a number above 0 and at most 1"),
        (["-n", "0"], "argument -n/--max-tokens: '0' is not a whole number from 1 on"),
        (["-m", "none.gguf"], "none.gguf: no such file"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", *options]) == 2
    assert capsys.readouterr().err.startswith(f"arcmtp: {message}")


@dataclass
class FakeModel:
    """What a command asks of a model before it asks for answers."""

    has_chat_template: bool = True
    context: int = 64

    def __enter__(self) -> "FakeModel":
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    ("options", "asking"),
    [
        ([], Asking(SamplingOptions(temperature=1.0, top_p=0.95, top_k=20))),
        (
            ["--no-think", "-n", "5", "--temp", "0.5", "--seed", "3"],
            Asking(SamplingOptions(temperature=0.5, top_p=0.95, top_k=20, seed=3), 5, {"enable_thinking": False}),
        ),
    ],
)
def test_options_say_how_answers_are_generated(
    monkeypatch: pytest.MonkeyPatch, options: list[str], asking: Asking
) -> None:
    begun = list[Asking]()

    class Noted(Conversation):
        def __init__(self, llm: LLM, asking: Asking, system: str | None = None) -> None:
            begun.append(asking)
            super().__init__(llm, asking, system)

    monkeypatch.setattr("arcmtp.cli.chat.load", lambda *_, **__: FakeModel())
    monkeypatch.setattr("arcmtp.chat.conversation.Conversation", Noted)
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["chat", *options]) == 0
    assert begun == [asking]


def test_a_model_without_a_chat_template_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = rewritten(bundled_model(), tmp_path / "plain.gguf", {"tokenizer.chat_template": None})
    monkeypatch.setattr("arcmtp.cli.chat.load", None)
    assert main(["chat", "-m", str(plain)]) == 2
    assert capsys.readouterr().err == f"arcmtp: {plain}: has no chat template; arcmtp generate --raw takes it\n"


def test_thoughts_without_an_answer_are_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    screen = PlainScreen()
    screen.thinking(5)
    screen.finish()
    screen.finish()
    assert capsys.readouterr() == ("\n\n", "thinking… 5 tokens\n")


def test_what_was_typed_is_not_kept_where_it_cannot_be(tmp_path: Path) -> None:
    for path, reason in (("/dev/null/chat/history", "Not a directory"), ("/dev/full", "No space left on device")):
        notes = list[str]()
        history = History(Path(path), notes.append)
        for text in ("one", "two"):
            history.append_string(text)
        assert notes == [f"{path}: {reason}; what you type is not kept"]
        assert list(history.load_history_strings()) == []
    kept = History(tmp_path / "new" / "history", notes.append)
    kept.append_string("one")
    assert list(kept.load_history_strings()) == ["one"] and len(notes) == 1


def test_a_models_text_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    screen = TerminalScreen()
    screen.write("a\x1b[2J\x9b\r\tb\n")
    assert capsys.readouterr().out == "a�[2J��\tb\n"


class Terminal:
    """A session in a pseudo terminal."""

    def __init__(self, master: int, process: "subprocess.Popen[bytes]") -> None:
        self._master, self.process = master, process
        self.seen = ""  # and not waited for yet
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> str:
        """What was shown before `text`, and `text`."""
        while text not in self.seen:
            ready, _, _ = select.select([self._master], [], [], SECONDS)
            assert ready, f"{text!r} is not in {self.seen!r}"
            self.seen += self._decoder.decode(os.read(self._master, 1 << 16))
        before, _, self.seen = self.seen.partition(text)
        return before + text


@contextmanager
def terminal(script: Path) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
    process = start(
        script, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # type: ignore[arg-type]
    )  # fmt: skip
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_a_conversation_in_a_terminal(script: Path, tmp_path: Path) -> None:
    saved, history = tmp_path / "saved.json", script.parent / "state" / "arcmtp" / "chat_history"
    with terminal(script) as screen:
        screen.wait_for("script.gguf, context 2048 tokens; /help lists commands, Ctrl-D quits")
        screen.wait_for(PROMPT)
        screen.type("Look\r")
        shown = screen.wait_for("Let me look.")
        assert "\x1b[2mthinking… 1 tokens\x1b[0m\r\x1b[K\x1b[2mthinking… 2 tokens" in shown and "should" not in shown
        screen.wait_for(PROMPT)
        screen.type("think forever\r")
        screen.wait_for("thinking… 9 tokens")
        screen.type("\x03")  # Ctrl-C
        screen.wait_for("stopped")
        screen.wait_for(PROMPT)
        screen.type("one\x1b\rtwo\\\rthree\r")  # Alt-Enter, and a backslash
        screen.wait_for("Let me look.")
        screen.wait_for(PROMPT)
        screen.type("\x1b[200~four\nfive\x1b[201~\r")  # pasted
        screen.wait_for("Let me look.")
        screen.wait_for(PROMPT)
        screen.type("half a message\x03")
        screen.wait_for("Ctrl-D quits")
        screen.wait_for(PROMPT)
        screen.type("\x1b[A\r")  # up: the last message once more
        screen.wait_for("Let me look.")
        screen.wait_for(PROMPT)
        screen.type(f"/save {saved}\r")
        screen.wait_for(f"{saved}: 9 messages")
        screen.wait_for(PROMPT)
        screen.type("\x04")  # Ctrl-D
        assert screen.process.wait(SECONDS) == 0
    questions = [message["content"] for message in json.loads(saved.read_text()) if message["role"] == "user"]
    assert questions == ["Look", "think forever", "one\ntwo\nthree", "four\nfive", "four\nfive"]
    kept = history.read_text()
    assert "+Look\n" in kept and "+one\n+two\n+three\n" in kept and history.stat().st_mode & 0o777 == 0o600
