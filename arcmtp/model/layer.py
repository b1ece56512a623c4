"""One layer as a list of operators: seven launches over buffers that all layers share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from arcmtp.formats.matrix import Matrix
from arcmtp.model.config import Config
from arcmtp.model.plan import LayerPlan
from arcmtp.model.weights import AttentionLayer, GdnLayer, Layer
from arcmtp.model.workspace import Workspace
from arcmtp.ops.attention import Attention
from arcmtp.ops.attention import Columns as AttentionColumns
from arcmtp.ops.experts import ExpertsDown, ExpertsGateUp
from arcmtp.ops.gated_delta_net import Columns as GdnColumns
from arcmtp.ops.gated_delta_net import GatedDeltaNet, Heads
from arcmtp.ops.launch import Consumers, Runs
from arcmtp.ops.mul_mat import MulMat
from arcmtp.ops.norm import Norm
from arcmtp.ops.router import Router
from arcmtp.runtime import _host
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.compiler import Kernel, Program
from arcmtp.runtime.memory import Buffer


@dataclass(frozen=True)
class Rows:
    """The rows that a launch list works on, and the programs with the kernels for them.

    of_run: 1…8 for each of the runs, or 0: a block, which has one. count: of all runs. program: the kernels of
    operators that do not know runs. mixers: those of operators that do. row_count: int32, `count` in device memory, for
    kernels that are not compiled for it.
    """

    of_run: int
    runs: Runs
    program: Program
    mixers: Program
    row_count: Any

    @property
    def count(self) -> int:
        return self.of_run * self.runs.count


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

    @classmethod
    def of(cls, config: Config, plan: LayerPlan, slots: int, geometry: Geometry) -> LayerOps:
        """Those of a planned layer. slots: partial sums that the layer before it leaves, 0 for none."""
        used, eps = config.experts_used, config.rms_eps
        projections = MulMat(matrices(plan, "projections"), geometry)
        router, shared_gate = matrices(plan, "router")
        gate, up = matrices(plan, "gate_up")
        down, shared_down = matrices(plan, "down", "shared_down")
        shared = matrices(plan, "shared_gate_up")
        return cls(
            Norm(config.hidden, eps, slots, Consumers.of(projections.segments), geometry),
            projections,
            _mixer(config, plan, projections, geometry),
            MulMat(matrices(plan, "output"), geometry),
            Router(router, shared_gate, used, eps, Consumers.of([gate, up, *shared]), geometry),
            ExpertsGateUp(
                gate, up, shared[0], shared[1], used, Consumers.of([down]), Consumers.of([shared_down]), geometry
            ),
            ExpertsDown(down, shared_down, used, geometry),
        )

    def kernels(self, rows: int) -> Iterator[Kernel]:
        """Those for `rows` rows in all (0: a block), but for the mixer's."""
        for op in (self.norm, self.projections, self.output, self.router, self.gate_up, self.down):
            yield op.kernel(rows)

    def mixer_kernels(self, rows: int) -> Iterator[Kernel]:
        """Those of the mixer for `rows` rows a run (0: a block)."""
        if isinstance(self.mixer, Attention):
            yield from self.mixer.kernels(rows)
        else:
            yield self.mixer.kernel(rows)

    def add_projections(
        self, launches: _host.LaunchList, rows: Rows, layer: Layer, w: Workspace[Buffer], before: Any
    ) -> None:
        """Norm and projections of the rows of `before` f32 [rows, hidden], to which the partial sums are added."""
        self.norm.launch(
            rows.program, launches, rows.count, before, w.partials, w.residual, layer.attn_norm, w.source_rows,
            w.quantised, w.plain, rows.row_count,
        )  # fmt: skip
        self.projections.launch(
            rows.program, launches, rows.count, layer.projections.buffer, w.quantised, w.plain, w.projected,
            rows.row_count,
        )  # fmt: skip

    def add_mixer(
        self, launches: _host.LaunchList, rows: Rows, layer: Layer, w: Workspace[Buffer], memory: Any, context: int,
        positions: Any,
    ) -> None:  # fmt: skip
        """The mixer on its own `memory`: each slot's KV cache for `context` positions, or recurrent state."""
        if isinstance(layer, GdnLayer) and isinstance(self.mixer, GatedDeltaNet):
            self.mixer.launch(
                rows.mixers, launches, rows.of_run, w.projected, layer.conv, layer.a, layer.dt_bias, layer.gdn_norm,
                memory, w.pending_count, rows.runs, rows.row_count, w.quantised, w.plain,
            )  # fmt: skip
        elif isinstance(layer, AttentionLayer) and isinstance(self.mixer, Attention):
            self.mixer.launch(
                rows.mixers, launches, rows.of_run, w.projected, layer.q_norm, layer.k_norm, w.rope, positions,
                rows.row_count, memory, context, rows.runs, w.attention_partials, w.attention_counters, w.quantised,
                w.plain,
            )  # fmt: skip

    def add_experts(self, launches: _host.LaunchList, rows: Rows, layer: Layer, w: Workspace[Buffer]) -> None:
        """From the mixer's rows to the experts' partial sums."""
        program, count, row_count = rows.program, rows.count, rows.row_count
        self.output.launch(
            program, launches, count, layer.output.buffer, w.quantised, w.plain, w.mixed, row_count
        )
        self.router.launch(
            program, launches, count, w.residual, w.mixed, w.after_mixer, layer.post_norm, layer.router.buffer,
            w.router_logits, w.router_counters, w.selected, w.slot_weights, w.quantised, w.plain, row_count,
        )  # fmt: skip
        self.gate_up.launch(
            program, launches, count, layer.gate_up.buffer, layer.shared_gate_up.buffer, w.quantised, w.plain,
            w.selected, w.hidden_quantised, w.hidden_plain, w.shared_quantised, w.shared_plain, row_count,
        )  # fmt: skip
        self.down.launch(
            program, launches, count, layer.down.buffer, layer.shared_down.buffer, w.hidden_quantised, w.hidden_plain,
            w.shared_quantised, w.shared_plain, w.selected, w.slot_weights, w.partials, row_count,
        )  # fmt: skip

    def weight_bytes(self, layer: Layer, config: Config, experts: float) -> int:
        """Bytes of weights that a step needs whose rows choose so many routed experts."""
        merged = (layer.projections, layer.output, layer.router, layer.shared_gate_up, layer.shared_down)
        routed = sum(segment.nbytes for part in (layer.gate_up, layer.down) for segment in part.segments)
        always = sum(segment.nbytes for part in merged for segment in part.segments)
        return always + int(routed * experts / config.experts)


def matrices(plan: LayerPlan, *fields: str) -> list[Matrix]:
    """The matrices of merged buffers of a layer."""
    return [segment.matrix for field in fields for segment in plan.merged[field]]


def _mixer(config: Config, plan: LayerPlan, columns: MulMat, geometry: Geometry) -> GatedDeltaNet | Attention:
    consumers = Consumers.of(matrices(plan, "output"))
    if plan.kind == "attention":
        return attention(config, columns, consumers, geometry)
    heads = Heads(config.gdn_k_heads, config.gdn_v_heads, config.gdn_k_dim, config.gdn_v_dim)
    return GatedDeltaNet(
        heads, GdnColumns(columns.columns, *columns.column_of[1:]), config.rms_eps, consumers, geometry
    )


def attention(config: Config, columns: MulMat, consumers: Consumers, geometry: Geometry) -> Attention:
    """Attention whose keys and values are the last two segments of a product."""
    return Attention(
        config.q_heads, config.kv_heads, config.head_dim, config.rope_dim,
        AttentionColumns(columns.columns, *columns.column_of[-2:]), config.rms_eps, consumers, geometry,
    )  # fmt: skip
