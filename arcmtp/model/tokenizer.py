"""Text to token ids and back: the byte-level BPE tokenizer that a GGUF file describes in its metadata."""

import codecs
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as HfTokenizer

from arcmtp.errors import ArcmtpError, ContextExceeded, naming, shown
from arcmtp.gguf import GGUF

_PREFIX = "tokenizer.ggml."

# Token types of the GGUF format.
_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 2, 3, 4, 5
_TOKEN_TYPES = range(1, 7)

# Keys of ids that `Tokenizer.named_id` knows.
_NAMED = (
    "bos_token_id", "eos_token_id", "padding_token_id", "fim_pre_token_id", "fim_suf_token_id", "fim_mid_token_id",
    "fim_rep_token_id", "fim_sep_token_id",
)  # fmt: skip

# qwen35 differs from qwen2 in taking combining marks for letters.
_PRE_TOKENIZERS = {
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "qwen35": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
        r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}

# What llama.cpp takes for an end of generation besides the ids named in the metadata.
_END_OF_GENERATION = frozenset({"<|im_end|>", "<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"})


def _byte_alphabet() -> list[str]:
    """GPT-2's printable character of every byte: itself where it prints, else the next code point from 256 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


BYTE_ALPHABET = _byte_alphabet()
_BYTE_OF = {character: byte for byte, character in enumerate(BYTE_ALPHABET)}


class Tokenizer:
    """Byte-level BPE with the `qwen35` or `qwen2` pre-tokenizer. Text is not normalised.

    Hugging Face's own tokenizer file applies NFC first; llama.cpp does not, and its ids are what other servers of the
    same file produce. Without it every text also survives encoding and decoding unchanged.

    Attributes:
        eos_ids: the ids that end a generation.
        bos_id: the id to put before a prompt when `add_bos` is set, else None. `encode` never adds it.
        add_bos: whether the file asks for a beginning-of-sequence token.
        control_ids: the ids of control tokens such as `<|im_start|>`, which are no part of a text.
        user_defined_ids: the ids of user-defined tokens such as `<think>`.
        vocab_used: 1 + the highest id that has text; rows from there on are padding and must not be sampled.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        """Read the `tokenizer.ggml.*` keys; ArcmtpError names the key that is missing, malformed or unsupported."""
        pattern = _pre_tokenizer_pattern(metadata)
        self._tokens = _strings(metadata, "tokens")
        self._types = _token_types(metadata, len(self._tokens))
        self._bpe = _build_bpe(self._tokens, _strings(metadata, "merges"), pattern)
        self.control_ids = frozenset(self._ids_of_types(_UNKNOWN, _CONTROL))
        self._special = self._special_tokens_longest_first()
        # Ordinary tokens have a character for each byte, special ones stand for themselves.
        self._longest = max(*map(len, self._tokens), *(len(token.encode()) for token, _ in self._special))
        self.add_bos = _flag(metadata, "add_bos_token")
        self.bos_id = self._metadata_id(metadata, "bos_token_id") if self.add_bos else None
        self.eos_ids = self._end_of_generation(metadata)
        self._named = {name: self._metadata_id(metadata, name) for name in _NAMED if _PREFIX + name in metadata}
        self.user_defined_ids = frozenset(self._ids_of_types(_USER_DEFINED))
        self.vocab_used = 1 + int(np.flatnonzero(self._types != _UNUSED)[-1])

    @classmethod
    def from_gguf(cls, gguf: GGUF) -> "Tokenizer":
        """The tokenizer of a file; its errors name the file too."""
        with naming(gguf.path):
            return cls(gguf.metadata)

    def encode(self, text: str, special: bool = True, context: int | None = None) -> list[int]:
        """Token ids of `text`. With `special` unset, control tokens written in the text are ordinary characters.

        User-defined tokens (such as `<think>`) are always recognised. Other threads run meanwhile. Raises ArcmtpError
        for lone surrogates, and ContextExceeded, before any work, for a text of more bytes than `context` tokens have
        if each is the longest of the vocabulary; one that passes may still have more tokens.
        """
        nbytes = _utf8_bytes(text)
        if context is not None and nbytes > context * self._longest:
            least = -(-nbytes // self._longest)
            raise ContextExceeded(
                f"the prompt has {nbytes} bytes, at least {least} tokens; the context holds {context}"
            )
        ids: list[int] = []
        for fragment in self._split_special(text, special):
            if isinstance(fragment, str):  # of the library's calls only those for batches let go of the GIL
                ids += self._bpe.encode_batch_fast([fragment], add_special_tokens=False)[0].ids
            else:
                ids.append(fragment)
        return ids

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """Text of `ids`, invalid UTF-8 as U+FFFD. `skip_special` leaves out control tokens, never user-defined ones."""
        return b"".join(self.visible_bytes(token_id, skip_special) for token_id in ids).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes one token stands for, none for a padding row; ArcmtpError for an id outside the vocabulary."""
        if not 0 <= token_id < len(self._tokens):
            raise ArcmtpError(f"token id {token_id} is outside the vocabulary of {len(self._tokens)} tokens")
        token, kind = self._tokens[token_id], self._types[token_id]
        if kind == _UNUSED:
            return b""
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED):
            return token.encode()
        try:
            return bytes(map(_BYTE_OF.__getitem__, token))
        except KeyError:  # not in the byte alphabet: literal text that the file's writer left as an ordinary token
            return token.encode()

    def named_id(self, key: str, text: str | None = None) -> int | None:
        """The id that the file gives under `tokenizer.ggml.` + key, such as eos_token_id, or else that of the special
        token `text`; None if there is neither."""
        if key in self._named:
            return self._named[key]
        return next((token_id for token, token_id in self._special if token == text), None)

    def visible_bytes(self, token_id: int, skip_special: bool) -> bytes:
        """`token_bytes`, or nothing for a control token when `skip_special` is set."""
        return b"" if skip_special and token_id in self.control_ids else self.token_bytes(token_id)

    def _split_special(self, text: str, control: bool) -> list[str | int]:
        """Cut `text` at special tokens as llama.cpp does: each token in turn over the whole text, longest first."""
        fragments: list[str | int] = [text] if text else []
        for token, token_id in self._special:
            if token in text and (control or token_id not in self.control_ids):
                fragments = list(_split_at(fragments, token, token_id))
        return fragments

    def _ids_of_types(self, *types: int) -> list[int]:
        return [int(token_id) for token_id in np.flatnonzero(np.isin(self._types, types))]

    def _special_tokens_longest_first(self) -> list[tuple[str, int]]:
        special = [(self._tokens[i], i) for i in self._ids_of_types(_UNKNOWN, _CONTROL, _USER_DEFINED)]
        return sorted(special, key=lambda item: len(item[0].encode()), reverse=True)

    def _end_of_generation(self, metadata: Mapping[str, Any]) -> frozenset[int]:
        optional = [name for name in ("eot_token_id", "eom_token_id") if _PREFIX + name in metadata]
        named = {self._metadata_id(metadata, name) for name in ("eos_token_id", *optional)}
        return frozenset(named.union(i for i in self._ids_of_types(_CONTROL) if self._tokens[i] in _END_OF_GENERATION))

    def _metadata_id(self, metadata: Mapping[str, Any], name: str) -> int:
        value = _required(metadata, name)
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < len(self._tokens):
            raise ArcmtpError(f"{_PREFIX}{name}: {shown(value)} is not an id below {len(self._tokens)}")
        return int(value)


class Detokenizer:
    """Ids to text one at a time, for streaming: the pieces joined equal `Tokenizer.decode` of all ids.

    Bytes of a character that later ids may complete are held back.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The text that `token_id` completes, possibly none; ArcmtpError for an id outside the vocabulary."""
        return self._decoder.decode(self._tokenizer.visible_bytes(token_id, self._skip_special))

    def flush(self) -> str:
        """What is still held back, as U+FFFD; the detokenizer then starts afresh."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def _utf8_bytes(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        surrogate = f"U+{ord(text[error.start]):04X} at character {error.start}"
        raise ArcmtpError(f"the text is not valid Unicode: lone surrogate {surrogate}") from None


def _split_at(fragments: Iterable[str | int], token: str, token_id: int) -> Iterator[str | int]:
    for fragment in fragments:
        if isinstance(fragment, int):
            yield fragment
            continue
        for index, part in enumerate(fragment.split(token)):
            if index:
                yield token_id
            if part:
                yield part


def _required(metadata: Mapping[str, Any], name: str) -> Any:
    if _PREFIX + name not in metadata:
        raise ArcmtpError(f"{_PREFIX}{name} is missing from the file's metadata")
    return metadata[_PREFIX + name]


def _flag(metadata: Mapping[str, Any], name: str) -> bool:
    """A key that may be missing; a number is a flag as in C."""
    value = metadata.get(_PREFIX + name, False)
    if not isinstance(value, int):
        raise ArcmtpError(f"{_PREFIX}{name}: {shown(value)} is not true or false")
    return bool(value)


def _pre_tokenizer_pattern(metadata: Mapping[str, Any]) -> str:
    model, pre = _required(metadata, "model"), _required(metadata, "pre")
    if not isinstance(model, str) or model != "gpt2":
        raise ArcmtpError(f"{_PREFIX}model: {shown(model)} is not supported, expected 'gpt2'")
    if not isinstance(pre, str) or pre not in _PRE_TOKENIZERS:
        raise ArcmtpError(f"{_PREFIX}pre: {shown(pre)} is not supported, expected 'qwen35' or 'qwen2'")
    return _PRE_TOKENIZERS[pre]


def _strings(metadata: Mapping[str, Any], name: str) -> list[str]:
    values = _required(metadata, name)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ArcmtpError(f"{_PREFIX}{name}: expected an array of strings")
    if "" in values:
        raise ArcmtpError(f"{_PREFIX}{name}: entry {values.index('')} is empty")
    return values


def _token_types(metadata: Mapping[str, Any], count: int) -> np.ndarray:
    key = _PREFIX + "token_type"
    try:
        types = np.asarray(_required(metadata, "token_type"))
    except ValueError:  # a ragged array of arrays
        types = np.empty(0)
    if types.shape != (count,) or not np.issubdtype(types.dtype, np.integer):
        raise ArcmtpError(f"{key}: expected {count} integers, one per entry of {_PREFIX}tokens")
    wrong = np.flatnonzero(~np.isin(types, _TOKEN_TYPES))
    if wrong.size:
        raise ArcmtpError(f"{key}: entry {wrong[0]} is {types[wrong[0]]}, expected a token type from 1 to 6")
    if np.all(types == _UNUSED):
        raise ArcmtpError(f"{key}: every token is marked unused")
    return types


def _build_bpe(tokens: list[str], merges: list[str], pattern: str) -> HfTokenizer:
    ids = {token: token_id for token_id, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        token, times = Counter(tokens).most_common(1)[0]
        raise ArcmtpError(f"{_PREFIX}tokens: {shown(token)} occurs {times} times, expected distinct tokens")
    missing = [byte for byte, character in enumerate(BYTE_ALPHABET) if character not in ids]
    if missing:
        raise ArcmtpError(f"{_PREFIX}tokens: none for byte 0x{missing[0]:02x}, expected one for each of the 256 bytes")
    tokenizer = HfTokenizer(models.BPE(vocab=ids, merges=_merge_pairs(merges, ids)))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def _merge_pairs(merges: Sequence[str], ids: Mapping[str, int]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for rank, merge in enumerate(merges):
        left, _, right = merge.partition(" ")
        if not (left and right) or " " in right:
            what = f"{_PREFIX}merges: entry {rank} is {shown(merge)}"
            raise ArcmtpError(f"{what}, expected two tokens with one space between")
        if not (left in ids and right in ids and left + right in ids):
            raise ArcmtpError(f"{_PREFIX}merges: entry {rank} is {shown(merge)}, whose parts or result are no tokens")
        pairs.append((left, right))
    return pairs
