"""What a cycle is made of: draft calls and steps, each in two halves, up to the logits and from there on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from arcmtp.model.ahead import Ahead
from arcmtp.model.blocks.head import SamplingMode, TrunkHead
from arcmtp.model.blocks.mtp import MtpBlock
from arcmtp.model.builder import Rows
from arcmtp.model.controls import Controls
from arcmtp.ops import draft_chain
from arcmtp.runtime.launch import Launch

Launches = Callable[[], Iterable[Launch]]


@dataclass(frozen=True)
class Call:
    """A draft call or a step. Its halves are launches up to the logits, and those that choose tokens by them."""

    name: str
    logits: Launches
    choice: Launches
    masked: bool  # whether the host writes masks before the choice
    ahead: Ahead

    @property
    def parts(self) -> list[tuple[str, Launches]]:
        """What is submitted together, by name: all, or each half where the host has something to do in between."""
        if self.masked:
            return [
                (f"logits of {self.name}", lambda: self.ahead.over(self.logits())),
                (f"choice of {self.name}", self.choice),
            ]
        return [(self.name, self.whole)]

    def whole(self) -> list[Launch]:
        """All launches."""
        return self.ahead.over(chain(self.logits(), self.choice()))


@dataclass(frozen=True)
class Calls:
    """Makes the calls of a network; trunk: the launches of embedding and layers for rows; accept: that of rows which a
    step has evaluated; ahead: what launches ask memory for."""

    controls: Controls
    trunk: Callable[[Rows], Iterator[Launch]]
    head: TrunkHead
    mtp: MtpBlock | None
    accept: Callable[[Rows], Launch]
    ahead: Ahead

    def rows(self, rows: int, sequences: int = 1) -> Rows:
        """`rows` of each of so many sequences."""
        c = self.controls
        return Rows(rows, c.step_batch(sequences), c.row_counts.part(rows * sequences), c.ids, c.positions)

    def step(self, rows: int, mode: SamplingMode, sequences: int) -> Call:
        """A step of `rows` rows of each sequence."""
        of_step = self.rows(rows, sequences)
        return Call(
            f"step of {rows}{of_sequences(sequences)}{suffix(mode)}",
            lambda: self._merged(chain(self.trunk(of_step), self.head.logit_launches(of_step))),
            lambda: [*self.head.choice(of_step, mode, self.controls.sampled), self.accept(of_step)],
            mode.masked,
            self.ahead,
        )

    def draft(self, index: int, rows: int, mode: SamplingMode, sequences: int, if_likely: bool) -> Call:
        """Draft call `index`, after a step of `rows` rows. if_likely: it is skipped if no chain goes on; not the first
        one."""
        assert self.mtp is not None
        mtp, mode, if_likely = self.mtp, mode._replace(top=False), if_likely and index > 1
        drafts, chosen = self.rows(1, sequences), self.controls.ids.part(index * sequences)

        def logits() -> Iterable[Launch]:
            if index == 1:
                return self._merged(mtp.first_logits(self.rows(rows, sequences), drafts))
            launches = self._merged(mtp.next_logits(drafts, index))
            return [self._ends(index - 1, sequences), *self._guarded(launches)] if if_likely else launches

        def choice() -> Iterable[Launch]:
            launches = mtp.choice(drafts, index, mode, chosen)
            return self._guarded(launches) if if_likely else launches

        after = f" after {rows}" if index == 1 else ""
        name = f"draft {index}{after}{of_sequences(sequences)}{' if likely' * if_likely}{suffix(mode)}"
        return Call(name, logits, choice, mode.masked, self.ahead)

    def keep(self, rows: int, sequences: int) -> list[Launch]:
        """What of the first draft call after a step of `rows` rows stays in the MTP block's KV cache."""
        assert self.mtp is not None
        return self.ahead.over(self.mtp.keep(self.rows(rows, sequences)))

    def _ends(self, index: int, sequences: int) -> Launch:
        """Decides which chains go on behind draft call `index`."""
        c = self.controls
        launch = draft_chain.launch(
            index, c.step_batch(sequences), stats=c.stats, floors=c.draft_floors, drafted=c.drafted, goes_on=c.goes_on
        )
        return replace(launch, block="mtp")

    def _merged(self, launches: Iterable[Launch]) -> Iterator[Launch]:
        """The same work in fewer launches: the last team of `experts_down` norms its only row for what follows."""
        before: Launch | None = None
        for launch in launches:
            if before and _ends(before, launch):
                before = before.then(launch, self.controls.arrivals)
                continue
            if before:
                yield before
            before = launch
        if before:
            yield before

    def _guarded(self, launches: Iterable[Launch]) -> Iterator[Launch]:
        return (launch.only_if(self.controls.goes_on) for launch in launches)


def _ends(experts: Launch, norm: Launch) -> bool:
    same_team = experts.kernel.team == norm.kernel.team
    return experts.operator == "experts_down" and bool(norm.kernel.at_last) and same_team


def of_sequences(sequences: int) -> str:
    """The part of a launch list's name that tells of how many sequences it is, where it is not of one."""
    return f" of {sequences} sequences" if sequences > 1 else ""


def suffix(mode: SamplingMode) -> str:
    """The part that tells how tokens are chosen."""
    return " by options" * mode.by_options + " masked" * mode.masked + " with log-probabilities" * mode.top
