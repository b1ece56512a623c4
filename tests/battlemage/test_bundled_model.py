"""The bundled model on the emulated card, token by token the CPU device's in the same geometry."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from arcmtp import SamplingOptions
from arcmtp.runtime.card import cards
from arcmtp.runtime.device import Device
from tests.battlemage.pair import Pair
from tests.engine.test_drafting import LENGTHS, WARM
from tests.engine.test_golden import MAX_TOKENS, differences

pytestmark = pytest.mark.emulated


@pytest.fixture(scope="module")
def pair(emulated_card: Device) -> Iterator[Pair]:
    pair = Pair(emulated_card, ctx=256, draft=3)
    yield pair
    pair.close()


def test_every_card_runs_in_this_geometry(emulated_card: Device) -> None:
    """Otherwise what is tested here says nothing of the others."""
    assert {card.geometry for card in cards().values() if card.hardware} == {emulated_card.card.geometry}


def test_greedy_ids_and_log_probabilities_of_the_golden_prompts(pair: Pair, golden: dict[str, Any]) -> None:
    off = []
    for prompt, reference in zip(golden["prompts"], golden["models"]["tiny-qwen36moe-q4_0.gguf"], strict=True):
        (result,) = pair.generate(prompt["tokens"], max_tokens=MAX_TOKENS, logprobs=100, draft=0)
        assert result.ids[0] == reference["tokens"][0]
        off += differences(result, reference)
    assert np.mean(off) <= 0.05  # of llama.cpp's, as on the CPU


@pytest.mark.parametrize("graphs", [False, True], ids=["launches", "graphs"])
@pytest.mark.parametrize("sampling", [SamplingOptions(), WARM], ids=["greedy", "warm"])
@pytest.mark.parametrize("draft", LENGTHS)
def test_drafts_of_any_length(
    pair: Pair, text: str, monkeypatch: pytest.MonkeyPatch, draft: int, sampling: SamplingOptions, graphs: bool
) -> None:
    monkeypatch.setattr(pair.card.network.stage.graphs, "enabled", graphs)
    prompt = pair.card.tokenize(text)[:20]
    (result,) = pair.generate(prompt, max_tokens=16, draft=draft, sampling=sampling, logprobs=3)
    assert (result.statistics.graph_replays > 0) == graphs


def test_drafts_of_some_tokens_in_4_bit_weights(emulated_card: Device, text: str) -> None:
    pair = Pair(emulated_card, ctx=256, draft=3, draft_vocab=1000, draft_requant="int4")
    prompt = pair.card.tokenize(text)[:20]
    for sampling in (SamplingOptions(), WARM):
        pair.generate(prompt, max_tokens=16, draft=3, sampling=sampling)
    pair.close()


def test_four_sequences_at_once(emulated_card: Device, text: str) -> None:
    pair = Pair(emulated_card, ctx=256, draft=3, parallel=4)
    ids = pair.card.tokenize(text)
    prompts = [ids[at : at + 10 + at // 50] for at in (0, 150, 400, 700)]
    for draft, sampling in ((0, SamplingOptions()), (3, WARM)):
        pair.generate(*prompts, max_tokens=12, draft=draft, sampling=sampling)
    pair.close()
