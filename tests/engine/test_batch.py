"""Several generations side by side: each says what it says alone, to the bit, whatever runs beside it."""

import dataclasses
import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from arcmtp import LLM, ArcmtpError, Generation, SamplingOptions
from arcmtp.engine.batch import Batch
from arcmtp.engine.request import Request as ScoredRequest
from arcmtp.engine.scheduler import CHUNK_ROWS_BESIDE
from tests.engine.conftest import finished, poison

WARM = SamplingOptions(temperature=0.9, top_p=0.95, repetition_penalty=1.2, frequency_penalty=0.3, seed=3)
BIASED = SamplingOptions(logit_bias={300: 4.0, 301: -100}, presence_penalty=0.5)


@pytest.fixture(scope="module")
def four() -> Iterator[LLM]:
    with LLM(device="cpu", ctx=1024, parallel=4, draft=2) as llm:
        yield llm


@pytest.fixture(scope="module")
def four_some() -> Iterator[LLM]:
    """Drafts of some tokens, in 4-bit weights."""
    with LLM(device="cpu", ctx=1024, parallel=4, draft_vocab=900, draft_requant="int4", draft=2) as llm:
        yield llm


@pytest.fixture(scope="module")
def one(four: LLM) -> Iterator[LLM]:
    """What runs alone and from cold: another network, with one slot, which keeps no checkpoints."""
    with LLM(device="cpu", ctx=1024, draft=2, cache_mib=0, cache_host_mib=0) as llm:
        yield llm


@dataclasses.dataclass
class Request:
    prompt: Sequence[int]
    max_tokens: int
    options: dict[str, Any]


def requests(llm: LLM, text: str, count: int, draw: random.Random) -> list[Request]:
    """Of all kinds and lengths."""
    ids = llm.tokenize(text)
    made = []
    for _ in range(count):
        begin, length = draw.randrange(len(ids) - 400), draw.choice([1, 7, 30, 64, 130, 300])
        sampling = draw.choice([SamplingOptions(), WARM, dataclasses.replace(WARM, seed=draw.randrange(99)), BIASED])
        options = {"sampling": sampling, "logprobs": draw.choice([0, 0, 3]), "draft": draw.choice([0, 2, 2, 3, 7])}
        made.append(Request(ids[begin : begin + length], draw.choice([1, 2, 17, 40]), options))
    return made


def said(result: Generation) -> tuple[Any, ...]:
    accepted = [(call.cycle, call.index, call.accepted) for call in result.draft_calls]
    return result.ids, result.text, result.token_logprobs, result.logprobs, result.finish_reason, accepted


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_requests_of_all_kinds_side_by_side_say_what_they_say_alone(
    four: LLM, one: LLM, text: str, monkeypatch: pytest.MonkeyPatch, seed: int, ahead: int
) -> None:
    """ahead: cycles that the device has before one is read, as a GPU has."""
    monkeypatch.setattr(Batch, "_ahead", property(lambda batch: 0 if any(m.top for m in batch._members) else ahead))
    draw = random.Random(seed)
    for request, result in side_by_side(four, requests(four, text, 14, draw), draw):
        assert said(result) == said(one.generate(request.prompt, request.max_tokens, **request.options)), request
    assert four.scheduler.free == 4


@pytest.mark.parametrize("seed", [1, 2])
def test_requests_side_by_side_say_the_same_where_drafts_are_of_some_tokens(
    four_some: LLM, one: LLM, text: str, seed: int
) -> None:
    draw = random.Random(seed)
    for request, result in side_by_side(four_some, requests(one, text, 14, draw), draw):
        want = one.generate(request.prompt, request.max_tokens, **request.options)
        assert said(result)[:-1] == said(want)[:-1], request  # other drafts are accepted


def side_by_side(llm: LLM, waiting: list[Request], draw: random.Random) -> Iterator[tuple[Request, Generation]]:
    """Requests that begin while others go on, and their results, but for those whose client goes away."""
    running: list[tuple[Request, Any]] = []
    while waiting or running:
        while waiting and llm.scheduler.free and draw.random() < 0.7:
            request = waiting.pop()
            stream = llm.stream(request.prompt, request.max_tokens, **request.options)
            stream.start()
            running.append((request, stream))
        llm.scheduler.advance()
        for request, stream in list(running):
            if not stream.finished and draw.random() < 0.02:
                stream.close()  # a client has gone
                running.remove((request, stream))
            elif stream.finished:
                running.remove((request, stream))
                yield request, stream.result


