"""A model on a device: trunk, head and MTP block, arranged as its architecture says, as lists of launches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from arcmtp.errors import ArcmtpError
from arcmtp.formats.kv_cache import KEY_TILE, KV_F16, KvFormat
from arcmtp.formats.matrix import Requant
from arcmtp.gguf import GGUF
from arcmtp.model.ahead import Ahead
from arcmtp.model.architecture import feed_forward, trunk_layers
from arcmtp.model.blocks.cache import Cache, StateCache
from arcmtp.model.blocks.embedding import EmbeddingBlock
from arcmtp.model.blocks.head import SamplingMode, trunk_head
from arcmtp.model.blocks.mtp import HiddenRows, MtpBlock, Trunk
from arcmtp.model.builder import Builder, Residual, Rows
from arcmtp.model.calls import Calls, of_sequences, suffix
from arcmtp.model.config import Config
from arcmtp.model.controls import Controls
from arcmtp.model.pages import Pages
from arcmtp.model.stage import LaunchList, Stage
from arcmtp.model.weight_plan import Merged, RowIds, WeightPlan
from arcmtp.model.weights import Progress, WeightLoader
from arcmtp.ops.accept import Accept
from arcmtp.ops.cost import product_cost
from arcmtp.ops.launch import MAX_ROWS, STEP_ROWS
from arcmtp.runtime.device import Device
from arcmtp.runtime.launch import Cost, Launch, Work
from arcmtp.runtime.tensor import F32, Kind

GREEDY = SamplingMode()


@dataclass(frozen=True)
class NetworkOptions:
    """How a network is made.

    context: tokens of each sequence. slots: sequences. vocabulary_used: rows of the embedding that are tokens. mtp:
    the file whose MTP block drafts, the network's own or another; None: nothing drafts. hidden_rows: what the block is
    given. requant: "int4" turns large matrices into W4. draft_tokens: int32, ascending, the tokens that are ever
    drafted; None: all. draft_requant: "int4" turns the large matrices of the MTP block into W4, and its copy of the
    output matrix. kv: how all KV caches lie, the MTP block's too. cache_bytes: for checkpoints, at most, on the
    device and in host memory.
    """

    context: int
    vocabulary_used: int
    slots: int = 1
    mtp: GGUF | None = None
    hidden_rows: HiddenRows = "post"
    requant: Requant | None = None
    draft_tokens: RowIds | None = None
    draft_requant: Requant | None = None
    kv: KvFormat = KV_F16
    cache_bytes: tuple[int, int] = (0, 0)


def check_parallel(sequences: int) -> None:
    """Raises ArcmtpError for so many sequences side by side as no step has rows for."""
    if not 1 <= sequences <= STEP_ROWS:
        raise ArcmtpError(f"parallel is {sequences}; it must be 1 to {STEP_ROWS}")


class Network:
    """A file's network on a device, with a slot for each sequence.

    A step advances a batch: the sequences in the slots that `controls.slots` names, each by as many rows. A network is
    made before anything is loaded: `weights.nbytes` and `nbytes` tell what `load` will take. The other methods give
    launch lists, which are compiled when they are first asked for. Raises ArcmtpError, naming the file, for tensors
    that are missing or wrong.
    """

    def __init__(self, gguf: GGUF, config: Config, options: NetworkOptions, device: Device) -> None:
        self.config, self.slots, self.device, self.kv = config, options.slots, device, options.kv
        # A step may end MAX_ROWS rows beyond the last token; the KV cache has whole tiles.
        self.context = -(-(options.context + MAX_ROWS) // KEY_TILE) * KEY_TILE
        self.stage = stage = Stage(device)
        self.weights = WeightPlan(gguf, stage.arena, options.requant)
        self.controls = Controls(stage.arena, options.slots, -(-config.vocab // 16) * 16, self.chunk_rows)
        build = Builder(
            config, self.weights, stage.arena, self.controls, device.card.geometry, device.activation_orders,
            options.slots, self.context, options.kv,
        )  # fmt: skip
        self.embedding = EmbeddingBlock(build)
        stage.layers += trunk_layers(build)
        partial_sums = stage.layers[-1].feed_forward.partial_sums
        self._residual = Residual(build, partial_sums)
        self.head = trunk_head(
            build, self.embedding.weights, options.vocabulary_used, partial_sums, hidden_rows=options.mtp is not None
        )
        self.mtp: MtpBlock | None = None
        if options.mtp:
            trunk = Trunk(self.embedding.weights, self.head, partial_sums, options.hidden_rows)
            plan = self.weights.with_file(options.mtp).with_requant(options.draft_requant or options.requant)
            self.mtp = MtpBlock(replace(build, weights=plan), trunk, feed_forward, options.draft_tokens)
        self.step_hidden = trunk.hidden if self.mtp else self.head.rows.plain
        carried = self.mtp.carried.tensor if self.mtp else build.per_slot("carried hidden row", F32, 0)
        self._carried = carried
        self._step_bytes: dict[float, list[int]] = {}  # by routed experts: those of contexts of 0 and 1 keys
        self.accept = Accept(self.head.vocabulary.stride, config.hidden if self.mtp else 0)
        ahead = Ahead(device.card.geometry.ahead_kib << 10, self.context)
        self._calls = Calls(self.controls, self._trunk, self.head, self.mtp, self._accept, ahead)
        self.pages = Pages(stage.arena, self.caches, options.cache_bytes)

    @property
    def chunk_rows(self) -> int:
        """Tokens of a prompt chunk at most."""
        return self.device.card.geometry.chunk_rows

    @property
    def nbytes(self) -> int:
        """Bytes of device memory besides the weights: caches, recurrent state, scratch memory, checkpoints."""
        return self.stage.arena.nbytes(Kind.CACHE, Kind.STATE, Kind.SCRATCH, Kind.COUNTERS, Kind.PAGES)

    @property
    def host_layers(self) -> int:
        """Layers whose experts lie in host memory."""
        return len(self._experts_in_host_memory)

    def keep_experts_in_host_memory(self, layers: int) -> None:
        """Let the experts of the last `layers` layers of the trunk lie in host memory, all others on the device; only
        before `load`. The MTP block's stay on the device: each draft call reads them.

        Raises ArcmtpError for more layers than have experts.
        """
        experts = self._experts_from_the_last_layer
        if not 0 <= layers <= len(experts):
            have = f"it has {len(experts)} layers with experts" if experts else "it has no experts"
            raise ArcmtpError(f"experts_host is {layers}; of this model it can be 0 to {len(experts)}: {have}")
        for index, of_layer in enumerate(experts):
            for merged in of_layer:
                merged.tensor.region.in_host_memory = index < layers

    @property
    def expert_bytes(self) -> list[int]:
        """Bytes of the routed experts of each layer that has some, the last layer's first."""
        return [sum(merged.tensor.nbytes for merged in of_layer) for of_layer in self._experts_from_the_last_layer]

    @property
    def _experts_from_the_last_layer(self) -> list[tuple[Merged, ...]]:
        return [layer.feed_forward.experts for layer in reversed(self.stage.layers) if layer.feed_forward.experts]

    @property
    def bytes_per_position(self) -> int:
        """Bytes that one more token of context takes."""
        return self.stage.arena.nbytes(Kind.CACHE) // self.context

    def load(self, progress: Progress | None = None, loader: type[WeightLoader] = WeightLoader) -> dict[str, float]:
        """Bring the weights and allocate everything else; the relative RMS error of each requantised tensor.

        Raises ArcmtpError when the device has no room.
        """
        errors = loader(self.weights, self.device, progress).load()
        self.stage.arena.allocate(self.device)
        for slot in range(self.slots):
            self.reset(slot)
        return errors

    @property
    def caches(self) -> list[Cache]:
        """What is kept of sequences, by the blocks and of rows that are pending: all that a checkpoint copies."""
        of_mtp: list[Cache] = [self.mtp.attention.cache, self.mtp.carried] if self.mtp else []
        return [*(layer.mixer.cache for layer in self.stage.layers), *of_mtp, StateCache(self.controls.pending_count)]

    def reset(self, slot: int = 0) -> None:
        """Begin a new sequence: empty recurrent state, nothing pending, and no generation under way."""
        for cache in self.caches:
            cache.reset(slot)
        self.controls.reset(slot)

    def chunk(self) -> LaunchList:
        """A prompt chunk: the trunk, and its rows in the MTP block's KV cache."""
        return self.stage.launch_list("chunk", self._chunk)

    def trunk(self, rows: int, sequences: int = 1) -> LaunchList:
        """Embedding and all layers for 1…8 rows of each sequence (a step: they are pending until the next one) or, with
        0, a prompt chunk."""
        of_rows = self._calls.rows(rows, sequences) if rows else self._rows_of_chunk
        return self.stage.launch_list(f"trunk {rows} {sequences}", lambda: self._trunk(of_rows))

    def logits(self, rows: int, mode: SamplingMode = GREEDY) -> LaunchList:
        """Final norm of the rows that `source_rows` names, logits, greedy sampling; 1…8 rows. With `mode.top` also as
        many of the likeliest tokens of each as slot `chunk_slot` wants."""
        of_rows = replace(self._calls.rows(rows), batch=self.controls.chunk_batch)
        return self.stage.launch_list(f"head {rows}{suffix(mode)}", lambda: self._choose(of_rows, mode))

    def first(self, mode: SamplingMode) -> LaunchList:
        """After a chunk of slot `chunk_slot`: choose the token that follows row `source_rows[0]`."""
        return self.stage.launch_list(f"first{suffix(mode)}", lambda: self._first(mode))

    def step(self, rows: int, mode: SamplingMode, sequences: int = 1) -> LaunchList:
        """Evaluate each sequence's token chosen last and `rows` - 1 drafts, choose, accept; the next step begins where
        it ends."""
        call = self._calls.step(rows, mode, sequences)
        return self.stage.launch_list(call.name, call.whole)

    def draft(
        self, index: int, rows: int, mode: SamplingMode, sequences: int = 1, if_likely: bool = False
    ) -> LaunchList:
        """Draft call `index` (1…7), which guesses input `index` of each sequence of the next step; `rows`: of
        each sequence in the step before.

        if_likely: from the second call on, it ends the chains whose draft before is too unlikely, and its work is
        skipped if none goes on.
        """
        call = self._calls.draft(index, rows, mode, sequences, if_likely)
        return self.stage.launch_list(call.name, call.whole)

    def cycle(
        self, before: int, drafted: int, mode: SamplingMode, sequences: int = 1, if_likely: bool = False
    ) -> list[tuple[LaunchList, ...]]:
        """The draft calls of a cycle after a step of `before` rows, and its step of `drafted` + 1: `draft` and `step`.

        Each is one launch list. Where tokens are masked it is two, and the host writes masks before the second one: it
        can make them while the first one runs, and those of a call depend on the drafts of earlier calls.
        """
        drafts = (self._calls.draft(index, before, mode, sequences, if_likely) for index in range(1, drafted + 1))
        calls = [*drafts, self._calls.step(drafted + 1, mode, sequences)]
        return [tuple(self.stage.launch_list(*part) for part in call.parts) for call in calls]

    def keep(self, rows: int, sequences: int = 1) -> LaunchList:
        """What of the first draft call after a step of `rows` rows stays in the MTP block's KV cache."""
        name = f"keep {rows}{of_sequences(sequences)}"
        return self.stage.launch_list(name, lambda: self._calls.keep(rows, sequences))

    def catch_up(self) -> LaunchList:
        """Bring up to CARRIED_ROWS positions of slot `chunk_slot` into the MTP block's KV cache, which steps without
        drafts have left out: `chunk_ids` at `chunk_positions`."""
        assert self.mtp is not None
        mtp = self.mtp
        return self.stage.launch_list("catch up", lambda: mtp.catch_up(self._rows_of_chunk))

    def compile(self, rows: int, sequences: int = 1, if_likely: bool = False) -> None:
        """Compile what chunks (rows 0), or drafts and steps of `rows` rows a sequence need, so that a later call does
        not wait for it."""
        self.device.compile(launch.kernel for launch in self.launches(rows, sequences, if_likely=if_likely))

    def launches(
        self, rows: int, sequences: int = 1, mode: SamplingMode = GREEDY, if_likely: bool = False
    ) -> Iterator[Launch]:
        """All launches of a chunk (rows 0), or of drafts and steps of `rows` rows a sequence; if_likely: also of the
        drafts that depend on those before them."""
        if not rows:
            yield from self._chunk()
            if self.mtp:
                yield from self.mtp.catch_up(self._rows_of_chunk)
            return
        if (rows, sequences) == (1, 1):
            yield from self._first(mode)
        yield from self._calls.step(rows, mode, sequences).whole()
        if self.mtp and rows > 1:
            yield from self._calls.keep(rows, sequences)
        for index in (1, 2):
            if self.mtp and (index + 1) * sequences <= self.controls.step_rows:
                yield from self._calls.draft(index, rows, mode, sequences, if_likely=False).whole()
                if if_likely and index > 1:
                    yield from self._calls.draft(index, rows, mode, sequences, if_likely).whole()

    def step_bytes(self, position: int, experts: float | None = None) -> int:
        """Bytes that a step of one row at `position` must move (ops/cost.py).

        experts: how many routed experts it takes in a layer; None: as many as a row chooses.
        """
        experts = self.config.experts_used if experts is None else experts
        if experts not in self._step_bytes:
            self._step_bytes[experts] = [self._bytes_of_step(context, experts) for context in (0, 1)]
        none, one = self._step_bytes[experts]
        return none + (position + 1) * (one - none)  # only attention depends on the context: so much for each key

    @property
    def host_step_bytes(self) -> int:
        """Bytes of experts in host memory that a step of one row must read."""
        used = self.config.experts_used
        stacks = (merged for of_layer in self._experts_in_host_memory for merged in of_layer)
        return sum(product_cost(matrix, 1, used).nbytes for merged in stacks for matrix in merged.matrices)

    @property
    def _experts_in_host_memory(self) -> list[tuple[Merged, ...]]:
        experts = self._experts_from_the_last_layer
        return [of_layer for of_layer in experts if of_layer[0].tensor.region.in_host_memory]

    def plain_step(self, rows: int = 1) -> list[Launch]:
        """The launches of a step of one sequence, chosen greedily; nothing is compiled for them."""
        return self._calls.step(rows, GREEDY, 1).whole()

    def plain_draft(self, index: int = 2, rows: int = 2) -> list[Launch]:
        """Those of `draft`, without log-probabilities."""
        return self._calls.draft(index, rows, GREEDY, 1, if_likely=False).whole()

    def plain_chunk(self) -> Iterator[Launch]:
        """Those of a prompt chunk."""
        return self._chunk()

    def plain_first(self) -> Iterator[Launch]:
        """Those that choose the token behind a prompt."""
        return self._first(GREEDY)

    def _bytes_of_step(self, context: int, experts: float) -> int:
        work = Work(1, context, experts)
        return sum((launch.cost(work) for launch in self.plain_step()), Cost(0)).nbytes

    @property
    def _rows_of_chunk(self) -> Rows:
        controls = self.controls
        return Rows(0, controls.chunk_batch, controls.row_count, controls.chunk_ids, controls.chunk_positions)

    def _trunk(self, rows: Rows) -> Iterator[Launch]:
        yield self.embedding.launch(rows)
        for layer in self.stage.layers:
            yield from layer.launches(rows, self._residual.after if layer.index else self._residual.before)

    def _chunk(self) -> Iterator[Launch]:
        yield from self._trunk(self._rows_of_chunk)
        if self.mtp:
            yield from self.mtp.chunk(self._rows_of_chunk)

    def _first(self, mode: SamplingMode) -> Iterator[Launch]:
        row = replace(self._calls.rows(1), batch=self.controls.chunk_batch)
        yield from self._choose(row, mode)
        yield self._accept(row, evaluated=False)

    def _choose(self, rows: Rows, mode: SamplingMode) -> Iterator[Launch]:
        yield from self.head.logit_launches(rows)
        yield from self.head.choice(rows, mode, self.controls.sampled)

    def _accept(self, rows: Rows, evaluated: bool = True) -> Launch:
        c = self.controls
        return self.accept.launch(
            rows.per_sequence, evaluated, rows.batch, sampled=c.sampled, logits=self.head.logits, stats=c.stats,
            ids=c.ids, positions=c.positions, pending_count=c.pending_count, drafted=c.drafted, accepted=c.accepted,
            turns=c.turns, states=c.token_states, records=c.records, hidden=self.step_hidden, carried=self._carried,
        )  # fmt: skip
