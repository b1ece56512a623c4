"""What the tokens of a sequence must keep to, and how far they are."""

import time
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from llguidance import LLMatcher

from arcmtp.engine.reasoning import CLOSE, opens_reasoning
from arcmtp.errors import ArcmtpError, one_line
from arcmtp.model.controls import Controls
from arcmtp.model.tokenizer import Tokenizer

Part = Literal["reasoning", "constrained", "beyond"]


class Guide:
    """Follows the tokens of one sequence and its drafts, and tells which tokens may come next.

    Where the prompt opens reasoning, the constraint begins behind the token that closes it; until then every token is
    allowed but those that end a generation. A token that ends it, and a draft that is not allowed, lead beyond the
    text, where nothing is masked: no token there counts.

    `seconds`: what making masks and following tokens has taken. `error`: why no token can come next.
    """

    def __init__(self, matcher: LLMatcher, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self.seconds = 0.0
        self.error: ArcmtpError | None = None
        self._matcher, self._tokenizer, self._ends = matcher, tokenizer, tokenizer.eos_ids
        self._words = -(-tokenizer.vocab_used // 32)
        self._part: Part = "reasoning" if opens_reasoning(tokenizer, prompt) else "constrained"
        self._reasoning: list[int] = []  # its tokens
        self._drafts: list[int] = []  # that were followed and may be wrong
        self._before: list[Part] = []  # where the text was before each of these

    def draft(self, token: int) -> None:
        """Follow a token that may be wrong."""
        began = time.perf_counter()
        self._before.append(self._part)
        self._drafts.append(token)
        self._follow(token)
        self.seconds += time.perf_counter() - began

    def settle(self, tokens: Sequence[int]) -> None:
        """Follow the tokens that came next instead of the drafts."""
        began, right = time.perf_counter(), 0
        while right < min(len(tokens), len(self._drafts)) and tokens[right] == self._drafts[right]:
            right += 1
        self._take_back(len(self._drafts) - right)
        self._drafts, self._before = [], []
        for token in tokens[right:]:
            self._follow(token)
        if self._part == "beyond" and tokens[-1] not in self._ends and self.error is None:
            said = one_line(Exception(self._matcher.get_error() or "no token keeps to it"))
            self.error = ArcmtpError(f"the text cannot keep to its constraint any further: {said}")
        self.seconds += time.perf_counter() - began

    def allow(self, row: np.ndarray) -> None:
        """Write which tokens may come next into zeros, uint32 [mask_words]."""
        if self._part == "beyond":
            return
        began, bits = time.perf_counter(), row[: self._words]
        if self._part == "constrained":
            self._matcher.unsafe_compute_mask_ptr(bits.__array_interface__["data"][0], bits.nbytes)
        else:
            bits[:] = self._while_reasoning
        row[-1] = 1
        self.seconds += time.perf_counter() - began

    @cached_property
    def _while_reasoning(self) -> np.ndarray:
        allowed = np.zeros(self._words * 32, bool)
        allowed[: self._tokenizer.vocab_used] = True
        allowed[list(self._ends)] = False
        return np.packbits(allowed, bitorder="little").view(np.uint32)

    def _follow(self, token: int) -> None:
        if self._part == "reasoning":
            self._reasoning.append(token)
            tail = self._tokenizer.decode(self._reasoning[-len(CLOSE) :], skip_special=True)
            if CLOSE in tail:
                self._part = "constrained"
        elif self._part == "constrained" and (token in self._ends or self._matcher.try_consume_tokens([token]) != 1):
            self._part = "beyond"

    def _take_back(self, count: int) -> None:
        """Forget the last `count` drafts."""
        taken = 0  # by the matcher
        for before in reversed(self._before[len(self._before) - count :]):
            taken += before == self._part == "constrained"
            if before == "reasoning":
                self._reasoning.pop()
            self._part = before
        if taken:
            self._matcher.rollback(taken)
            # llguidance (1.9.1) keeps its last mask by the parser's row and the lexer's state, and does not forget it
            # here: on another way to that row it would give it again. At this point it is still right, or replaced.
            self._matcher.compute_bitmask()


def write_masks(controls: Controls, row: int, guides: Sequence[Guide | None]) -> None:
    """Mask row `row` of each sequence of a batch, and leave the rows of those without a guide free. Nothing that reads
    masks is under way."""
    words = controls.masks.shape[1]
    first = row * len(guides) * words
    masks = controls.masks.view()[first : first + len(guides) * words]
    masks.fill(0)
    for index, guide in enumerate(guides):
        if guide is not None:
            guide.allow(masks[index * words : (index + 1) * words])
