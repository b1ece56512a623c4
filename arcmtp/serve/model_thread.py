"""The thread that owns the model, and the queue before it."""

import asyncio
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from arcmtp.engine.llm import LLM
from arcmtp.engine.prefix_cache import PrefixCache
from arcmtp.errors import ArcmtpError
from arcmtp.serve.answer import Answer, Submission
from arcmtp.serve.errors import ApiError
from arcmtp.serve.jobs import Finished, Job

State = Literal["loading", "ready", "draining", "failed"]
EXIT_STUCK = 70  # EX_SOFTWARE of sysexits.h
LONGEST_RETRY_SECONDS = 600
_log = logging.getLogger("arcmtp.serve")


class ModelThread:
    """Loads the model in its own thread and runs jobs there, first come, first served, as many at once as it has slots.

    load: makes the LLM. If it raises, `loaded` does, and the state is `failed`.
    queue_limit: jobs that may wait.
    step_seconds: if a step and a prompt chunk take longer, the process ends with status 70: the device is
        stuck, and nothing else frees what it holds.
    """

    def __init__(self, load: Callable[[], LLM], queue_limit: int, step_seconds: float) -> None:
        self._load = load
        self._queue_limit = queue_limit
        self._step_seconds = step_seconds
        self._llm: LLM | None = None
        self._state: State = "loading"
        self._waiting: deque[Answer] = deque()
        self._running: list[Answer] = []
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
        return sum(not answer.cancelled for answer in self._waiting.copy())

    @property
    def prefix_cache(self) -> PrefixCache | None:
        """The checkpoints, for their numbers alone; None before the model is loaded and after its end."""
        try:
            return self._llm.scheduler.cache if self._llm else None
        except ArcmtpError:
            return None

    @property
    def running(self) -> int:
        """Jobs that are on the device."""
        return len(self._running)

    def submit(self, jobs: Sequence[Job]) -> Submission:
        """Queue all jobs of a request, or none: ApiError 429 when the queue is full, 503 unless ready."""
        submission = Submission(jobs)
        with self._changed:
            if self._state != "ready":
                raise ApiError(503, f"the server is {self._state}", code=self._state)
            self._waiting = deque(answer for answer in self._waiting if not answer.cancelled)
            # An idle server takes even a request of more choices than may wait.
            room = self._queue_limit + self.llm.parallel - len(self._running)
            if (self._waiting or self._running) and len(self._waiting) + len(jobs) > room:
                raise self._full()
            self._waiting.extend(submission.answers)
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
        rounds = len(self._waiting) / self.llm.parallel
        seconds = min(math.ceil(self._job_seconds * rounds), LONGEST_RETRY_SECONDS)
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
        while self._wait_for_work():
            self._admit(llm)
            self._take_turn(llm)
        self._end_step()
        for answer in list(self._running):
            answer.finished("cancelled")
            self._leave(answer, _shutting_down())
        for answer in self._waiting:
            answer.post(_shutting_down())
        llm.close()

    def _wait_for_work(self) -> bool:
        """Whether there is any, or False when the thread is to stop."""
        with self._changed:
            while not (self._stopping or self._waiting or self._running):
                self._end_step()
                self._changed.wait()
            return not self._stopping

    def _admit(self, llm: LLM) -> None:
        """Start what waits and fits. What a request is the first to need is compiled here, which takes its time."""
        self._end_step()
        while llm.scheduler.free and (answer := self._next()):
            try:
                answer.start(llm)
            except ArcmtpError as error:
                self._leave(answer, ApiError(400, str(error)))
            except Exception as error:
                self._leave(answer, _device_error(error))
                self._probe(llm)

    def _next(self) -> Answer | None:
        with self._changed:
            while self._waiting:
                answer = self._waiting.popleft()
                if not answer.cancelled:
                    self._running.append(answer)
                    return answer
            return None

    def _take_turn(self, llm: LLM) -> None:
        """Advance all answers and post what they say; those that are complete or fail leave."""
        for answer in [answer for answer in self._running if answer.cancelled]:
            self._leave(answer, answer.finished("cancelled"))
        if not self._running:
            return
        self._begin_step()
        try:
            llm.scheduler.advance()
        except Exception as error:
            for answer in list(self._running):
                self._leave(answer, _device_error(error))
            self._probe(llm)
        for answer in list(self._running):
            if (last := self._last_event(llm, answer)) is not None:
                self._job_seconds += 0.2 * (answer.seconds - self._job_seconds)
                self._leave(answer, last)

    def _last_event(self, llm: LLM, answer: Answer) -> Finished | ApiError | None:
        """The last event of an answer that is complete or wrong."""
        try:
            reason = answer.post_chunks()
        except ApiError as error:
            answer.finished("cancelled")
            return error
        except Exception as error:
            answer.finished("cancelled")
            self._probe(llm)
            return _device_error(error)
        return answer.finished(reason) if reason else None

    def _leave(self, answer: Answer, last: Finished | ApiError) -> None:
        with self._changed:
            self._running.remove(answer)
        answer.post(last)

    def _probe(self, llm: LLM) -> None:
        """After an error of the device: it must still generate a token, else the server has failed."""
        try:
            next(iter(llm.stream([0], max_tokens=1)), None)
        except Exception:
            _log.error("the device does not work any more: the server has failed")
            with self._changed:
                self._state = "failed"
                waiting, self._waiting = self._waiting, deque()
            for answer in waiting:
                answer.post(ApiError(503, "the server has failed", code="failed"))

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


def _device_error(error: Exception) -> ApiError:
    _log.error("a request failed on the device: %s: %s", type(error).__name__, " ".join(str(error).split()))
    return ApiError(500, "the device failed: see the server's log", code="device_error")


def _shutting_down() -> ApiError:
    return ApiError(503, "the server is shutting down", code="draining")
