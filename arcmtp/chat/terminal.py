"""A terminal, with prompt_toolkit for the lines that are typed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from arcmtp.runtime.environment import state_dir

DIM, NORMAL, CLEAR_LINE = "\x1b[2m", "\x1b[0m", "\r\x1b[K"
# A model's text must not steer the terminal.
_CONTROLS = dict.fromkeys([*range(32), *range(127, 160)], "�") | {ord("\n"): "\n", ord("\t"): "\t"}


class TerminalScreen:
    """Lines with history and editing; thoughts as one dim line that counts."""

    def __init__(self) -> None:
        self._thinking = False
        self._session: PromptSession[str] = PromptSession(
            history=History(state_dir() / "chat_history", self.note), multiline=True, key_bindings=_keys(),
            prompt_continuation="  ",
        )  # fmt: skip

    def read(self) -> str | None:
        """What is typed before Enter; Ctrl-C begins it anew."""
        while True:
            try:
                return self._session.prompt("> ")
            except KeyboardInterrupt:
                self.note("Ctrl-D quits")
            except EOFError:
                return None

    def write(self, text: str) -> None:
        self._fold()
        print(text.translate(_CONTROLS), end="", flush=True)

    def thinking(self, tokens: int) -> None:
        self._thinking = True
        print(f"{CLEAR_LINE}{DIM}thinking… {tokens} tokens{NORMAL}", end="", flush=True)

    def finish(self) -> None:
        self._fold()
        print(flush=True)

    def show(self, text: str) -> None:
        print(text.translate(_CONTROLS), flush=True)

    def note(self, text: str) -> None:
        print(f"{DIM}{text.translate(_CONTROLS)}{NORMAL}", file=sys.stderr, flush=True)

    def _fold(self) -> None:
        if self._thinking:
            print(flush=True)
        self._thinking = False


class History(FileHistory):
    """What was typed, in a file that only its owner can read; without one if the place cannot be written to."""

    def __init__(self, path: Path, note: Callable[[str], None]) -> None:
        self._path, self._note, self._works = path, note, True
        super().__init__(str(path))
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
        except OSError as error:
            self._fail(error)

    def load_history_strings(self) -> Iterable[str]:
        return super().load_history_strings() if self._works else []

    def store_string(self, string: str) -> None:
        if self._works:
            try:
                super().store_string(string)
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._works = False
        self._note(f"{self._path}: {error.strerror}; what you type is not kept")


def _keys() -> KeyBindings:
    """Enter sends, unless the text before it ends with a backslash; Alt-Enter begins a new line."""
    keys = KeyBindings()

    @keys.add("enter")
    def enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
