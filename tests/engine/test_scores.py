"""Log-probabilities of a prompt's tokens: to the bit those that generating gives, however the prompt is read."""

import numpy as np
import pytest

from arcmtp import LLM, Generation, SamplingOptions, Stream
from arcmtp.engine.request import Request
from arcmtp.engine.scores import Scores
from tests.engine.conftest import finished

TOP = 3


def scored(llm: LLM, prompt: list[int], max_tokens: int = 0, draft: int = 0) -> Stream:
    return llm.stream_request(Request(prompt, max_tokens, TOP, draft=draft, score_prompt=True))


def listed(scores: Scores) -> list[tuple[float, list[tuple[int, float]]]]:
    """What a generation says of its tokens, of a prompt's."""
    rows = zip(scores.top_ids.tolist(), scores.top_logprobs.tolist(), strict=True)
    top = [list(zip(ids, logprobs, strict=True)) for ids, logprobs in rows]
    return list(zip(scores.logprobs.tolist(), top, strict=True))


def of_tokens(result: Generation) -> list[tuple[float, list[tuple[int, float]]]]:
    return list(zip(result.token_logprobs, result.logprobs or [], strict=True))


@pytest.mark.parametrize("length", [1, 600])
def test_scores_are_what_generating_says(tiny: LLM, text: str, length: int) -> None:
    """A prompt of one chunk and one of two; the last chunk has the last token alone."""
    prompt = tiny.tokenize(text)[:length]
    said = tiny.generate(prompt, 21, logprobs=TOP)
    stream = scored(tiny, prompt + said.ids)
    result = finished(stream)
    assert (result.ids, result.finish_reason, result.statistics.cached_tokens) == ([], "length", 0)
    assert len(stream.prompt_scores.logprobs) == length + 20
    assert listed(stream.prompt_scores)[length - 1 :] == of_tokens(said)


def test_a_prompt_of_one_token_has_no_scores(tiny: LLM) -> None:
    stream = scored(tiny, [5], 1)
    assert len(finished(stream).ids) == 1
    assert len(stream.prompt_scores.logprobs) == 0


@pytest.mark.parametrize("draft", [0, 2])
def test_what_is_scored_is_continued_and_kept_as_if_it_were_not(tiny: LLM, text: str, draft: int) -> None:
    ids = tiny.tokenize(text)[:40]
    tiny.new_sequence()
    plain = tiny.generate(ids, 20, TOP, draft=draft)
    tiny.new_sequence()
    result = finished(scored(tiny, ids, 20, draft))
    assert of_tokens(result) == of_tokens(plain)
    assert (result.ids, result.draft_lengths) == (plain.ids, plain.draft_lengths)
    assert [call.accepted for call in result.draft_calls] == [call.accepted for call in plain.draft_calls]
    longer = ids + result.ids
    assert tiny.generate(longer, 5).statistics.cached_tokens == len(longer) - 1


def test_perplexity_scores_the_same(tiny: LLM, text: str) -> None:
    ids = tiny.tokenize(text)[:530]
    stream = scored(tiny, ids)
    finished(stream)
    assert tiny.new_sequence().score(ids, 3).tolist() == stream.prompt_scores.logprobs[2:].astype(np.float64).tolist()


def test_no_tokens_only_fill_the_cache(tiny: LLM, text: str) -> None:
    ids = tiny.tokenize(text)[:50]
    result = tiny.generate(ids, 0)
    assert (result.ids, result.text, result.finish_reason) == ([], "", "length")
    assert tiny.generate([*ids, 7], 1).statistics.cached_tokens == 50


def test_the_token_that_ends_a_generation_has_a_log_probability_too(tiny: LLM) -> None:
    end = next(iter(tiny.tokenizer.eos_ids))
    stream = tiny.stream("x", 5, 1, sampling=SamplingOptions(logit_bias={end: 100}))
    assert finished(stream).finish_reason == "stop"
    assert stream.end is not None and stream.end.id == end
    scores = scored(tiny, [*tiny.tokenize("x"), end])
    finished(scores)
    assert scores.prompt_scores.logprobs.tolist() == [stream.end.logprob]
