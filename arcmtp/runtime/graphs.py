"""Graphs captured once and replayed, with the statistics of their reuse."""

import contextlib
import json
import math
import re
import tempfile
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from arcmtp.errors import ArcmtpError
from arcmtp.runtime import _host
from arcmtp.runtime.compiler import headers, source_text
from arcmtp.runtime.device import Device
from arcmtp.runtime.environment import cache_dir
from arcmtp.runtime.files import OutputFile
from arcmtp.runtime.launch import Kernel

Captured = tuple[_host.LaunchList, _host.Graph]


@dataclass
class GraphStatistics:
    """What a `GraphCache` did. Times are the host's."""

    captures: int = 0
    replays: int = 0
    nodes: dict[str, int] = field(default_factory=dict)  # of each graph
    capture_ms: float = 0.0
    finalise_ms: float = 0.0
    replay_us: float = 0.0  # spent submitting replays, in all

    @property
    def us_per_replay(self) -> float:
        """Host microseconds to submit one replay."""
        return self.replay_us / self.replays if self.replays else 0.0

    def copy(self) -> "GraphStatistics":
        """What has been counted so far."""
        return replace(self, nodes=dict(self.nodes))

    def since(self, earlier: "GraphStatistics") -> "GraphStatistics":
        """What was counted after a copy; `nodes` has all graphs."""
        return GraphStatistics(
            self.captures - earlier.captures, self.replays - earlier.replays, dict(self.nodes),
            self.capture_ms - earlier.capture_ms, self.finalise_ms - earlier.finalise_ms,
            self.replay_us - earlier.replay_us,
        )  # fmt: skip


class GraphCache:
    """One graph per name, captured when its launch list is first submitted and replayed ever after.

    With `enabled` false every list is submitted launch by launch: the same kernels, the same bits.
    """

    def __init__(self, device: Device, enabled: bool = True) -> None:
        self.enabled = enabled
        self.statistics = GraphStatistics()
        self._device = device
        self._graphs: dict[str, Captured] = {}

    @property
    def captured(self) -> Mapping[str, Captured]:
        """Each launch list that is a graph now, and that graph, by name."""
        return self._graphs

    def submit(self, name: str, launches: _host.LaunchList, as_graph: bool = True) -> _host.Event:
        """Put `launches` on the device's queue, as the graph `name` if graphs are enabled; the event of their end.

        Raises ValueError if that graph was captured from another launch list.
        """
        if not self.enabled or not as_graph:
            return launches.submit(self._device.queue)
        graph = self._graph(name, launches)
        began = time.perf_counter()
        event = graph.replay(self._device.queue)
        self.statistics.replay_us += (time.perf_counter() - began) * 1e6
        self.statistics.replays += 1
        return event

    def _graph(self, name: str, launches: _host.LaunchList) -> _host.Graph:
        if name in self._graphs:
            captured, graph = self._graphs[name]
            if captured is not launches:
                raise ValueError(f"the graph '{name}' was captured from another launch list")
            return graph
        graph = _host.Graph(launches, self._device.queue)
        self._graphs[name] = (launches, graph)
        s = self.statistics
        s.captures += 1
        s.nodes[name] = graph.nodes
        s.capture_ms += graph.capture_ms
        s.finalise_ms += graph.finalise_ms
        return graph


def kernel_names(graph: _host.Graph) -> list[str]:
    """The kernels in `graph` in the order in which they run; ValueError if it is anything but a chain of kernels."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.dot"
        graph.describe(str(path))
        described = path.read_text(encoding="utf-8")
    kernels = dict(re.findall(r'^"(\w+)" .*NAME = __sycl_kernel_(\w+)', described, re.MULTILINE))
    edges = re.findall(r'"(\w+)" -> "(\w+)"', described)
    after = dict(edges)
    chain = [node for node in kernels if node not in after.values()][:1]
    while chain and chain[-1] in after:
        chain.append(after[chain[-1]])
    if not len(chain) == len(kernels) == len(edges) + 1 == graph.nodes:
        raise ValueError(f"{graph.nodes} nodes, {len(kernels)} kernels and {len(edges)} edges are no chain of kernels")
    return [kernels[node] for node in chain]


@dataclass(frozen=True)
class GraphChoice:
    """Microseconds of one step either way, measured on the device."""

    eager_us: float
    graph_us: float

    @property
    def use_graphs(self) -> bool:
        """Whether replaying is the faster way."""
        return self.graph_us < self.eager_us


def choose(
    device: Device, launches: _host.LaunchList, kernels: Iterable[Kernel], cache: Path | None = None
) -> GraphChoice:
    """Time `launches` both ways, or read what an earlier process measured for the same device, driver and launches,
    compiled from the same source.

    The launches run, so their buffers must be ready, and what they leave there must not matter.
    kernels: at least those that are launched.
    cache: the file with the measurements, by default in the user's cache folder; one that cannot be read or written is
    done without.
    """
    cache = cache or cache_dir() / "graph-choice.json"
    sources = [",".join(launches.names()), source_text(list(dict.fromkeys(kernels))), *(text for _, text in headers())]
    compiled_from = zlib.crc32("\n".join(sources).encode())
    key = f"{device.sycl_device.name} {device.sycl_device.driver_version} {len(launches)} {compiled_from:08x}"
    known = _read(cache)
    if key not in known:
        known[key] = _measure(device, launches)
        _write(cache, known)
    return GraphChoice(*known[key])


def _measure(device: Device, launches: _host.LaunchList, rounds: int = 7) -> tuple[float, float]:
    """The best of several alternating runs: whatever else the machine does only adds time."""
    best = {False: math.inf, True: math.inf}
    caches = {enabled: GraphCache(device, enabled) for enabled in best}
    for _ in range(rounds):
        for enabled, graphs in caches.items():
            began = time.perf_counter()
            graphs.submit("choice", launches)
            device.wait()
            best[enabled] = min(best[enabled], (time.perf_counter() - began) * 1e6)
    return best[False], best[True]


def _read(cache: Path) -> dict[str, tuple[float, float]]:
    try:
        content = json.loads(cache.read_text(encoding="utf-8"))
        return {str(key): (float(eager), float(graph)) for key, (eager, graph) in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(cache: Path, known: dict[str, tuple[float, float]]) -> None:
    with contextlib.suppress(OSError, ArcmtpError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        with OutputFile(cache) as output:
            output.write(json.dumps(known, indent=1))
