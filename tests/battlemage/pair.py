"""A model on the emulated card and on the CPU device in its geometry: what both give must be equal to the bit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from arcmtp import LLM, Generation
from arcmtp.runtime.device import Device
from tests.engine.conftest import Feeder, finished
from tests.engine.test_batch import said


class Pair:
    """An LLM on each device; `options` are LLM's."""

    def __init__(self, card: Device, path: Path | None = None, **options: Any) -> None:
        devices = card, Device("cpu", card=card.card)
        options = {"draft": 2} | options
        self.card, self.cpu = (LLM(path, device, graphs=False, **options) for device in devices)

    def close(self) -> None:
        self.card.close()
        self.cpu.close()

    def generate(self, *prompts: Sequence[int], max_tokens: int, **options: Any) -> list[Generation]:
        """Continue all prompts at once."""
        on_card, on_cpu = (self._generate(llm, prompts, max_tokens, options) for llm in (self.card, self.cpu))
        for result, want in zip(on_card, on_cpu, strict=True):
            assert said(result) == said(want), f"on the card {said(result)}, on the CPU {said(want)}"
        return on_card

    @staticmethod
    def _generate(
        llm: LLM, prompts: Sequence[Sequence[int]], max_tokens: int, options: dict[str, Any]
    ) -> list[Generation]:
        streams = [llm.stream(prompt, max_tokens, **options) for prompt in prompts]
        for stream in streams:
            stream.start()
        return [finished(stream) for stream in streams]

    def start(self) -> None:
        """Begin with an empty sequence to feed."""
        self.feeders = Feeder(self.card.network), Feeder(self.cpu.network)

    def chunk(self, ids: Sequence[int]) -> np.ndarray:
        """Evaluate a prompt chunk; the logits of its last row, [1, vocabulary]."""
        return _agreed(*(feeder.chunk(ids) for feeder in self.feeders))

    def step(self, ids: Sequence[int], accepted: int | None = None) -> np.ndarray:
        """Evaluate a step, then accept some of its rows or all; logits [rows, vocabulary]."""
        return _agreed(*(feeder.step(ids, accepted) for feeder in self.feeders))


def _agreed(on_card: np.ndarray, on_cpu: np.ndarray) -> np.ndarray:
    assert np.isfinite(on_cpu).all()
    np.testing.assert_array_equal(on_card, on_cpu)
    return on_card
