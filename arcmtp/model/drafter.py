"""The MTP block: guesses the token after next from a token and the hidden row of the token before it.

Its KV cache holds, at each position, a token joined with the hidden row before it. Prompt blocks and verified rows
write it from the trunk's hidden rows; what drafting itself wrote beyond them is overwritten then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from arcmtp.formats.matrix import Matrix
from arcmtp.model.config import Config
from arcmtp.model.layer import LayerOps, Rows, attention, matrices
from arcmtp.model.plan import MtpPlan
from arcmtp.model.weights import MtpBlock
from arcmtp.model.workspace import Workspace
from arcmtp.ops.attention import Attention
from arcmtp.ops.draft_input import DraftInput, Order
from arcmtp.ops.launch import Consumers
from arcmtp.ops.mul_mat import MulMat
from arcmtp.ops.norm import Norm
from arcmtp.runtime import _host
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.compiler import Kernel
from arcmtp.runtime.memory import Buffer

Hidden = Literal["post", "pre"]  # hidden rows after or before the norm that precedes the head


class Drafter:
    """The MTP block's operators. embedding, output: the trunk's matrices, for a block that has none of its own."""

    def __init__(
        self, config: Config, plan: MtpPlan, embedding: Matrix, output: Matrix, hidden: Hidden, geometry: Geometry
    ) -> None:
        eps, slots = config.rms_eps, config.experts_used + 1
        eh_proj = plan.eh_proj[0].matrix
        self.hidden = hidden
        self.input = DraftInput(
            plan.embedding[0].matrix if plan.embedding else embedding, eps, Consumers.of([eh_proj]), geometry
        )
        self.eh_proj = MulMat([eh_proj], geometry)
        self.layer = LayerOps.of(config, plan.layer, 0, geometry)
        self.keys_values = MulMat(matrices(plan.layer, "projections")[-2:], geometry)
        # Queries, at column 0, are not looked at: this one only stores keys and values.
        self.store = attention(config, self.keys_values, Consumers(quantised=False, plain=False), geometry)
        head = plan.output[0].matrix if plan.output else output
        also_plain = Consumers(quantised=Consumers.of([head]).quantised, plain=True)
        self.head_norm = Norm(config.hidden, eps, slots, also_plain, geometry)
        self.head = MulMat([head], geometry)
        self.block_norm = Norm(config.hidden, eps, slots, Consumers(quantised=False, plain=True), geometry)

    @property
    def mixer(self) -> Attention:
        """The block's attention."""
        assert isinstance(self.layer.mixer, Attention)
        return self.layer.mixer

    def step_kernels(self, rows: int) -> Iterator[Kernel]:
        """What the call after a step needs for that step's rows in all."""
        yield self.input.kernel(rows, "step")
        yield from (self.eh_proj.kernel(rows), self.layer.norm.kernel(rows), self.layer.projections.kernel(rows))
        yield self.mixer.store_kernel(rows)

    def draft_kernels(self, runs: int) -> Iterator[Kernel]:
        """What calls need for a row of each run, but for the mixer's."""
        yield self.input.kernel(runs, "draft")
        yield self.eh_proj.kernel(runs)
        yield from self.layer.kernels(runs)
        yield from (self.head_norm.kernel(runs), self.head.kernel(runs))

    def block_kernels(self) -> Iterator[Kernel]:
        """What `add_block` needs."""
        yield self.block_norm.kernel(0)
        yield self.input.kernel(0, "prompt")
        yield from (self.eh_proj.kernel(0), self.layer.norm.kernel(0), self.keys_values.kernel(0))
        yield self.store.store_kernel(0)
        yield self.input.carry_kernel()

    def add_block(
        self, launches: _host.LaunchList, rows: Rows, block: MtpBlock, output_norm: Any, w: Workspace[Buffer],
        context: int,
    ) -> None:  # fmt: skip
        """Keys and values of a block that the trunk has evaluated; no queries, experts or logits."""
        program, post = rows.program, self.hidden == "post"
        self.block_norm.launch(
            program, launches, 0, w.after_mixer, w.partials, w.residual if post else w.block_hidden, output_norm,
            w.source_rows, w.quantised, w.block_hidden if post else w.plain, rows.row_count,
        )  # fmt: skip
        self._add_input(launches, rows, "prompt", block, w, w.block_ids, w.block_hidden)
        self.layer.norm.launch(
            program, launches, 0, w.residual, w.partials, w.residual, block.layer.attn_norm, w.source_rows,
            w.quantised, w.plain, rows.row_count,
        )  # fmt: skip
        self.keys_values.launch(
            program, launches, 0, block.layer.projections.buffer, w.quantised, w.plain, w.projected, rows.row_count
        )
        self._add_store(launches, rows, self.store, block, w, context, w.block_positions)
        self.input.launch_carry(program, launches, w.block_hidden, rows.row_count, w.carried, w.block_slot)

    def add_first(
        self, launches: _host.LaunchList, step: Rows, drafts: Rows, block: MtpBlock, w: Workspace[Buffer], context: int,
        hidden: Any,
    ) -> None:  # fmt: skip
        """The call after a step: keys and values of the rows that were accepted, logits after the last of each run.
        step, drafts: the step's rows, and one of each run."""
        self._add_input(launches, step, "step", block, w, w.sampled, hidden)
        self.layer.add_projections(launches, step, block.layer, w, w.residual)
        if step.of_run > 1:
            self._add_store(launches, step, self.mixer, block, w, context, w.draft_positions)
        self._add_rest(launches, drafts, block, w, context, w.draft_positions)

    def add_next(
        self, launches: _host.LaunchList, rows: Rows, index: int, block: MtpBlock, w: Workspace[Buffer], context: int
    ) -> None:
        """Call `index`, from 2: goes on from the token and the hidden row of each run's call before."""
        before = 4 * (index - 1) * rows.runs.count  # where the inputs of the call before end
        chained = w.draft_hidden if self.hidden == "post" else w.draft_final
        self._add_input(launches, rows, "draft", block, w, w.ids.at(before), chained)
        self.layer.add_projections(launches, rows, block.layer, w, w.residual)
        self._add_rest(launches, rows, block, w, context, w.positions.at(before))

    def _add_input(
        self, launches: _host.LaunchList, rows: Rows, order: Order, block: MtpBlock, w: Workspace[Buffer], tokens: Any,
        hidden: Any,
    ) -> None:  # fmt: skip
        self.input.launch(
            rows.program, launches, rows.count, order, block.embedding.buffer, tokens, hidden, block.token_norm,
            block.hidden_norm, w.accepted, w.positions, w.draft_positions, w.carried, rows.runs, rows.row_count,
            w.quantised, w.plain,
        )  # fmt: skip
        self.eh_proj.launch(
            rows.program, launches, rows.count, block.eh_proj.buffer, w.quantised, w.plain, w.residual, rows.row_count
        )

    def _add_store(
        self, launches: _host.LaunchList, rows: Rows, op: Attention, block: MtpBlock, w: Workspace[Buffer],
        context: int, positions: Any,
    ) -> None:  # fmt: skip
        op.launch_store(
            rows.program, launches, rows.count, w.projected, block.layer.q_norm, block.layer.k_norm, w.rope, positions,
            rows.row_count, w.draft_cache, context, rows.runs,
        )  # fmt: skip

    def _add_rest(
        self, launches: _host.LaunchList, rows: Rows, block: MtpBlock, w: Workspace[Buffer], context: int,
        positions: Any,
    ) -> None:  # fmt: skip
        """A row of each run from its projections to its logits."""
        self.layer.add_mixer(launches, rows, block.layer, w, w.draft_cache, context, positions)
        self.layer.add_experts(launches, rows, block.layer, w)
        self.head_norm.launch(
            rows.program, launches, rows.count, w.after_mixer, w.partials, w.draft_final, block.head_norm,
            w.source_rows, w.head_quantised, w.draft_hidden, rows.row_count,
        )  # fmt: skip
        self.head.launch(
            rows.program, launches, rows.count, block.output.buffer, w.head_quantised, w.draft_hidden, w.logits,
            rows.row_count,
        )  # fmt: skip
