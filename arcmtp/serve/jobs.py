"""What a request asks of the model, and how the answer comes back from the worker's thread to the event loop."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from arcmtp.engine.results import Chunk, Statistics
from arcmtp.engine.sampling import SamplingOptions
from arcmtp.serve.errors import ApiError

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class ReasoningBudget:
    """Tokens of reasoning after which `closing_ids` are put into the text, unless the model wrote `end_id` before."""

    tokens: int
    end_id: int
    closing_ids: Sequence[int]


@dataclass(frozen=True)
class Job:
    """One sequence to generate; the fields are those of `LLM.stream`."""

    prompt_ids: Sequence[int]
    max_tokens: int
    logprobs: int
    sampling: SamplingOptions
    draft: int | None = None
    budget: ReasoningBudget | None = None


@dataclass
class Timings:
    """Where a job's time went; the first token belongs to the prompt."""

    queue_seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of these, those that an earlier request had evaluated
    prompt_seconds: float = 0.0
    decode_tokens: int = 0
    decode_seconds: float = 0.0

    def add(self, other: "Timings") -> None:
        """Sum over jobs, except that the longest wait counts."""
        self.queue_seconds = max(self.queue_seconds, other.queue_seconds)
        self.prompt_tokens += other.prompt_tokens
        self.cached_tokens += other.cached_tokens
        self.prompt_seconds += other.prompt_seconds
        self.decode_tokens += other.decode_tokens
        self.decode_seconds += other.decode_seconds


@dataclass(frozen=True)
class Finished:
    """The last event of a job.

    statistics: those of the engine's streams, of which there are two where a reasoning budget was used up.
    """

    reason: FinishReason
    timings: Timings
    statistics: Sequence[Statistics]


Event = Chunk | Finished


class Ticket:
    """A job under way. The worker reads `cancelled` before each step and posts events; nobody else does."""

    def __init__(self, job: Job, post: Callable[[Event | ApiError], None]) -> None:
        self.job = job
        self.post = post
        self.submitted = time.monotonic()
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Ask the worker to take no further step for this job."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()


class Submission:
    """The jobs of one request. Iterate once over (index of the job, event); it ends when every job has finished.

    ApiError is raised when a job fails, and the others are cancelled.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Event | ApiError]] = asyncio.Queue()

        def post_for(index: int) -> Callable[[Event | ApiError], None]:
            return lambda event: _post(loop, self._events, (index, event))

        self.tickets = [Ticket(job, post_for(index)) for index, job in enumerate(jobs)]

    def cancel(self) -> None:
        """Cancel every job; harmless when they have finished."""
        for ticket in self.tickets:
            ticket.cancel()

    async def __aiter__(self) -> AsyncIterator[tuple[int, Event]]:
        left = len(self.tickets)
        try:
            while left:
                index, event = await self._events.get()
                if isinstance(event, ApiError):
                    raise event
                left -= isinstance(event, Finished)
                yield index, event
        finally:
            self.cancel()


def _post(
    loop: asyncio.AbstractEventLoop,
    queue: "asyncio.Queue[tuple[int, Event | ApiError]]",
    item: tuple[int, Event | ApiError],
) -> None:
    try:
        loop.call_soon_threadsafe(queue.put_nowait, item)
    except RuntimeError:  # the loop has been closed: the server is going down
        return
