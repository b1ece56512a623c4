"""The tiny models, loaded once per session, and a way to feed a network that the engine does not use yet."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from arcmtp import LLM, Generation, Stream
from arcmtp.engine import sequence as engine
from arcmtp.engine.cycle import Cycle
from arcmtp.model.network import Network
from arcmtp.runtime.tensor import Kind

CONTEXT = 1024


@pytest.fixture(scope="session")
def tiny() -> Iterator[LLM]:
    """The bundled Q4_0 model."""
    with LLM(device="cpu", ctx=CONTEXT, draft=2) as llm:
        yield llm


@pytest.fixture(scope="session")
def tiny_f16(data_dir: Path) -> Iterator[LLM]:
    with LLM(data_dir / "tiny-qwen36moe-f16.gguf", device="cpu", ctx=CONTEXT, draft=2) as llm:
        yield llm


SOME_TOKENS = 1500  # of 6144


@pytest.fixture(scope="session")
def some(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    """The bundled model, whose drafts are of some tokens in 4-bit weights."""
    with LLM(device="cpu", ctx=CONTEXT, draft_vocab=SOME_TOKENS, draft_requant="int4", draft=2) as llm:
        yield llm


class Feeder:
    """Feeds one sequence to a network in chunks and steps of any size, rejecting rows as a verifier does.

    Logits come back as float32 [rows, vocabulary used].
    """

    def __init__(self, network: Network) -> None:
        self._network, self._buffers = network, network.controls
        self._position = 0
        network.reset()

    def chunk(self, ids: Sequence[int]) -> np.ndarray:
        """Evaluate the ids of a prompt chunk at once; the logits of the last of them."""
        self._buffers.row_count.write(np.array([len(ids)], np.int32))
        self._buffers.chunk_pending.fill(0)
        self._buffers.chunk_ids.write(np.array(ids, np.int32))
        self._buffers.chunk_positions.write(self._positions(ids))
        self._network.stage.run(self._network.trunk(0))
        self._buffers.pending_count.fill(0)
        self._position += len(ids)
        return self._logits([len(ids) - 1])

    def step(self, ids: Sequence[int], accepted: int | None = None) -> np.ndarray:
        """Evaluate 1…8 ids as a verify does, then accept the first `accepted` of them (None: all)."""
        self._buffers.ids.write(np.array(ids, np.int32))
        self._buffers.positions.write(self._positions(ids))
        self._network.stage.run(self._network.trunk(len(ids)))
        logits = self._logits(range(len(ids)))
        accepted = len(ids) if accepted is None else accepted
        self._buffers.pending_count.write(np.array([accepted], np.int32))
        self._position += accepted
        return logits

    def _positions(self, ids: Sequence[int]) -> np.ndarray:
        return np.arange(self._position, self._position + len(ids), dtype=np.int32)

    def _logits(self, rows: Sequence[int]) -> np.ndarray:
        self._buffers.source_rows.write(np.array(rows, np.int32))
        self._network.stage.run(self._network.logits(len(rows)))
        return self._network.head.logits.read()[: len(rows), : self._network.head.vocabulary.used]


def finished(stream: Stream) -> Generation:
    """What a stream gives at its end."""
    for _ in stream:
        pass
    return stream.result


def poison(network: Network) -> None:
    """Leave NaN in every KV cache and in all scratch memory, as if another sequence had left the worst behind."""
    for region in network.stage.arena.regions:
        if region.kind in (Kind.CACHE, Kind.SCRATCH) and region.initial is None:
            assert region.buffer is not None
            region.buffer.fill(0xFF)


def scripted(ids: Sequence[int]) -> type:
    """A stand-in for the engine's Sequence that chooses `ids` and then <|im_end|>, a token a cycle."""

    class Scripted(engine.Sequence):
        def resume(self) -> None:
            self.cached_tokens = 0

        def read(self, rows: int) -> None: ...

        @property
        def unevaluated(self) -> int:
            return 0

        def begin(self) -> None:
            for place, token in enumerate([*ids, min(self.stop_ids)], start=1):
                done = place == self.limit or token in self.stop_ids
                self.unread.append(Cycle([token], [0.0], None, 0, 0, done))
            self.state = "finished"

    return Scripted
