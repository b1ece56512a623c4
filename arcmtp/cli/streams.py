"""The standard streams, of which any may be closed or full, or have an encoding without some characters."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class Forgiving:
    """A text stream for what nobody must miss, such as progress: once it cannot be written, it is the null device."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As of any text stream."""
        try:
            return int(self._stream.write(text))
        except OSError:
            to_nowhere(self._stream)
            return len(text)

    def flush(self) -> None:
        """As of any text stream."""
        try:
            self._stream.flush()
        except OSError:
            to_nowhere(self._stream)


def prepare() -> None:
    """Open what is closed on the null device, but for what is read from standard input, and let standard output show
    what it can."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number; else it would be the next file that is opened
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def to_nowhere(stream: Any) -> None:
    """Let a stream be the null device: Python flushes it once more when it ends, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
