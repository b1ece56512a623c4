"""The tokens that are ever drafted: all, the first of the vocabulary, or those that a file names."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from arcmtp.errors import ArcmtpError
from arcmtp.model.tokenizer import Tokenizer
from arcmtp.model.weight_plan import RowIds

DraftVocab = Literal["full"] | int | str | Path
LINE_BYTES = 4096  # of a vocabulary file's line at most, so that no file that is none fills the memory
SHOWN = 40  # characters of a line that a message shows


def draft_tokens(vocab: DraftVocab, tokenizer: Tokenizer) -> RowIds | None:
    """int32, ascending: the tokens that `vocab` says; None for all.

    "full": all tokens. A number N: so many, the lowest ids, since byte-pair merges are numbered in the order in which
    they were learnt, the commonest first. A path: those of a file that has a token id at the beginning of each line; a
    count may follow it, and `#` begins a comment. With either come the tokens that end a generation and the
    user-defined ones (such as `<think>`), whatever their ids; they count among the N.

    Raises ArcmtpError, for a file with its line, for numbers and ids that are not of the vocabulary, ids that occur
    twice, a file without any, and what is no such file.
    """
    if vocab == "full":
        return None
    used, always = tokenizer.vocab_used, sorted(tokenizer.eos_ids | tokenizer.user_defined_ids)
    if not isinstance(vocab, int):
        tokens = {*_of_file(Path(vocab), used), *always}
    elif 0 < vocab <= used:
        tokens = set(list(dict.fromkeys([*always, *range(vocab)]))[:vocab])
    else:
        raise ArcmtpError(f"draft_vocab is {vocab}; it must be 'full', a file, or 1 to {used} tokens")
    return None if len(tokens) == used else np.array(sorted(tokens), np.int32)


def _of_file(path: Path, used: int) -> dict[int, int]:
    """The ids that a file names, and the line of each."""
    lines: dict[int, int] = {}
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LINE_BYTES), b""), start=1):
                token = _id(f"{path}: line {number}", line, used)
                if token is None:
                    continue
                if token in lines:
                    raise ArcmtpError(f"{path}: line {number}: id {token} is in line {lines[token]} already")
                lines[token] = number
    except OSError as error:
        raise ArcmtpError(f"{path}: {error.strerror}; expected a file with a token id in each line") from None
    if not lines:
        raise ArcmtpError(f"{path}: has no token ids; expected one in each line")
    return lines


def _id(place: str, line: bytes, used: int) -> int | None:
    """The id in a line; None if there is only a comment."""
    if len(line) == LINE_BYTES:
        raise ArcmtpError(f"{place}: is longer than {LINE_BYTES - 1} bytes; expected a token id")
    try:
        words = line.decode().partition("#")[0].split()
    except UnicodeDecodeError as error:
        raise ArcmtpError(f"{place}: byte {error.start} is not UTF-8; expected a token id") from None
    if not words:
        return None
    if len(words) > 2 or not all(word.isascii() and word.isdecimal() for word in words):
        raise ArcmtpError(f"{place}: {' '.join(words)[:SHOWN]!r} is no token id, with a count or without")
    if int(words[0]) >= used:
        raise ArcmtpError(f"{place}: id {words[0][:SHOWN]} is outside the vocabulary of {used} tokens")
    return int(words[0])
