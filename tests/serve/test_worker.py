"""The worker when the device fails, which no request can bring about."""

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from arcmtp import LLM, SamplingOptions
from arcmtp.engine.results import Chunk
from arcmtp.serve.errors import ApiError
from arcmtp.serve.jobs import Finished, Job, Submission
from arcmtp.serve.worker import Worker

JOB = Job([1, 2, 3], 4, 0, SamplingOptions())


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(device="cpu", ctx=64) as llm:
        yield llm


def with_worker(llm: LLM, work: Callable[[Worker], Coroutine[Any, Any, None]]) -> None:
    """Run `work` beside a worker whose model is `llm`, which survives it."""

    async def run() -> None:
        worker = Worker(lambda: llm, queue_limit=8, step_seconds=60)
        await worker.start()
        try:
            await work(worker)
        finally:
            assert worker.stop(60)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llm, "close", lambda: None)
        asyncio.run(run())


async def outcome(submission: Submission) -> Finished | ApiError | None:
    last = None
    try:
        async for _, event in submission:
            last = event if isinstance(event, Finished) else None
    except ApiError as error:
        return error
    return last


def test_after_an_error_that_passes_the_next_request_is_answered(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(worker: Worker) -> None:
        with monkeypatch.context() as patch:
            # The probe finds the device well, and so does the next request.
            stream = llm.stream
            patch.setattr(llm, "stream", lambda *a, **k: _broken() if len(a) > 1 else stream(*a, **k))
            failed = await outcome(worker.submit([JOB]))
        assert isinstance(failed, ApiError) and (failed.status, failed.code) == (500, "device_error")
        assert "UR_RESULT" not in failed.message
        assert worker.state == "ready"
        assert isinstance(await outcome(worker.submit([JOB])), Finished)

    with_worker(llm, work)


def test_a_prompt_ends_between_two_blocks_when_its_client_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    with LLM(device="cpu", ctx=2048) as long:

        async def work(worker: Worker) -> None:
            stream: Any = long.stream

            def watched(*arguments: Any, progress: Callable[[int], None]) -> Any:
                def evaluated(tokens: int) -> None:
                    seen.append(tokens)
                    submission.cancel()
                    progress(tokens)

                return stream(*arguments, progress=evaluated)

            with monkeypatch.context() as patch:
                patch.setattr(long, "stream", watched)
                submission = worker.submit([Job(list(range(1500)), 4, 0, SamplingOptions())])
                events = [event async for _, event in submission]
            assert [getattr(event, "reason", event) for event in events] == ["cancelled"]
            assert isinstance(await outcome(worker.submit([JOB])), Finished)

        with_worker(long, work)
    assert seen == [512]


def test_a_device_that_stays_broken_fails_the_server_and_all_that_wait(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(worker: Worker) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(llm, "stream", lambda *a, **k: _broken())
            ends = await asyncio.gather(*(outcome(worker.submit([JOB])) for _ in range(3)))
        assert [(end.status, end.code) for end in ends if isinstance(end, ApiError)] == [
            (500, "device_error"), (503, "failed"), (503, "failed"),
        ]  # fmt: skip
        assert worker.state == "failed"
        with pytest.raises(ApiError, match="the server is failed"):
            worker.submit([JOB])

    with_worker(llm, work)


def test_log_probabilities_that_are_not_finite_are_an_error(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(worker: Worker) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(llm, "stream", lambda *a, **k: iter([Chunk(1, "x", None, math.nan)]))
            end = await outcome(worker.submit([JOB]))
        assert isinstance(end, ApiError) and end.status == 500

    with_worker(llm, work)


def test_jobs_that_wait_when_the_worker_stops_are_told_so(llm: LLM) -> None:
    async def work(worker: Worker) -> None:
        submissions = [worker.submit([Job([1], 60, 0, SamplingOptions(logit_bias={6137: -100, 6139: -100}))] * 4)]
        submissions += [worker.submit([JOB]) for _ in range(2)]
        assert await asyncio.to_thread(worker.stop, 60)
        ends = [await outcome(submission) for submission in submissions]
        assert [end.status for end in ends if isinstance(end, ApiError)] == [503] * 3

    with_worker(llm, work)


def _broken() -> Iterator[Chunk]:
    raise RuntimeError("UR_RESULT_ERROR_DEVICE_LOST\n (details)")
