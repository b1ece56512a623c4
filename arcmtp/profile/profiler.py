"""From the runs of a profile to its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

import numpy as np

from arcmtp import __version__
from arcmtp.engine.llm import LLM
from arcmtp.errors import ArcmtpError
from arcmtp.ops.bandwidth import READ_BYTES, ReadBandwidth
from arcmtp.ops.launch import BLOCK_ROWS
from arcmtp.profile.facts import device_facts, memory, model_facts
from arcmtp.profile.phases import Phase, Rows, Timed, net_microseconds, phase
from arcmtp.profile.recorder import Submission
from arcmtp.profile.report import (
    FORMAT,
    CycleTimes,
    Drafting,
    GraphReport,
    LaunchListTimes,
    Report,
    RunFacts,
    Speed,
)
from arcmtp.profile.routing import Routing
from arcmtp.profile.runs import Request, Run, Runs, TimedCycle, run_all
from arcmtp.progress import Progress

READS = 5


def profile(llm: LLM, file: Path, request: Request, progress: Progress) -> tuple[Report, Runs]:
    """Profile a generation of the model from `file`; the report, and the runs that it was made from.

    Raises ArcmtpError for a device that executes nothing, for a prompt that is empty or longer than the context holds,
    and for an answer too short to be timed.
    """
    if not request.prompt:
        raise ArcmtpError("the prompt is empty; it needs at least one token")
    need = len(request.prompt) + request.max_tokens
    if need > llm.context:
        raise ArcmtpError(
            f"{len(request.prompt)} tokens of prompt and {request.max_tokens} to generate are {need}, "
            f"the context holds {llm.context}: raise ctx"
        )
    read = ReadBandwidth(llm.device, llm.device.zeros(READ_BYTES))
    runs = run_all(llm, request, progress)
    for _ in range(READS):
        read.measure()
    recorded = runs.recorded[-1]
    report = Report(
        format=FORMAT,
        arcmtp=__version__,
        model=model_facts(llm, file),
        device=device_facts(llm, read.gbs),
        run=RunFacts(
            len(request.prompt), len(recorded.tokens) - len(request.prompt), request.draft,
            llm.network.stage.graphs.enabled,
        ),
        speed=Speed(
            median(runs.speeds),
            median(run.tokens_per_second for run in runs.recorded),
            (runs.drafted or runs.plain).tokens_per_second,
        ),
        mark_us=runs.mark_us,
        phases=_phases(llm, runs, read.gbs),
        graphs=_graphs(runs),
        drafting=_drafting(recorded) if request.draft else None,
        memory=memory(llm),
    )
    return report, runs


def _phases(llm: LLM, runs: Runs, read_gbs: float) -> dict[str, Phase]:
    routing = Routing(llm, runs.plain.tokens)

    def rows_at(position: int, rows: int) -> Rows:
        return Rows(rows, position + rows, routing.distinct(position, rows), llm.config.experts_used)

    def of_prompt(pieces: Sequence[Submission]) -> list[Timed]:
        timed, prompt = [], len(runs.request.prompt)
        for number, piece in enumerate(pieces):
            start = min(number * BLOCK_ROWS, prompt - 1)  # the last piece is the choice after the last row
            rows = min(BLOCK_ROWS, prompt - start)
            timed.append(Timed(piece, rows_at(start, rows)))
        return timed

    def of_cycles(run: Run, first: int, last: int | None) -> tuple[list[list[Timed]], list[float]]:
        """Pieces first to last of each cycle: those of split ones, and the times of the others."""
        units, whole_us = [], []
        for cycle in run.cycles:
            pieces = cycle.submissions[first:last]
            rows = len(cycle.submissions)
            if cycle.split:
                units.append([Timed(piece, rows_at(cycle.position, rows)) for piece in pieces])
            else:
                whole_us.append(sum(piece.microseconds for piece in pieces))
        return units, whole_us

    split = [of_prompt(pieces) for pieces in runs.prompts if pieces[0].split]
    whole = [sum(piece.microseconds for piece in pieces) for pieces in runs.prompts if not pieces[0].split]
    found = {"prompt": (split, whole), "decode": of_cycles(runs.plain, 0, None)}
    if runs.drafted:
        found |= {"draft": of_cycles(runs.drafted, 0, -1), "verify": of_cycles(runs.drafted, -1, None)}
    return {name: phase(*times, llm.network.stage.lists, runs.mark_us, read_gbs) for name, times in found.items()}


def _graphs(runs: Runs) -> GraphReport:
    s, eager = runs.graphs, runs.drafted or runs.plain
    launch_lists = []
    for place, submission in enumerate(eager.cycles[0].submissions):

        def times(run: Run, place: int = place) -> list[Submission]:
            return [cycle.submissions[place] for cycle in run.cycles]

        launch_lists.append(
            LaunchListTimes(
                submission.name,
                median(one.microseconds for run in runs.replayed for one in times(run)),
                median(one.microseconds for one in times(eager) if not one.split),
                median(net_microseconds(one, runs.mark_us) for one in times(eager) if one.split),
            )
        )
    return GraphReport(
        s.captures, s.replays, 1 - s.captures / s.replays, s.nodes, s.capture_ms, s.finalise_ms,
        s.us_per_replay, launch_lists,
    )  # fmt: skip


def _drafting(run: Run) -> Drafting:
    cycles = [_cycle(cycle) for cycle in run.cycles]
    calls = [us for cycle in cycles for us in cycle.draft_us]
    wall = sum(cycle.wall_us for cycle in cycles)
    drafting, verifying = sum(calls) / wall, sum(cycle.verify_us for cycle in cycles) / wall
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
    return CycleTimes(drafts, step, cycle.host[1] - cycle.host[0], cycle.accepted, len(cycle.tokens))
