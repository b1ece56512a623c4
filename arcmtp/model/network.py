"""The trunk and its head as lists of operators: seven launches a layer, over buffers that are allocated once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from arcmtp.model.config import Config
from arcmtp.model.formats import Matrix
from arcmtp.model.weights import AttentionLayer, GdnLayer, Layer, LayerPlan, Plan, Weights
from arcmtp.model.workspace import allocate, total_bytes, workspace_sizes
from arcmtp.ops.attention import KEY_TILE, Attention
from arcmtp.ops.attention import Columns as AttentionColumns
from arcmtp.ops.embedding import Embedding
from arcmtp.ops.experts import ExpertsDown, ExpertsGateUp
from arcmtp.ops.gated_delta_net import Columns as GdnColumns
from arcmtp.ops.gated_delta_net import GatedDeltaNet, Heads
from arcmtp.ops.gumbel_sampling import GumbelSampling, History
from arcmtp.ops.launch import Consumers
from arcmtp.ops.mul_mat import MulMat
from arcmtp.ops.norm import Norm
from arcmtp.ops.router import Router
from arcmtp.ops.sampling import Advance, Sampling
from arcmtp.runtime import _host
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.compiler import Kernel, Program
from arcmtp.runtime.device import Device
from arcmtp.runtime.graphs import GraphCache


@dataclass(frozen=True)
class LayerOps:
    """The seven operators of a layer, in the order in which they run."""

    norm: Norm
    projections: MulMat
    mixer: GatedDeltaNet | Attention
    output: MulMat
    router: Router
    gate_up: ExpertsGateUp
    down: ExpertsDown

    def kernels(self, rows: int) -> Iterator[Kernel]:
        """Those for `rows` rows (0: a block)."""
        yield self.norm.kernel(rows)
        yield self.projections.kernel(rows)
        if isinstance(self.mixer, Attention):
            yield from self.mixer.kernels(rows)
        else:
            yield self.mixer.kernel(rows)
        for op in (self.output, self.router, self.gate_up, self.down):
            yield op.kernel(rows)


def _matrices(plan: LayerPlan, *fields: str) -> list[Matrix]:
    return [segment.matrix for field in fields for segment in plan.merged[field]]


def _mixer(config: Config, plan: LayerPlan, columns: MulMat, geometry: Geometry) -> GatedDeltaNet | Attention:
    consumers = Consumers.of(_matrices(plan, "output"))
    if plan.kind == "gdn":
        heads = Heads(config.gdn_k_heads, config.gdn_v_heads, config.gdn_k_dim, config.gdn_v_dim)
        return GatedDeltaNet(
            heads, GdnColumns(columns.columns, *columns.column_of[1:]), config.rms_eps, consumers, geometry
        )
    return Attention(
        config.q_heads, config.kv_heads, config.head_dim, config.rope_dim,
        AttentionColumns(columns.columns, *columns.column_of[1:]), config.rms_eps, consumers, geometry,
    )  # fmt: skip


def _layer_ops(config: Config, plan: LayerPlan, slots: int, geometry: Geometry) -> LayerOps:
    used, eps = config.experts_used, config.rms_eps
    projections = MulMat(_matrices(plan, "projections"), geometry)
    router, shared_gate = _matrices(plan, "router")
    gate, up = _matrices(plan, "gate_up")
    down, shared_down = _matrices(plan, "down", "shared_down")
    shared = _matrices(plan, "shared_gate_up")
    return LayerOps(
        Norm(config.hidden, eps, slots, Consumers.of(projections.segments), geometry),
        projections,
        _mixer(config, plan, projections, geometry),
        MulMat(_matrices(plan, "output"), geometry),
        Router(router, shared_gate, used, eps, Consumers.of([gate, up, *shared]), geometry),
        ExpertsGateUp(
            gate, up, shared[0], shared[1], used, Consumers.of([down]), Consumers.of([shared_down]), geometry
        ),
        ExpertsDown(down, shared_down, used, geometry),
    )


class Network:
    """The network of a plan for one sequence of up to `context` tokens on a device.

    Made before the weights are loaded, so that `nbytes` tells what caches and buffers will take; `load` then brings the
    weights, and `trunk` and `head` give launch lists, compiled on first use.
    """

    def __init__(self, plan: Plan, device: Device, context: int, vocab_used: int) -> None:
        self.config, self.device, self.context = plan.config, device, context
        geometry = device.card.geometry
        config, slots = plan.config, plan.config.experts_used + 1
        self.layers = [
            _layer_ops(config, layer, slots if index else 0, geometry) for index, layer in enumerate(plan.layers)
        ]
        (embedding,) = (segment.matrix for segment in plan.embedding)
        (output,) = (segment.matrix for segment in plan.output or plan.embedding)
        self.embedding = Embedding(embedding)
        self.final_norm = Norm(config.hidden, config.rms_eps, slots, Consumers.of([output]), geometry, gather=True)
        self.head_product = MulMat([output], geometry)
        self.sampling = Sampling(vocab_used, self.head_product.columns, geometry)
        self.gumbel_sampling = GumbelSampling(vocab_used, self.head_product.columns, geometry)
        self._sizes = workspace_sizes(self, device.activation_orders)
        self._lists: dict[tuple[str, int], _host.LaunchList] = {}
        self.graphs = GraphCache(device)

    @property
    def nbytes(self) -> int:
        """Bytes of device memory besides the weights: caches, recurrent state, buffers."""
        return total_bytes(self._sizes)

    @property
    def bytes_per_position(self) -> int:
        """Bytes that one more token of context takes."""
        attention = (op.mixer for op in self.layers if isinstance(op.mixer, Attention))
        return self.config.rope_dim * 4 + sum(mixer.cache_bytes(KEY_TILE) // KEY_TILE for mixer in attention)

    def load(self, weights: Weights) -> None:
        """Take the loaded weights and allocate everything else."""
        self.weights = weights
        self.workspace = allocate(self._sizes, self.config, self.device)
        # int32: the tokens that the sequence has chosen; 64 for the steps that measure graphs, whatever the context
        self.chosen = self.device.host_zeros((self.context + 64) * 4)

    def reset(self) -> None:
        """Begin a new sequence: empty recurrent state, nothing pending, no token chosen."""
        for kind, memory in zip(self.config.layer_kinds, self.workspace.sequence, strict=True):
            if kind == "gdn":
                memory.fill(0)
        for word in (self.workspace.pending_count, self.workspace.step):
            word.fill(0)

    def trunk(self, rows: int) -> _host.LaunchList:
        """Embedding and all layers for 1…8 rows (a step: they are pending until the next one) or, with 0, a block."""
        return self._list("trunk", rows, lambda: self._compile(rows), lambda p, to: self._add_trunk(p, to, rows))

    def head(self, rows: int, pending: int | None = None, options: bool = False) -> _host.LaunchList:
        """Final norm of the rows that `source_rows` names, logits, sampling; 1…8 rows.

        With `pending` (one row) the chosen token also becomes the input of the next step, which commits so many rows.
        With `options` it is sampled by the workspace's `sampling_options`, otherwise greedily.
        """
        key = f"{'head' if pending is None else f'advance{pending}'}{' by options' * options}"
        return self._list(
            key, rows, lambda: self._compile(rows), lambda p, to: self._add_head(p, to, rows, pending, options)
        )

    def step(self, options: bool = False) -> _host.LaunchList:
        """A whole step of plain decoding: the token chosen last is evaluated, committed, and the next one chosen."""

        def add(program: Program, launches: _host.LaunchList) -> None:
            self._add_trunk(program, launches, 1)
            self._add_head(program, launches, 1, pending=1, options=options)

        return self._list(f"step{' by options' * options}", 1, lambda: self._compile(1), add)

    def compile(self, rows: int) -> None:
        """Compile what `trunk(rows)` and `head(max(rows, 1))` need, so that a later call does not wait for it."""
        self._compile(rows)

    @cached_property
    def _programs(self) -> dict[int, Program]:
        return {}

    def kernels(self, rows: int) -> list[Kernel]:
        """What `compile(rows)` compiles."""
        kernels = [self.embedding.kernel(rows), *(k for layer in self.layers for k in layer.kernels(rows))]
        if rows:
            kernels += [self.final_norm.kernel(rows), self.head_product.kernel(rows), self.sampling.kernel(rows)]
        if rows == 1:
            kernels.append(self.sampling.kernel(rows, advance=True))
        return kernels

    @cached_property
    def _options_program(self) -> Program:
        """Sampling with options, for any row count: compiled when first asked for."""
        return self.device.program(self.options_kernels())

    def options_kernels(self) -> list[Kernel]:
        """What sampling with options needs besides `kernels`."""
        return [*self.gumbel_sampling.kernels(), *self.gumbel_sampling.kernels(advance=True)]

    def _compile(self, rows: int) -> Program:
        if rows not in self._programs:
            self._programs[rows] = self.device.program(self.kernels(rows))
        return self._programs[rows]

    def _list(
        self, name: str, rows: int, program: Callable[[], Program],
        add: Callable[[Program, _host.LaunchList], None],
    ) -> _host.LaunchList:  # fmt: skip
        if (name, rows) not in self._lists:
            launches = _host.LaunchList()
            add(program(), launches)
            self._lists[name, rows] = launches
        return self._lists[name, rows]

    def _add_trunk(self, program: Program, launches: _host.LaunchList, rows: int) -> None:
        w = self.workspace
        self.embedding.launch(
            program, launches, rows, self.weights.embedding.buffer, w.ids, w.residual, w.row_count
        )
        for index, (ops, layer) in enumerate(zip(self.layers, self.weights.layers, strict=True)):
            self._add_layer(program, launches, rows, index, ops, layer)

    def _add_layer(
        self, program: Program, launches: _host.LaunchList, rows: int, index: int, ops: LayerOps, layer: Layer
    ) -> None:
        w = self.workspace
        before = w.after_mixer if index else w.residual  # the embedding writes the residual itself
        ops.norm.launch(
            program, launches, rows, before, w.partials, w.residual, layer.attn_norm, w.source_rows, w.quantised,
            w.plain, w.row_count,
        )  # fmt: skip
        ops.projections.launch(
            program, launches, rows, layer.projections.buffer, w.quantised, w.plain, w.projected, w.row_count
        )
        self._add_mixer(program, launches, rows, index, ops, layer)
        ops.output.launch(
            program, launches, rows, layer.output.buffer, w.quantised, w.plain, w.mixed, w.row_count
        )
        ops.router.launch(
            program, launches, rows, w.residual, w.mixed, w.after_mixer, layer.post_norm, layer.router.buffer,
            w.router_logits, w.router_counters, w.selected, w.slot_weights, w.quantised, w.plain, w.row_count,
        )  # fmt: skip
        ops.gate_up.launch(
            program, launches, rows, layer.gate_up.buffer, layer.shared_gate_up.buffer, w.quantised, w.plain,
            w.selected, w.hidden_quantised, w.hidden_plain, w.shared_quantised, w.shared_plain, w.row_count,
        )  # fmt: skip
        ops.down.launch(
            program, launches, rows, layer.down.buffer, layer.shared_down.buffer, w.hidden_quantised, w.hidden_plain,
            w.shared_quantised, w.shared_plain, w.selected, w.slot_weights, w.partials, w.row_count,
        )  # fmt: skip

    def _add_mixer(
        self, program: Program, launches: _host.LaunchList, rows: int, index: int, ops: LayerOps, layer: Layer
    ) -> None:
        w, memory = self.workspace, self.workspace.sequence[index]
        if isinstance(layer, GdnLayer) and isinstance(ops.mixer, GatedDeltaNet):
            ops.mixer.launch(
                program, launches, rows, w.projected, layer.conv, layer.a, layer.dt_bias, layer.gdn_norm, memory,
                w.pending_count, w.row_count, w.quantised, w.plain,
            )  # fmt: skip
        elif isinstance(layer, AttentionLayer) and isinstance(ops.mixer, Attention):
            ops.mixer.launch(
                program, launches, rows, w.projected, layer.q_norm, layer.k_norm, w.rope, w.positions, w.row_count,
                memory, self.context, w.attention_partials, w.attention_counters, w.quantised, w.plain,
            )  # fmt: skip

    def _add_head(
        self, program: Program, launches: _host.LaunchList, rows: int, pending: int | None, options: bool
    ) -> None:
        w = self.workspace
        self.final_norm.launch(
            program, launches, rows, w.after_mixer, w.partials, w.final, self.weights.output_norm, w.source_rows,
            w.head_quantised, w.head_plain, w.row_count,
        )  # fmt: skip
        self.head_product.launch(
            program, launches, rows, self.weights.output.buffer, w.head_quantised, w.head_plain, w.logits, w.row_count
        )
        advance = None
        if pending is not None:
            advance = Advance(w.ids, w.positions, self.chosen, w.step, w.pending_count, pending)
        if options:
            history = History(w.sampling_options, w.token_states, w.biases, w.ids, w.positions)
            self.gumbel_sampling.launch(
                self._options_program, launches, rows, w.logits, w.targets, w.sampled, w.stats, history,
                w.gumbel_scratch, w.gumbel_counters, advance,
            )  # fmt: skip
            return
        self.sampling.launch(
            program, launches, rows, w.logits, w.targets, w.sampled, w.stats, w.sampling_partials, w.sampling_arrivals,
            w.row_count, advance,
        )  # fmt: skip

    def step_bytes(self, position: int) -> int:
        """Bytes that a one-row step at `position` must move: weights it uses, KV cache, recurrent state both ways."""
        total = self.head_product.segments[0].nbytes
        for ops, layer in zip(self.layers, self.weights.layers, strict=True):
            merged = (layer.projections, layer.output, layer.router, layer.shared_gate_up, layer.shared_down)
            total += sum(segment.nbytes for part in merged for segment in part.segments)
            routed = sum(segment.nbytes for part in (layer.gate_up, layer.down) for segment in part.segments)
            total += routed * self.config.experts_used // self.config.experts
            mixer = ops.mixer
            if isinstance(mixer, Attention):
                total += mixer.cache_bytes(KEY_TILE) // KEY_TILE * (position + 1)
            else:
                total += 2 * mixer.state_bytes
        return total
