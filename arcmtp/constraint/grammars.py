"""Constraints compiled for a vocabulary."""

import threading
from collections import OrderedDict
from collections.abc import Sequence

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from arcmtp.constraint.constraint import Constraint
from arcmtp.errors import ArcmtpError, one_line
from arcmtp.model.tokenizer import Tokenizer

KEPT = 32  # compiled constraints


class Grammars:
    """Matchers of constraints. Any thread may ask for them.

    A matcher takes the tokenizer's ids. Its masks have a bit for each of the first `vocab_used` of them, in
    `vocab_used // 32 + 1` words of 32 bits. Where the text may end, the tokens that end a generation are allowed; other
    control tokens never are.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokens = LLTokenizer(TokenizerWrapper(_Tokens(tokenizer)), eos_token=sorted(tokenizer.eos_ids))
        self._limits = LLParserLimits(verbose_errors=False)
        self._compiled: OrderedDict[Constraint, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def matcher(self, constraint: Constraint) -> LLMatcher:
        """A matcher at the beginning of a text. ArcmtpError, on one line, for a grammar that cannot be compiled."""
        with self._lock:
            if constraint not in self._compiled:
                self._compiled[constraint] = self._compile(constraint)
                if len(self._compiled) > KEPT:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(constraint)
            return self._compiled[constraint].deep_copy()

    def _compile(self, constraint: Constraint) -> LLMatcher:
        matcher = LLMatcher(self._tokens, constraint.grammar, log_level=0, limits=self._limits)
        if matcher.is_error():
            raise ArcmtpError(f"the constraint cannot be compiled: {one_line(Exception(matcher.get_error()))}")
        return matcher


class _Tokens:
    """A tokenizer as llguidance asks for one. User-defined tokens such as `<tool_call>` are their text there."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = min(tokenizer.eos_ids)
        self.tokens: Sequence[bytes] = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.vocab_used)]
        self.special_token_ids = sorted(tokenizer.control_ids)

    def __call__(self, text: str) -> list[int]:
        if isinstance(text, bytes):
            raise TypeError("text is wanted")
        return self._tokenizer.encode(text, special=False)
