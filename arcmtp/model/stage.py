"""What runs on one device: layers, their memory, launch lists, and the graphs that are made from these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from arcmtp.model.blocks.layer import Layer
from arcmtp.runtime import _host
from arcmtp.runtime.device import Device
from arcmtp.runtime.graphs import GraphCache
from arcmtp.runtime.launch import Launch
from arcmtp.runtime.tensor import Arena
from arcmtp.runtime.timing import Timeline


@dataclass(frozen=True, eq=False)
class LaunchList:
    """Launches that are submitted together, by name; their graph has the same name."""

    name: str
    launches: tuple[Launch, ...]
    bound: _host.LaunchList

    def __len__(self) -> int:
        return len(self.launches)

    def __iter__(self) -> Iterator[Launch]:
        return iter(self.launches)


class Stage:
    """A network is a list of stages; today it has one."""

    def __init__(self, device: Device) -> None:
        self.device, self.arena, self.graphs = device, Arena(), GraphCache(device)
        self.layers: list[Layer] = []
        self._lists: dict[str, LaunchList] = {}

    @property
    def lists(self) -> Mapping[str, LaunchList]:
        """The launch lists made so far, by name."""
        return self._lists

    def launch_list(self, name: str, launches: Callable[[], Iterable[Launch]]) -> LaunchList:
        """The list of that name; made by `launches`, compiled and bound when it is first asked for."""
        if name not in self._lists:
            made = tuple(launches())
            self._lists[name] = LaunchList(name, made, self.device.bind(made))
        return self._lists[name]

    def submit(self, launches: LaunchList, as_graph: bool = True) -> _host.Event:
        """`GraphCache.submit`."""
        return self.graphs.submit(launches.name, launches.bound, as_graph)

    def run(self, launches: LaunchList) -> None:
        """Submit launch by launch, and wait."""
        self.device.run(launches.bound)

    @cached_property
    def timeline(self) -> Timeline:
        """Where cycles are marked in time: room for several cycles of 7 drafts."""
        return Timeline(self.device, 64)
