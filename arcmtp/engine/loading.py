"""A GGUF file to a network that is ready to run."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from arcmtp.engine.batch import most_runs
from arcmtp.engine.draft_policy import FixedDrafts
from arcmtp.engine.memory_plan import check_memory
from arcmtp.errors import ArcmtpError
from arcmtp.gguf import GGUF
from arcmtp.model.config import Config
from arcmtp.model.drafter import Hidden
from arcmtp.model.network import Choice, Network
from arcmtp.model.plan import has_mtp, plan
from arcmtp.model.tokenizer import Tokenizer
from arcmtp.model.weights import load
from arcmtp.ops.launch import STEP_ROWS
from arcmtp.runtime.device import Device
from arcmtp.runtime.graphs import choose

DEFAULT_DRAFT = 2  # tokens, where the file has an MTP block

Progress = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True)
class LoadOptions:
    """How a file is loaded; the options are those of `LLM`. Raises ArcmtpError for values out of range."""

    path: str | Path
    device: str | Device | None = None
    ctx: int | None = None
    requant: Literal["int4"] | None = None
    graphs: bool | None = None
    draft: int | None = None
    mtp_hidden: Hidden = "post"
    parallel: int = 1

    def __post_init__(self) -> None:
        if self.draft is not None:
            FixedDrafts(self.draft)
        if not 1 <= self.parallel <= STEP_ROWS:
            raise ArcmtpError(f"parallel is {self.parallel}; it must be 1 to {STEP_ROWS}")


class LoadedModel:
    """A model on a device, with what its file says. progress: called as progress(stage, done, total).

    Raises ArcmtpError for a file, device or context that cannot be used.
    """

    def __init__(self, options: LoadOptions, progress: Progress) -> None:
        began = time.perf_counter()
        gguf = GGUF(options.path)
        self.metadata = gguf.metadata
        self.config = Config.from_gguf(gguf)
        self.tokenizer = Tokenizer(gguf.metadata)
        self.context = self.config.usable_context(options.ctx)
        default = DEFAULT_DRAFT if has_mtp(gguf, self.config) else 0
        self.draft = default if options.draft is None else options.draft
        self.device = options.device if isinstance(options.device, Device) else Device(options.device)
        steps = plan(gguf, self.config, options.requant, mtp=self.draft > 0)
        network = Network(
            steps, self.device, self.context, self.tokenizer.vocab_used, options.mtp_hidden, options.parallel
        )
        check_memory(steps, network, self.context)
        weights = load(steps, self.device, lambda done, total: progress("loading weights", done, total))
        self.requant_errors = weights.requant_errors
        network.load(weights)
        _compile(network, self.draft, progress)
        # The CPU driver never frees 2 KiB per kernel of every replay, however it is submitted (docs/log.md).
        measured = options.graphs is None and not self.device.is_cpu
        self.graph_choice = choose(self.device, network.step(self.draft + 1, Choice()).launches) if measured else None
        network.graphs.enabled = self.graph_choice.use_graphs if self.graph_choice else bool(options.graphs)
        self._network: Network | None = network
        self.load_seconds = time.perf_counter() - began

    @property
    def network(self) -> Network:
        """The network on the device; ArcmtpError after `close`."""
        if self._network is None:
            raise ArcmtpError("this LLM is closed")
        return self._network

    def close(self) -> None:
        """Let go of the network, and so of the device's memory."""
        self._network = None


def _compile(network: Network, draft: int, progress: Progress) -> None:
    shapes = [(0, 1)]
    for length in sorted({0, draft}):
        runs = min(network.slots, most_runs(FixedDrafts(length)))
        shapes += [(length + 1, count) for count in range(1, runs + 1)]
    for done, (rows, runs) in enumerate(shapes):
        progress("compiling kernels", done, len(shapes))
        network.compile(rows, runs)
    progress("compiling kernels", len(shapes), len(shapes))
