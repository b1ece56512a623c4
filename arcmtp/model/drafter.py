"""The MTP block: guesses the token after next from a token and the hidden row of the token before it.

Its KV cache holds, at each position, a token joined with the hidden row before it. Prompt blocks and verified rows
write it from the trunk's hidden rows; what drafting itself wrote beyond them is overwritten then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from arcmtp.model.config import Config
from arcmtp.model.formats import Matrix
from arcmtp.model.layer import LayerOps, attention, matrices
from arcmtp.model.plan import MtpPlan
from arcmtp.model.weights import MtpBlock
from arcmtp.model.workspace import Workspace
from arcmtp.ops.attention import Attention
from arcmtp.ops.draft_input import DraftInput
from arcmtp.ops.launch import Consumers
from arcmtp.ops.mul_mat import MulMat
from arcmtp.ops.norm import Norm
from arcmtp.runtime import _host
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.compiler import Kernel, Program
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

    def kernels(self, rows: int) -> Iterator[Kernel]:
        """What a call after a step of `rows` rows needs at that count, or, with 0, a block."""
        yield self.input.kernel(rows, last_first=rows > 0)
        yield self.eh_proj.kernel(rows)
        yield self.layer.norm.kernel(rows)
        if rows == 0:
            yield self.block_norm.kernel(0)
            yield self.keys_values.kernel(0)
            yield self.store.store_kernel(0)
            yield self.input.carry_kernel()
            return
        yield self.layer.projections.kernel(rows)
        if rows > 1:
            yield self.mixer.store_kernel(rows)
        else:
            yield self.input.kernel(1)
            yield from self.layer.kernels(1)
            yield from (self.head_norm.kernel(1), self.head.kernel(1))

    def add_block(
        self, program: Program, launches: _host.LaunchList, block: MtpBlock, output_norm: Any, w: Workspace[Buffer],
        context: int,
    ) -> None:  # fmt: skip
        """Keys and values of a block that the trunk has evaluated; no queries, experts or logits."""
        following = w.block_hidden.at(self.block_norm.k * 4)  # row 0 belongs to the token before the block
        post = self.hidden == "post"
        self.block_norm.launch(
            program, launches, 0, w.after_mixer, w.partials, w.residual if post else following, output_norm,
            w.source_rows, w.quantised, following if post else w.plain, w.row_count,
        )  # fmt: skip
        self._add_input(program, launches, 0, False, block, w, w.ids, w.block_hidden)
        self.layer.norm.launch(
            program, launches, 0, w.residual, w.partials, w.residual, block.layer.attn_norm, w.source_rows,
            w.quantised, w.plain, w.row_count,
        )  # fmt: skip
        self.keys_values.launch(
            program, launches, 0, block.layer.projections.buffer, w.quantised, w.plain, w.projected, w.row_count
        )
        self._add_store(program, launches, 0, self.store, block, w, context, w.positions)
        self.input.launch_carry(program, launches, w.block_hidden, w.row_count)

    def add_first(
        self, step: Program, single: Program, launches: _host.LaunchList, rows: int, block: MtpBlock,
        w: Workspace[Buffer], context: int, hidden: Any,
    ) -> None:  # fmt: skip
        """The call after a step of `rows` rows: keys and values of the rows that were accepted, logits after the last
        of them. step, single: the programs of `rows` rows and of one."""
        self._add_input(step, launches, rows, True, block, w, w.sampled, hidden)
        self.layer.add_projections(step, launches, rows, block.layer, w, w.residual)
        if rows > 1:
            self._add_store(step, launches, rows, self.mixer, block, w, context, w.draft_positions)
        self._add_rest(single, launches, block, w, context, w.draft_positions)

    def add_next(
        self, single: Program, launches: _host.LaunchList, index: int, block: MtpBlock, w: Workspace[Buffer],
        context: int,
    ) -> None:  # fmt: skip
        """Call `index`, from 2: goes on from the token and the hidden row of the call before."""
        chained = w.draft_hidden if self.hidden == "post" else w.draft_final
        self._add_input(single, launches, 1, False, block, w, w.ids.at(4 * (index - 1)), chained)
        self.layer.add_projections(single, launches, 1, block.layer, w, w.residual)
        self._add_rest(single, launches, block, w, context, w.positions.at(4 * (index - 1)))

    def _add_input(
        self, program: Program, launches: _host.LaunchList, rows: int, last_first: bool, block: MtpBlock,
        w: Workspace[Buffer], tokens: Any, hidden: Any,
    ) -> None:  # fmt: skip
        self.input.launch(
            program, launches, rows, last_first, block.embedding.buffer, tokens, hidden, block.token_norm,
            block.hidden_norm, w.accepted, w.positions, w.draft_positions, w.row_count, w.quantised, w.plain,
        )  # fmt: skip
        self.eh_proj.launch(
            program, launches, rows, block.eh_proj.buffer, w.quantised, w.plain, w.residual, w.row_count
        )

    def _add_store(
        self, program: Program, launches: _host.LaunchList, rows: int, op: Attention, block: MtpBlock,
        w: Workspace[Buffer], context: int, positions: Any,
    ) -> None:  # fmt: skip
        op.launch_store(
            program, launches, rows, w.projected, block.layer.q_norm, block.layer.k_norm, w.rope, positions,
            w.row_count, w.draft_cache, context,
        )  # fmt: skip

    def _add_rest(
        self, program: Program, launches: _host.LaunchList, block: MtpBlock, w: Workspace[Buffer], context: int,
        positions: Any,
    ) -> None:  # fmt: skip
        """Row 0 from its projections to its logits."""
        self.layer.add_mixer(program, launches, 1, block.layer, w, w.draft_cache, context, positions)
        self.layer.add_experts(program, launches, 1, block.layer, w)
        self.head_norm.launch(
            program, launches, 1, w.after_mixer, w.partials, w.draft_final, block.head_norm, w.source_rows,
            w.head_quantised, w.draft_hidden, w.row_count,
        )  # fmt: skip
        self.head.launch(
            program, launches, 1, block.output.buffer, w.head_quantised, w.draft_hidden, w.logits, w.row_count
        )
