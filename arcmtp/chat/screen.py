"""Where a session reads and writes: plain lines here, a terminal in `terminal`."""

from __future__ import annotations

import sys
from typing import Protocol


class Screen(Protocol):
    """What a session needs of the place where it is shown."""

    def read(self) -> str | None:
        """The next message or command; None at the end."""

    def write(self, text: str) -> None:
        """Show the next piece of an answer."""

    def thinking(self, tokens: int) -> None:
        """Show that the model has thought for so many tokens."""

    def finish(self) -> None:
        """End an answer."""

    def show(self, text: str) -> None:
        """Show what a command was asked for."""

    def note(self, text: str) -> None:
        """Show a line that is neither: what went wrong, why an answer ended."""


class PlainScreen:
    """Lines of standard input; answers on standard output, everything else on standard error."""

    def __init__(self) -> None:
        self._thoughts = 0

    def read(self) -> str | None:
        """A line, or several that end with a backslash but for the last one."""
        text = None
        while (line := self._next_line()) is not None:
            text = (text or "") + line
            if not text.endswith("\\"):
                break
            text = text[:-1] + "\n"
        return text

    def write(self, text: str) -> None:
        self._tell_thoughts()
        print(text, end="", flush=True)

    def thinking(self, tokens: int) -> None:
        self._thoughts = tokens

    def finish(self) -> None:
        self._tell_thoughts()
        print(flush=True)

    def show(self, text: str) -> None:
        print(text, flush=True)

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _next_line(self) -> str | None:
        """Without its end; bytes that are not UTF-8 become U+FFFD."""
        line = sys.stdin.buffer.readline() if sys.stdin else b""
        return line.decode(errors="replace").rstrip("\r\n") if line else None

    def _tell_thoughts(self) -> None:
        if self._thoughts:
            self.note(f"thinking… {self._thoughts} tokens")
        self._thoughts = 0
