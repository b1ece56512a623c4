"""What the device's state has seen, so that a prompt that goes on from there evaluates only what is new."""

from collections.abc import Sequence

from arcmtp.model.network import Network


class HeldState:
    """The evaluated tokens of the sequence that a network holds, and of its checkpoint.

    Keys and values lie by position and may be left behind; recurrent state cannot be taken back, so it can go on only
    where it is, or from a checkpoint. Either way it is, to the bit, that of a fresh sequence with the same tokens.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._checkpoint = 0  # tokens before it
        self.ids: list[int] = []

    def forget(self) -> None:
        """Begin a new sequence."""
        self._network.reset()
        self._checkpoint, self.ids = 0, []

    def resume(self, prompt: Sequence[int]) -> int:
        """Go to a state from which at least the last token of `prompt` is still to be evaluated; how many are not."""
        same = _common(self.ids, prompt[:-1])
        if same < len(self.ids) and same >= self._checkpoint > 0:
            self._network.restore_checkpoint()
            self.ids = self.ids[: self._checkpoint]
        elif same < len(self.ids) or not same:
            self.forget()
        return len(self.ids)

    def save(self) -> None:
        """Make the state, with nothing pending, the checkpoint."""
        self._network.save_checkpoint()
        self._checkpoint = len(self.ids)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    shorter = min(len(one), len(other))
    return next((i for i in range(shorter) if one[i] != other[i]), shorter)
