"""A GGUF file to a network that is ready to run."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from arcmtp.engine.auto_drafts import AutoDrafts
from arcmtp.engine.draft_policy import DraftPolicy, FixedDrafts, check_p_min, longest, may_draft
from arcmtp.engine.memory_plan import (
    ExpertsHost,
    check_cache_mib,
    check_experts_host,
    load,
    planned,
)
from arcmtp.engine.model_file import ModelFile
from arcmtp.engine.usable import Usable
from arcmtp.errors import ArcmtpError
from arcmtp.formats.kv_cache import kv_format
from arcmtp.gguf import GGUF
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.blocks.mtp import HiddenRows, has_mtp
from arcmtp.model.config import Config
from arcmtp.model.draft_vocabulary import DraftVocab, draft_tokens
from arcmtp.model.mtp_donor import check_donor
from arcmtp.model.network import Network, NetworkOptions, check_parallel
from arcmtp.ops.launch import MAX_ROWS
from arcmtp.progress import Progress
from arcmtp.runtime.device import Device
from arcmtp.runtime.graphs import choose
from arcmtp.runtime.launch import kernels_of

AUTO: Literal["auto"] = "auto"

USUAL_ROWS = 3  # of a step that verifies drafts

Draft = int | Literal["auto"]


@dataclass(frozen=True)
class LoadOptions:
    """How a file is loaded; the options are those of `LLM`. Raises ArcmtpError for values out of range."""

    path: str | Path | ModelFile
    device: str | Device | None = None
    ctx: int | None = None
    requant: Literal["int4"] | None = None
    graphs: bool | None = None
    draft: Draft | None = None
    mtp_hidden: HiddenRows = "post"
    parallel: int = 1
    draft_p_min: float = 0.0
    draft_vocab: DraftVocab = "full"
    draft_requant: Literal["int4"] | None = None
    mtp_model: str | Path | None = None
    experts_host: ExpertsHost = "auto"
    kv_type: str = "f16"
    cache_mib: int | None = None
    cache_host_mib: int | None = None
    ignore_selftest: bool = False

    def __post_init__(self) -> None:
        if self.draft is not None:
            policy_of(self.draft)
        check_p_min(self.draft_p_min)
        check_experts_host(self.experts_host)
        kv_format(self.kv_type)
        check_cache_mib("cache_mib", self.cache_mib)
        check_cache_mib("cache_host_mib", self.cache_host_mib)
        check_parallel(self.parallel)


class LoadedModel:
    """A model on a device, with what its file says. progress: called as progress(stage, done, total).

    Raises ArcmtpError for a file, device or context that cannot be used.
    """

    def __init__(self, options: LoadOptions, progress: Progress) -> None:
        began = time.perf_counter()
        file = options.path if isinstance(options.path, ModelFile) else ModelFile.open(options.path)
        gguf, self.config, self.tokenizer = file.gguf, file.config, file.tokenizer
        self.path = gguf.path
        donor = _donor(gguf, self.config, options.mtp_model)
        self.device = options.device if isinstance(options.device, Device) else Device(options.device)
        usable = Usable(self.device, options.ignore_selftest)
        default: Draft = AUTO if donor or has_mtp(gguf, self.config) else 0
        self.draft = default if options.draft is None else options.draft
        if self.draft and not usable.may("drafts", asked=options.draft is not None):
            self.draft = 0
        graphs = usable.graphs(options.graphs)
        self.without = usable.without
        self.policy = policy_of(self.draft)
        of_network = NetworkOptions(
            self.config.usable_context(options.ctx), self.tokenizer.vocab_used, options.parallel,
            mtp=(donor or gguf) if may_draft(self.policy) else None, hidden_rows=options.mtp_hidden,
            requant=options.requant, draft_requant=options.draft_requant,
            draft_tokens=draft_tokens(options.draft_vocab, self.tokenizer), kv=kv_format(options.kv_type),
        )  # fmt: skip
        self.context, network, self.memory = planned(
            lambda context, cache: Network(
                gguf, self.config, replace(of_network, context=context, cache_bytes=cache), self.device
            ),
            of_network.context, options.experts_host, options.ctx is None, (options.cache_mib, options.cache_host_mib),
        )  # fmt: skip
        self.prompting = file.prompting(self.context)
        self.requant_errors = load(network, self.context, self.memory, progress)
        _compile(network, {0, *self.policy.lengths}, options.draft_p_min > 0, progress)
        step = network.step(USUAL_ROWS if may_draft(self.policy) else 1, SamplingMode())
        self.graph_choice = choose(self.device, step.bound, kernels_of(step)) if graphs is None else None
        network.stage.graphs.enabled = self.graph_choice.use_graphs if self.graph_choice else bool(graphs)
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


def policy_of(draft: Draft) -> DraftPolicy:
    """A new policy for a draft length or "auto". Raises ArcmtpError for anything else."""
    if draft == AUTO:
        return AutoDrafts()
    if not isinstance(draft, int):
        raise ArcmtpError(f"draft is {draft!r}; it must be 'auto' or a number from 0 to {MAX_ROWS - 1}")
    return FixedDrafts(draft)


def _donor(trunk: GGUF, config: Config, path: str | Path | None) -> GGUF | None:
    """The file at `path`, checked, whose MTP block drafts for the trunk; None: the trunk's own block."""
    if path is None:
        return None
    donor = GGUF(path)
    check_donor(trunk, config, donor)
    return donor


def _compile(network: Network, lengths: Iterable[int], if_likely: bool, progress: Progress) -> None:
    counts = range(1, network.slots + 1)
    shapes = [(0, 1), *((k + 1, count) for k in sorted(lengths) for count in counts if k <= longest(count))]
    for done, (rows, sequences) in enumerate(shapes):
        progress("compiling kernels", done, len(shapes))
        network.compile(rows, sequences, if_likely)
    progress("compiling kernels", len(shapes), len(shapes))
