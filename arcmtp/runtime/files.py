"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType

from arcmtp.errors import ArcmtpError


class OutputFile:
    """A file to be written at the end of some work; a context manager.

    A scratch file beside it shows at once that the place can be written to, and takes its name when it is written.
    Raises ArcmtpError if either fails.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        if self._path.exists() and not self._path.is_file():
            raise ArcmtpError(f"{path}: is not a file; expected one that can be written")
        self._scratch = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._scratch.touch(exist_ok=False)
        except OSError as error:
            raise self._error(error) from None

    def write(self, text: str) -> None:
        """The file's whole content."""
        try:
            self._scratch.write_text(text, encoding="utf-8")
            self._scratch.replace(self._path)
        except OSError as error:
            raise self._error(error) from None

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._scratch.unlink(missing_ok=True)

    def _error(self, error: OSError) -> ArcmtpError:
        return ArcmtpError(f"{self._path}: {error.strerror}; expected a file that can be written")
