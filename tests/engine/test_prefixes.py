"""Conversations in any order, with small budgets: text as from cold, and only what is new is evaluated."""

import dataclasses
import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest

from arcmtp import LLM, Generation, SamplingOptions
from arcmtp.engine.prefix_cache import common
from tests.engine.conftest import finished

WARM = SamplingOptions(temperature=0.9, top_p=0.95, repetition_penalty=1.1, seed=7)
REQUESTS = 26

Messages = list[dict[str, str]]


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(device="cpu", ctx=2048, parallel=4, draft=2) as llm:
        yield llm


@pytest.fixture(scope="module", params=[("f16", 7), ("turbo3", 5)], ids=["f16", "turbo3"])
def small(request: pytest.FixtureRequest) -> Iterator[LLM]:
    """Room for about six checkpoints on the device and as many in host memory."""
    kv_type, mib = request.param
    with LLM(
        device="cpu", ctx=1024, parallel=3, draft=2, kv_type=kv_type, cache_mib=mib, cache_host_mib=mib
    ) as llm:
        yield llm


@dataclasses.dataclass
class Asked:
    prompt: list[int]
    options: dict[str, Any]
    result: Generation | None = None


def said(result: Generation | None) -> tuple[Any, ...]:
    assert result is not None
    accepted = [(call.cycle, call.index, call.accepted) for call in result.draft_calls]
    return result.ids, result.token_logprobs, result.logprobs, accepted


class Chats:
    """Conversations with two system messages, changed in every way that a client can change them."""

    def __init__(self, llm: LLM, text: str, seed: int) -> None:
        self._llm, self._text, self.draw = llm, text, random.Random(seed)
        self.chats: list[Messages] = [[self.message("system", 900 * (i % 2), 700)] for i in range(5)]

    def message(self, role: str, begin: int, length: int) -> dict[str, str]:
        return {"role": role, "content": self._text[begin : begin + length]}

    def next(self) -> Asked:
        draw, chat = self.draw, self.draw.choice(self.chats)
        way = draw.choice(["goes on", "goes on", "goes on", "again", "edit", "branch", "text"])
        if len(chat) < 2 or (way == "goes on" and chat[-1]["role"] == "assistant"):
            chat.append(self.message("user", draw.randrange(3000), draw.choice([20, 150, 300])))
        elif way == "goes on":
            chat.append(self.message("assistant", draw.randrange(3000), 60))
            chat.append(self.message("user", draw.randrange(3000), 60))
        elif way == "edit":
            place = draw.randrange(1, len(chat))
            chat[place] = self.message(chat[place]["role"], draw.randrange(3000), 80)
        elif way == "branch":
            self.chats[draw.randrange(5)] = chat[: draw.randrange(1, len(chat) + 1)]
        if way == "text":
            prompt = self._llm.tokenize(self._text[: draw.choice([40, 400, 1600])])
        else:
            prompt = self._llm.prompt_ids(chat, enable_thinking=False)
        if len(prompt) > 900:
            del chat[1:]
            return self.next()
        options = {"sampling": draw.choice([SamplingOptions(), WARM]), "logprobs": draw.choice([0, 2])}
        return Asked(prompt, {**options, "max_tokens": draw.choice([1, 6, 12]), "draft": draw.choice([0, 2, 2])})


def test_any_order_of_conversations_says_what_it_says_from_cold(small: LLM, text: str) -> None:
    small.new_sequence()
    cache, chats = small.scheduler.cache, Chats(small, text, seed=1)
    before, asked = dataclasses.replace(cache.counts), list[Asked]()
    running: list[tuple[Asked, Any]] = []
    while len(asked) < REQUESTS or running:
        while len(asked) < REQUESTS and len(running) < 4 and chats.draw.random() < 0.6:
            asked.append(chats.next())
            running.append((asked[-1], small.stream(asked[-1].prompt, **asked[-1].options)))
            running[-1][1].start()
        if running:
            small.scheduler.advance()
        for one, stream in list(running):
            if stream.finished:
                one.result = stream.result
                running.remove((one, stream))
            elif chats.draw.random() < 0.01:
                stream.close()
                running.remove((one, stream))
    after = cache.counts
    assert after.hits > before.hits and after.moved > before.moved and after.evicted > before.evicted
    assert small.scheduler.free == 3
    for one in asked:
        if one.result is not None:
            small.new_sequence()
            assert said(small.generate(one.prompt, **one.options)) == said(one.result), one
    assert small.scheduler.cache is cache
    small.new_sequence()
    assert cache.device_bytes == cache.host_bytes == 0


