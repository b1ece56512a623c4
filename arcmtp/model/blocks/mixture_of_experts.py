"""The feed-forward of a mixture-of-experts layer: router, routed experts and the shared expert."""

from __future__ import annotations

from collections.abc import Iterator

from arcmtp.model.builder import Builder, Residual, Rows
from arcmtp.model.weight_plan import Merged
from arcmtp.ops.experts import ExpertsDown, ExpertsGateUp
from arcmtp.ops.launch import Consumers
from arcmtp.ops.router import Router
from arcmtp.runtime.launch import Launch
from arcmtp.runtime.tensor import I32


class MixtureOfExperts:
    """Leaves a partial sum of each expert that a row has chosen, and one of the shared expert."""

    def __init__(self, build: Builder, prefix: str) -> None:
        config, weights, geometry = build.config, build.weights, build.geometry
        hidden, used = config.hidden, config.experts_used
        self.partial_sums = used + 1
        self._norm = weights.vector(f"{prefix}post_attention_norm.weight", hidden)
        self.router_weights = weights.merge(
            f"{prefix}router",
            [
                # A quantised router would choose other experts.
                weights.plain_matrix(f"{prefix}ffn_gate_inp.weight", config.experts, hidden),
                weights.plain_matrix(f"{prefix}ffn_gate_inp_shexp.weight", 1, hidden),
            ],
        )
        names = [f"{prefix}ffn_{part}_exps.weight" for part in ("gate", "up")]
        rows = [config.expert_ffn] * 2
        self.gate_up_weights = weights.merge(
            f"{prefix}gate_up",
            weights.split_rows(f"{prefix}ffn_gate_up_exps.weight", names, rows, hidden, config.experts),
        )
        down = weights.matrix(f"{prefix}ffn_down_exps.weight", hidden, config.expert_ffn, config.experts)
        self.down_weights = weights.merge(f"{prefix}down", [down])
        self.experts: tuple[Merged, ...] = (self.gate_up_weights, self.down_weights)
        shared = [
            weights.matrix(f"{prefix}ffn_{part}_shexp.weight", config.shared_ffn, hidden) for part in ("gate", "up")
        ]
        self.shared_gate_up_weights = weights.merge(f"{prefix}shared_gate_up", shared)
        self.shared_down_weights = weights.merge(
            f"{prefix}shared_down", [weights.matrix(f"{prefix}ffn_down_shexp.weight", hidden, config.shared_ffn)]
        )

        gate, up = self.gate_up_weights.matrices
        shared_gate, shared_up = self.shared_gate_up_weights.matrices
        (down_matrix,), (shared_down,) = self.down_weights.matrices, self.shared_down_weights.matrices
        readers = Consumers.of([gate, up, shared_gate, shared_up])
        router, shared_expert = self.router_weights.matrices
        self.router = Router(router, shared_expert, used, config.rms_eps, readers, geometry)
        of_down, of_shared_down = Consumers.of([down_matrix]), Consumers.of([shared_down])
        self.gate_up = ExpertsGateUp((gate, up), (shared_gate, shared_up), used, of_down, of_shared_down, geometry)
        self.down = ExpertsDown(down_matrix, shared_down, used, geometry)

        self._residual = Residual(build, self.partial_sums)
        self._input = build.activations("input", hidden, readers)
        self._hidden = build.activations("hidden", config.expert_ffn, of_down, geometry.chunk_rows * used)
        self._shared = build.activations("shared hidden", config.shared_ffn, of_shared_down)
        self._logits = build.rows("router logits", self.router.logits_columns)
        self._counters = build.counters("router counters", geometry.chunk_rows)
        self.selected = build.rows("selected experts", used, dtype=I32)
        self._slot_weights = build.rows("expert weights", used + 1)

    def launches(self, rows: Rows) -> Iterator[Launch]:
        """From the mixer's output to the partial sums."""
        residual, count, row_count = self._residual, rows.count, rows.row_count
        hidden = {
            "hidden_quantised": self._hidden.quantised, "hidden_plain": self._hidden.plain,
            "shared_quantised": self._shared.quantised, "shared_plain": self._shared.plain,
        }  # fmt: skip
        yield self.router.launch(
            count, x=residual.before, y=residual.mixed, x_out=residual.after, weight=self._norm,
            router_weights=self.router_weights.tensor, logits=self._logits, counters=self._counters,
            selected=self.selected, slot_weights=self._slot_weights, row_count=row_count, **self._input.arguments,
        )  # fmt: skip
        yield self.gate_up.launch(
            count, weights=self.gate_up_weights.tensor, shared_weights=self.shared_gate_up_weights.tensor,
            selected=self.selected, row_count=row_count, **self._input.arguments, **hidden,
        )  # fmt: skip
        yield self.down.launch(
            count, weights=self.down_weights.tensor, shared_weights=self.shared_down_weights.tensor,
            selected=self.selected, slot_weights=self._slot_weights, partials=residual.partials, row_count=row_count,
            **hidden,
        )  # fmt: skip
