"""What `arcmtp inspect` finds out about a file. Only the file's header is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from arcmtp.engine.memory_plan import CacheBytes
from arcmtp.errors import ArcmtpError
from arcmtp.formats.kv_cache import kv_format
from arcmtp.formats.matrix import Requant
from arcmtp.gguf import GGUF
from arcmtp.inspect.cards import Fit, fits
from arcmtp.model.blocks.mtp import has_mtp
from arcmtp.model.config import Config
from arcmtp.model.network import Network, NetworkOptions, check_parallel
from arcmtp.predict import cards_on_paper
from arcmtp.runtime.device import Device
from arcmtp.runtime.launch import Launch, Work

# The part of the network to which a launch of a layer belongs: by its operator or, where several parts have that
# operator, by what it is of the operator's launches, or else by the layer's mixer.
BY_OPERATOR = {
    "router": "router", "experts_gate_up": "experts", "experts_down": "experts", "feed_forward_gate_up": "feed-forward",
}  # fmt: skip
BY_PART = {"feed-forward": "feed-forward", "down": "feed-forward"}
BY_MIXER = {"gdn": "gated delta net", "attention": "attention"}

MtpState = Literal["present", "stripped", "none"]


@dataclass(frozen=True)
class Tensors:
    """Tensors of one type in the file and one format on the device. format, device_bytes: None for what is not
    loaded."""

    type: str
    format: str | None
    count: int
    elements: int
    file_bytes: int
    device_bytes: int | None


@dataclass(frozen=True)
class Running:
    """What a file takes of a device and its bandwidth."""

    weights_bytes: int
    bytes_per_token: dict[str, int]  # that a step of one row must move in an empty context, by part of the network
    bytes_per_draft: int | None  # that a further draft call must move; None: no MTP block
    bytes_per_position: int  # of all KV caches, for one sequence
    cards: tuple[Fit, ...]


@dataclass(frozen=True)
class Report:
    """All that is known of a file; `refused` says in one line why arcmtp does not run it."""

    file: str
    file_bytes: int  # of all parts
    model: str  # as the file calls it
    architecture: str
    config: Config | None
    mtp: MtpState | None  # stripped: the file's keys announce a block that is not there
    tensors: tuple[Tensors, ...]  # the most bytes first
    running: Running | None
    refused: str | None


def inspect(
    gguf: GGUF, ctx: int | None = None, parallel: int = 1, requant: Requant | None = None, kv_type: str = "f16",
    cache_mib: int | None = None,
) -> Report:  # fmt: skip
    """The report of an open file, as `LLM` would run it with these options.

    ctx: tokens of context that each card is to hold; None: as many as `LLM` takes, or less on cards that hold less.
    Raises ArcmtpError for options out of range. A file that arcmtp does not run has a report all the same.
    """
    check_parallel(parallel)
    kv = kv_format(kv_type)
    try:
        config = Config.from_gguf(gguf)
    except ArcmtpError as error:
        return _report(gguf, None, None, str(error))
    options = NetworkOptions(
        config.usable_context(ctx), config.vocab, parallel, mtp=gguf if has_mtp(gguf, config) else None,
        requant=requant, kv=kv,
    )  # fmt: skip

    def network(device: Device, context: int, cache: CacheBytes) -> Network:
        return Network(gguf, config, replace(options, context=context, cache_bytes=cache), device)

    try:
        on_paper = network(cards_on_paper()[0], options.context, (0, 0))
    except ArcmtpError as error:
        return _report(gguf, config, None, str(error))
    running = _running(on_paper, fits(network, options.context, ctx is None, cache_mib))
    return _report(gguf, config, running, None, on_paper)


def bytes_per_token(network: Network) -> dict[str, int]:
    """Bytes that a step of one row must move in an empty context, by part of the network, in the order of the parts'
    first launches."""
    parts: dict[str, int] = {}
    for launch in network.plain_step():
        part = _part(launch)
        parts[part] = parts.get(part, 0) + _nbytes(network, launch)
    return parts


def _running(network: Network, cards: Iterable[Fit]) -> Running:
    draft = sum(_nbytes(network, launch) for launch in network.plain_draft()) if network.mtp else None
    return Running(
        weights_bytes=network.weights.nbytes,
        bytes_per_token=bytes_per_token(network),
        bytes_per_draft=draft,
        bytes_per_position=network.bytes_per_position // network.slots,
        cards=tuple(cards),
    )


def _report(
    gguf: GGUF, config: Config | None, running: Running | None, refused: str | None, network: Network | None = None
) -> Report:
    def text(key: str) -> str:
        value = gguf.metadata.get(key)
        return value if isinstance(value, str) else ""

    return Report(
        file=str(gguf.path),
        file_bytes=sum(path.stat().st_size for path in gguf.paths),
        model=text("general.name"),
        architecture=text("general.architecture"),
        config=config,
        mtp=_mtp_state(gguf, config) if config else None,
        tensors=tuple(_tensors(gguf, _on_device(network) if network else {})),
        running=running,
        refused=refused,
    )


def _nbytes(network: Network, launch: Launch) -> int:
    return launch.cost(Work(rows=1, context=1, experts=network.config.experts_used)).nbytes


def _part(launch: Launch) -> str:
    if launch.layer is None:
        return "embedding" if launch.operator == "embedding" else "head"
    return BY_OPERATOR.get(launch.operator) or BY_PART.get(launch.part) or BY_MIXER[launch.block]


def _mtp_state(gguf: GGUF, config: Config) -> MtpState:
    if has_mtp(gguf, config):
        return "present"
    return "stripped" if config.mtp_layers else "none"


def _tensors(gguf: GGUF, on_device: dict[str, tuple[str, int]]) -> Iterator[Tensors]:
    """The file's tensors by type and format. on_device: format and bytes of each that is loaded, by name."""
    groups: dict[tuple[str, str | None], list[tuple[int, int, int]]] = {}
    for tensor in gguf.tensors.values():
        form, nbytes = on_device.get(tensor.name, (None, 0))
        groups.setdefault((tensor.type.name, form), []).append((tensor.elements, tensor.nbytes, nbytes))
    rows = []
    for (kind, form), members in groups.items():
        elements, file_bytes, device_bytes = (sum(column) for column in zip(*members, strict=True))
        rows.append(Tensors(kind, form, len(members), elements, file_bytes, device_bytes if form else None))
    return iter(sorted(rows, key=lambda row: -row.file_bytes))


def _on_device(network: Network) -> dict[str, tuple[str, int]]:
    """Format and bytes on the device of each tensor that is loaded, by name; one that is loaded in parts has them
    all."""
    found: dict[str, tuple[str, int]] = {}
    for segment in (segment for merged in network.weights.merged for segment in merged.segments):
        _, before = found.get(segment.tensor.name, ("", 0))
        found[segment.tensor.name] = segment.matrix.format.name, before + segment.matrix.nbytes
    return found | {tensor.name: ("F32", made.nbytes) for _, tensor, made in network.weights.vectors}