@pytest.mark.parametrize("at_once", [1, 6])
def test_chats_with_one_system_message_evaluate_little_but_what_is_new(llm: LLM, text: str, at_once: int) -> None:
    """Six chats in four slots, three rounds: 19,782 tokens of prompts when each is evaluated from its beginning."""
    llm.new_sequence()
    system = {"role": "system", "content": text[:3500]}
    chats = [[system, {"role": "user", "content": text[60 * i : 60 * i + 130]}] for i in range(6)]
    known: list[list[int]] = []
    evaluated, new, whole = 0, 0, 0
    for turn, first in itertools.product(range(3), range(0, 6, at_once)):
        asked = chats[first : first + at_once]
        streams = [llm.stream(chat, 12, enable_thinking=False) for chat in asked]
        for stream in streams:
            stream.start()
        for chat, result in zip(asked, [finished(stream) for stream in streams], strict=True):
            prompt = result.prompt_ids
            new += len(prompt) - max((common(prompt, before) for before in known), default=0)
            evaluated += len(prompt) - result.statistics.cached_tokens
            whole += len(prompt)
            known.append([*prompt, *result.ids])
            chat.append({"role": "assistant", "content": result.text})
            chat.append({"role": "user", "content": text[40 * turn : 40 * turn + 90]})
    print(f"evaluated {evaluated} of {whole} tokens, {new} are new")
    assert min(len(ids) for ids in known) > 1000 and whole > 18 * 1000
    assert evaluated <= 1.2 * new


def test_requests_of_which_no_more_is_heard_leave_a_conversation_there(small: LLM, text: str) -> None:
    small.new_sequence()
    chat = [{"role": "system", "content": text[:900]}, {"role": "user", "content": "Why?"}]
    first = small.chat(chat, max_tokens=6)
    for place in range(4):
        small.chat([{"role": "user", "content": text[300 * place : 300 * place + 900]}], max_tokens=6)
    chat += [{"role": "assistant", "content": "So."}, {"role": "user", "content": "And then?"}]
    again = small.chat(chat, max_tokens=6)
    shared = common(first.prompt_ids, again.prompt_ids)
    assert shared - 10 <= again.statistics.cached_tokens < len(again.prompt_ids)


def test_a_long_prompt_leaves_checkpoints_on_its_way(llm: LLM, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arcmtp.engine.sequence.CHECKPOINT_EVERY", 300)
    ids = llm.tokenize(text)[:1000]
    llm.new_sequence()
    llm.generate(ids, 2)
    changed = [*ids[:700], *ids[300:500]]
    assert llm.generate(changed, 2).statistics.cached_tokens == 600
    assert llm.generate([*ids[:700], *ids[100:300]], 2).statistics.cached_tokens == 700  # where the two parted


def test_without_memory_for_it_nothing_is_kept(text: str) -> None:
    with LLM(device="cpu", ctx=1024, draft=2, cache_mib=0, cache_host_mib=0) as none:
        ids = none.tokenize(text)
        result = none.generate(ids[:300], 4)
        other = none.generate(ids[200:300], 4)
        again = none.generate([*ids[:300], *result.ids], 4)
        goes_on = none.generate([*ids[:300], *result.ids, *again.ids, 5], 4)
        cached = [one.statistics.cached_tokens for one in (result, other, again, goes_on)]
        assert cached[:3] == [0, 0, 0] and cached[3] > 300
        assert none.memory.pages_bytes == 0 and len(none.scheduler.cache) == 0
