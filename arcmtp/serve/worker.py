"""The thread that owns the model, and the queue before it."""

import asyncio
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Literal

from arcmtp.engine.llm import LLM
from arcmtp.engine.results import Chunk
from arcmtp.engine.stream import Stream
from arcmtp.errors import ArcmtpError
from arcmtp.serve.errors import ApiError
from arcmtp.serve.jobs import Finished, FinishReason, Job, Submission, Ticket, Timings

State = Literal["loading", "ready", "draining", "failed"]
EXIT_STUCK = 70  # EX_SOFTWARE of sysexits.h
LONGEST_RETRY_SECONDS = 600
_log = logging.getLogger("arcmtp.serve")


class Worker:
    """Loads the model in its own thread and runs jobs there, first come, first served.

    load: makes the LLM. If it raises, `loaded` does, and the state is `failed`.
    queue_limit: jobs that may wait.
    step_seconds: if a step, or 512 tokens of a prompt, takes longer, the process ends with status 70: the device is
        stuck, and nothing else frees what it holds.
    """

    def __init__(self, load: Callable[[], LLM], queue_limit: int, step_seconds: float) -> None:
        self._load = load
        self._queue_limit = queue_limit
        self._step_seconds = step_seconds
        self._llm: LLM | None = None
        self._state: State = "loading"
        self._waiting: deque[Ticket] = deque()
        self._running: Ticket | None = None
        self._stopping = False
        self._changed = threading.Condition()  # guards the five above
        self._step, self._step_limit = 0, math.inf  # which step is under way, and how many seconds it may take
        self._job_seconds = 1.0  # mean, for Retry-After
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    async def start(self) -> None:
        """Load the model; raises what loading raises."""
        loop = asyncio.get_running_loop()
        self._loaded: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._thread.start()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        await self._loaded

    @property
    def state(self) -> State:
        return self._state

    @property
    def llm(self) -> LLM:
        """The model, for tokens and templates only: its device belongs to the thread. ApiError before it is loaded."""
        if self._llm is None:
            raise ApiError(503, "the model is still loading", code="loading", headers={"Retry-After": "5"})
        return self._llm

    @property
    def queued(self) -> int:
        """Jobs that wait."""
        return sum(not ticket.cancelled for ticket in self._waiting.copy())

    @property
    def running(self) -> int:
        """Jobs that are on the device."""
        return int(self._running is not None)

    def submit(self, jobs: Sequence[Job]) -> Submission:
        """Queue all jobs of a request, or none: ApiError 429 when the queue is full, 503 unless ready."""
        submission = Submission(jobs)
        with self._changed:
            if self._state != "ready":
                raise ApiError(503, f"the server is {self._state}", code=self._state)
            self._waiting = deque(ticket for ticket in self._waiting if not ticket.cancelled)
            # An idle server takes even a request of more choices than may wait.
            if (self._waiting or self._running) and len(self._waiting) + len(jobs) > self._queue_limit:
                raise self._full()
            self._waiting.extend(submission.tickets)
            self._changed.notify_all()
        return submission

    def drain(self) -> None:
        """Accept no further job; `idle` tells when the last one is done."""
        with self._changed:
            if self._state != "failed":
                self._state = "draining"

    async def idle(self) -> None:
        """Wait until no job runs or waits."""
        while self.running or self.queued:
            await asyncio.sleep(0.02)

    def stop(self, patience_seconds: float) -> bool:
        """Fail all jobs and end the thread; whether it ended in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(patience_seconds)
        return not self._thread.is_alive()

    def _full(self) -> ApiError:
        seconds = min(math.ceil(self._job_seconds * len(self._waiting)), LONGEST_RETRY_SECONDS)
        return ApiError(
            429, f"{len(self._waiting)} requests wait already, the queue holds {self._queue_limit}: try again later",
            code="queue_full", headers={"Retry-After": str(max(seconds, 1))},
        )  # fmt: skip

    def _run(self) -> None:
        try:
            llm = self._load()
        except Exception as error:
            self._state = "failed"
            self._loop.call_soon_threadsafe(self._loaded.set_exception, error)
            return
        with self._changed:
            self._llm = llm
            if self._state == "loading":
                self._state = "ready"
        self._loop.call_soon_threadsafe(self._loaded.set_result, None)
        while (ticket := self._next()) is not None:
            self._serve(llm, ticket)
        for ticket in self._waiting:
            ticket.post(_shutting_down())
        llm.close()

    def _next(self) -> Ticket | None:
        with self._changed:
            while not self._stopping:
                while self._waiting:
                    ticket = self._waiting.popleft()
                    if not ticket.cancelled:
                        self._running = ticket
                        return ticket
                self._changed.wait()
            return None

    def _serve(self, llm: LLM, ticket: Ticket) -> None:
        began = time.monotonic()
        last: Finished | ApiError
        try:
            last = self._generate(llm, ticket)
        except ApiError as error:
            last = error
        except ArcmtpError as error:
            last = ApiError(400, str(error))
        except Exception as error:
            _log.error("a request failed on the device: %s: %s", type(error).__name__, " ".join(str(error).split()))
            last = ApiError(500, "the device failed: see the server's log", code="device_error")
            self._probe(llm)
        self._end_step()
        self._job_seconds += 0.2 * (time.monotonic() - began - self._job_seconds)
        with self._changed:
            self._running = None
        ticket.post(last)

    def _generate(self, llm: LLM, ticket: Ticket) -> Finished:
        """Run one job to its end, posting a chunk for each token."""
        job = ticket.job
        began = time.monotonic()
        timings = Timings(queue_seconds=began - ticket.submitted, prompt_tokens=len(job.prompt_ids))
        streams: list[Stream] = []

        def go_on(_: int = 0) -> None:  # before each block of a prompt and each step
            if self._stopping:
                raise _shutting_down()
            if ticket.cancelled:
                raise _Cancelled
            self._begin_step()

        chunks = _chunks(llm, job, streams, go_on)
        reason: FinishReason = "cancelled"
        first = 0.0
        try:
            while True:
                go_on()
                chunk = next(chunks)
                now = time.monotonic()
                if not first:
                    first, timings.prompt_seconds = now, now - began
                elif chunk.id is not None:
                    timings.decode_tokens, timings.decode_seconds = timings.decode_tokens + 1, now - first
                ticket.post(_finite(chunk))
        except StopIteration as end:
            reason = end.value
        except _Cancelled:
            pass
        finally:
            chunks.close()
        timings.cached_tokens = streams[0].cached_tokens if streams else 0
        return Finished(reason, timings, streams[-1].result.statistics if streams else None)

    def _probe(self, llm: LLM) -> None:
        """After an error of the device: it must still generate a token, else the server has failed."""
        try:
            next(iter(llm.stream([0], max_tokens=1)), None)
        except Exception:
            _log.error("the device does not work any more: the server has failed")
            with self._changed:
                self._state = "failed"
                waiting, self._waiting = self._waiting, deque()
            for ticket in waiting:
                ticket.post(ApiError(503, "the server has failed", code="failed"))

    def _begin_step(self) -> None:
        self._step, self._step_limit = self._step + 1, self._step_seconds

    def _end_step(self) -> None:
        """There is none to wait for."""
        self._step, self._step_limit = self._step + 1, math.inf

    def _watch(self) -> None:
        # Ticks, not the clock: time in which the whole process or the machine sleeps is not the device's.
        step, ticks, tick_seconds = 0, 0, min(1.0, self._step_seconds / 4)
        while True:
            time.sleep(tick_seconds)
            ticks = ticks + 1 if step == self._step else 0
            step = self._step
            if ticks * tick_seconds > self._step_limit:
                _log.critical("a step has taken more than %g s: the device is stuck", self._step_seconds)
                os._exit(EXIT_STUCK)


class _Cancelled(Exception):
    """The client has gone."""


def _chunks(
    llm: LLM, job: Job, streams: list[Stream], go_on: Callable[[int], None]
) -> Generator[Chunk, None, FinishReason]:
    """The chunks of a job. Where its reasoning budget is used up, the closing tokens go into the text as a chunk.

    The engine's streams are added to `streams` as they begin; `go_on` is called after each block of a prompt.
    """
    def stream(prompt: Sequence[int], max_tokens: int) -> Stream:
        new = llm.stream(prompt, max_tokens, job.logprobs, job.sampling, job.draft, progress=go_on)
        streams.append(new)
        return new

    ids: list[int] = []
    budget = job.budget
    if budget is None or budget.tokens:
        for chunk in stream(job.prompt_ids, job.max_tokens):
            yield chunk
            if chunk.id is not None:
                ids.append(chunk.id)
            if budget and chunk.id == budget.end_id:
                budget = None
            if budget and len(ids) == budget.tokens:
                break
        else:
            return streams[-1].result.finish_reason or "cancelled"
    assert budget is not None
    prompt = [*job.prompt_ids, *ids, *budget.closing_ids]
    left = min(job.max_tokens - len(ids), llm.context + 1 - len(prompt))
    if left < 1:
        return "length"
    yield Chunk(None, llm.detokenize(budget.closing_ids))
    yield from stream(prompt, left)
    return streams[-1].result.finish_reason or "cancelled"


def _finite(chunk: Chunk) -> Chunk:
    if not math.isfinite(chunk.logprob or 0.0):
        raise FloatingPointError(f"the log-probability of token {chunk.id} is {chunk.logprob}")
    return chunk


def _shutting_down() -> ApiError:
    return ApiError(503, "the server is shutting down", code="draining")
