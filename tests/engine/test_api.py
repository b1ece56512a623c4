"""Several prompts in one call, chat, and calls from several threads."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from arcmtp import LLM, ArcmtpError, SamplingOptions
from tests.engine.conftest import CONTEXT

PROMPTS = ["import os", "def __len__(self):\n        return", "class", "x = [", "for i in"]
MESSAGES = [{"role": "user", "content": "How do I reverse a list?"}]
WARM = SamplingOptions(temperature=0.9, top_p=0.95, seed=3)
PATIENCE = 120  # seconds after which a thread counts as stuck


@pytest.fixture(scope="module", params=[1, 2], ids=["one", "two"])
def llm(request: pytest.FixtureRequest) -> Iterator[LLM]:
    with LLM(device="cpu", ctx=CONTEXT, parallel=request.param, draft=3) as llm:
        yield llm


def test_a_list_of_prompts_gives_a_list_of_what_each_gives_alone(llm: LLM, tiny: LLM) -> None:
    results = llm.generate(PROMPTS, 20, logprobs=2, sampling=WARM)
    alone = [tiny.generate(prompt, 20, logprobs=2, sampling=WARM) for prompt in PROMPTS]
    assert [(r.ids, r.text, r.token_logprobs, r.logprobs) for r in results] == [
        (r.ids, r.text, r.token_logprobs, r.logprobs) for r in alone
    ]
    assert llm.scheduler.free == llm.parallel
    assert [r.ids for r in llm.generate([tiny.tokenize(prompt) for prompt in PROMPTS[:3]], 9)] == [
        tiny.generate(prompt, 9).ids for prompt in PROMPTS[:3]
    ]
    (answer,) = llm.generate([MESSAGES], 9, enable_thinking=False)
    assert answer.ids == tiny.generate(MESSAGES, 9, enable_thinking=False).ids


def test_one_prompt_in_a_list_is_a_list_and_ids_and_messages_are_one_prompt(tiny: LLM) -> None:
    expected = tiny.generate("import os", 4).ids
    assert [result.ids for result in tiny.generate(["import os"], 4)] == [expected]
    assert tiny.generate(tiny.tokenize("import os"), 4).ids == expected
    assert tiny.generate(MESSAGES, 4).ids == tiny.chat(MESSAGES, max_tokens=4).ids


def test_each_of_several_prompts_stops_where_it_does_alone(llm: LLM, tiny: LLM) -> None:
    """One that has stopped takes no further steps while the others go on."""
    whole = tiny.generate(PROMPTS[1], 60).text
    stop = whole[10:14]
    results = llm.generate([PROMPTS[1], PROMPTS[0]], 60, stop=[stop], draft=0)
    assert results[0].text == whole[: whole.index(stop)]
    assert results[0].statistics.bytes_to_host_per_token > 0
    assert results[1].text == tiny.generate(PROMPTS[0], 60, stop=[stop]).text


def test_nothing_starts_if_one_of_several_prompts_is_wrong(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def submitted(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(llm.network.stage.graphs, "submit", submitted)
    with pytest.raises(ArcmtpError, match="the prompt is empty"):
        llm.generate(["import os", ""])
    with pytest.raises(ArcmtpError, match="token id -1"):
        llm.generate([[1], [-1]])
    assert llm.scheduler.free == llm.parallel


@pytest.mark.parametrize("prompt", [5, None, [1, "x"], [1.5], ["x", 5], [[1], None]])
def test_what_is_no_prompt_is_refused(tiny: LLM, prompt: Any) -> None:
    with pytest.raises(ArcmtpError, match="a prompt must be text, a list of token ids or a list of messages"):
        tiny.generate(prompt)


def test_chat_answers_messages(tiny: LLM) -> None:
    for thinking in (True, False):
        answer = tiny.chat(MESSAGES, max_tokens=12, logprobs=1, enable_thinking=thinking)
        assert answer.prompt_ids == tiny.prompt_ids(MESSAGES, enable_thinking=thinking)
        assert answer.ids == tiny.generate(MESSAGES, 12, enable_thinking=thinking).ids
        assert answer.logprobs is not None and len(answer.logprobs) == 12


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hello", "messages: expected a non-empty list of objects with role and content"),
        ([], "messages: expected a non-empty list of objects with role and content"),
        ([1, 2], r"messages\[0\]: expected an object with role and content"),
        ([{"content": "x"}], r"messages\[0\].role: expected a string"),
    ],
)
def test_chat_refuses_what_are_no_messages(tiny: LLM, messages: Any, message: str) -> None:
    with pytest.raises(ArcmtpError, match=message):
        tiny.chat(messages)


def test_calls_from_several_threads_queue_and_say_what_they_say_alone(llm: LLM, tiny: LLM) -> None:
    alone = {prompt: tiny.generate(prompt, 24, sampling=WARM) for prompt in PROMPTS}

    def ask(index: int) -> bool:
        prompt, draw = PROMPTS[index % len(PROMPTS)], random.Random(index)
        draft = draw.choice([0, 2, 3])
        if index % 3 == 0:
            result = llm.generate(prompt, 24, sampling=WARM, draft=draft)
        elif index % 3 == 1:
            result = llm.generate([prompt, prompt], 24, sampling=WARM, draft=draft)[1]
        else:
            stream = llm.stream(prompt, 24, sampling=WARM, draft=draft)
            begun = [next(stream) for _ in range(draw.randrange(20))]
            if draw.random() < 0.3:
                stream.close()
                ids = [chunk.id for chunk in [*begun, *stream]]
                return ids == stream.result.ids == alone[prompt].ids[: len(ids)]
            assert [chunk.id for chunk in [*begun, *stream]] == stream.result.ids
            result = stream.result
        return (result.ids, result.token_logprobs) == (alone[prompt].ids, alone[prompt].token_logprobs)

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(ask, range(36), timeout=2 * PATIENCE))
    assert llm.scheduler.free == llm.parallel


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    """The thread, and what its work has raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, raised


