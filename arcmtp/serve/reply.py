"""What answers one request, in whatever protocol it is shown: payloads, tokens and times."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import zip_longest

from arcmtp.engine.draft_log import DraftSummary
from arcmtp.engine.results import Chunk, Statistics
from arcmtp.engine.scores import Scores
from arcmtp.serve.answer import Submission
from arcmtp.serve.choices import Payload, TextChoice
from arcmtp.serve.jobs import Finished, Timings
from arcmtp.serve.prepare import Prepared
from arcmtp.serve.responses import TimingsObject, Usage


class Reply:
    """Feeds the events of a submission to the choices.

    `first_token` is the time.monotonic() of the first token, 0 before it. `token_gap` is called with the seconds
    between two tokens of a choice.
    """

    def __init__(
        self, prepared: Prepared, submission: Submission, model: str, token_gap: Callable[[float], None]
    ) -> None:
        self.prepared, self._submission, self.model = prepared, submission, model
        self.created = int(time.time())
        self.timings = Timings()
        self.first_token = 0.0
        self._token_gap = token_gap
        self._last_tokens: dict[int, float] = {}  # when each choice had one
        self._statistics: list[Statistics] = []
        self._cached = 0  # of the prompt, when its first choice was made

    @property
    def finish_reasons(self) -> list[str | None]:
        """Of each choice, None where it is not complete."""
        return [choice.finish_reason for choice in self.prepared.choices]

    def usage(self) -> Usage:
        """Tokens so far."""
        prompt = self.prepared.prompt_tokens
        completion = sum(choice.tokens for choice in self.prepared.choices)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": self._cached},
            "completion_tokens_details": {"reasoning_tokens": sum(c.reasoning_tokens for c in self.prepared.choices)},
        }

    def timings_object(self) -> TimingsObject:
        """Timings of all choices together."""
        return timings_object(self.timings, self._statistics)

    @property
    def drafts(self) -> list[DraftSummary]:
        """Of the choices that are complete and could draft."""
        return [one.draft for one in self._statistics if one.draft]

    async def payloads(self) -> AsyncIterator[tuple[int, Payload, Finished | None]]:
        """Once: (index of the choice, payload, its last event if it is the choice's last). ApiError if a choice
        failed."""
        choices = self.prepared.choices
        for index, choice in enumerate(choices):
            for payload in choice.begin():
                yield index, payload, None
        async for index, event in self._submission:
            choice = choices[index]
            if isinstance(event, Finished):
                self.timings.add(event.timings)
                self._statistics += event.statistics
                if index == 0:
                    self._cached = event.timings.cached_tokens
                choice.end(event.end)
                *payloads, last = choice.finish(event.reason)
                for payload in payloads:
                    yield index, payload, None
                yield index, last, event
            elif not choice.stopped:  # one that has stopped may still get what was under way
                for payload in await self._pushed(index, event):
                    yield index, payload, None
                if choice.stopped:
                    self._submission.answers[index].cancel()

    async def _pushed(self, index: int, event: Scores | Chunk) -> list[Payload]:
        choice = self.prepared.choices[index]
        if isinstance(event, Scores):
            assert isinstance(choice, TextChoice)
            return [await asyncio.to_thread(choice.score, event)]  # takes long after a long prompt
        self._note_time(index, event)
        return choice.push(event)

    def _note_time(self, index: int, chunk: Chunk) -> None:
        if chunk.id is None:
            return
        now = time.monotonic()
        self.first_token = self.first_token or now
        if index in self._last_tokens:
            self._token_gap(now - self._last_tokens[index])
        self._last_tokens[index] = now


def timings_object(timings: Timings, statistics: Sequence[Statistics]) -> TimingsObject:
    """Timings as clients get them; the statistics are of the engine's streams, which share steps and graphs."""
    t, evaluated = timings, timings.prompt_tokens - timings.cached_tokens
    shown: TimingsObject = {
        "queue_ms": round(t.queue_seconds * 1e3, 3),
        "prompt_n": evaluated,
        "cache_n": t.cached_tokens,
        "prompt_ms": round(t.prompt_seconds * 1e3, 3),
        "prompt_per_second": round(evaluated / t.prompt_seconds, 3) if t.prompt_seconds else 0.0,
        "predicted_n": t.decode_tokens,
        "predicted_ms": round(t.decode_seconds * 1e3, 3),
        "predicted_per_second": round(t.decode_tokens / t.decode_seconds, 3) if t.decode_seconds else 0.0,
    }
    if statistics:
        shown["graph_captures"] = sum(one.graph_captures for one in statistics)
        shown["graph_replays"] = sum(one.graph_replays for one in statistics)
    if drafts := [one.draft for one in statistics if one.draft]:
        _add_drafts(shown, drafts)
    return shown


def _add_drafts(shown: TimingsObject, drafts: Sequence[DraftSummary]) -> None:
    lengths = [sum(counts) for counts in zip_longest(*(draft.lengths for draft in drafts), fillvalue=0)]
    made = [sum(lengths[position:]) for position in range(1, len(lengths))]
    accepted = zip_longest(*(draft.accepted_by_position for draft in drafts), fillvalue=0)
    timed = [draft for draft in drafts if draft.mean_us is not None]
    shown["draft_n"] = sum(draft.calls for draft in drafts)
    shown["draft_n_accepted"] = sum(draft.accepted for draft in drafts)
    shown["draft_acceptance_by_position"] = [
        round(sum(counts) / cycles, 4) for counts, cycles in zip(accepted, made, strict=True)
    ]
    shown["draft_us_mean"] = _mean([(draft.mean_us or 0.0, draft.calls) for draft in timed])
    shown["draft_us_p95"] = max((draft.p95_us or 0.0 for draft in timed), default=None)
    shown["draft_lengths"] = lengths


def _mean(weighted: Sequence[tuple[float, int]]) -> float | None:
    return sum(value * weight for value, weight in weighted) / sum(w for _, w in weighted) if weighted else None
