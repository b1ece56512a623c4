"""From the recordings of a profile to its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from statistics import fmean, median

import numpy as np

from arcmtp import __version__
from arcmtp.engine.auto_drafts import LENGTHS, AutoDrafts
from arcmtp.engine.llm import LLM
from arcmtp.engine.loading import AUTO
from arcmtp.errors import ArcmtpError
from arcmtp.ops.bandwidth import READ_BYTES, ReadBandwidth
from arcmtp.profile.descriptions import describe_device, describe_model, memory
from arcmtp.profile.phases import Phase, Timed, Workload, middle_mean, net_microseconds, phase
from arcmtp.profile.recorder import Submission
from arcmtp.profile.recordings import ROUNDS, Recording, Recordings, Request, TimedCycle, record_all, timed
from arcmtp.profile.report import (
    FORMAT,
    CycleTimes,
    Drafting,
    DraftLengths,
    GenerationDescription,
    GraphReport,
    LaunchListTimes,
    Report,
    Speed,
)
from arcmtp.profile.routing import Routing
from arcmtp.progress import Progress

READS = 5


def profile(llm: LLM, file: Path, request: Request, progress: Progress) -> tuple[Report, Recordings]:
    """Profile a generation of the model from `file`; the report, and the recordings that it was made from.

    Raises ArcmtpError for a device that executes nothing, for a prompt that is empty or longer than the context holds,
    and for an answer too short to be timed.
    """
    check_room(len(request.prompt), request.max_tokens, llm.context)
    lengths = None
    if request.draft == AUTO:
        lengths, request = draft_lengths(llm, request)
    read = ReadBandwidth(llm.device, llm.device.zeros(READ_BYTES))
    recordings = record_all(llm, request, progress)
    for _ in range(READS):
        read.measure()
    recorded = recordings.recorded[-1]
    report = Report(
        format=FORMAT,
        arcmtp=__version__,
        model=describe_model(llm, file),
        device=describe_device(llm, read.gbs),
        run=GenerationDescription(
            len(request.prompt), len(recorded.tokens) - len(request.prompt), int(request.draft),
            llm.network.stage.graphs.enabled,
        ),
        speed=Speed(
            middle_mean(recordings.speeds),
            middle_mean(one.tokens_per_second for one in recordings.recorded),
            (recordings.drafted or recordings.plain).tokens_per_second,
        ),
        mark_us=recordings.mark_us,
        phases=_phases(llm, recordings, read.gbs),
        graphs=_graphs(recordings),
        drafting=_drafting(recorded) if request.draft else None,
        draft_lengths=lengths,
        memory=memory(llm),
    )
    return report, recordings


def check_room(prompt: int, max_tokens: int, context: int) -> None:
    """Raises ArcmtpError for a prompt without tokens, and for one with more than a context of so many tokens holds
    beside those that follow it."""
    if not prompt:
        raise ArcmtpError("the prompt is empty; it needs at least one token")
    if (need := prompt + max_tokens) > context:
        raise ArcmtpError(
            f"{prompt} tokens of prompt and {max_tokens} to generate are {need}, the context holds {context}: raise ctx"
        )


def draft_lengths(llm: LLM, request: Request) -> tuple[DraftLengths, Request]:
    """What `auto` chose in several generations, and the request with the length, at least 1, that it chose most."""
    policy = llm.policy(AUTO)
    assert isinstance(policy, AutoDrafts)
    generations = [timed(llm, request) for _ in range(ROUNDS + 1)]
    chosen = generations[-1][1]
    speed = middle_mean(one for one, _ in generations[1:])
    found = DraftLengths(speed, policy.acceptance(), policy.estimates(), chosen)
    most: int = max(LENGTHS[1:], key=chosen.count)
    return found, replace(request, draft=most)


def _phases(llm: LLM, recordings: Recordings, read_gbs: float) -> dict[str, Phase]:
    routing = Routing(llm, recordings.plain.tokens)

    def workload_at(position: int, rows: int) -> Workload:
        return Workload(rows, position + rows, routing.distinct(position, rows), llm.config.experts_used)

    def of_prompt(submissions: Sequence[Submission]) -> list[Timed]:
        timed, prompt, most = [], len(recordings.request.prompt), llm.network.chunk_rows
        for number, submission in enumerate(submissions):
            start = min(number * most, prompt - 1)  # the last one is the choice after the last row
            rows = min(most, prompt - start)
            timed.append(Timed(submission, workload_at(start, rows)))
        return timed

    def of_cycles(
        recording: Recording, part: Callable[[TimedCycle], Sequence[Submission]]
    ) -> tuple[list[list[Timed]], list[float]]:
        """A part of each cycle: submissions where launches were timed, else times in all."""
        units, whole_us = [], []
        for cycle in recording.cycles:
            submissions = part(cycle)
            rows = len(cycle.submissions)
            if cycle.split:
                units.append([Timed(one, workload_at(cycle.position, rows)) for one in submissions])
            else:
                whole_us.append(sum(one.microseconds for one in submissions))
        return units, whole_us

    split = [of_prompt(prompt) for prompt in recordings.prompts if prompt[0].split]
    whole = [sum(one.microseconds for one in prompt) for prompt in recordings.prompts if not prompt[0].split]
    found = {"prompt": (split, whole), "decode": of_cycles(recordings.plain, attrgetter("step"))}
    if recordings.drafted:
        found |= {
            "draft": of_cycles(recordings.drafted, attrgetter("drafts")),
            "verify": of_cycles(recordings.drafted, attrgetter("step")),
        }
    return {name: phase(*times, llm.network.stage.lists, recordings.mark_us, read_gbs) for name, times in found.items()}


def _graphs(recordings: Recordings) -> GraphReport:
    s, eager = recordings.graphs, recordings.drafted or recordings.plain
    launch_lists = []
    for place, submission in enumerate(eager.cycles[0].submissions):

        def times(recording: Recording, place: int = place) -> list[Submission]:
            return [cycle.submissions[place] for cycle in recording.cycles]

        launch_lists.append(
            LaunchListTimes(
                submission.name,
                middle_mean(one.microseconds for recording in recordings.replayed for one in times(recording)),
                middle_mean(one.microseconds for one in times(eager) if not one.split),
                middle_mean(net_microseconds(one, recordings.mark_us) for one in times(eager) if one.split),
            )
        )
    return GraphReport(
        s.captures, s.replays, 1 - s.captures / s.replays, s.nodes, s.capture_ms, s.finalise_ms,
        s.us_per_replay, launch_lists,
    )  # fmt: skip


def _drafting(recording: Recording) -> Drafting:
    cycles = [_cycle(cycle) for cycle in recording.cycles]
    calls = [us for cycle in cycles for us in cycle.draft_us[: cycle.drafted]]
    wall = sum(cycle.wall_us for cycle in cycles)
    drafting = sum(sum(cycle.draft_us) for cycle in cycles) / wall
    verifying = sum(cycle.verify_us for cycle in cycles) / wall
    accepted, positions = [cycle.accepted for cycle in cycles], range(1, len(cycles[0].draft_us) + 1)
    return Drafting(
        call_mean_us=fmean(calls),
        call_p50_us=median(calls),
        call_p95_us=float(np.percentile(calls, 95)),
        acceptance=sum(accepted) / len(calls),
        acceptance_by_position=[fmean(count >= position for count in accepted) for position in positions],
        mean_accepted_length=fmean(cycle.tokens for cycle in cycles),
        drafting_share=drafting,
        verifying_share=verifying,
        host_share=1 - drafting - verifying,
        cycles=cycles,
    )


def _cycle(cycle: TimedCycle) -> CycleTimes:
    *drafts, step = (one.microseconds for one in cycle.submissions)
    return CycleTimes(drafts, step, cycle.host[1] - cycle.host[0], cycle.drafted, cycle.accepted, len(cycle.tokens))
