"""How often each token occurs in texts: which tokens are worth drafting."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from arcmtp.errors import ArcmtpError
from arcmtp.model.tokenizer import Tokenizer
from arcmtp.progress import Progress

PIECE = 1 << 20  # characters of a text that are counted together
BEGIN = 1 << 16  # bytes by which texts are told from other files


class TokenCounts:
    """Counts of a tokenizer's tokens: `counts` int64 [tokens used]."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.counts = np.zeros(tokenizer.vocab_used, np.int64)

    def add(self, paths: Iterable[Path], progress: Progress | None = None) -> None:
        """Count the tokens of texts, and of all texts below folders, but for hidden files and folders. A text is a file
        that begins with UTF-8; what in it is not is counted as U+FFFD.

        progress: called as progress(stage, done, total), in bytes. Raises ArcmtpError for a file that cannot be read,
        a path to one that is no text, and if there is no text at all.
        """
        texts = [text for path in paths for text in _texts(path)]
        total, done = sum(path.stat().st_size for path in texts), 0
        for path in texts:
            for piece in _pieces(path):
                ids = np.array(self._tokenizer.encode(piece), np.int64)
                self.counts += np.bincount(ids, minlength=len(self.counts))
                done += len(piece.encode())
                if progress:
                    progress("counting tokens", done, total)
        if not self.counts.any():
            raise ArcmtpError("the corpus has no text; expected UTF-8 texts, or folders with some")

    def as_text(self, most: int | None = None) -> str:
        """A line `id count` for each token that occurs, at most `most`, the commonest first and of equals the lowest
        id."""
        ids = self._commonest[:most]
        return "".join(f"{token} {count}\n" for token, count in zip(ids, self.counts[ids], strict=True) if count)

    def coverage(self) -> str:
        """What share of the text's tokens is drafted at all with some of the vocabulary, a line for each number."""
        total, used = self.counts.sum(), len(self.counts)
        by_id, by_count = np.cumsum(self.counts) / total, np.cumsum(self.counts[self._commonest]) / total
        sizes = [1 << power for power in range(10, 20) if 1 << power < used]
        lines = [f"{size:,} tokens: {by_id[size - 1]:.4f} {by_count[size - 1]:.4f}" for size in sizes]
        seen = np.count_nonzero(self.counts)
        head = f"{total:,} tokens, {seen:,} of {used:,} ids; shares of the lowest ids, of the commonest tokens"
        return "\n".join([head, *lines])

    @property
    def _commonest(self) -> np.ndarray:
        return np.argsort(-self.counts, kind="stable")


def _texts(path: Path) -> Iterator[Path]:
    """The path itself, or the texts below a folder."""
    if not path.is_dir():
        if not _is_text(path):
            raise ArcmtpError(f"{path}: is no UTF-8 text; expected a text or a folder of texts")
        yield path
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = (Path(folder, name) for name in sorted(files) if not name.startswith("."))
        yield from (file for file in inside if file.is_file() and _is_text(file))


def _is_text(path: Path) -> bool:
    """Whether it begins as one."""
    try:
        with path.open("rb") as file:
            begin = file.read(BEGIN)
        codecs.getincrementaldecoder("utf-8")().decode(begin)  # which does not mind a character that is cut
    except OSError as error:
        raise ArcmtpError(f"{path}: {error.strerror}; expected a text or a folder of texts") from None
    except UnicodeDecodeError:
        return False
    return b"\0" not in begin


def _pieces(path: Path) -> Iterator[str]:
    """A text in pieces that end where a line ends, unless that is too long."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        while piece := file.read(PIECE):
            yield piece + file.readline(PIECE)
