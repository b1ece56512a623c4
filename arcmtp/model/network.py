"""Trunk, head and MTP block as lists of launches, over buffers that are allocated once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

from arcmtp.model.drafter import Drafter, Hidden
from arcmtp.model.layer import LayerOps, Rows
from arcmtp.model.plan import Plan
from arcmtp.model.weights import MtpBlock, Weights
from arcmtp.model.workspace import allocate, total_bytes, workspace_sizes
from arcmtp.ops.accept import DONE, RECORD, RECORDS, Accept, turn
from arcmtp.ops.attention import KEY_TILE, Attention
from arcmtp.ops.embedding import Embedding
from arcmtp.ops.gumbel_sampling import GumbelSampling, History
from arcmtp.ops.launch import MAX_ROWS, STEP_ROWS, Consumers, Runs, compiled_rows
from arcmtp.ops.mul_mat import MulMat
from arcmtp.ops.norm import Norm
from arcmtp.ops.sampling import Sampling
from arcmtp.ops.top_logprobs import MAX_TOP, TopLogprobs
from arcmtp.runtime import _host
from arcmtp.runtime.compiler import Kernel, Program
from arcmtp.runtime.device import Device
from arcmtp.runtime.graphs import GraphCache
from arcmtp.runtime.memory import Buffer
from arcmtp.runtime.timing import Timeline


class Piece(NamedTuple):
    """A launch list by its name, which is also that of its graph."""

    name: str
    launches: _host.LaunchList


class Choice(NamedTuple):
    """How the tokens of a step are chosen; a graph is made for each way, not for each value."""

    by_options: bool = False  # by the workspace's `sampling_options`, otherwise greedily
    top: bool = False  # also find the likeliest tokens of each row


class Network:
    """The network of a plan on a device, with `slots` places for sequences of up to `context` tokens each.

    A step advances the sequences of some slots, its runs, by as many rows each: which, `workspace.slots` says. Made
    before the weights are loaded, so that `nbytes` tells what caches and buffers will take; `load` then brings the
    weights, and the other methods give launch lists, compiled on first use. It drafts if the plan has an MTP block.
    """

    def __init__(
        self, plan: Plan, device: Device, context: int, vocab_used: int, mtp_hidden: Hidden = "post", slots: int = 1
    ) -> None:
        self.config, self.device, self.slots = plan.config, device, slots
        self.step_rows = min(slots * MAX_ROWS, STEP_ROWS)
        # A step may end MAX_ROWS rows beyond the last token; the KV cache has whole tiles.
        self.context = -(-(context + MAX_ROWS) // KEY_TILE) * KEY_TILE
        geometry = device.card.geometry
        config, experts = plan.config, plan.config.experts_used + 1
        self.layers = [
            LayerOps.of(config, layer, experts if index else 0, geometry) for index, layer in enumerate(plan.layers)
        ]
        (embedding,) = (segment.matrix for segment in plan.embedding)
        (output,) = (segment.matrix for segment in plan.output or plan.embedding)
        self.embedding = Embedding(embedding)
        self.drafter = Drafter(config, plan.mtp, embedding, output, mtp_hidden, geometry) if plan.mtp else None
        head = Consumers.of([output])
        head = Consumers(head.quantised, head.plain or self.drafter is not None)
        self.final_norm = Norm(config.hidden, config.rms_eps, experts, head, geometry, gather=True)
        self.head_product = MulMat([output], geometry)
        self.sampling = Sampling(vocab_used, self.head_product.columns, geometry)
        self.gumbel_sampling = GumbelSampling(vocab_used, self.head_product.columns, geometry)
        self.top_logprobs = TopLogprobs(vocab_used, self.head_product.columns, geometry)
        self.accept = Accept(self.head_product.columns, config.hidden if self.drafter else 0)
        self._sizes = workspace_sizes(self, device.activation_orders)
        self._pieces: dict[str, Piece] = {}
        self._programs: dict[int, Program] = {}
        self._mixer_programs: dict[int, Program] = {}
        self.graphs = GraphCache(device)

    @property
    def nbytes(self) -> int:
        """Bytes of device memory besides the weights: caches, recurrent state, buffers."""
        return total_bytes(self._sizes)

    @property
    def bytes_per_position(self) -> int:
        """Bytes that one more token of context takes."""
        attention = [op.mixer for op in self.layers if isinstance(op.mixer, Attention)]
        attention += [self.drafter.mixer] if self.drafter else []
        caches = sum(mixer.cache_bytes(KEY_TILE) // KEY_TILE for mixer in attention)
        return self.config.rope_dim * 4 + self.slots * caches

    def load(self, weights: Weights) -> None:
        """Take the loaded weights and allocate everything else."""
        self.weights = weights
        self.workspace = allocate(self._sizes, self.config, self.device)
        self.records = self.device.host_zeros(self.slots * RECORDS * RECORD.itemsize)
        top = self.step_rows * (MAX_TOP + 1) * 4
        self.top_ids, self.top_logprobs_found = self.device.host_zeros(top), self.device.host_zeros(top)
        for slot in range(self.slots):
            self.reset(slot)

    def reset(self, slot: int = 0) -> None:
        """Begin a new sequence: empty recurrent state, nothing pending, and no generation under way."""
        w = self.workspace
        for buffer in (*self._recurrent, w.pending_count, w.carried):
            size = buffer.nbytes // self.slots
            buffer.fill(0, slot * size, size)
        idle = turn(0, ())
        idle[DONE] = 1  # so that a step changes nothing
        w.turns.write(idle, slot * idle.nbytes)

    def save_checkpoint(self, slot: int = 0) -> None:
        """Copy what a sequence cannot be brought back to otherwise: recurrent state, of which nothing is pending, and
        the last hidden row. Keys and values lie by position."""
        for copy, memory in self._checkpoint:
            size = memory.nbytes // self.slots
            copy.copy_from(memory, size, slot * size, slot * size)

    def restore_checkpoint(self, slot: int = 0) -> None:
        """Go back to what `save_checkpoint` has copied."""
        for copy, memory in self._checkpoint:
            size = memory.nbytes // self.slots
            memory.copy_from(copy, size, slot * size, slot * size)
        self.workspace.pending_count.fill(0, 4 * slot, 4)

    def copy_checkpoint(self, source: int, target: int, tokens: int) -> None:
        """Put slot `target` where the checkpoint of slot `source`, of so many tokens, is, and make that its own."""
        for mixer, cache in self._caches:
            size = cache.nbytes // self.slots
            for begin, used in mixer.cache_spans(self.context, tokens):
                cache.copy_from(cache, used, target * size + begin, source * size + begin)
        for copy, _ in self._checkpoint:
            size = copy.nbytes // self.slots
            copy.copy_from(copy, size, target * size, source * size)
        self.restore_checkpoint(target)

    @property
    def _caches(self) -> list[tuple[Attention, Buffer]]:
        mixers = zip(self.layers, self.workspace.sequence, strict=True)
        caches = [(ops.mixer, cache) for ops, cache in mixers if isinstance(ops.mixer, Attention)]
        return [*caches, (self.drafter.mixer, self.workspace.draft_cache)] if self.drafter else caches

    @property
    def _recurrent(self) -> list[Buffer]:
        kinds = zip(self.config.layer_kinds, self.workspace.sequence, strict=True)
        return [memory for kind, memory in kinds if kind == "gdn"]

    @property
    def _checkpoint(self) -> list[tuple[Buffer, Buffer]]:
        """Each copy, and what it is of."""
        w = self.workspace
        return [*zip(w.checkpoint, self._recurrent, strict=True), (w.checkpoint_carried, w.carried)]

    def trunk(self, rows: int, runs: int = 1) -> _host.LaunchList:
        """Embedding and all layers for 1…8 rows a run (a step: they are pending until the next one) or, with 0, a
        block."""
        return self._piece(f"trunk {rows} {runs}", lambda to: self._add_trunk(to, self._rows(rows, runs))).launches

    def block_layers(self) -> list[_host.LaunchList]:
        """The trunk of a block, a list a layer, the first with the embedding before it: what a layer leaves in the
        workspace can be read before the next one runs."""
        lists, rows = [_host.LaunchList() for _ in self.layers], self._rows(0)
        self._add_embedding(lists[0], rows)
        for index, launches in enumerate(lists):
            self._add_layer(launches, rows, index)
        return lists

    def block(self) -> _host.LaunchList:
        """A block of a prompt: the trunk, and its rows in the MTP block's KV cache."""

        def add(launches: _host.LaunchList) -> None:
            rows = self._rows(0)
            self._add_trunk(launches, rows)
            if self.drafter:
                self.drafter.add_block(
                    launches, rows, self._mtp, self.weights.output_norm, self.workspace, self.context
                )

        return self._piece("block", add).launches

    def head(self, rows: int) -> _host.LaunchList:
        """Final norm of the rows that `source_rows` names, logits, greedy sampling; 1…8 rows."""
        return self._piece(f"head {rows}", lambda to: self._add_head(to, self._rows(1, rows), Choice())).launches

    def first(self, choice: Choice) -> Piece:
        """After a block of slot `block_slot`: choose the token that follows row `source_rows[0]`."""

        def add(launches: _host.LaunchList) -> None:
            row = replace(self._rows(1), runs=Runs(1, self.workspace.block_slot))
            self._add_head(launches, row, choice)
            self._add_accept(launches, row, evaluated=False)

        return self._piece(f"first{_suffix(choice)}", add)

    def step(self, rows: int, choice: Choice, runs: int = 1) -> Piece:
        """Evaluate each run's token chosen last and `rows` - 1 drafts, choose, accept; the next step begins where it
        ends."""

        def add(launches: _host.LaunchList) -> None:
            step = self._rows(rows, runs)
            self._add_trunk(launches, step)
            self._add_head(launches, step, choice)
            self._add_accept(launches, step, evaluated=True)

        return self._piece(f"step of {rows}{_of_runs(runs)}{_suffix(choice)}", add)

    def draft(self, index: int, rows: int, choice: Choice, runs: int = 1) -> Piece:
        """Draft call `index` (1…7), which guesses input `index` of each run of the next step; `rows`: those of each run
        of the step before."""
        choice = choice._replace(top=False)

        def add(launches: _host.LaunchList) -> None:
            w, drafter, drafts = self.workspace, self.drafter, self._rows(1, runs)
            assert drafter is not None
            if index == 1:
                step = self._rows(rows, runs)
                drafter.add_first(launches, step, drafts, self._mtp, w, self.context, self.step_hidden)
            else:
                drafter.add_next(launches, drafts, index, self._mtp, w, self.context)
            self._add_sampling(launches, drafts, choice, w.ids.at(4 * index * runs), index - 1)

        after = f" after {rows}" if index == 1 else ""
        return self._piece(f"draft {index}{after}{_of_runs(runs)}{_suffix(choice)}", add)

    def compile(self, rows: int, runs: int = 1) -> None:
        """Compile what blocks (rows 0), or drafts and steps of `rows` rows a run need, so that a later call does not
        wait for it."""
        self._rows(rows, runs)
        if self.drafter and rows > 1:
            self._rows(1, runs)

    def kernels(self, count: int) -> list[Kernel]:
        """Those of operators that do not know runs for `count` rows in all, or, with 0, a block or more rows than a
        kernel is compiled for."""
        kernels = [self.embedding.kernel(count), *(k for layer in self.layers for k in layer.kernels(count))]
        if count or self.step_rows > MAX_ROWS:
            kernels += [self.final_norm.kernel(count), self.head_product.kernel(count), self.sampling.kernel(count)]
            if self.drafter:
                kernels += self.drafter.step_kernels(count)
        if self.drafter and (0 < count <= self.slots or (count == 0 and self.slots > MAX_ROWS)):
            kernels += self.drafter.draft_kernels(count)
        if self.drafter and count == 0:
            kernels += self.drafter.block_kernels()
        return list(dict.fromkeys(kernels))

    def mixer_kernels(self, rows: int) -> list[Kernel]:
        """Those of operators that know runs for `rows` rows of each (0: a block)."""
        layers = [*self.layers, *([self.drafter.layer] if self.drafter and rows == 1 else [])]
        kernels = [kernel for layer in layers for kernel in layer.mixer_kernels(rows)]
        if rows:
            kernels.append(self.accept.kernel(rows, evaluated=True))
        if rows == 1:
            kernels.append(self.accept.kernel(1, evaluated=False))
        return list(dict.fromkeys(kernels))

    def choice_kernels(self) -> list[Kernel]:
        """What sampling with options and log-probabilities need besides, for any row count."""
        return [*self.gumbel_sampling.kernels(), self.top_logprobs.kernel()]

    @cached_property
    def timeline(self) -> Timeline:
        """Where cycles are marked in time: room for several cycles of 7 drafts."""
        return Timeline(self.device, 64)

    @cached_property
    def _choice_program(self) -> Program:
        return self.device.program(self.choice_kernels())

    def _program(self, count: int) -> Program:
        if count not in self._programs:
            self._programs[count] = self.device.program(self.kernels(count))
        return self._programs[count]

    def _mixers(self, rows: int) -> Program:
        if rows not in self._mixer_programs:
            self._mixer_programs[rows] = self.device.program(self.mixer_kernels(rows))
        return self._mixer_programs[rows]

    def _rows(self, rows: int, runs: int = 1) -> Rows:
        """`rows` of each of so many runs, or, with 0, a block."""
        w, count = self.workspace, rows * runs
        where = Runs(runs, w.slots) if rows else Runs(1, w.block_slot)
        row_count = w.row_counts.at(4 * count) if rows else w.row_count
        return Rows(rows, where, self._program(compiled_rows(count)), self._mixers(rows), row_count)

    @property
    def _mtp(self) -> MtpBlock:
        assert self.weights.mtp is not None
        return self.weights.mtp

    def _piece(self, name: str, add: Callable[[_host.LaunchList], None]) -> Piece:
        if name not in self._pieces:
            launches = _host.LaunchList()
            add(launches)
            self._pieces[name] = Piece(name, launches)
        return self._pieces[name]

    def _add_trunk(self, launches: _host.LaunchList, rows: Rows) -> None:
        self._add_embedding(launches, rows)
        for index in range(len(self.layers)):
            self._add_layer(launches, rows, index)

    def _add_embedding(self, launches: _host.LaunchList, rows: Rows) -> None:
        w = self.workspace
        ids = w.ids if rows.of_run else w.block_ids
        self.embedding.launch(
            rows.program, launches, rows.count, self.weights.embedding.buffer, ids, w.residual, rows.row_count
        )

    def _add_layer(self, launches: _host.LaunchList, rows: Rows, index: int) -> None:
        w = self.workspace
        ops, layer, memory = self.layers[index], self.weights.layers[index], w.sequence[index]
        ops.add_projections(launches, rows, layer, w, w.after_mixer if index else w.residual)
        positions = w.positions if rows.of_run else w.block_positions
        ops.add_mixer(launches, rows, layer, w, memory, self.context, positions)
        ops.add_experts(launches, rows, layer, w)

    def _add_head(self, launches: _host.LaunchList, rows: Rows, choice: Choice) -> None:
        w, count = self.workspace, rows.count
        self.final_norm.launch(
            rows.program, launches, count, w.after_mixer, w.partials, w.final, self.weights.output_norm, w.source_rows,
            w.head_quantised, w.head_plain, rows.row_count,
        )  # fmt: skip
        self.head_product.launch(
            rows.program, launches, count, self.weights.output.buffer, w.head_quantised, w.head_plain, w.logits,
            rows.row_count,
        )  # fmt: skip
        self._add_sampling(launches, rows, choice, w.sampled, 0)

    def _add_sampling(
        self, launches: _host.LaunchList, rows: Rows, choice: Choice, chosen: Any, first_row: int
    ) -> None:
        w, count = self.workspace, rows.count
        if choice.by_options:
            history = History(
                w.sampling_options, w.token_states, w.biases, w.ids, w.positions, rows.runs, first_row
            )  # fmt: skip
            self.gumbel_sampling.launch(
                self._choice_program, launches, count, w.logits, w.targets, chosen, w.stats, history, w.gumbel_scratch,
                w.gumbel_counters,
            )  # fmt: skip
        else:
            self.sampling.launch(
                rows.program, launches, count, w.logits, w.targets, chosen, w.stats, w.sampling_partials,
                w.sampling_arrivals, rows.row_count,
            )  # fmt: skip
        if choice.top:
            self.top_logprobs.launch(
                self._choice_program, launches, count, w.logits, w.stats, w.top_counts, chosen, self.top_ids,
                self.top_logprobs_found, w.top_scratch, w.top_counters, rows.runs,
            )  # fmt: skip

    def _add_accept(self, launches: _host.LaunchList, rows: Rows, evaluated: bool) -> None:
        w = self.workspace
        self.accept.launch(
            rows.mixers, launches, rows.of_run, evaluated, w.sampled, w.logits, w.stats, w.ids, w.positions,
            w.pending_count, w.accepted, w.turns, w.token_states, self.records, self.step_hidden, w.carried, rows.runs,
        )  # fmt: skip

    @property
    def step_hidden(self) -> Buffer:
        """[step rows, hidden] float32: the hidden rows of a step that the MTP block is given."""
        return self.workspace.final if self.drafter and self.drafter.hidden == "pre" else self.workspace.head_plain

    def step_bytes(self, position: int, experts: float | None = None) -> int:
        """Bytes that a step at `position` must move: weights it uses, KV cache, recurrent state both ways.

        experts: how many routed experts its rows choose in a layer; None takes those of one row.
        """
        experts = self.config.experts_used if experts is None else experts
        return self.head_product.segments[0].nbytes + sum(self._layer_bytes(position, experts))

    def _layer_bytes(self, position: int, experts: float) -> Iterator[int]:
        for ops, layer in zip(self.layers, self.weights.layers, strict=True):
            mixer = ops.mixer
            if isinstance(mixer, Attention):
                memory = mixer.cache_bytes(KEY_TILE) // KEY_TILE * (position + 1)
            else:
                memory = 2 * mixer.state_bytes
            yield ops.weight_bytes(layer, self.config, experts) + memory


def _of_runs(runs: int) -> str:
    return f" of {runs} runs" if runs > 1 else ""


def _suffix(choice: Choice) -> str:
    return " by options" * choice.by_options + " with log-probabilities" * choice.top
