"""A GGUF file to a network that is ready to run."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from arcmtp.engine.batch import most_sequences
from arcmtp.engine.draft_policy import FixedDrafts
from arcmtp.engine.memory_plan import check_memory
from arcmtp.errors import ArcmtpError
from arcmtp.gguf import GGUF
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.blocks.mtp import HiddenRows, has_mtp
from arcmtp.model.config import Config
from arcmtp.model.draft_vocabulary import DraftVocab, draft_tokens
from arcmtp.model.network import Network, NetworkOptions
from arcmtp.model.tokenizer import Tokenizer
from arcmtp.ops.launch import STEP_ROWS
from arcmtp.progress import Progress
from arcmtp.runtime.device import Device
from arcmtp.runtime.graphs import choose
from arcmtp.runtime.launch import kernels_of

DEFAULT_DRAFT = 2  # tokens, where the file has an MTP block


@dataclass(frozen=True)
class LoadOptions:
    """How a file is loaded; the options are those of `LLM`. Raises ArcmtpError for values out of range."""

    path: str | Path
    device: str | Device | None = None
    ctx: int | None = None
    requant: Literal["int4"] | None = None
    graphs: bool | None = None
    draft: int | None = None
    mtp_hidden: HiddenRows = "post"
    parallel: int = 1
    draft_vocab: DraftVocab = "full"
    draft_requant: Literal["int4"] | None = None

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
        of_network = NetworkOptions(
            self.context, self.tokenizer.vocab_used, options.parallel, mtp=self.draft > 0,
            hidden_rows=options.mtp_hidden, requant=options.requant, draft_requant=options.draft_requant,
            draft_tokens=draft_tokens(options.draft_vocab, self.tokenizer),
        )  # fmt: skip
        network = Network(gguf, self.config, of_network, self.device)
        check_memory(network, self.context)
        self.requant_errors = network.load(lambda done, total: progress("loading weights", done, total))
        _compile(network, self.draft, progress)
        # The CPU driver never frees 2 KiB per kernel of every replay, however it is submitted (docs/log.md).
        measured = options.graphs is None and not self.device.is_cpu
        step = network.step(self.draft + 1, SamplingMode())
        self.graph_choice = choose(self.device, step.bound, kernels_of(step)) if measured else None
        network.stage.graphs.enabled = self.graph_choice.use_graphs if self.graph_choice else bool(options.graphs)
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
        most = min(network.slots, most_sequences(FixedDrafts(length)))
        shapes += [(length + 1, count) for count in range(1, most + 1)]
    for done, (rows, sequences) in enumerate(shapes):
        progress("compiling kernels", done, len(shapes))
        network.compile(rows, sequences)
    progress("compiling kernels", len(shapes), len(shapes))
