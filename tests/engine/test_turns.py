"""A prompt that goes on from what the device holds evaluates only what is new, and says the same as from cold."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from arcmtp import LLM, Generation, SamplingOptions
from arcmtp.model.stage import LaunchList

WARM = SamplingOptions(temperature=0.8, top_k=40, presence_penalty=0.4, repetition_penalty=1.1, seed=5)


def cold(llm: LLM, prompt: Sequence[int], draft: int) -> Generation:
    llm.new_sequence()
    result = llm.generate(prompt, 24, logprobs=2, sampling=WARM, draft=draft)
    assert result.statistics.cached_tokens == 0
    return result


def same(one: Generation, other: Generation) -> bool:
    """Equal to the last draft: what was drafted depends on the MTP block's cache."""
    drafts = [[call.accepted for call in result.draft_calls] for result in (one, other)]
    return drafts[0] == drafts[1] and (one.ids, one.token_logprobs, one.logprobs) == (
        other.ids, other.token_logprobs, other.logprobs
    )  # fmt: skip


@pytest.mark.parametrize("draft", [0, 3])
def test_what_goes_on_exactly_evaluates_only_new_tokens(tiny: LLM, text: str, draft: int) -> None:
    ids = tiny.tokenize(text)
    prompt, evaluated = ids[:70], 0
    tiny.new_sequence()
    for turn in range(4):
        result = tiny.generate(prompt, 24, logprobs=2, sampling=WARM, draft=draft)
        assert result.statistics.cached_tokens == evaluated
        # A limit ends a generation with a token that has only been chosen, an end of generation behind one.
        evaluated = len(prompt) + len(result.ids) - (result.finish_reason == "length")
        assert same(result, cold(tiny, prompt, draft))
        prompt = [*prompt, *result.ids, *ids[100 + turn : 130 + 7 * turn]]


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("draft", [0, 3])
def test_a_chat_goes_on_from_its_last_message_when_the_answer_is_rendered_otherwise(
    tiny: LLM, thinking: bool, draft: int
) -> None:
    messages = [{"role": "user", "content": "How do I read a file line by line?"}]
    tiny.new_sequence()
    reused = []
    for question in ("And how do I write one?", "Is that safe?", "Why?"):
        prompt = tiny.prompt_ids(messages, enable_thinking=thinking)
        result = tiny.generate(prompt, 24, logprobs=2, sampling=WARM, draft=draft)
        reused.append(result.statistics.cached_tokens)
        boundary = len(prompt) - 1 - prompt[::-1].index(tiny.tokenize("<|im_start|>")[0])
        messages += [{"role": "assistant", "content": "Another answer."}, {"role": "user", "content": question}]
        following = tiny.prompt_ids(messages, enable_thinking=thinking)
        assert following[:boundary] == prompt[:boundary]
        again = tiny.generate(following, 24, logprobs=2, sampling=WARM, draft=draft)
        assert again.statistics.cached_tokens >= boundary
        assert same(again, cold(tiny, following, draft))
        assert same(result, cold(tiny, prompt, draft))
        tiny.generate(prompt, 24, draft=draft)
    assert reused[0] == 0 and min(reused[1:]) > 0


def test_a_prompt_and_what_begins_its_answer_are_one_chunk(tiny: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    submit, chunks = tiny.network.stage.submit, list[str]()

    def noted(launches: LaunchList, as_graph: bool = True) -> object:
        chunks.extend([launches.name] * (launches.name == "chunk"))
        return submit(launches, as_graph)

    monkeypatch.setattr(tiny.network.stage, "submit", noted)
    prompt = tiny.prompt_ids([{"role": "user", "content": "How do I read a file?"}])
    tiny.new_sequence()
    tiny.generate(prompt, 4)
    assert len(chunks) == 1


def test_a_last_state_is_kept_only_where_evaluating_its_tokens_again_takes_longer(tiny: LLM, text: str) -> None:
    ids, counts = tiny.tokenize(text), tiny.scheduler.cache.counts
    saved = []
    for length in (70, 24):  # tokens behind the checkpoint before the prompt's last one
        tiny.new_sequence()
        tiny.generate(ids[:40], length)
        before = counts.saved
        tiny.generate(ids[300:301], 1)
        saved.append(counts.saved - before)
    assert saved == [1, 0]


def test_conversations_in_turn_do_not_see_each_other(tiny: LLM, text: str) -> None:
    ids = tiny.tokenize(text)
    prompts = [ids[:40], ids[300:380], ids[:40]]
    expected = [cold(tiny, prompt, 2) for prompt in prompts]
    for prompt, want in zip(prompts * 2, expected * 2, strict=True):
        assert same(tiny.generate(prompt, 24, logprobs=2, sampling=WARM, draft=2), want)


def test_the_same_prompt_again_evaluates_its_last_token_alone(tiny: LLM, text: str) -> None:
    prompt = tiny.tokenize(text)[:600]
    first = cold(tiny, prompt, 2)
    again = tiny.generate(prompt, 24, logprobs=2, sampling=WARM, draft=2)
    assert again.statistics.cached_tokens == 599 and same(first, again)


@pytest.mark.parametrize("draft", [0, 3])
def test_a_stream_left_early_is_gone_on_from_where_the_device_is(tiny: LLM, text: str, draft: int) -> None:
    ids = tiny.tokenize(text)
    tiny.new_sequence()
    stream = tiny.stream(ids[:50], 40, sampling=WARM, draft=draft)
    given = [chunk.id for _, chunk in zip(range(9), stream, strict=False) if chunk.id is not None]
    prompt = [*ids[:50], *given, *ids[200:220]]
    result = tiny.generate(prompt, 24, logprobs=2, sampling=WARM, draft=draft)
    assert result.statistics.cached_tokens in (49, 50 + len(given) - 1)  # it may have been ahead
    assert same(result, cold(tiny, prompt, draft))


@pytest.mark.parametrize("tokens", [600, 5])
def test_what_is_interrupted_leaves_nothing_behind(
    tiny: LLM, text: str, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    ids, submit, count = tiny.tokenize(text)[:tokens], tiny.network.stage.graphs.submit, itertools.count()
    tiny.new_sequence()

    def interrupted(name: str, launches: Any, as_graph: bool = True) -> Any:
        event = submit(name, launches, as_graph)
        if next(count) == 7:  # the pieces of a prompt, and some of the second cycle
            raise KeyboardInterrupt
        return event

    with monkeypatch.context() as patch:
        patch.setattr(tiny.network.stage.graphs, "submit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tiny.generate(ids, 20, draft=2)
    result = tiny.generate(ids, 24, logprobs=2, sampling=WARM, draft=2)
    assert result.statistics.cached_tokens == 0
    assert same(result, cold(tiny, ids, 2))
