"""Constraints compiled for a vocabulary."""

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from arcmtp.constraint.constraint import Constraint
from arcmtp.errors import ArcmtpError, one_line
from arcmtp.model.tokenizer import Tokenizer
from arcmtp.worker_process import WorkerProcess

KEPT = 64  # compiled constraints: more than there are slots and requests that wait, as a rule
SECONDS = 2.0  # of processor time to compile; a schema of 60 KB takes 0.02 s
MEMORY_BYTES = 1024 * 2**20
STACK_BYTES = 2**20  # threads have 2 MiB at least
_NAME = "the constraint cannot be compiled"
# What llguidance says, and what it means here.
_CLEARER = {
    "NoExtensionBias": "no text keeps to it",
    "coerce_one_of": "oneOf is supported where no value can keep to two of its schemas; use anyOf",
    "only supported when all keys": "minProperties and maxProperties are supported where all properties are required",
}
_WORKER = Path(__file__).with_name("compile_worker.py")


class Grammars:
    """Matchers of constraints. Any thread may ask for them.

    A matcher takes the tokenizer's ids. Its masks have a bit for each of the first `vocab_used` of them, in
    `vocab_used // 32 + 1` words of 32 bits. Where the text may end, the tokens that end a generation are allowed; other
    control tokens never are.

    A grammar is first compiled in a process of its own with limits of time, memory and stack. llguidance's own limits
    do not end what takes long, such as `multipleOf` of a large number, and deep nesting would end this process.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokens = _Tokens(tokenizer)
        self._tokens = LLTokenizer(TokenizerWrapper(tokens), eos_token=sorted(tokenizer.eos_ids))
        limits = [str(limit) for limit in (SECONDS, MEMORY_BYTES, STACK_BYTES)]
        self._worker = WorkerProcess(_WORKER, limits, tokens.least(sorted(tokenizer.eos_ids)))
        self._limits = LLParserLimits(verbose_errors=False)
        self._compiled: OrderedDict[Constraint, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def matcher(self, constraint: Constraint) -> LLMatcher:
        """A matcher at the beginning of a text. ArcmtpError, on one line, for a grammar that cannot be compiled."""
        with self._lock:
            found = self._compiled.get(constraint)
        if found is None:  # without the lock, so that nobody with a known constraint waits
            found = self._compile(constraint)
        with self._lock:
            self._compiled[constraint] = found
            self._compiled.move_to_end(constraint)
            while len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)
            return found.deep_copy()

    def _compile(self, constraint: Constraint) -> LLMatcher:
        if error := self._worker.ask(json.dumps({"grammar": constraint.grammar}), _NAME)["error"]:
            raise _refusal(error)
        matcher = LLMatcher(self._tokens, constraint.grammar, log_level=0, limits=self._limits)
        if matcher.is_error():
            raise _refusal(matcher.get_error())
        return matcher


def _refusal(error: str) -> ArcmtpError:
    if "regex parse error" in error:  # behind the whole expression
        error = f"a regular expression: {error.rpartition('error: ')[2]}"
    first = error.splitlines()[0].rpartition("failed to compile JSON schema: ")[2]  # then comes the grammar
    said = next((ours for theirs, ours in _CLEARER.items() if theirs in error), first)
    return ArcmtpError(f"{_NAME}: {one_line(Exception(said))}")


class _Tokens:
    """A tokenizer as llguidance asks for one. User-defined tokens such as `<tool_call>` are their text there."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = min(tokenizer.eos_ids)
        self.tokens: Sequence[bytes] = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.vocab_used)]
        self.special_token_ids = sorted(tokenizer.control_ids)

    def least(self, end_ids: Sequence[int]) -> dict[str, Any]:
        """What `compile_worker.py` needs of it."""
        kept = {i: text for i, text in enumerate(self.tokens) if len(text) == 1 or i in self._tokenizer.control_ids}
        return {
            "tokens": {token_id: text.hex() for token_id, text in kept.items()},
            "special": self.special_token_ids,
            "end": end_ids,
            "count": len(self.tokens),
        }

    def __call__(self, text: str) -> list[int]:
        if isinstance(text, bytes):
            raise TypeError("text is wanted")
        return self._tokenizer.encode(text, special=False)
