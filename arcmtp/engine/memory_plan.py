"""What a model and its context take of a device's memory and of the host's, known before anything is allocated."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

from arcmtp.errors import ArcmtpError, MemoryExceeded, OutOfMemory
from arcmtp.formats.kv_cache import KEY_TILE
from arcmtp.model.network import Network
from arcmtp.ops.launch import MAX_ROWS
from arcmtp.progress import Progress

CacheMib = tuple[int | None, int | None]  # for checkpoints on the device and in host memory; None: as usual
CacheBytes = tuple[int, int]
ExpertsHost = int | Literal["auto"]  # layers whose experts lie in host memory
CACHE_MIB = (256, 2048)  # for checkpoints on the device, four of Qwen3.6-35B-A3B's states, and in host memory


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of device memory and of host memory; `largest_context` tokens would fit with these experts in host memory,
    0 if not even the smallest context does. Where the memory for checkpoints is as usual, it makes room for these
    tokens."""

    weights_bytes: int  # on the device
    cache_bytes: int  # what grows with the context: KV cache and table of RoPE angles
    buffer_bytes: int  # recurrent state, rows on their way, logits
    pages_bytes: int  # for checkpoints
    free_bytes: int  # of the device
    host_layers: int  # the last layers of the trunk, whose experts lie in host memory
    host_bytes: int  # of these experts
    host_pages_bytes: int  # for checkpoints in host memory
    free_host_bytes: int
    largest_context: int
    parallel: int  # sequences that have a context each

    @property
    def nbytes(self) -> int:
        """All that the model needs of the device's memory."""
        return self.weights_bytes + self.cache_bytes + self.buffer_bytes + self.pages_bytes

    @property
    def fits(self) -> bool:
        """Whether device and host have the memory."""
        return self.nbytes <= self.free_bytes and self.fits_host

    @property
    def fits_host(self) -> bool:
        """Whether the host has the memory."""
        return self.host_bytes + self.host_pages_bytes <= self.free_host_bytes

    def __str__(self) -> str:
        return f"{gib(self.nbytes)} ({gib(self.weights_bytes)[:-4]} of them weights)"

    @property
    def advice(self) -> str:
        """The nearest plan that fits, in words."""
        if not self.largest_context:
            return "too little for any context" + " (fewer sequences in parallel need less)" * (self.parallel > 1)
        return f"at most ctx {self.largest_context} fits" + f", with parallel {self.parallel}" * (self.parallel > 1)

    @property
    def experts(self) -> str:
        """Where the experts lie, in words; "" if they lie on the device."""
        of_layers = "the last layer" if self.host_layers == 1 else f"the last {self.host_layers} layers"
        sizes = f"{self.host_bytes / 2**20:,.0f} of {self.free_host_bytes / 2**20:,.0f} MiB free there"
        return f"experts of {of_layers} in host memory ({sizes})" if self.host_layers else ""


