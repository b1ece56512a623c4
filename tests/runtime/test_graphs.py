"""A small chain of kernels, captured and replayed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from arcmtp.runtime import _host
from arcmtp.runtime.compiler import headers
from arcmtp.runtime.device import Device
from arcmtp.runtime.graphs import GraphCache, GraphChoice, choose, kernel_names
from arcmtp.runtime.launch import INT, Kernel, parameters, writes
from arcmtp.runtime.memory import Buffer
from arcmtp.runtime.tensor import I32
from tests.launches import kernel, launch

ITEM = "int &item = x[simd::group_index()]; "
DOUBLE = kernel("double_plus", parameters(x=writes(I32), add=INT), ITEM + "item = 2 * item + add;")
NEGATE = kernel("negate", parameters(x=writes(I32)), ITEM + "item = -item;")


@pytest.fixture(scope="module")
def device() -> Device:
    return Device("cpu")


def chain(device: Device, x: Buffer, length: int = 5) -> _host.LaunchList:
    return device.bind([*(launch(DOUBLE, 16, x=x, add=add) for add in range(length)), launch(NEGATE, 16, x=x)])


def test_replays_give_what_eager_launches_give(device: Device) -> None:
    values = np.arange(16, dtype=np.int32)
    results = []
    for enabled in (False, True):
        x = device.array(values)
        graphs, launches = GraphCache(device, enabled), chain(device, x)
        for _ in range(3):
            graphs.submit("chain", launches)
        results.append(x.read(np.int32, 16))
    assert np.array_equal(results[0], results[1])
    assert results[0][1] != 1


@pytest.mark.parametrize("enabled", [True, False], ids=["graphs", "launches"])
def test_a_guarded_launch_does_all_or_nothing_as_its_flag_says_when_it_begins(device: Device, enabled: bool) -> None:
    x, flag, values = device.zeros(64), device.zeros(4), np.arange(16, dtype=np.int32)
    negate, double = launch(NEGATE, 16, x=x).only_if(flag), launch(DOUBLE, 16, x=x, add=1).only_if(flag)
    raising = kernel("raise", parameters(flag=writes(I32)), "flag[0] += 1;")
    launches = device.bind([negate, double, launch(raising, flag=flag), negate])
    graphs = GraphCache(device, enabled)
    for before, expected in ((0, -values), (1, -(1 - 2 * values)), (-1, 1 - 2 * values), (0, -values)):
        x.write(values)
        flag.write(np.array([before], np.int32))
        graphs.submit("guarded", launches)
        device.wait()
        assert np.array_equal(x.read(np.int32, 16), expected), before


def test_a_list_is_captured_once_and_replayed_ever_after(device: Device) -> None:
    graphs, launches = GraphCache(device), chain(device, device.zeros(64))
    for _ in range(4):
        graphs.submit("chain", launches)
    s = graphs.statistics
    assert (s.captures, s.replays, s.nodes) == (1, 4, {"chain": len(launches)})
    assert s.capture_ms > 0 and s.finalise_ms > 0 and s.us_per_replay > 0


def test_every_name_has_a_graph_of_its_own_and_keeps_it(device: Device) -> None:
    graphs = GraphCache(device)
    graphs.submit("one", chain(device, device.zeros(64)))
    graphs.submit("two", chain(device, device.zeros(64)))
    assert graphs.statistics.captures == 2
    with pytest.raises(ValueError, match="the graph 'one' was captured from another launch list"):
        graphs.submit("one", chain(device, device.zeros(64)))


def test_disabled_graphs_capture_nothing(device: Device) -> None:
    graphs = GraphCache(device, enabled=False)
    graphs.submit("chain", chain(device, device.zeros(64)))
    assert graphs.statistics.captures == graphs.statistics.replays == 0


def test_the_captured_kernels_are_those_of_the_list_in_its_order(device: Device) -> None:
    graphs, launches = GraphCache(device), chain(device, device.zeros(64))
    graphs.submit("chain", launches)
    captured, graph = graphs.captured["chain"]
    assert captured is launches
    assert kernel_names(graph) == launches.names() == ["double_plus"] * 5 + ["negate"]


def test_a_graph_of_nothing_is_no_chain_of_kernels(device: Device) -> None:
    with pytest.raises(ValueError, match="0 nodes, 0 kernels and 0 edges"):
        kernel_names(_host.Graph(_host.LaunchList(), device.queue))


def test_the_faster_way_is_measured_once_and_remembered(device: Device, tmp_path: Path) -> None:
    launches, cache = chain(device, device.zeros(64)), tmp_path / "cache" / "choice.json"
    first = choose(device, launches, [DOUBLE, NEGATE], cache)
    assert first.eager_us > 0 and first.graph_us > 0
    assert choose(device, launches, [DOUBLE, NEGATE], cache) == first
    cache.write_text("not JSON")
    assert choose(device, launches, [DOUBLE, NEGATE], cache).eager_us > 0
    assert [path.name for path in cache.parent.iterdir()] == ["choice.json"]


def test_it_is_measured_again_when_a_kernel_or_a_header_changes(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launches, cache = chain(device, device.zeros(64)), tmp_path / "choice.json"

    def measured(*kernels: Kernel) -> int:
        """How many measurements are remembered after one more call."""
        choose(device, launches, kernels, cache)
        return len(json.loads(cache.read_text()))

    assert [measured(DOUBLE, NEGATE), measured(DOUBLE, NEGATE)] == [1, 1]
    edited = replace(NEGATE, body=NEGATE.body + " // edited")
    assert [measured(DOUBLE, edited), measured(DOUBLE, edited), measured(DOUBLE, NEGATE)] == [2, 2, 2]
    (first, text), *others = headers()
    monkeypatch.setattr("arcmtp.runtime.graphs.headers", lambda: ((first, text + "// edited"), *others))
    assert [measured(DOUBLE, NEGATE), measured(DOUBLE, NEGATE)] == [3, 3]


def test_a_cache_that_cannot_be_written_is_done_without(device: Device, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert choose(device, chain(device, device.zeros(64)), [DOUBLE, NEGATE], tmp_path / "file/choice").eager_us > 0


def test_the_smaller_time_is_chosen() -> None:
    assert GraphChoice(eager_us=2.0, graph_us=1.0).use_graphs
    assert not GraphChoice(eager_us=1.0, graph_us=1.0).use_graphs