def test_a_stream_can_be_closed_while_another_thread_iterates(llm: LLM, tiny: LLM) -> None:
    stream, chunks, begun = llm.stream("import os", 900, draft=0), list[Any](), threading.Event()

    def iterate() -> None:
        for chunk in stream:
            chunks.append(chunk.id)
            begun.set()

    thread, raised = in_thread(iterate)
    assert begun.wait(PATIENCE)
    stream.close()
    thread.join(PATIENCE)
    assert not thread.is_alive() and not raised
    assert stream.result.finish_reason is None and 0 < len(chunks) < 900
    assert chunks == stream.result.ids == tiny.generate("import os", 900, draft=0).ids[: len(chunks)]
    assert llm.scheduler.free == llm.parallel


def test_a_stream_can_be_closed_while_it_waits_for_a_place(llm: LLM) -> None:
    """Another thread's streams hold every place, and nobody asks these for more."""
    holding = [llm.stream("import os", 900, draft=0) for _ in range(llm.parallel)]
    for stream in holding:
        next(stream)
    waiting, waits = llm.stream("class", 5), threading.Event()

    def iterate() -> None:
        waits.set()
        assert list(waiting) == []

    thread, raised = in_thread(iterate)
    assert waits.wait(PATIENCE)
    waiting.close()
    thread.join(PATIENCE)
    assert not thread.is_alive() and not raised
    for stream in holding:
        stream.close()
    assert llm.scheduler.free == llm.parallel


def test_closing_the_llm_ends_what_other_threads_do() -> None:
    llm, begun = LLM(device="cpu", ctx=CONTEXT), threading.Barrier(4)

    def ask() -> None:
        stream = llm.stream("import os", 900, draft=0)
        stream.start()
        begun.wait(PATIENCE)
        list(stream)

    threads = [in_thread(ask) for _ in range(3)]
    begun.wait(PATIENCE)
    llm.close()
    for thread, raised in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert len(raised) == 1 and isinstance(raised[0], ArcmtpError), raised
    with pytest.raises(ArcmtpError, match="this LLM is closed"):
        llm.generate("import os")


def test_an_error_in_one_threads_turn_reaches_all_and_the_next_call_works(
    llm: LLM, tiny: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, left = llm.network.stage.graphs.submit, [20]

    def fails_once(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise RuntimeError("UR_RESULT_ERROR_DEVICE_LOST")
        return submit(*arguments, **options)

    streams = [llm.stream("import os", 200, draft=0) for _ in range(llm.parallel)]
    for stream in streams:
        stream.start()
    monkeypatch.setattr(llm.network.stage.graphs, "submit", fails_once)
    threads = [in_thread(partial(list, stream)) for stream in streams]
    for thread, _ in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    errors = [str(error) for _, raised in threads for error in raised]
    assert len(errors) == llm.parallel and any("DEVICE_LOST" in error for error in errors)
    assert all("DEVICE_LOST" in error or "this generation has ended" in error for error in errors)
    assert llm.generate("class", 9).ids == tiny.generate("class", 9).ids
