"""Which model of a repository a device has room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from arcmtp.engine.memory_plan import CacheMib, memory_plan
from arcmtp.errors import ArcmtpError
from arcmtp.formats.kv_cache import kv_format
from arcmtp.gguf import GGUF
from arcmtp.hub import HubError, HubModel, Repository
from arcmtp.model.blocks.mtp import has_mtp
from arcmtp.model.config import Config
from arcmtp.model.network import Network, NetworkOptions
from arcmtp.model.tokenizer import Tokenizer
from arcmtp.progress import Progress
from arcmtp.runtime.device import Device

GIB = 2**30


@dataclass(frozen=True)
class Place:
    """What a model has to fit into: a device, and a context as `LLM` takes it for each of `parallel` sequences, with
    its other options."""

    device: Device
    ctx: int | None = None
    parallel: int = 1
    requant: Literal["int4"] | None = None
    kv_type: str = "f16"
    cache_mib: CacheMib = (None, None)


@dataclass(frozen=True)
class Candidate:
    """A model, whether it fits and why."""

    model: HubModel
    fits: bool | None  # None: not looked at, since a larger one fits
    reason: str


def network_of(gguf: GGUF, place: Place) -> Network:
    """The network of a file with its MTP block, not loaded. No weight is read.

    Raises ArcmtpError for a file that cannot be used, and for a context that is not the model's.
    """
    config = Config.from_gguf(gguf)
    on_device, in_host_memory = ((mib or 0) << 20 for mib in place.cache_mib)  # what is usual gives way to all else
    options = NetworkOptions(
        config.usable_context(place.ctx), Tokenizer.from_gguf(gguf).vocab_used, place.parallel,
        mtp=gguf if has_mtp(gguf, config) else None, requant=place.requant,
        kv=kv_format(place.kv_type), cache_bytes=(on_device, in_host_memory),
    )  # fmt: skip
    return Network(gguf, config, options, place.device)


def candidates(repository: Repository, place: Place, progress: Progress) -> list[Candidate]:
    """Every whole model of a repository, the largest first, up to the one that is to be taken: the largest that fits.

    A file larger than the device's free memory does not fit. Of the others the headers are read, from the largest on,
    until the memory plan of one fits. progress: called as progress("reading headers", done, total).
    """
    models, found = repository.of_kind(only_mtp=False), list[Candidate]()
    for done, model in enumerate(models):
        progress("reading headers", done, len(models))
        taken = any(candidate.fits for candidate in found)
        found.append(Candidate(model, None, "smaller") if taken else _judged(repository, model, place))
    return found


def table(found: Sequence[Candidate]) -> str:
    """A line for each model: its name, the bytes of its files, whether it fits and why."""
    answers = {True: "yes", False: "no", None: "-"}
    rows = [("file", "GiB", "fits", "")]
    rows += [(one.model.name, f"{one.model.nbytes / GIB:.2f}", answers[one.fits], one.reason) for one in found]
    name, size = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{row[0]:{name}}  {row[1]:>{size}}  {row[2]:4}  {row[3]}".rstrip() for row in rows)


def _judged(repository: Repository, model: HubModel, place: Place) -> Candidate:
    free = place.device.free_memory
    if model.nbytes > free:
        return Candidate(model, False, f"the file alone is larger than the {free / GIB:.2f} GiB that are free")
    try:
        with repository.header(model) as gguf:
            plan = memory_plan(network_of(gguf, place))
    except HubError:
        raise
    except ArcmtpError as error:  # a file that arcmtp cannot run
        return Candidate(model, False, str(error))
    needs = f"needs {plan.nbytes / GIB:.2f} of {plan.free_bytes / GIB:.2f} GiB"
    return Candidate(model, plan.nbytes <= plan.free_bytes, needs)