def memory_plan(network: Network) -> MemoryPlan:
    """The plan of a network that is not loaded, on its device, for its context, with its experts where they are to
    lie."""
    device, host = network.device, network.weights.host_nbytes
    free, free_host, host_pages = device.free_memory, device.free_host_memory, network.pages.host.tensor.nbytes
    if device.is_cpu:  # both are the same memory
        free -= host + host_pages
    weights = network.weights.nbytes - host
    excess = weights + network.nbytes - free
    positions = -(-excess // max(network.bytes_per_position, 1))  # a model without attention has no KV cache
    fitting = (network.context - positions) // KEY_TILE * KEY_TILE - MAX_ROWS
    cache, pages = network.context * network.bytes_per_position, network.pages.device.tensor.nbytes
    return MemoryPlan(
        weights_bytes=weights,
        cache_bytes=cache,
        buffer_bytes=network.nbytes - cache - pages,
        pages_bytes=pages,
        free_bytes=free,
        host_layers=network.host_layers,
        host_bytes=host,
        host_pages_bytes=host_pages,
        free_host_bytes=free_host,
        largest_context=max(0, min(fitting, network.config.context_length)) if host + host_pages <= free_host else 0,
        parallel=network.slots,
    )


def check_experts_host(experts_host: ExpertsHost) -> None:
    """Raises ArcmtpError for what is neither "auto" nor a whole number from 0 on."""
    if experts_host != "auto" and (type(experts_host) is not int or experts_host < 0):
        raise ArcmtpError(f"experts_host is {experts_host!r}; it must be 'auto' or a whole number of layers, 0 or more")


def check_cache_mib(option: str, mib: int | None) -> None:
    """Raises ArcmtpError for what is neither None nor a whole number from 0 on."""
    if mib is not None and (type(mib) is not int or mib < 0):
        raise ArcmtpError(f"{option} is {mib!r}; it must be a whole number of MiB, 0 (no cache) or more")


def place_experts(network: Network, experts_host: ExpertsHost) -> MemoryPlan:
    """Decide which experts lie in host memory, before `Network.load`, and give the plan.

    experts_host: so many layers' experts; "auto": of the fewest layers with which the context fits the device, or, if
    it does not fit at all, of as many as host memory holds. A CPU device has no memory of its own, and "auto" is 0.
    Raises ArcmtpError for more layers than have experts.
    """
    if experts_host != "auto":
        network.keep_experts_in_host_memory(experts_host)
        return memory_plan(network)
    plan, spared = memory_plan(network), _spared_bytes(network)
    enough = (layers for layers, nbytes in enumerate(spared) if plan.nbytes - nbytes <= plan.free_bytes)
    layers = next(enough, len(spared) - 1)
    while spared[layers] > max(plan.free_host_bytes - plan.host_pages_bytes, 0):
        layers -= 1
    network.keep_experts_in_host_memory(layers)
    return memory_plan(network)


def _spared_bytes(network: Network) -> list[int]:
    """Bytes that the device is spared by the experts of 0, 1, … layers in host memory."""
    return [0] if network.device.is_cpu else list(accumulate(network.expert_bytes, initial=0))


def planned(
    make: Callable[[int, CacheBytes], Network], context: int, experts_host: ExpertsHost, or_less: bool = False,
    cache_mib: CacheMib = (None, None),
) -> tuple[int, Network, MemoryPlan]:  # fmt: skip
    """A context, the network that `make` makes for it and for so many bytes of checkpoints, and its plan.

    or_less: if `context` does not fit, as much of it as fits, should anything fit. experts_host: as for
    `place_experts`, whose errors are raised. cache_mib: for checkpoints on the device and in host memory; None takes
    CACHE_MIB, but at most a quarter of the memory that all else leaves.
    """
    cache = _cache_bytes(cache_mib, (0, 0))
    network = make(context, cache)
    plan = place_experts(network, experts_host)
    while or_less and plan.largest_context and not plan.fits:  # again where memory was taken in between
        context = plan.largest_context
        network = make(context, cache)
        plan = place_experts(network, experts_host)
    if plan.fits and None in cache_mib:
        left = plan.free_bytes - plan.nbytes
        left_of_host = left if network.device.is_cpu else plan.free_host_bytes - plan.host_bytes
        network = make(context, _cache_bytes(cache_mib, (left // 4, left_of_host // 4)))
        network.keep_experts_in_host_memory(plan.host_layers)
        plan = replace(memory_plan(network), largest_context=plan.largest_context)
    return context, network, plan


def _cache_bytes(mib: CacheMib, most: CacheBytes) -> CacheBytes:
    """most: where nothing is said."""
    usual = [min(of_usual << 20, limit) for of_usual, limit in zip(CACHE_MIB, most, strict=True)]
    device, host = (of_usual if one is None else one << 20 for one, of_usual in zip(mib, usual, strict=True))
    return device, host


def load(network: Network, context: int, plan: MemoryPlan, progress: Progress) -> dict[str, float]:
    """`Network.load` as planned; progress: called as progress("loading weights", done bytes, all bytes).

    Raises MemoryExceeded for what device or host cannot hold, before anything is allocated, and OutOfMemory if an
    allocation is refused, since other programs take memory too, or memory is in too small pieces.
    """
    if plan.host_bytes > plan.free_host_bytes:
        raise MemoryExceeded(f"{plan.experts} do not fit: use a smaller experts_host", plan.largest_context)
    if not plan.fits_host:
        needs = f"{plan.host_pages_bytes / 2**20:,.0f} MiB" + f", with {plan.experts}," * bool(plan.experts)
        free = f"{plan.free_host_bytes / 2**20:,.0f} MiB are free there"
        raise MemoryExceeded(
            f"a cache in host memory of {needs} does not fit, {free}: use a smaller cache_host_mib",
            plan.largest_context,
        )
    needs = f"ctx {context} needs {plan}" + f", with {plan.experts}," * bool(plan.experts)
    if not plan.fits:
        name = network.device.sycl_device.name
        message = f"{needs} and {name} has {gib(plan.free_bytes)} free: {plan.advice}{_hint(network, plan)}"
        raise MemoryExceeded(message, plan.largest_context)
    try:
        return network.load(lambda done, total: progress("loading weights", done, total))
    except OutOfMemory as error:
        message = f"{needs} of {gib(plan.free_bytes)} that were free, but {error}: a smaller ctx may fit"
        raise OutOfMemory(message + _hint(network, plan)) from None


def _hint(network: Network, plan: MemoryPlan) -> str:
    """What is left to try where the host has room for more experts, or checkpoints have memory."""
    spared = _spared_bytes(network)[plan.host_layers + 1 : plan.host_layers + 2]
    room = bool(spared) and spared[0] + plan.host_pages_bytes <= plan.free_host_bytes
    return "; a larger experts_host needs less" * room + "; a smaller cache_mib needs less" * bool(plan.pages_bytes)


def gib(nbytes: int) -> str:
    """Bytes for people."""
    return f"{nbytes / 2**30:.1f} GiB"
