"""How the next token is chosen: the options of a request, and what the device needs to know for them."""

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from arcmtp.engine.guide import Guide, write_masks
from arcmtp.errors import ArcmtpError
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.controls import Controls
from arcmtp.ops.gumbel_sampling import BIAS_SHIFT, BIASES, IN_PROMPT, Options


@dataclass(frozen=True)
class SamplingOptions:
    """How each token is chosen; as it stands, greedily. ArcmtpError for a value out of range.

    The order is that of vLLM: logit_bias, then penalties, then division by the temperature, then top_k, top_p of what
    that leaves, and min_p. One rule chooses among the tokens that are left: the largest score plus Gumbel noise from
    (seed, position, token), so that a seed gives the same text however steps are cut, batched or drafted.

    temperature: 0 is greedy, with penalties and biases but without filters and noise.
    top_k: tokens that may be chosen; 0 is all. Of equal scores the lowest ids count as the larger ones, here and below.
    top_p: the likeliest tokens that together have this probability may be chosen; 1 is all.
    min_p: tokens at least this fraction as likely as the likeliest may be chosen; 0 is all.
    repetition_penalty: divides the positive logits of tokens in prompt or continuation, and multiplies negative ones.
    presence_penalty, frequency_penalty: taken from the logits of generated tokens once, and once for each time.
    logit_bias: added to the logits of these token ids; -inf forbids one.
    seed: 0 to 2**64 - 1; None takes a new one for each generation (`Generation.seed`).
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None

    def __post_init__(self) -> None:
        _number(self, "temperature", lambda v: v == 0 or 0.01 <= v <= 100, "0 (greedy) or a number from 0.01 to 100")
        _whole(self, "top_k", 2**31 - 1, "a whole number, 0 (all tokens) or more")
        _number(self, "top_p", lambda v: 0 < v <= 1, "a number above 0 and at most 1")
        _number(self, "min_p", lambda v: 0 <= v <= 1, "a number from 0 to 1")
        _number(self, "repetition_penalty", lambda v: 0.01 <= v <= 100, "a number from 0.01 to 100 (1: none)")
        for name in ("presence_penalty", "frequency_penalty"):
            _number(self, name, lambda v: -100 <= v <= 100, "a number from -100 to 100 (0: none)")
        if self.seed is not None:
            _whole(self, "seed", 2**64 - 1, "a whole number from 0 to 2**64 - 1")
        if len(self.logit_bias) >= BIASES:
            raise ArcmtpError(f"logit_bias has {len(self.logit_bias)} tokens; it can have {BIASES - 1}")
        for token, bias in self.logit_bias.items():
            if not _is_number(bias) or not (abs(bias) <= 100 or bias == -math.inf):
                raise ArcmtpError(
                    f"logit_bias of token {token!r} is {bias!r}; it must be a number from -100 to 100, or -inf"
                )

    @property
    def adjusts(self) -> bool:
        """Whether any logit is changed: there are penalties or biases."""
        return bool(self.logit_bias) or (
            (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1, 0, 0)
        )

    @property
    def plain(self) -> bool:
        """Whether the token is simply the one with the largest logit."""
        return not self.temperature and not self.adjusts


class Sampler:
    """The options of one generation, and which tokens it has seen, on their way to the device.

    `seed` is that of the options, or a new one; None where no noise is used. `guide`: what the tokens must keep to, if
    anything. Raises ArcmtpError for biases of tokens that a vocabulary of `vocab` does not have.
    """

    def __init__(self, options: SamplingOptions, vocab: int, guide: Guide | None = None) -> None:
        wrong = next((t for t in options.logit_bias if type(t) is not int or not 0 <= t < vocab), None)
        if wrong is not None:
            raise ArcmtpError(f"logit_bias has token {wrong!r}; the vocabulary has ids 0 to {vocab - 1}")
        self.options, self.guide = options, guide
        self.seed = None
        if options.temperature:
            self.seed = secrets.randbits(64) if options.seed is None else options.seed
        self._prompt: set[int] = set()
        self._vocab = vocab

    def mode(self, top: int) -> SamplingMode:
        """How a step chooses by these options, if `top` of the likeliest tokens are wanted with each position."""
        masked = self.guide is not None
        return SamplingMode(by_options=masked or not self.options.plain, top=top > 0, masked=masked)

    def see(self, ids: Sequence[int]) -> None:
        """Further tokens of the prompt."""
        if self.options.repetition_penalty != 1:
            self._prompt.update(ids)

    def write(self, controls: Controls, slot: int) -> None:
        """Give the device all that it needs to choose every token of the sequence in a slot from now on; of masks, that
        of the first one."""
        o = self.options
        options = Options(
            o.temperature, o.top_k if o.top_k < self._vocab else 0, o.top_p, o.min_p, o.repetition_penalty,
            o.presence_penalty, o.frequency_penalty, o.adjusts, self.seed or 0,
        ).words()  # fmt: skip
        controls.options.write(options, slot * options.nbytes)
        if self.guide is not None:
            write_masks(controls, 0, [self.guide])
        if not o.adjusts:
            return
        slots = controls.options.nbytes // options.nbytes
        states = np.zeros(controls.token_states.nbytes // 4 // slots, np.int32)
        states[list(self._prompt)] = IN_PROMPT
        states[list(o.logit_bias)] |= np.arange(1, len(o.logit_bias) + 1, dtype=np.int32) << BIAS_SHIFT
        controls.token_states.write(states, slot * states.nbytes)
        controls.biases.write(np.array([0, *o.logit_bias.values()], np.float32), slot * BIASES * 4)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(options: SamplingOptions, name: str, fits: Callable[[float], bool], right: str) -> None:
    value = getattr(options, name)
    if not _is_number(value) or not fits(value):
        raise ArcmtpError(f"{name} is {value!r}; it must be {right}")


def _whole(options: SamplingOptions, name: str, most: int, right: str) -> None:
    value = getattr(options, name)
    if type(value) is not int or not 0 <= value <= most:
        raise ArcmtpError(f"{name} is {value!r}; it must be {right}")


GREEDY = SamplingOptions()
CHAT = SamplingOptions(temperature=1.0, top_p=0.95, top_k=20)  # what Qwen3.6's makers recommend