@pytest.mark.parametrize("draft", range(8))
def test_every_row_count_gives_the_same(four: LLM, one: LLM, text: str, draft: int) -> None:
    ids = four.tokenize(text)
    prompts = [ids[at : at + 20 + at // 50] for at in (0, 150, 400, 700)]
    want = [said(one.generate(prompt, 30, draft=draft)) for prompt in prompts]
    for runs in (2, 3, 4):
        streams = [four.stream(prompt, 30, draft=draft) for prompt in prompts[:runs]]
        for stream in streams:
            stream.start()
        assert [said(finished(stream)) for stream in streams] == want[:runs]


def test_more_streams_than_a_step_has_rows_for_take_turns(
    four: LLM, one: LLM, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arcmtp.engine.scheduler.most_sequences", lambda draft: 3)
    prompts = [four.tokenize(text)[at : at + 20] for at in (5, 155, 405, 705)]
    streams = [four.stream(prompt, 30, draft=3) for prompt in prompts]
    for stream in streams:
        stream.start()
    for prompt, stream in zip(prompts, streams, strict=True):
        assert said(finished(stream)) == said(one.generate(prompt, 30, draft=3))


def test_more_streams_than_a_kernel_is_compiled_for(one: LLM, text: str) -> None:
    """Of twelve streams a draft call has twelve rows and a step 24, both counted when they run."""
    with LLM(device="cpu", ctx=128, draft=1, parallel=12) as twelve:
        prompts = [twelve.tokenize(text)[at : at + 10 + at // 60] for at in range(0, 480, 40)]
        streams = [twelve.stream(prompt, 20) for prompt in prompts]
        for stream in streams:
            stream.start()
        results = [finished(stream) for stream in streams]
    for prompt, result in zip(prompts, results, strict=True):
        assert said(result) == said(one.generate(prompt, 20, draft=1))


def test_graphs_give_the_same_side_by_side(four: LLM, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = four.tokenize(text)
    found = []
    for enabled in (False, True):
        monkeypatch.setattr(four.network.stage.graphs, "enabled", enabled)
        streams = [four.stream(ids[at : at + 25], 30, draft=2, logprobs=1) for at in (0, 500, 900)]
        for stream in streams:
            stream.start()
        found.append([said(finished(stream)) for stream in streams])
    assert found[0] == found[1]
    assert any("of 3 sequences" in name for name in four.network.stage.graphs.captured)


def test_streams_that_decode_go_on_between_chunks_of_a_prompt(four: LLM, text: str) -> None:
    ids = four.tokenize(text)
    decoding, reading = four.stream(ids[:10], 200, draft=0), four.stream(ids[1:901], 1)
    next(decoding)
    reading.start()
    turns = 0
    while not reading.finished:
        four.scheduler.advance()
        turns += 1
    assert turns == -(-900 // CHUNK_ROWS_BESIDE)
    assert len(decoding.take_chunks()) == turns
    decoding.close()


def test_a_short_prompt_does_not_wait_for_a_long_one(four: LLM, text: str) -> None:
    ids = four.tokenize(text)
    streams = [four.stream(ids[3:1003], 3), four.stream(ids[2000:2020], 3)]
    for stream in streams:
        stream.start()
    while not streams[1].take_chunks():
        four.scheduler.advance()
    assert not streams[0].take_chunks()
    for stream in streams:
        stream.close()


def test_chunks_of_streams_in_turn(four: LLM, one: LLM) -> None:
    prompts = ("import os", "def __len__(self):")
    streams = [four.stream(prompt, 9, draft=0) for prompt in prompts]
    texts = ["".join(parts) for parts in zip(*([a.text, b.text] for a, b in zip(*streams, strict=True)), strict=True)]
    assert texts == [one.generate(prompt, 9).text for prompt in prompts]


def test_more_streams_than_there_are_slots_wait_in_their_order(four: LLM, one: LLM) -> None:
    prompts = ["import os", "class", "def f(x):", "x = [", "for i in", "#"]
    streams = [four.stream(prompt, 5 + 9 * (index % 3), draft=0) for index, prompt in enumerate(prompts)]
    for stream in streams:
        stream.start()
    assert [stream.sequence.state for stream in streams] == ["reading"] * 4 + ["waiting"] * 2
    streams[1].close()
    assert [stream.sequence.state for stream in streams[3:]] == ["reading"] * 2 + ["waiting"]
    for index, stream in enumerate(streams):
        if index != 1:
            assert finished(stream).ids == one.generate(prompts[index], stream.sequence.limit).ids
    assert four.scheduler.free == 4


def test_a_conversation_goes_on_in_its_own_slot(four: LLM, one: LLM, text: str) -> None:
    ids = four.tokenize(text)
    talks = [ids[at : at + 60] for at in (0, 200, 400, 600)]
    four.new_sequence()
    for turn, index in itertools.product(range(3), (2, 0, 3, 1)):
        result = four.generate(talks[index], 12, sampling=WARM)
        assert (result.statistics.cached_tokens > 0) == (turn > 0)
        one.new_sequence()
        assert said(result) == said(one.generate(talks[index], 12, sampling=WARM))
        talks[index] = [*talks[index], *result.ids, *ids[800 + turn : 820 + turn]]


def test_what_several_prompts_begin_with_is_evaluated_once(four: LLM, one: LLM, text: str) -> None:
    """The first prompt takes two turns, in which the others that begin so wait; what they go on from is a copy."""
    asked, other = ([{"role": "user", "content": text[at : at + 2600]}] for at in (0, 3000))
    prompts = [four.prompt_ids(messages) for messages in (asked, other, asked, asked)]
    four.new_sequence()
    poison(four.network)  # what is not copied, keys of drafts too, is NaN
    streams = [four.stream(prompt, 40, draft=2) for prompt in prompts]
    for stream in streams:
        stream.start()
    results = [finished(stream) for stream in streams]
    boundary = len(prompts[0]) - 1 - prompts[0][::-1].index(prompts[0][0])  # where the answer begins
    assert boundary > four.network.chunk_rows
    assert [result.statistics.cached_tokens for result in results] == [0, 0, boundary, boundary]
    for prompt, result in zip(prompts, results, strict=True):
        one.new_sequence()
        assert said(result) == said(one.generate(prompt, 40, draft=2))


@pytest.mark.parametrize("ahead", [0, 1])
def test_prompts_are_scored_beside_others_as_alone(
    four: LLM, one: LLM, text: str, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    """A talk that is scored takes the slot of no other, and what decodes beside it goes on as alone."""
    # As on a GPU: no cycle is ahead of one whose likeliest tokens the host has still to read.
    monkeypatch.setattr(Batch, "_ahead", property(lambda batch: 0 if any(one.top for one in batch._members) else ahead))
    ids = four.tokenize(text)
    talk, beside, prompt = ids[:60], ids[100:120], ids[:300]
    four.generate(talk, 1)
    decoding = four.stream(beside, 60, draft=2)
    next(decoding)
    scored = [four.stream_request(ScoredRequest(prompt, 5, top, score_prompt=True)) for top in (2, 0)]
    for stream in scored:
        stream.start()
    results, said_beside = [finished(stream) for stream in scored], said(finished(decoding))
    assert four.generate([*talk, 7], 1).statistics.cached_tokens == 60
    for stream, result, top in zip(scored, results, (2, 0), strict=True):
        one.new_sequence()
        alone = one.stream_request(ScoredRequest(prompt, 5, top, score_prompt=True))
        assert said(result) == said(finished(alone))
        for name in ("logprobs", "top_ids", "top_logprobs"):
            assert (getattr(stream.prompt_scores, name) == getattr(alone.prompt_scores, name)).all()
    one.new_sequence()
    assert said_beside == said(one.generate(beside, 60, draft=2))


@pytest.mark.parametrize("parallel", [0, 33])
def test_parallel_is_limited(parallel: int) -> None:
    with pytest.raises(ArcmtpError, match=f"parallel is {parallel}; it must be 1 to 32"):
        LLM(device="cpu", parallel=parallel)
