"""Trunk, head and MTP block as lists of launches, over buffers that are allocated once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

from arcmtp.model.drafter import Drafter, Hidden
from arcmtp.model.layer import LayerOps
from arcmtp.model.plan import Plan
from arcmtp.model.weights import MtpBlock, Weights
from arcmtp.model.workspace import allocate, total_bytes, workspace_sizes
from arcmtp.ops.accept import DONE, RECORD, RECORDS, Accept, turn
from arcmtp.ops.attention import KEY_TILE, Attention
from arcmtp.ops.embedding import Embedding
from arcmtp.ops.gumbel_sampling import GumbelSampling, History
from arcmtp.ops.launch import MAX_ROWS, Consumers
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
    """The network of a plan for one sequence of up to `context` tokens on a device.

    Made before the weights are loaded, so that `nbytes` tells what caches and buffers will take; `load` then brings the
    weights, and the other methods give launch lists, compiled on first use. It drafts if the plan has an MTP block.
    """

    def __init__(
        self, plan: Plan, device: Device, context: int, vocab_used: int, mtp_hidden: Hidden = "post"
    ) -> None:
        self.config, self.device = plan.config, device
        # A step may end MAX_ROWS rows beyond the last token; the KV cache has whole tiles.
        self.context = -(-(context + MAX_ROWS) // KEY_TILE) * KEY_TILE
        geometry = device.card.geometry
        config, slots = plan.config, plan.config.experts_used + 1
        self.layers = [
            LayerOps.of(config, layer, slots if index else 0, geometry) for index, layer in enumerate(plan.layers)
        ]
        (embedding,) = (segment.matrix for segment in plan.embedding)
        (output,) = (segment.matrix for segment in plan.output or plan.embedding)
        self.embedding = Embedding(embedding)
        self.drafter = Drafter(config, plan.mtp, embedding, output, mtp_hidden, geometry) if plan.mtp else None
        head = Consumers.of([output])
        head = Consumers(head.quantised, head.plain or self.drafter is not None)
        self.final_norm = Norm(config.hidden, config.rms_eps, slots, head, geometry, gather=True)
        self.head_product = MulMat([output], geometry)
        self.sampling = Sampling(vocab_used, self.head_product.columns, geometry)
        self.gumbel_sampling = GumbelSampling(vocab_used, self.head_product.columns, geometry)
        self.top_logprobs = TopLogprobs(vocab_used, self.head_product.columns, geometry)
        self.accept = Accept(self.head_product.columns, config.hidden if self.drafter else 0)
        self._sizes = workspace_sizes(self, device.activation_orders)
        self._pieces: dict[str, Piece] = {}
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
        return self.config.rope_dim * 4 + sum(mixer.cache_bytes(KEY_TILE) // KEY_TILE for mixer in attention)

    def load(self, weights: Weights) -> None:
        """Take the loaded weights and allocate everything else."""
        self.weights = weights
        self.workspace = allocate(self._sizes, self.config, self.device)
        self.records = self.device.host_zeros(RECORDS * RECORD.itemsize)
        top = MAX_ROWS * (MAX_TOP + 1) * 4
        self.top_ids, self.top_logprobs_found = self.device.host_zeros(top), self.device.host_zeros(top)
        self.reset()

    def reset(self) -> None:
        """Begin a new sequence: empty recurrent state, nothing pending, and no generation under way."""
        for memory in self._recurrent:
            memory.fill(0)
        w = self.workspace
        for buffer in (w.pending_count, w.accepted, w.positions, w.block_hidden):
            buffer.fill(0)
        idle = turn(0, ())
        idle[DONE] = 1  # so that a step changes nothing
        w.turn.write(idle)

    def save_checkpoint(self) -> None:
        """Copy what a sequence cannot be brought back to otherwise: recurrent state, of which nothing is pending, and
        the last hidden row. Keys and values lie by position."""
        w = self.workspace
        for copy, memory in zip(w.checkpoint, self._recurrent, strict=True):
            copy.copy_from(memory, memory.nbytes)
        w.checkpoint_hidden.copy_from(w.block_hidden, w.checkpoint_hidden.nbytes)

    def restore_checkpoint(self) -> None:
        """Go back to what `save_checkpoint` has copied."""
        w = self.workspace
        for copy, memory in zip(w.checkpoint, self._recurrent, strict=True):
            memory.copy_from(copy, memory.nbytes)
        w.block_hidden.copy_from(w.checkpoint_hidden, w.checkpoint_hidden.nbytes)
        w.pending_count.fill(0)

    @property
    def _recurrent(self) -> list[Buffer]:
        kinds = zip(self.config.layer_kinds, self.workspace.sequence, strict=True)
        return [memory for kind, memory in kinds if kind == "gdn"]

    def trunk(self, rows: int) -> _host.LaunchList:
        """Embedding and all layers for 1…8 rows (a step: they are pending until the next one) or, with 0, a block."""
        return self._piece(f"trunk {rows}", lambda to: self._add_trunk(to, rows)).launches

    def block_layers(self) -> list[_host.LaunchList]:
        """The trunk of a block, a list a layer, the first with the embedding before it: what a layer leaves in the
        workspace can be read before the next one runs."""
        lists = [_host.LaunchList() for _ in self.layers]
        self._add_embedding(lists[0], 0)
        for index, launches in enumerate(lists):
            self._add_layer(launches, 0, index)
        return lists

    def block(self) -> _host.LaunchList:
        """A block of a prompt: the trunk, and its rows in the MTP block's KV cache."""

        def add(launches: _host.LaunchList) -> None:
            self._add_trunk(launches, 0)
            if self.drafter:
                self.drafter.add_block(
                    self._program(0), launches, self._mtp, self.weights.output_norm, self.workspace, self.context
                )

        return self._piece("block", add).launches

    def head(self, rows: int) -> _host.LaunchList:
        """Final norm of the rows that `source_rows` names, logits, greedy sampling; 1…8 rows."""
        return self._piece(f"head {rows}", lambda to: self._add_head(to, rows, Choice())).launches

    def first(self, choice: Choice) -> Piece:
        """After a block: choose the token that follows row `source_rows[0]`."""

        def add(launches: _host.LaunchList) -> None:
            self._add_head(launches, 1, choice)
            self._add_accept(launches, 1, evaluated=False)

        return self._piece(f"first{_suffix(choice)}", add)

    def step(self, rows: int, choice: Choice) -> Piece:
        """Evaluate the token chosen last and `rows` - 1 drafts, choose, accept; the next step begins where it ends."""

        def add(launches: _host.LaunchList) -> None:
            self._add_trunk(launches, rows)
            self._add_head(launches, rows, choice)
            self._add_accept(launches, rows, evaluated=True)

        return self._piece(f"step of {rows}{_suffix(choice)}", add)

    def draft(self, index: int, rows: int, choice: Choice) -> Piece:
        """Draft call `index` (1…7), which guesses input `index` of the next step; `rows`: those of the step before."""
        choice = choice._replace(top=False)

        def add(launches: _host.LaunchList) -> None:
            w, drafter = self.workspace, self.drafter
            assert drafter is not None
            single = self._program(1)
            if index == 1:
                hidden = w.head_plain if drafter.hidden == "post" else w.final
                drafter.add_first(
                    self._program(rows), single, launches, rows, self._mtp, w, self.context, hidden
                )
            else:
                drafter.add_next(single, launches, index, self._mtp, w, self.context)
            self._add_sampling(launches, 1, choice, w.ids.at(4 * index), index - 1)

        after = f" after {rows}" if index == 1 else ""
        return self._piece(f"draft {index}{after}{_suffix(choice)}", add)

    def compile(self, rows: int) -> None:
        """Compile what pieces of `rows` rows (0: a block) need, so that a later call does not wait for it."""
        self._program(rows)

    def kernels(self, rows: int) -> list[Kernel]:
        """What `compile(rows)` compiles."""
        kernels = [self.embedding.kernel(rows), *(k for layer in self.layers for k in layer.kernels(rows))]
        if rows:
            kernels += [self.final_norm.kernel(rows), self.head_product.kernel(rows), self.sampling.kernel(rows)]
            kernels.append(self.accept.kernel(rows, evaluated=True))
        if rows == 1:
            kernels.append(self.accept.kernel(1, evaluated=False))
        if self.drafter:
            kernels += self.drafter.kernels(rows)
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

    @cached_property
    def _programs(self) -> dict[int, Program]:
        return {}

    def _program(self, rows: int) -> Program:
        if rows not in self._programs:
            self._programs[rows] = self.device.program(self.kernels(rows))
        return self._programs[rows]

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

    def _add_trunk(self, launches: _host.LaunchList, rows: int) -> None:
        self._add_embedding(launches, rows)
        for index in range(len(self.layers)):
            self._add_layer(launches, rows, index)

    def _add_embedding(self, launches: _host.LaunchList, rows: int) -> None:
        w = self.workspace
        self.embedding.launch(
            self._program(rows), launches, rows, self.weights.embedding.buffer, w.ids, w.residual, w.row_count
        )

    def _add_layer(self, launches: _host.LaunchList, rows: int, index: int) -> None:
        w, program = self.workspace, self._program(rows)
        ops, layer, memory = self.layers[index], self.weights.layers[index], w.sequence[index]
        ops.add_projections(program, launches, rows, layer, w, w.after_mixer if index else w.residual)
        ops.add_mixer(program, launches, rows, layer, w, memory, self.context, w.positions)
        ops.add_experts(program, launches, rows, layer, w)

    def _add_head(self, launches: _host.LaunchList, rows: int, choice: Choice) -> None:
        w, program = self.workspace, self._program(rows)
        self.final_norm.launch(
            program, launches, rows, w.after_mixer, w.partials, w.final, self.weights.output_norm, w.source_rows,
            w.head_quantised, w.head_plain, w.row_count,
        )  # fmt: skip
        self.head_product.launch(
            program, launches, rows, self.weights.output.buffer, w.head_quantised, w.head_plain, w.logits, w.row_count
        )
        self._add_sampling(launches, rows, choice, w.sampled, 0)

    def _add_sampling(
        self, launches: _host.LaunchList, rows: int, choice: Choice, chosen: Any, first_row: int
    ) -> None:
        w = self.workspace
        if choice.by_options:
            history = History(w.sampling_options, w.token_states, w.biases, w.ids, w.positions, first_row)
            self.gumbel_sampling.launch(
                self._choice_program, launches, rows, w.logits, w.targets, chosen, w.stats, history, w.gumbel_scratch,
                w.gumbel_counters,
            )  # fmt: skip
        else:
            self.sampling.launch(
                self._program(rows), launches, rows, w.logits, w.targets, chosen, w.stats, w.sampling_partials,
                w.sampling_arrivals, w.row_count,
            )  # fmt: skip
        if choice.top:
            self.top_logprobs.launch(
                self._choice_program, launches, rows, w.logits, w.stats, w.top_count, chosen, self.top_ids,
                self.top_logprobs_found, w.top_scratch, w.top_counters,
            )  # fmt: skip

    def _add_accept(self, launches: _host.LaunchList, rows: int, evaluated: bool) -> None:
        w = self.workspace
        hidden = w.final if self.drafter and self.drafter.hidden == "pre" else w.head_plain
        self.accept.launch(
            self._program(rows), launches, rows, evaluated, w.sampled, w.logits, w.stats, w.ids, w.positions,
            w.pending_count, w.accepted, w.turn, w.token_states, self.records, hidden, w.block_hidden,
        )  # fmt: skip

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


def _suffix(choice: Choice) -> str:
    return " by options" * choice.by_options + " with log-probabilities" * choice.top
