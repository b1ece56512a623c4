"""Ids and log-probabilities of whole models against llama.cpp's for the same files."""

from typing import Any

import numpy as np
import pytest

from arcmtp import LLM, Generation
from arcmtp.selftest.parts.golden import MEAN_OFF, logprob_differences, parting

MAX_TOKENS = 48  # as many as llama.cpp was asked for
CLOSE = 0.01  # nat between llama.cpp's first two candidates: below it, another order of summation may choose the other


def generate(llm: LLM, prompt: dict[str, Any]) -> Generation:
    return llm.generate(prompt["tokens"], max_tokens=MAX_TOKENS, logprobs=100)


@pytest.fixture(scope="module")
def f16_results(tiny_f16: LLM, golden: dict[str, Any]) -> list[Generation]:
    return [generate(tiny_f16, prompt) for prompt in golden["prompts"]]


@pytest.fixture(scope="module")
def q4_0_results(tiny: LLM, golden: dict[str, Any]) -> list[Generation]:
    return [generate(tiny, prompt) for prompt in golden["prompts"]]


def test_chat_messages_become_llama_cpps_prompt_ids(tiny: LLM, golden: dict[str, Any]) -> None:
    for prompt in golden["prompts"]:
        if prompt["kind"] == "chat":
            assert tiny.prompt_ids(prompt["messages"], enable_thinking=prompt["thinking"]) == prompt["tokens"]
        else:
            assert tiny.prompt_ids(prompt["text"]) == prompt["tokens"]


def test_f16_weights_give_llama_cpps_greedy_text(f16_results: list[Generation], golden: dict[str, Any]) -> None:
    for result, reference in zip(f16_results, golden["models"]["tiny-qwen36moe-f16.gguf"], strict=True):
        ended = reference["stop"] == "eos"
        ids = reference["tokens"][:-1] if ended else reference["tokens"]
        if (position := parting(result.ids, ids)) < len(result.ids):
            assert reference["margin"][position] <= CLOSE, f"position {position} of {result.text!r}"
        else:
            expected = (ids, reference["text"], "stop" if ended else "length")
            assert (result.ids, result.text, result.finish_reason) == expected


def test_f16_weights_give_llama_cpps_log_probabilities(f16_results: list[Generation], golden: dict[str, Any]) -> None:
    references = golden["models"]["tiny-qwen36moe-f16.gguf"]
    off = np.concatenate([logprob_differences(*pair) for pair in zip(f16_results, references, strict=True)])
    assert len(off) > 200
    assert np.median(off) <= 0.005
    assert np.quantile(off, 0.95) <= 0.02  # near-ties of the router make the rest


@pytest.mark.avx2
def test_q4_0_weights_give_llama_cpps_first_ids_and_nearly_its_log_probabilities(
    q4_0_results: list[Generation], golden: dict[str, Any]
) -> None:
    references = golden["models"]["tiny-qwen36moe-q4_0.gguf"]
    for result, reference in zip(q4_0_results, references, strict=True):
        assert result.ids[0] == reference["tokens"][0]
    off = np.concatenate([logprob_differences(*pair) for pair in zip(q4_0_results, references, strict=True)])
    assert np.mean(off) <= MEAN_OFF
