"""The bundled model on the emulated card, token by token the CPU device's in the same geometry."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from arcmtp import LLM, SamplingOptions
from arcmtp.runtime.card import cards
from arcmtp.runtime.device import Device
from arcmtp.runtime.memory import HostBuffer
from arcmtp.selftest.parts.golden import MEAN_OFF, logprob_differences
from tests.battlemage.pair import Pair
from tests.engine.test_batch import said
from tests.engine.test_drafting import LENGTHS, WARM
from tests.engine.test_golden import MAX_TOKENS

pytestmark = pytest.mark.emulated
RARE = (2, 4, 5, 6)  # drafts; each length has kernels of its own, which the emulated card takes long to compile


@pytest.fixture(scope="module")
def pair(emulated_card: Device) -> Iterator[Pair]:
    pair = Pair(emulated_card, ctx=256, draft=3)
    yield pair
    pair.close()


def test_every_card_runs_in_this_geometry(emulated_card: Device) -> None:
    """Otherwise what is tested here says nothing of the others; but for the room for rows of a prompt chunk."""
    geometries = {replace(card.geometry, chunk_rows=64) for card in cards().values() if card.hardware}
    assert geometries == {replace(emulated_card.card.geometry, chunk_rows=64)}


def test_greedy_ids_and_log_probabilities_of_the_golden_prompts(pair: Pair, golden: dict[str, Any]) -> None:
    off = []
    for prompt, reference in zip(golden["prompts"], golden["models"]["tiny-qwen36moe-q4_0.gguf"], strict=True):
        (result,) = pair.generate(prompt["tokens"], max_tokens=MAX_TOKENS, logprobs=100, draft=0)
        assert result.ids[0] == reference["tokens"][0]
        off += logprob_differences(result, reference)
    assert np.mean(off) <= MEAN_OFF  # of llama.cpp's, as on the CPU


@pytest.mark.parametrize("graphs", [False, True], ids=["launches", "graphs"])
@pytest.mark.parametrize("sampling", [SamplingOptions(), WARM], ids=["greedy", "warm"])
@pytest.mark.parametrize(
    "draft", [pytest.param(length, marks=pytest.mark.nightly if length in RARE else ()) for length in LENGTHS]
)
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


def test_golden_text_with_experts_in_host_memory(
    pair: Pair, emulated_card: Device, golden: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Experts that a card too small for the model leaves to the host: by launches and by graphs the card's own text.
    Checkpoints get what the model leaves, and so none."""
    memory = pair.card.memory
    of_a_layer = sum(merged.tensor.nbytes for merged in pair.card.network.stage.layers[-1].feed_forward.experts)
    needed = memory.nbytes - memory.pages_bytes
    monkeypatch.setattr(Device, "free_memory", needed - of_a_layer * 5 // 2)
    with LLM(device=emulated_card, ctx=256, draft=3, graphs=False) as small:
        assert small.memory.fits and small.memory.host_layers == 3 and small.memory.pages_bytes < of_a_layer
        assert small.memory.weights_bytes + small.memory.host_bytes == memory.weights_bytes
        experts = [merged.tensor for layer in small.network.stage.layers for merged in layer.feed_forward.experts]
        assert [isinstance(tensor.buffer, HostBuffer) for tensor in experts] == [False] * 10 + [True] * 6
        ids = golden["prompts"][0]["tokens"]
        want = [pair.card.generate(ids, max_tokens=12, logprobs=5, draft=draft) for draft in (0, 3)]
        for graphs in (False, True):
            small.network.stage.graphs.enabled = graphs
            got = [small.generate(ids, max_tokens=12, logprobs=5, draft=draft) for draft in (0, 3)]
            assert list(map(said, got)) == list(map(said, want))


def test_a_prompt_of_more_than_a_chunk(emulated_card: Device, text: str) -> None:
    rows = emulated_card.card.geometry.chunk_rows
    pair = Pair(emulated_card, ctx=rows + 64, draft=2)
    pair.generate(pair.card.tokenize(text)[: rows + 21], max_tokens=3)
    pair.close()


def test_four_sequences_at_once(emulated_card: Device, text: str) -> None:
    pair = Pair(emulated_card, ctx=256, draft=3, parallel=4)
    ids = pair.card.tokenize(text)
    prompts = [ids[at : at + 10 + at // 50] for at in (0, 150, 400, 700)]
    for draft, sampling in ((0, SamplingOptions()), (3, WARM)):
        pair.generate(*prompts, max_tokens=12, draft=draft, sampling=sampling)
    pair.close()
