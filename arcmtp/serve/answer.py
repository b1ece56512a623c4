"""A job on the device: the engine's streams that answer it, and what they say."""

import math
import time
from collections.abc import Sequence

from arcmtp.engine.llm import LLM
from arcmtp.engine.results import Chunk
from arcmtp.engine.stream import Stream
from arcmtp.serve.jobs import Finished, FinishReason, Ticket, Timings


class Answer:
    """Starts a ticket's job and posts its chunks; ArcmtpError if the engine refuses it.

    Where the reasoning budget is used up, the closing tokens go into the text as a chunk, and a second stream goes on
    behind them.
    """

    def __init__(self, llm: LLM, ticket: Ticket) -> None:
        self.ticket = ticket
        self._llm, self._job, self._budget = llm, ticket.job, ticket.job.budget
        self._began, self._first = time.monotonic(), 0.0
        self._timings = Timings(queue_seconds=self._began - ticket.submitted, prompt_tokens=len(self._job.prompt_ids))
        self._ids: list[int] = []  # given so far
        self._streams: list[Stream] = []
        self._full = False  # nothing can follow the reasoning
        if self._budget and not self._budget.tokens:
            self._close_reasoning()
        else:
            self._start(self._job.prompt_ids, self._job.max_tokens)

    @property
    def seconds(self) -> float:
        """Since it has started."""
        return time.monotonic() - self._began

    def post_chunks(self) -> FinishReason | None:
        """Post what has come since the last time; why the answer is complete, or None. FloatingPointError for a
        log-probability that is no number, RuntimeError if the device has lost the stream."""
        if self._full:
            return "length"
        stream = self._streams[-1]
        for chunk in stream.take_chunks():
            self._post(chunk)
            if self._budget and len(self._ids) == self._budget.tokens:
                stream.close()
                self._close_reasoning()
                return self.post_chunks()
        if stream.ended and not stream.finished:
            raise RuntimeError("the device has lost the sequence")
        return stream.finish_reason

    def finished(self, reason: FinishReason) -> Finished:
        """Leave the device; the last event."""
        if self._streams:
            self._streams[-1].close()
            self._timings.cached_tokens = self._streams[0].cached_tokens
        return Finished(reason, self._timings, [stream.result.statistics for stream in self._streams])

    def _post(self, chunk: Chunk) -> None:
        if not math.isfinite(chunk.logprob or 0.0):
            raise FloatingPointError(f"the log-probability of token {chunk.id} is {chunk.logprob}")
        now, timings = time.monotonic(), self._timings
        if not self._first:
            self._first, timings.prompt_seconds = now, now - self._began
        elif chunk.id is not None:
            timings.decode_tokens, timings.decode_seconds = timings.decode_tokens + 1, now - self._first
        if chunk.id is not None:
            self._ids.append(chunk.id)
            if self._budget and chunk.id == self._budget.end_id:
                self._budget = None
        self.ticket.post(chunk)

    def _start(self, prompt: Sequence[int], max_tokens: int) -> None:
        job = self._job
        stream = self._llm.stream(prompt, max_tokens, job.logprobs, job.sampling, job.draft)
        self._streams.append(stream)
        stream.start()

    def _close_reasoning(self) -> None:
        budget, self._budget = self._budget, None
        assert budget is not None
        prompt = [*self._job.prompt_ids, *self._ids, *budget.closing_ids]
        left = min(self._job.max_tokens - len(self._ids), self._llm.context + 1 - len(prompt))
        self._full = left < 1
        if self._full:
            return
        self._post(Chunk(None, self._llm.detokenize(budget.closing_ids)))
        self._start(prompt, left)
