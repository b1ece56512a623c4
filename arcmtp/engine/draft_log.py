"""The time of every draft call, and what became of its token. A call whose work was skipped is none."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arcmtp.engine.cycle import Cycle
from arcmtp.ops.launch import MAX_ROWS

KEPT_CALLS = 4096


@dataclass(frozen=True)
class DraftCall:
    """One draft call."""

    cycle: int  # of the generation, from 1
    index: int  # in the chain, from 1
    device_us: float | None  # None: the device does not tell
    host_us: float  # to submit it
    graph: str  # "replayed", "captured", or "none" when kernels are launched one by one
    head_rows: int  # of the output matrix that it read
    accepted: bool


@dataclass(frozen=True)
class DraftSummary:
    """What drafting took and gave. Times are None where the device does not tell them."""

    calls: int
    cycles: int
    accepted: int  # drafts
    mean_us: float | None  # per call
    p95_us: float | None  # of the latest calls
    acceptance: float  # share of the drafts that were accepted
    acceptance_by_position: list[float]  # share of the 1st, the 2nd, … drafts of cycles that were accepted
    accepted_by_position: list[int]  # 1st, 2nd, … drafts
    mean_accepted_length: float  # tokens that a cycle gave
    drafting_share: float | None  # of the time of drafting and verifying
    lengths: list[int]  # cycles with no draft, with one, …

    def __str__(self) -> str:
        by_position = " ".join(f"{share:.2f}" for share in self.acceptance_by_position)
        times = "" if self.mean_us is None else f", {self.mean_us:.0f} µs each (p95 {self.p95_us:.0f})"
        share = f", {self.drafting_share:.0%} of the time drafting" if self.drafting_share else ""
        return (
            f"{self.calls} draft calls{times}, accepted {self.acceptance:.2f} ({by_position}), "
            f"{self.mean_accepted_length:.2f} tokens a cycle{share}"
        )


class DraftLog:
    """Counts all draft calls and keeps the latest `KEPT_CALLS` of them.

    head_rows: rows of the output matrix that a call reads. graphs: whether calls are graphs.
    """

    def __init__(self, head_rows: int, graphs: bool) -> None:
        self._head_rows, self._graphs = head_rows, graphs
        self.calls: deque[DraftCall] = deque(maxlen=KEPT_CALLS)
        self._tokens = 0
        self._timed, self._draft_us, self._skipped_us, self._step_us = 0, 0.0, 0.0, 0.0
        self._accepted = [0] * MAX_ROWS  # how many cycles accepted so many drafts
        self._lengths = [0] * MAX_ROWS  # how many cycles had so many drafts

    def add(
        self, number: int, device_us: Sequence[float | None], host_us: Sequence[float], captured: Sequence[bool],
        cycle: Cycle,
    ) -> None:  # fmt: skip
        """Cycle `number` of the generation, from 1: the times of its calls and, last in `device_us`, of its step, and
        what it gave. Of a cycle without drafts no time is taken."""
        self._lengths[cycle.drafted] += 1
        self._accepted[cycle.accepted] += 1
        self._tokens += len(cycle.tokens)
        if not (device_us and host_us):
            return
        *calls_us, step_us = device_us
        for index, (us, host, new) in enumerate(zip(calls_us, host_us, captured, strict=True), start=1):
            if index > cycle.drafted:
                self._skipped_us += us or 0.0
                continue
            graph = "captured" if new else "replayed" if self._graphs else "none"
            self.calls.append(DraftCall(number, index, us, host, graph, self._head_rows, index <= cycle.accepted))
            if us is not None:
                self._timed += 1
                self._draft_us += us
        self._step_us += step_us or 0.0

    def summary(self) -> DraftSummary | None:
        """Of all cycles so far; None if there were none."""
        cycles = sum(self._lengths)
        if not cycles:
            return None
        # How many cycles made the 1st, the 2nd, … draft, and in how many it was accepted.
        made_at, accepted_at = (np.cumsum(counts[::-1])[::-1][1:] for counts in (self._lengths, self._accepted))
        made_at, calls = made_at[made_at > 0], int(made_at.sum())
        accepted_at = accepted_at[: len(made_at)]
        latest = [call.device_us for call in list(self.calls) if call.device_us is not None]
        accepted = int(accepted_at.sum())
        drafting = self._draft_us + self._skipped_us
        both = drafting + self._step_us
        return DraftSummary(
            calls=calls,
            cycles=cycles,
            accepted=accepted,
            mean_us=self._draft_us / self._timed if self._timed else None,
            p95_us=float(np.percentile(latest, 95)) if latest else None,
            acceptance=accepted / calls if calls else 0.0,
            acceptance_by_position=(accepted_at / made_at).tolist(),
            accepted_by_position=accepted_at.tolist(),
            mean_accepted_length=self._tokens / cycles,
            drafting_share=drafting / both if both else None,
            lengths=self._lengths[: len(made_at) + 1],
        )
