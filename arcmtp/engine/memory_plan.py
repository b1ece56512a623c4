"""What a model and its context take of a device's memory, known before anything is allocated."""

from dataclasses import dataclass

from arcmtp.errors import MemoryExceeded
from arcmtp.formats.kv_cache import KEY_TILE
from arcmtp.model.network import Network
from arcmtp.ops.launch import MAX_ROWS


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


def check_memory(network: Network, context: int) -> None:
    """Refuse what the device cannot hold before anything is allocated: MemoryExceeded."""
    need = memory_plan(network)
    if need.nbytes > need.free_bytes:
        raise MemoryExceeded(
            f"ctx {context} needs {need.nbytes / 2**30:.1f} GiB ({need.weights_bytes / 2**30:.1f} of them weights) and "
            f"{network.device.sycl_device.name} has {need.free_bytes / 2**30:.1f} GiB free: {need.advice}",
            need.largest_context,
        )
