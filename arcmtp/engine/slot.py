"""One of a network's places for a sequence: what its state has seen, and how it comes to see more."""

from collections.abc import Sequence

import numpy as np

from arcmtp.model.network import Network
from arcmtp.ops.launch import BLOCK_ROWS


class Slot:
    """The evaluated tokens of the sequence in place `index` of a network, and of its checkpoint.

    Keys and values lie by position and may be left behind; recurrent state cannot be taken back, so it can go on only
    where it is, or from a checkpoint. Either way it is, to the bit, that of a fresh sequence with the same tokens.
    """

    def __init__(self, network: Network, index: int = 0) -> None:
        self.index = index
        self.ids: list[int] = []
        self._network = network
        self._checkpoint = 0  # tokens before it

    def forget(self) -> None:
        """Begin a new sequence."""
        self.lose()
        self._network.reset(self.index)

    def lose(self) -> None:
        """Nothing is known of the state any more."""
        self._checkpoint, self.ids = 0, []

    def reusable(self, prompt: list[int]) -> int:
        """How many tokens of `prompt` need not be evaluated again; the last one always is."""
        seen = len(self.ids)
        return seen if seen < len(prompt) and self.ids == prompt[:seen] else self.shareable(prompt)

    def shareable(self, prompt: list[int]) -> int:
        """How many tokens of `prompt` the checkpoint has seen, if it has seen nothing else."""
        seen = self._checkpoint
        return seen if seen < len(prompt) and self.ids[:seen] == prompt[:seen] else 0

    def share(self, other: "Slot") -> None:
        """Go to the checkpoint of another slot."""
        self._network.copy_checkpoint(other.index, self.index, other._checkpoint)
        self.ids, self._checkpoint = other.ids[: other._checkpoint], other._checkpoint

    def resume(self, prompt: list[int]) -> int:
        """Go to the state after the reusable tokens of `prompt`; how many there are."""
        reused = self.reusable(prompt)
        if not reused:
            self.forget()
        elif reused < len(self.ids):
            self._network.restore_checkpoint(self.index)
            self.ids = self.ids[:reused]
        return reused

    def save(self) -> None:
        """Make the state, with nothing pending, the checkpoint."""
        self._network.save_checkpoint(self.index)
        self._checkpoint = len(self.ids)

    def evaluate(self, ids: Sequence[int]) -> None:
        """Evaluate up to BLOCK_ROWS further tokens."""
        assert 0 < len(ids) <= BLOCK_ROWS
        w, device = self._network.controls, self._network.device
        w.block_ids.write(np.array(ids, np.int32))
        w.block_positions.write(np.arange(len(self.ids), len(self.ids) + len(ids), dtype=np.int32))
        w.block_slot.write(np.array([self.index], np.int32))
        w.row_count.write(np.array([len(ids)], np.int32))
        self._network.stage.submit(self._network.block(), as_graph=False)
        w.pending_count.fill(0, 4 * self.index, 4)
        device.wait()
        self.ids += ids
