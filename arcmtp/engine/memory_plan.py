"""What a model and its context take of a device's memory, known before anything is allocated."""

from dataclasses import dataclass

from arcmtp.errors import MemoryExceeded, OutOfMemory
from arcmtp.formats.kv_cache import KEY_TILE
from arcmtp.model.network import Network
from arcmtp.ops.launch import MAX_ROWS
from arcmtp.progress import Progress


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of device memory; `largest_context` tokens would fit, 0 if not even the smallest context does."""

    weights_bytes: int
    cache_bytes: int  # what grows with the context: KV cache and table of RoPE angles
    buffer_bytes: int  # the rest: recurrent state, rows on their way, logits
    free_bytes: int
    largest_context: int
    parallel: int  # sequences that have a context each

    @property
    def nbytes(self) -> int:
        """All that the model needs."""
        return self.weights_bytes + self.cache_bytes + self.buffer_bytes

    def __str__(self) -> str:
        return f"{self.nbytes / 2**30:.1f} GiB ({self.weights_bytes / 2**30:.1f} of them weights)"

    @property
    def advice(self) -> str:
        """The nearest plan that fits, in words."""
        if not self.largest_context:
            return "too little for any context" + " (fewer sequences in parallel need less)" * (self.parallel > 1)
        return f"at most ctx {self.largest_context} fits" + f", with parallel {self.parallel}" * (self.parallel > 1)


def memory_plan(network: Network) -> MemoryPlan:
    """The plan of a network that is not loaded, on its device, for its context."""
    free = network.device.free_memory
    excess = network.weights.nbytes + network.nbytes - free
    fitting = (network.context - -(-excess // network.bytes_per_position)) // KEY_TILE * KEY_TILE - MAX_ROWS
    cache = network.context * network.bytes_per_position
    return MemoryPlan(
        weights_bytes=network.weights.nbytes,
        cache_bytes=cache,
        buffer_bytes=network.nbytes - cache,
        free_bytes=free,
        largest_context=max(0, min(fitting, network.config.context_length)),
        parallel=network.slots,
    )


def load(network: Network, context: int, progress: Progress) -> dict[str, float]:
    """`Network.load`; progress: called as progress("loading weights", done bytes, all bytes).

    Raises MemoryExceeded for what the device cannot hold, before anything is allocated, and OutOfMemory if it refuses
    an allocation, since other programs take memory too, or memory is in too small pieces.
    """
    need = memory_plan(network)
    free = f"{need.free_bytes / 2**30:.1f} GiB"
    if need.nbytes > need.free_bytes:
        name = network.device.sycl_device.name
        message = f"ctx {context} needs {need} and {name} has {free} free: {need.advice}"
        raise MemoryExceeded(message, need.largest_context)
    try:
        return network.load(lambda done, total: progress("loading weights", done, total))
    except OutOfMemory as error:
        message = f"ctx {context} needs {need} of {free} that were free, but {error}: a smaller ctx may fit"
        raise OutOfMemory(message) from None
