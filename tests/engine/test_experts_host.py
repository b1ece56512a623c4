"""Experts in host memory change where weights lie and nothing else: ids and log-probabilities are equal, not close."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from arcmtp import LLM, SamplingOptions
from arcmtp.profile.descriptions import memory as profiled_memory
from arcmtp.runtime.memory import HostBuffer
from tests.engine.conftest import CONTEXT
from tests.engine.test_drafting import WARM, prompts, same

HOST_LAYERS = 5  # of 8


@pytest.fixture(scope="module")
def on_host(tiny: LLM) -> Iterator[LLM]:
    with LLM(device="cpu", ctx=CONTEXT, draft=2, experts_host=HOST_LAYERS) as llm:
        yield llm


@pytest.mark.parametrize("graphs", [False, True], ids=["launches", "graphs"])
@pytest.mark.parametrize("draft", [0, 2])
def test_the_text_is_the_same(
    tiny: LLM, on_host: LLM, text: str, monkeypatch: pytest.MonkeyPatch, draft: int, graphs: bool
) -> None:
    monkeypatch.setattr(on_host.network.stage.graphs, "enabled", graphs)
    for prompt, sampling in itertools.product(prompts(tiny, text, 3), (SamplingOptions(), WARM)):
        here, there = (
            llm.generate(prompt, max_tokens=24, logprobs=3, sampling=sampling, draft=draft) for llm in (on_host, tiny)
        )
        assert same(here, there)
        assert (here.statistics.graph_replays > 0) == graphs


def test_the_last_layers_experts_lie_in_host_memory_and_are_the_devices(tiny: LLM, on_host: LLM) -> None:
    experts = [layer.feed_forward.experts for layer in on_host.network.stage.layers]
    buffers = [[merged.tensor.buffer for merged in of_layer] for of_layer in experts]
    in_host = [all(isinstance(buffer, HostBuffer) for buffer in of_layer) for of_layer in buffers]
    assert in_host == [False] * (8 - HOST_LAYERS) + [True] * HOST_LAYERS
    for of_layer, layer in zip(buffers[-HOST_LAYERS:], tiny.network.stage.layers[-HOST_LAYERS:], strict=True):
        for buffer, merged in zip(of_layer, layer.feed_forward.experts, strict=True):
            assert isinstance(buffer, HostBuffer)
            np.testing.assert_array_equal(buffer.view(np.uint8)[: buffer.nbytes], merged.tensor.read())
    others = [region.buffer for region in on_host.network.stage.arena.regions if not region.in_host_memory]
    assert sum(isinstance(buffer, HostBuffer) for buffer in others) == sum(
        isinstance(region.buffer, HostBuffer) for region in tiny.network.stage.arena.regions
    )


def test_the_plan_of_a_loaded_model_says_what_lies_where(tiny: LLM, on_host: LLM) -> None:
    assert (tiny.memory.host_layers, tiny.memory.host_bytes) == (0, 0)
    assert on_host.memory.host_layers == HOST_LAYERS
    experts = [layer.feed_forward.experts for layer in on_host.network.stage.layers[-HOST_LAYERS:]]
    assert on_host.memory.host_bytes == sum(merged.tensor.nbytes for of_layer in experts for merged in of_layer)
    assert on_host.memory.weights_bytes + on_host.memory.host_bytes == tiny.memory.weights_bytes
    profiled, profiled_whole = profiled_memory(on_host), profiled_memory(tiny)
    assert (profiled.weights, profiled.kv_cache) == (profiled_whole.weights, profiled_whole.kv_cache)
    assert profiled.experts_in_host_memory == profiled_whole.device_total - profiled.device_total
    assert profiled.experts_in_host_memory == on_host.memory.host_bytes
