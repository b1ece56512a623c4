"""What commands turn into a one-line message and exit status 2, and how messages show what files contain."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SHOWN = 60  # characters of a string from a file that a message shows
SHOWN_WORDS = 300  # of a message that a template has made



class ArcmtpError(Exception):
    """Bad input or an unusable machine. The message is one line: what was wrong, and what would be right."""


class OutOfMemory(ArcmtpError):
    """A device that refuses an allocation, although it said that it has the memory."""


class NotFinite(ArcmtpError):
    """A model whose numbers became NaN or infinite on the device."""


class ContextExceeded(ArcmtpError):
    """A prompt of more tokens than the context holds (`LLM.context`)."""


class MemoryExceeded(ArcmtpError):
    """A model and a context that the device has no memory for; a context of `largest` tokens fits, of 0: none."""

    def __init__(self, message: str, largest: int) -> None:
        super().__init__(message)
        self.largest = largest


def shown(value: Any) -> str:
    """A value from a file as a message shows it: printable, on one line, its first 60 characters; of an array only how
    long it is."""
    if isinstance(value, str):
        return repr(value) if len(value) <= SHOWN else f"{value[:SHOWN]!r}… ({len(value)} characters)"
    if hasattr(value, "__len__"):
        return f"an array of {len(value)}"
    return repr(value)


def printable(text: str) -> str:
    """A text with everything escaped that a terminal would not print, the ends of lines too."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def one_line(error: Exception) -> str:
    """What an error of a file's own program says, on one line, its first 300 characters."""
    words = " ".join(str(error).split()) or type(error).__name__
    return printable(words if len(words) <= SHOWN_WORDS else f"{words[:SHOWN_WORDS]}…")


@contextmanager
def naming(file: object) -> Iterator[None]:
    """Let each ArcmtpError from within begin with the name of the file that it is about."""
    try:
        yield
    except ArcmtpError as error:
        error.args = (f"{file}: {error}", *error.args[1:])
        raise
