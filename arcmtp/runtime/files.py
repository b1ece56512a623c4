"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from arcmtp.errors import ArcmtpError


class OutputFile:
    """A file to be written at the end of some work; a context manager.

    A scratch file beside it shows at once that the place can be written to, and takes its name when it is written.
    inputs: files that it must not replace, since they are read until then. Raises ArcmtpError if anything fails.
    """

    def __init__(self, path: Path, inputs: Iterable[Path] = ()) -> None:
        self._path = Path(os.path.realpath(path))  # which does not mind a loop of links
        try:
            if self._path.exists() and not self._path.is_file():
                raise ArcmtpError(f"{path}: is not a file; expected one that can be written")
            if self._path.exists() and any(self._path.samefile(file) for file in inputs):
                raise ArcmtpError(f"{path}: is also read; expected another file to write")
            self._scratch = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            self._scratch.touch(exist_ok=False)
        except OSError as error:
            raise self._error(error) from None

    def write(self, text: str) -> None:
        """The file's whole content."""
        self.write_pieces([text.encode()])

    def write_pieces(self, pieces: Iterable[bytes | memoryview]) -> None:
        """The file's whole content, piece after piece."""
        try:
            with self._scratch.open("wb") as file:
                file.writelines(pieces)
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
