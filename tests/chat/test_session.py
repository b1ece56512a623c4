"""Commands of a session, and files of conversations."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from arcmtp import LLM, SamplingOptions
from arcmtp.chat.conversation import Asking, Conversation
from arcmtp.chat.session import Session

EXPECTED = "expected a JSON list of messages, as /save writes it"


@dataclass
class Lines:
    """A screen that types lines and keeps what is shown."""

    typed: list[str]
    answers: list[str] = field(default_factory=lambda: [""])
    shown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    thoughts: list[int] = field(default_factory=list)

    def read(self) -> str | None:
        return self.typed.pop(0) if self.typed else None

    def write(self, text: str) -> None:
        self.answers[-1] += text

    def thinking(self, tokens: int) -> None:
        self.thoughts.append(tokens)

    def finish(self) -> None:
        self.answers.append("")

    def show(self, text: str) -> None:
        self.shown.append(text)

    def note(self, text: str) -> None:
        assert "\n" not in text
        self.notes.append(text)


Run = Callable[..., tuple[Conversation, Lines]]


@pytest.fixture
def run(tiny: LLM) -> Run:
    """A session with the tiny model, of answers without thoughts, in which lines are typed."""

    def with_lines(*typed: str) -> tuple[Conversation, Lines]:
        tiny.new_sequence()
        lines = Lines(list(typed))
        conversation = Conversation(tiny, Asking(SamplingOptions(), 6, {"enable_thinking": False}))
        Session(conversation, lines).run()
        return conversation, lines

    return with_lines


def test_messages_are_answered_until_the_end_or_quit(run: Run) -> None:
    conversation, lines = run("Hello", "  ", "Why?", "/quit", "More?")
    assert [message["content"] for message in conversation.messages[::2]] == ["Hello", "Why?"]
    assert [message["content"] for message in conversation.messages[1::2]] == [text for text in lines.answers if text]
    assert lines.typed == ["More?"] and lines.notes == ["ended after 6 tokens (--max-tokens)"] * 2


def test_help_lists_every_command(run: Run) -> None:
    _, lines = run("/help")
    listed = [line.split()[0] for line in lines.shown[0].splitlines()[:-1]]
    assert listed == ["/help", "/reset", "/system", "/regenerate", "/think", "/stats", "/save", "/load", "/quit"]
    assert "/save FILE " in lines.shown[0] and "Alt-Enter" in lines.shown[0]


def test_a_system_message_and_a_reset(run: Run) -> None:
    conversation, _ = run("Hello", "/system Be brief.\nVery.", "/reset", "Why?")
    assert [message["role"] for message in conversation.all_messages] == ["system", "user", "assistant"]
    assert conversation.all_messages[0]["content"] == "Be brief.\nVery."
    conversation, _ = run("/system Be brief.", "/system")
    assert conversation.all_messages == []


def test_another_answer_takes_the_place_of_the_last(run: Run) -> None:
    conversation, lines = run("Hello", "/regenerate")
    assert len(conversation.messages) == 2 and lines.answers[0] == lines.answers[1] != ""
    assert run("/regenerate")[1].notes == ["there is no message to answer yet"]


def test_statistics_are_of_the_last_answer(run: Run) -> None:
    conversation, lines = run("/stats", "Hello", "/stats")
    assert lines.shown[0] == "no answer yet; the context holds 256 tokens"
    assert conversation.last
    result = conversation.last.result
    prompt, answer, drafts, context = lines.shown[1].splitlines()
    assert prompt.startswith(f"prompt {len(result.prompt_ids)} tokens, 0 of them cached; first token after ")
    assert answer.startswith("answer 6 tokens, 0 of them thoughts; ") and answer.endswith(" tokens/s")
    assert drafts == f"drafts: {result.statistics.draft}"
    assert context == f"context {len(result.prompt_ids) + 6} of 256 tokens"


def test_thoughts_are_counted_and_shown_when_asked_for(scripted: LLM) -> None:
    lines = Lines(["/think", "Look", "/think"])
    Session(Conversation(scripted, Asking(SamplingOptions())), lines).run()
    assert lines.shown == ["no thoughts", "I should look."]
    assert lines.thoughts == [1, 2, 3]
    assert "should" not in lines.answers[0] and lines.answers[0].startswith("Let me look.")


def test_a_conversation_is_saved_and_gone_on_from(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "with a space.json"
    conversation, lines = run("/system Be brief.", "Größe?", f"/save {path}")
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert saved == conversation.all_messages
    assert [message["role"] for message in saved] == ["system", "user", "assistant"]
    assert lines.notes[-1] == f"{path}: 3 messages" and list(tmp_path.iterdir()) == [path]
    assert "Größe" in path.read_text(encoding="utf-8")
    loaded, lines = run("Something else", f"/load {path}", "/regenerate")
    assert loaded.all_messages == conversation.all_messages
    assert lines.notes[1] == f"{path}: 3 messages" and lines.answers[1] == conversation.messages[1]["content"]


def test_a_file_may_be_in_the_home_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    conversation, _ = run("Hello", "/save ~/saved.json", "/reset", "/load ~/saved.json")
    assert json.loads((tmp_path / "saved.json").read_text()) == conversation.messages != []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b"[", "Expecting value: line 1 column 2 (char 1)"),
        (b"\xff\xfe[", "'utf-"),
        (b"[" * 100_000, ""),
        (b"{}", "is no list"),
        (b"[1]", "message 0 has none of the roles system, user, assistant"),
        (b'[{"role": "tool", "content": ""}]', "message 0 has none of the roles system, user, assistant"),
        (b'[{"role": "user"}]', "message 0 has no text as its content"),
        (b'[{"role": "user", "content": [1]}]', "message 0 has no text as its content"),
        (
            b'[{"role": "user", "content": ""}, {"role": "system", "content": ""}]',
            "message 1 is the system's, which only the first one can be",
        ),
    ],
)
def test_a_file_that_is_no_conversation_is_refused_and_the_session_goes_on(
    run: Run, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    conversation, lines = run("Hello", f"/load {path}", "Why?")
    assert lines.notes[1].startswith(f"{path}: {message}") and lines.notes[1].endswith(f"; {EXPECTED}")
    assert len(conversation.messages) == 4


def test_what_is_no_file_or_no_place_for_one_is_refused(run: Run, tmp_path: Path) -> None:
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate((1 << 26) + 1)
    _, lines = run(
        f"/load {tmp_path}/none", f"/load {tmp_path}", "/load /dev/zero", f"/load {large}", f"/save {tmp_path}",
        "/save /dev/null/x", "/load \udcff\0",
    )  # fmt: skip
    beginnings = [note.partition(";")[0] for note in lines.notes]
    assert beginnings[:5] == [
        f"{tmp_path}/none: no such file", f"{tmp_path}: is not a file", "/dev/zero: is not a file",
        f"{large}: has more than 67,108,864 bytes", f"{tmp_path}: is not a file",
    ]  # fmt: skip
    assert "Not a directory" in beginnings[5] and len(beginnings) == 7


def test_an_interrupt_at_once_stops_what_was_asked_and_not_the_session(tiny: LLM) -> None:
    class Interrupted(Lines):
        def write(self, text: str) -> None:
            super().write(text)
            if not self.notes:
                raise KeyboardInterrupt

    tiny.new_sequence()
    lines = Interrupted(["Hello", "Why?"])
    conversation = Conversation(tiny, Asking(SamplingOptions(), 6, {"enable_thinking": False}))
    Session(conversation, lines).run()
    assert lines.notes == ["stopped", "ended after 6 tokens (--max-tokens)"]
    messages = [message["content"] for message in conversation.messages]
    assert messages == ["Hello", lines.answers[0], "Why?", lines.answers[1]]


def test_wrong_commands_are_refused_in_one_line(run: Run) -> None:
    _, lines = run("/quit now", "/foo", "/save", "/reset everything", "/ help", "\udcff")
    assert lines.notes[:-1] == [
        "/quit takes nothing behind it",
        "no command /foo; /help lists them, and a message may begin with a space",
        "/save needs the name of a file",
        "/reset takes nothing behind it",
        "no command /; /help lists them, and a message may begin with a space",
    ]
    assert lines.notes[-1].startswith("the text is not valid Unicode: lone surrogate U+DCFF at character ")
