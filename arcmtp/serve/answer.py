"""A job from its submission to its last event, and the way of events from the model's thread to the event loop."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Sequence

from arcmtp.engine.llm import LLM
from arcmtp.engine.results import Chunk
from arcmtp.engine.stream import Stream
from arcmtp.serve.errors import ApiError
from arcmtp.serve.jobs import Event, Finished, FinishReason, Job, Timings


class Answer:
    """A job on its way. The model's thread does everything but `cancel`, and alone posts events.

    Where the reasoning budget is used up, the closing tokens go into the text as a chunk, and a second stream goes on
    behind them.
    """

    def __init__(self, job: Job, post: Callable[[Event | ApiError], None]) -> None:
        self.post = post
        self.cancelled = False
        self._job, self._budget = job, job.budget
        self._submitted, self._began, self._first = time.monotonic(), 0.0, 0.0
        self._timings = Timings(prompt_tokens=len(job.prompt_ids))
        self._ids: list[int] = []  # given so far
        self._streams: list[Stream] = []
        self._full = False  # nothing can follow the reasoning
        self._to_score = job.score_prompt

    def cancel(self) -> None:
        """Ask the model's thread, from any thread, to take no further step for this job."""
        self.cancelled = True

    def start(self, llm: LLM) -> None:
        """Begin to generate. Raises ArcmtpError if the engine refuses the job."""
        self._llm, self._began = llm, time.monotonic()
        self._timings.queue_seconds = self._began - self._submitted
        if self._budget and not self._budget.tokens:
            self._close_reasoning()
        else:
            self._stream(self._job.prompt_ids, self._job.max_tokens)

    @property
    def seconds(self) -> float:
        """Since it has started."""
        return time.monotonic() - self._began

    def post_chunks(self) -> FinishReason | None:
        """Post what has come since the last time; why the answer is complete, or None. NotFinite for a log-probability
        that is no number, ApiError where no token keeps to the constraint, RuntimeError if the device has lost the
        stream."""
        if self._full:
            return "length"
        stream = self._streams[-1]
        chunks = stream.take_chunks()
        if self._to_score and (chunks or stream.finished):
            self._to_score = False
            self.post(stream.prompt_scores)
        for chunk in chunks:
            self._post_chunk(chunk)
            if self._budget and len(self._ids) == self._budget.tokens:
                stream.close()
                self._close_reasoning()
                return self.post_chunks()
        if stream.ended and not stream.finished:
            if stream.sequence.error:
                raise ApiError(400, str(stream.sequence.error), code="constraint_failed")
            raise RuntimeError("the device has lost the sequence")
        return stream.finish_reason

    def finished(self, reason: FinishReason) -> Finished:
        """Leave the device; the last event."""
        end = None
        if self._streams:
            self._streams[-1].close()
            self._timings.cached_tokens = self._streams[0].sequence.cached_tokens or 0
            end = self._streams[-1].end
        return Finished(reason, self._timings, [stream.result.statistics for stream in self._streams], end)

    def _post_chunk(self, chunk: Chunk) -> None:
        now, timings = time.monotonic(), self._timings
        if not self._first:
            self._first, timings.prompt_seconds = now, now - self._began
        elif chunk.id is not None:
            timings.decode_tokens, timings.decode_seconds = timings.decode_tokens + 1, now - self._first
        if chunk.id is not None:
            self._ids.append(chunk.id)
            if self._budget and chunk.id == self._budget.end_id:
                self._budget = None
        self.post(chunk)

    def _stream(self, prompt: Sequence[int], max_tokens: int) -> None:
        request = dataclasses.replace(self._job, prompt_ids=prompt, max_tokens=max_tokens)
        self._streams.append(self._llm.stream_request(request))
        self._streams[-1].start()

    def _close_reasoning(self) -> None:
        budget, self._budget = self._budget, None
        assert budget is not None
        prompt = [*self._job.prompt_ids, *self._ids, *budget.closing_ids]
        left = min(self._job.max_tokens - len(self._ids), self._llm.context + 1 - len(prompt))
        self._full = left < 1
        if self._full:
            return
        self._post_chunk(Chunk(None, self._llm.detokenize(budget.closing_ids)))
        self._stream(prompt, left)


class Submission:
    """The answers to one HTTP request. Iterate once over (index of the job, event); it ends when every job has
    finished.

    ApiError is raised when a job fails, and the others are cancelled.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Event | ApiError]] = asyncio.Queue()
        self.answers = [Answer(job, self._post_for(index)) for index, job in enumerate(jobs)]

    def cancel(self) -> None:
        """Cancel every job; harmless when they have finished."""
        for answer in self.answers:
            answer.cancel()

    async def __aiter__(self) -> AsyncIterator[tuple[int, Event]]:
        left = len(self.answers)
        try:
            while left:
                index, event = await self._events.get()
                if isinstance(event, ApiError):
                    raise event
                left -= isinstance(event, Finished)
                yield index, event
        finally:
            self.cancel()

    def _post_for(self, index: int) -> Callable[[Event | ApiError], None]:
        def post(event: Event | ApiError) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed: the server is going down
                self._loop.call_soon_threadsafe(self._events.put_nowait, (index, event))

        return post
