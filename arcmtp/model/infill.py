"""Filling in: the prompt for what stands between two texts, as models were trained to take it."""

from collections.abc import Sequence
from dataclasses import dataclass

from arcmtp.errors import ArcmtpError
from arcmtp.model.tokenizer import Tokenizer

# Keys of the metadata under tokenizer.ggml., and Qwen's tokens where a file has none of them.
_PREFIX, _SUFFIX, _MIDDLE = ("fim_pre", "<|fim_prefix|>"), ("fim_suf", "<|fim_suffix|>"), ("fim_mid", "<|fim_middle|>")
_REPOSITORY, _FILE = ("fim_rep", "<|repo_name|>"), ("fim_sep", "<|file_sep|>")


@dataclass(frozen=True)
class File:
    """A file that the model should know of."""

    name: str
    text: str


@dataclass(frozen=True)
class Gap:
    """What is to be filled in stands between `prefix` and `suffix`, token ids, and begins with `begun`; files: others
    of the same project."""

    prefix: Sequence[int]
    suffix: Sequence[int]
    begun: Sequence[int] = ()
    files: Sequence[File] = ()


def infill_ids(tokenizer: Tokenizer, gap: Gap) -> list[int]:
    """The prompt, in the order prefix, suffix, middle. Raises ArcmtpError if the vocabulary has no tokens for it."""
    prefix, suffix, middle = (_token(tokenizer, *names) for names in (_PREFIX, _SUFFIX, _MIDDLE))
    around = [prefix, *gap.prefix, suffix, *gap.suffix, middle, *gap.begun]
    return [*_project(tokenizer, gap.files), *around] if gap.files else around


def _project(tokenizer: Tokenizer, files: Sequence[File]) -> list[int]:
    """The files of a project, before the one that is being written."""
    repository, separator = (_token(tokenizer, *names) for names in (_REPOSITORY, _FILE))
    ids = [repository, *tokenizer.encode("project\n", special=False)]
    for file in files:
        ids += [separator, *tokenizer.encode(f"{file.name}\n{file.text}\n", special=False)]
    return [*ids, separator, *tokenizer.encode("file\n", special=False)]


def _token(tokenizer: Tokenizer, key: str, text: str) -> int:
    token_id = tokenizer.named_id(f"{key}_token_id", text)
    if token_id is None:
        raise ArcmtpError(f"this model's vocabulary has no token for filling in ({key}_token_id or {text})")
    return token_id
