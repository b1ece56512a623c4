"""What a profile is made of: one greedy generation as it is, then timed by launch list and by launch."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from arcmtp.engine.llm import LLM
from arcmtp.engine.loading import Draft
from arcmtp.errors import ArcmtpError
from arcmtp.profile.recorder import Recorder, Submission
from arcmtp.progress import Progress
from arcmtp.runtime.graphs import GraphCache, GraphStatistics

ROUNDS = 3  # of everything that is compared


@dataclass(frozen=True)
class Request:
    """What is generated: at most `max_tokens` after `prompt`, with so many drafts or "auto", ended by `stop_ids`."""

    prompt: Sequence[int]
    max_tokens: int
    draft: Draft  # a number where launch lists are timed
    stop_ids: Collection[int] = ()


@dataclass(frozen=True)
class TimedCycle:
    """Drafts and the step that verifies them. Host times are µs since the recorder began."""

    submissions: list[Submission]
    position: int  # tokens evaluated before
    drafted: int  # tokens; the work of further draft calls was skipped
    accepted: int  # of these
    tokens: list[int]
    host: tuple[float, float]  # from the end of the cycle before to its own

    @property
    def split(self) -> bool:
        """Whether its launches were timed one by one."""
        return self.submissions[0].split

    @property
    def drafts(self) -> list[Submission]:
        """The draft calls whose work was done."""
        return self.submissions[: self.drafted]

    @property
    def step(self) -> list[Submission]:
        """The step alone."""
        return self.submissions[-1:]


@dataclass(frozen=True)
class Recording:
    """A generation: what the prompt submitted, what each cycle submitted, and all tokens."""

    prompt: list[Submission]
    cycles: list[TimedCycle]
    tokens: list[int]

    @property
    def tokens_per_second(self) -> float:
        """Of decoding."""
        began, ended = self.cycles[0].host[0], self.cycles[-1].host[1]
        return sum(len(cycle.tokens) for cycle in self.cycles) / (ended - began) * 1e6


@dataclass(frozen=True)
class Recordings:
    """All recordings of a profile."""

    request: Request
    speeds: list[float]  # tokens per second with nothing timed
    recorded: list[Recording]  # launch lists timed, submitted as without a profile
    replayed: list[Recording]  # the same with graphs; the same recordings if graphs are what is otherwise used
    graphs: GraphStatistics  # of the replayed
    prompts: list[list[Submission]]  # of the prompt alone, launch by launch and as a whole in turn
    plain: Recording  # without drafts, cycles launch by launch and as a whole in turn
    drafted: Recording | None  # the same with drafts
    mark_us: float


def record_all(llm: LLM, request: Request, progress: Progress) -> Recordings:
    """Everything, after generations that are not counted.

    Raises ArcmtpError for a device that executes nothing, and if the answer is too short to be timed.
    """
    steps = iter(range(1, 3 * ROUNDS + 4))

    def done() -> None:
        progress("profiling", next(steps), 3 * ROUNDS + 3)

    recorder, plain = Recorder(llm.device, llm.network.stage.graphs.enabled), replace(request, draft=0)
    for warm in (request, plain):
        speed(llm, warm)
    speeds, recorded = [], []
    for _ in range(ROUNDS):
        speeds.append(speed(llm, request))
        recorded.append(record(llm, request, recorder))
        done()
    graphs, replayed = recorder, recorded
    if not recorder.enabled:
        graphs = Recorder(llm.device, enabled=True)
        replayed = [record(llm, request, graphs) for _ in range(ROUNDS)]
    done()
    by_launch = Recorder(llm.device, enabled=False)
    prompts = []
    for turn in range(2 * ROUNDS):
        prompts.append(record_prompt(llm, request, by_launch, split=turn % 2 == 0))
        done()
    alone = record(llm, plain, by_launch, alternate=True)
    done()
    drafted = record(llm, request, by_launch, alternate=True) if request.draft else None
    done()
    mark_us = by_launch.mark_microseconds()
    return Recordings(request, speeds, recorded, replayed, graphs.statistics, prompts, alone, drafted, mark_us)


def speed(llm: LLM, request: Request) -> float:
    """Tokens per second of decoding, with nothing timed in between."""
    return timed(llm, request)[0]


def timed(llm: LLM, request: Request) -> tuple[float, list[int]]:
    """`speed`, and the drafts of each cycle."""
    sequence = llm.new_sequence(draft=request.draft)
    if sequence.prefill(request.prompt, request.max_tokens, request.stop_ids).done:
        raise _too_short(1)
    began = time.perf_counter()
    cycles = list(llm.cycles(sequence))
    seconds = time.perf_counter() - began
    return sum(len(cycle.tokens) for cycle in cycles) / seconds, [cycle.drafted for cycle in cycles]


def record(llm: LLM, request: Request, recorder: Recorder, alternate: bool = False) -> Recording:
    """One generation, every launch list timed; alternate: every other cycle launch by launch."""
    begin, ends, cycles = len(recorder.submissions), [], []
    with submitting(llm, recorder):
        sequence = llm.new_sequence(draft=request.draft)
        first = sequence.prefill(request.prompt, request.max_tokens, request.stop_ids)
        recorder.collect()
        decoding = len(recorder.submissions)
        prompt, ends = recorder.submissions[begin:], [recorder.now()]
        for cycle in llm.cycles(sequence):
            cycles.append(cycle)
            ends.append(recorder.now())
            recorder.split = alternate and not recorder.split
        recorder.split = False
        recorder.collect()
    tokens, timed = [*request.prompt, *first.tokens], []
    assert isinstance(request.draft, int)
    size = request.draft + 1
    for number, cycle in enumerate(cycles):
        submissions = recorder.submissions[decoding + number * size :][:size]
        timed.append(
            TimedCycle(
                submissions, len(tokens) - 1, cycle.drafted, cycle.accepted, cycle.tokens,
                (ends[number], ends[number + 1]),
            )
        )  # fmt: skip
        tokens += cycle.tokens
    if alternate and {cycle.split for cycle in timed} != {True, False}:
        raise _too_short(len(tokens) - len(request.prompt))
    return Recording(prompt, timed, tokens)


def record_prompt(llm: LLM, request: Request, recorder: Recorder, split: bool) -> list[Submission]:
    """The prompt and the token that follows it; split: launch by launch."""
    begin, recorder.split = len(recorder.submissions), split
    with submitting(llm, recorder):
        llm.new_sequence().prefill(request.prompt, 1)
        recorder.split = False
        recorder.collect()
    return recorder.submissions[begin:]


def _too_short(tokens: int) -> ArcmtpError:
    return ArcmtpError(f"an answer of {tokens} tokens is too short to be timed: raise n or change the prompt")


@contextmanager
def submitting(llm: LLM, graphs: GraphCache) -> Iterator[None]:
    """Let the model's launch lists pass through `graphs`."""
    usual, llm.network.stage.graphs = llm.network.stage.graphs, graphs
    try:
        yield
    finally:
        llm.network.stage.graphs = usual
