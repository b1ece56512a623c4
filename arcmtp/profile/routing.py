"""Which experts the tokens of a sequence were routed to, found by evaluating it once more, a layer at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from arcmtp.engine.llm import LLM
from arcmtp.profile.recordings import submitting
from arcmtp.runtime import _host
from arcmtp.runtime.graphs import GraphCache
from arcmtp.runtime.launch import Launch
from arcmtp.runtime.tensor import Tensor


class Routing:
    """The chosen experts of every token; the same in every generation, since a row depends on its own tokens alone.
    A dense network has none to choose."""

    def __init__(self, llm: LLM, tokens: Sequence[int]) -> None:
        if not llm.config.experts:
            self._chosen = np.zeros((llm.config.layers, len(tokens), 0), np.int32)
            return
        layers = _ChunkLayers(llm)
        with submitting(llm, layers):
            llm.new_sequence().extend(tokens)
        chunks = [chunk.reshape(len(chunk), -1, llm.config.experts_used) for chunk in map(np.stack, layers.chunks)]
        self._chosen = np.concatenate(chunks, axis=1)[:, : len(tokens)]  # [layers, tokens, experts used]

    def distinct(self, position: int, rows: int) -> list[int]:
        """How many experts each layer uses for the tokens from `position` on.

        A verify evaluates drafts in their place; one that is rejected counts as the token that came instead.
        """
        return [len(np.unique(layer[position : position + rows])) for layer in self._chosen]


class _ChunkLayers(GraphCache):
    """Runs a chunk's trunk layer by layer and reads what each router chose."""

    def __init__(self, llm: LLM) -> None:
        super().__init__(llm.device, enabled=False)
        self.chunks: list[list[npt.NDArray[np.int32]]] = []
        self._routers = _to_each_router(llm)

    def submit(self, name: str, launches: _host.LaunchList, as_graph: bool = True) -> _host.Event:
        chosen = []
        for to_router, selected in self._routers:
            self._device.run(to_router)
            chosen.append(selected.read())
        self.chunks.append(chosen)
        return _host.LaunchList().submit(self._device.queue)


def _to_each_router(llm: LLM) -> list[tuple[_host.LaunchList, Tensor]]:
    """The launches of a prompt chunk up to each router, from the router before on, and the experts that it chose."""
    lists: list[tuple[_host.LaunchList, Tensor]] = []
    before: list[Launch] = []
    for launch in llm.network.chunk():
        before.append(launch)
        if launch.operator == "router":
            selected = launch.arguments["selected"]
            assert isinstance(selected, Tensor)
            lists.append((llm.device.bind(before), selected))
            before = []
    return lists
