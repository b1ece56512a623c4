"""The model's thread when the device fails, which no request can bring about."""

import asyncio
import dataclasses
import math
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from arcmtp import LLM, SamplingOptions
from arcmtp.engine.cycle import Cycle
from arcmtp.engine.stream import Stream
from arcmtp.serve.answer import Submission
from arcmtp.serve.errors import ApiError
from arcmtp.serve.jobs import Finished, Job
from arcmtp.serve.model_thread import ModelThread

JOB = Job([1, 2, 3], 4, 0, SamplingOptions())


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(device="cpu", ctx=64, parallel=2, draft=2) as llm:
        yield llm


def with_model_thread(llm: LLM, work: Callable[[ModelThread], Coroutine[Any, Any, None]]) -> None:
    """Run `work` beside a model's thread whose model is `llm`, which survives it."""

    async def run() -> None:
        model_thread = ModelThread(lambda: llm, queue_limit=8, step_seconds=60)
        await model_thread.start()
        try:
            await work(model_thread)
        finally:
            assert model_thread.stop(60)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llm, "close", lambda: None)
        asyncio.run(run())
    assert llm.scheduler.free == llm.parallel


async def outcome(submission: Submission) -> Finished | ApiError | None:
    last = None
    try:
        async for _, event in submission:
            last = event if isinstance(event, Finished) else None
    except ApiError as error:
        return error
    return last


def test_an_error_that_passes_fails_what_runs_and_nothing_after_it(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(model_thread: ModelThread) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(llm.network.stage.graphs, "submit", broken(llm, times=1))
            failed = await asyncio.gather(*(outcome(model_thread.submit([JOB])) for _ in range(2)))
        for end in failed:
            assert isinstance(end, ApiError) and (end.status, end.code) == (500, "device_error")
            assert "UR_RESULT" not in end.message
        assert model_thread.state == "ready" and model_thread.running == 0
        assert isinstance(await outcome(model_thread.submit([JOB])), Finished)

    with_model_thread(llm, work)


def test_a_prompt_ends_between_two_chunks_when_its_client_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    with LLM(device="cpu", ctx=2048, draft=2) as long:

        async def work(model_thread: ModelThread) -> None:
            submit = long.network.stage.graphs.submit

            def watched(name: str, launches: Any, as_graph: bool = True) -> Any:
                names.append(name)
                submission.cancel()
                return submit(name, launches, as_graph)

            with monkeypatch.context() as patch:
                patch.setattr(long.network.stage.graphs, "submit", watched)
                submission = model_thread.submit([Job(list(range(1500)), 4, 0, SamplingOptions())])
                events = [event async for _, event in submission]
            assert [getattr(event, "reason", event) for event in events] == ["cancelled"]
            assert isinstance(await outcome(model_thread.submit([JOB])), Finished)

        with_model_thread(long, work)
    assert names == ["chunk"]


def test_a_device_that_stays_broken_fails_the_server_and_all_that_wait(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(model_thread: ModelThread) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(llm.network.stage.graphs, "submit", broken(llm, times=99))
            ends = await asyncio.gather(*(outcome(model_thread.submit([JOB])) for _ in range(5)))
        found = [(end.status, end.code) for end in ends if isinstance(end, ApiError)]
        assert set(found) == {(500, "device_error"), (503, "failed")} and len(found) == 5
        assert model_thread.state == "failed"
        with pytest.raises(ApiError, match="the server is failed"):
            model_thread.submit([JOB])

    with_model_thread(llm, work)


def test_log_probabilities_that_are_not_finite_fail_their_own_request(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    push, other = Stream._push, dataclasses.replace(JOB, prompt_ids=[4, 5], max_tokens=20)

    def spoilt(stream: Stream, cycle: Cycle) -> None:
        spoil = stream.sequence.prompt == [1, 2, 3]
        push(stream, dataclasses.replace(cycle, logprobs=[math.nan] * 9) if spoil else cycle)

    async def work(model_thread: ModelThread) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Stream, "_push", spoilt)
            wrong, right = await asyncio.gather(*(outcome(model_thread.submit([job])) for job in (JOB, other)))
        assert isinstance(wrong, ApiError) and wrong.status == 500
        assert isinstance(right, Finished) and model_thread.state == "ready"

    with_model_thread(llm, work)


def test_jobs_that_wait_when_the_worker_stops_are_told_so(llm: LLM) -> None:
    async def work(model_thread: ModelThread) -> None:
        submissions = [model_thread.submit([Job([1], 60, 0, SamplingOptions(logit_bias={6137: -100, 6139: -100}))] * 4)]
        submissions += [model_thread.submit([JOB]) for _ in range(3)]
        assert await asyncio.to_thread(model_thread.stop, 60)
        ends = [await outcome(submission) for submission in submissions]
        assert [end.status for end in ends if isinstance(end, ApiError)] == [503] * 4

    with_model_thread(llm, work)


def test_jobs_start_in_the_order_in_which_they_came(llm: LLM) -> None:
    async def work(model_thread: ModelThread) -> None:
        order = []

        async def first_event(index: int, submission: Submission) -> None:
            async for _, event in submission:
                if not isinstance(event, Finished) and index not in order:
                    order.append(index)

        jobs = [dataclasses.replace(JOB, max_tokens=12) for _ in range(6)]
        submissions = enumerate(model_thread.submit([job]) for job in jobs)
        await asyncio.gather(*(first_event(*numbered) for numbered in submissions))
        assert order == list(range(6))

    with_model_thread(llm, work)


def broken(llm: LLM, times: int) -> Callable[..., Any]:
    """A `submit` that fails so often before it works."""
    submit, left = llm.network.stage.graphs.submit, [times]

    def fail(*arguments: Any, **options: Any) -> Any:
        if not left[0]:
            return submit(*arguments, **options)
        left[0] -= 1
        raise RuntimeError("UR_RESULT_ERROR_DEVICE_LOST\n (details)")

    return fail
