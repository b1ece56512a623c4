"""What `arcmtp predict` says of a model on a card. Every figure is predicted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from arcmtp.errors import ArcmtpError
from arcmtp.formats.kv_cache import KV_FORMATS, kv_format
from arcmtp.formats.matrix import Requant
from arcmtp.gguf import GGUF
from arcmtp.model.blocks.mtp import has_mtp
from arcmtp.model.config import Config
from arcmtp.model.network import Network, NetworkOptions
from arcmtp.predict.cards import card_on_paper
from arcmtp.predict.published import VOCAB_USED
from arcmtp.predict.steps import Steps, tokens_per_cycle
from arcmtp.predict.times import ListTime, Range

PROMPTS = (512, 4096, 32_768)
DEPTHS = (0, 8192, 32_768, 131_072)
VERIFY_ROWS = (2, 3, 4)
DRAFT_VOCABULARY = 32_768  # tokens of the smaller draft vocabulary
ACCEPTANCE = (0.85, 0.75, 0.65)
MAX_DRAFTS = 7


@dataclass(frozen=True)
class Options:
    """As of `LLM`. kv_types: those that depths are given for, the others are of the first one; none: all that the
    model's heads allow. draft_vocab: tokens that
    may be drafted, 0: all. acceptance: share of the cycles that accept the first draft, the second, …"""

    card: str
    requant: Requant | None = None
    kv_types: tuple[str, ...] = ()
    draft_vocab: int = 0
    draft_requant: Requant | None = None
    acceptance: tuple[float, ...] = ACCEPTANCE

    def __post_init__(self) -> None:
        shares = ",".join(f"{share:g}" for share in self.acceptance)
        bounds = (1, *self.acceptance, 0)
        falling = all(after <= before for before, after in pairwise(bounds))
        if not 1 <= len(self.acceptance) <= MAX_DRAFTS or not falling:
            raise ArcmtpError(
                f"acceptance is {shares}; it must be 1 to {MAX_DRAFTS} shares from 1 to 0, none larger than the one "
                "before: of cycles that accept the first draft, the second, …"
            )


@dataclass(frozen=True)
class Speed:
    """Of one kind of work. per_second: tokens of the one sequence."""

    what: str
    kv_type: str
    seconds: Range
    per_second: Range | None
    launches: int


@dataclass(frozen=True)
class Table:
    """A launch list by kernel."""

    what: str
    time: ListTime


@dataclass(frozen=True)
class Report:
    """All of a model on a card."""

    model: str
    card: str
    options: Options
    decode: tuple[Speed, ...]
    prompt: tuple[Speed, ...]
    draft: tuple[Speed, ...]
    verify: tuple[Speed, ...]
    mtp: tuple[Speed, ...]
    tables: tuple[Table, ...]
    predicted: bool = True


def predict(gguf: GGUF, config: Config, options: Options) -> Report:
    """The report of an open file, of which the header alone is read.

    Raises ArcmtpError for a card that is unknown or has no hardware figures, and for a file that arcmtp does not run.
    """
    device = card_on_paper(options.card)
    every = range(min(config.vocab, options.draft_vocab)) if options.draft_vocab else None
    kv_types = options.kv_types or tuple(name for name, kv in KV_FORMATS.items() if config.head_dim % kv.dims == 0)
    made = NetworkOptions(
        min(config.context_length, DEPTHS[-1] + MAX_DRAFTS + 1), min(config.vocab, VOCAB_USED),
        mtp=gguf if has_mtp(gguf, config) else None, requant=options.requant, kv=kv_format(kv_types[0]),
        draft_tokens=None if every is None else np.array(every, np.int32), draft_requant=options.draft_requant,
    )  # fmt: skip
    nets = {
        name: Steps(Network(gguf, config, replace(made, kv=kv_format(name)), device), device.hardware)
        for name in kv_types
    }
    first = kv_types[0]
    steps, context = nets[first], config.context_length
    prompts = {tokens: steps.prompt(tokens) for tokens in PROMPTS if tokens <= context}
    return Report(
        model=str(gguf.path),
        card=device.card.name,
        options=options,
        decode=tuple(
            _speed(f"depth {depth:,}", name, of_type.step(1, depth), 1)
            for name, of_type in nets.items()
            for depth in DEPTHS
            if depth < context
        ),
        prompt=tuple(_speed(f"prompt of {tokens:,}", first, time, tokens) for tokens, time in prompts.items()),
        draft=tuple(_drafts(steps, first)),
        verify=tuple(
            _speed(f"step of {_number(rows, 'row')}", first, steps.step(rows, 0), None) for rows in (1, *VERIFY_ROWS)
        ),
        mtp=tuple(_mtp(steps, first, options.acceptance)),
        tables=tuple(_tables(steps, prompts)),
    )


def _speed(what: str, kv_type: str, time: ListTime, tokens: float | None) -> Speed:
    per_second = time.seconds.of(lambda seconds: tokens / seconds) if tokens else None
    return Speed(what, kv_type, time.seconds, per_second, time.launches)


def _drafts(steps: Steps, kv_type: str) -> Iterator[Speed]:
    if steps.network.mtp:
        yield _speed("first draft call, after 4 rows", kv_type, steps.draft(1, 4, 0), None)
        yield _speed("further draft call", kv_type, steps.draft(2, 4, 0), None)


def _mtp(steps: Steps, kv_type: str, acceptance: Sequence[float]) -> Iterator[Speed]:
    if steps.network.mtp:
        for drafts in range(1, len(acceptance) + 1):
            tokens = tokens_per_cycle(acceptance, drafts)
            what = f"{_number(drafts, 'draft')}, {tokens:.2f} tokens a cycle"
            yield _speed(what, kv_type, steps.cycle(drafts, 0), tokens)


def _number(count: int, name: str) -> str:
    return f"{count} {name}{'s' * (count != 1)}"


def _tables(steps: Steps, prompts: dict[int, ListTime]) -> Iterator[Table]:
    yield Table("a token, depth 0", steps.step(1, 0))
    yield Table("a token, depth 32,768", steps.step(1, 32_768))
    yield Table("verify of 4 rows, depth 0", steps.step(4, 0))
    if steps.network.mtp:
        yield Table("further draft call", steps.draft(2, 4, 0))
    longest = [tokens for tokens in prompts if tokens <= 4096][-1:]
    yield from (Table(f"prompt of {tokens:,}", prompts[tokens]) for tokens in longest)
