"""The MTP block: guesses the token after next from a token and the hidden row of the token before it.

Its KV cache holds, at each position, a token joined with the hidden row before it. Prompt chunks and verified rows
write it from the trunk's hidden rows; what drafting itself wrote beyond them is overwritten then. Steps without drafts
leave only their hidden rows behind, from which `catch_up` writes what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from arcmtp.gguf import GGUF
from arcmtp.model.blocks.attention import AttentionBlock
from arcmtp.model.blocks.cache import StateCache
from arcmtp.model.blocks.head import Head, HeadWeights, SamplingMode
from arcmtp.model.blocks.layer import FeedForward
from arcmtp.model.builder import Builder, Residual, Rows
from arcmtp.model.config import Config
from arcmtp.model.weight_plan import Merged, RowIds, WeightPlan
from arcmtp.ops.draft_input import DraftInput, Order
from arcmtp.ops.gumbel_sampling import QUAD
from arcmtp.ops.launch import CARRIED_ROWS, Consumers
from arcmtp.ops.mul_mat import MulMat
from arcmtp.ops.norm import Norm
from arcmtp.runtime.launch import Launch
from arcmtp.runtime.tensor import F32, I32, Kind, Tensor

HiddenRows = Literal["post", "pre"]  # those after or before the norm that precedes the head


def has_mtp(gguf: GGUF, config: Config) -> bool:
    """Whether the file has an MTP block: some are published without the one that their keys announce."""
    return config.mtp_layers > 0 and _joining(config) in gguf.tensors


def _joining(config: Config) -> str:
    return f"blk.{config.layers}.nextn.eh_proj.weight"


@dataclass(frozen=True)
class Trunk:
    """What the MTP block takes of the trunk. partial_sums: those that its last layer leaves."""

    embedding: Merged
    head: Head
    partial_sums: int
    hidden_rows: HiddenRows

    @property
    def hidden(self) -> Tensor:
        """f32 [step rows, hidden]: the hidden rows of a step."""
        return _hidden(self.head, self.hidden_rows)


class MtpBlock:
    """Raises ArcmtpError for a file without such a block.

    tokens: int32, ascending, all that are ever drafted; None: every token.
    """

    def __init__(
        self, build: Builder, trunk: Trunk, feed_forward: Callable[[Builder, str], FeedForward],
        tokens: RowIds | None = None,
    ) -> None:  # fmt: skip
        config, weights, controls = build.config, build.weights, build.controls
        hidden, prefix = config.hidden, f"blk.{config.layers}."
        if _joining(config) not in weights:
            raise weights.error("the file has no MTP block (blk.*.nextn tensors), so nothing can be drafted")
        self._trunk, self._controls = trunk, controls
        self.attention = AttentionBlock(build, prefix, 0)
        self.feed_forward = feed_forward(build, prefix)
        # The embedding's columns come first, then the hidden row's.
        self.joined_weights = weights.merge(
            f"{prefix}eh_proj", [weights.matrix(_joining(config), hidden, 2 * hidden)]
        )
        self._token_norm = weights.vector(f"{prefix}nextn.enorm.weight", hidden)
        self._hidden_norm = weights.vector(f"{prefix}nextn.hnorm.weight", hidden)
        self.embedding = _own_embedding(weights, f"{prefix}nextn.embed_tokens.weight", trunk.embedding)
        own_norm = f"{prefix}nextn.shared_head_norm.weight"
        norm = weights.vector(own_norm, hidden) if own_norm in weights else trunk.head.weights.norm
        of_head = _head_weights(build, norm, f"{prefix}nextn.shared_head_head.weight", trunk.head.weights, tokens)
        self.head = Head(build, "draft", of_head, self.feed_forward.partial_sums, plain=True)

        (embedding,), readers = self.embedding.matrices, Consumers.of(self.joined_weights.matrices)
        self._input = DraftInput(embedding, config.rms_eps, readers, build.geometry)
        self._join = MulMat(self.joined_weights.matrices, build.geometry)
        self._chunk_norm = Norm(
            hidden, config.rms_eps, trunk.partial_sums, Consumers(quantised=False, plain=True), build.geometry
        )
        self._residual = Residual(build, trunk.partial_sums)
        self._rows = build.activations("input", 2 * hidden, readers)
        self._chunk_hidden = build.rows("hidden rows of a chunk", hidden)
        self._row_positions = build.step("draft positions", dtype=I32)
        self.carried = StateCache(build.per_slot("carried hidden rows", F32, CARRIED_ROWS, hidden))

    def bring_carried(self, index: int, slot: int, position: int) -> None:
        """Make the carried hidden row of `position` that of row `index` of a step, as if this step had evaluated it."""
        carried, row = self.carried.tensor, self._trunk.hidden.nbytes // self._trunk.hidden.shape[0]
        place = slot * CARRIED_ROWS + position % CARRIED_ROWS
        self._trunk.hidden.copy_from(carried, row, index * row, place * row)

    def chunk(self, rows: Rows) -> Iterator[Launch]:
        """Keys and values of a prompt chunk that the trunk has evaluated; no queries, experts or logits."""
        residual = self._residual
        of_norm = (residual.before, self._chunk_hidden)  # the rows before and after it; one of them nobody reads
        x_out, plain = of_norm if self._trunk.hidden_rows == "post" else reversed(of_norm)
        norm = self._chunk_norm.launch(
            0, x=residual.after, partials=residual.partials, weight=self._trunk.head.weights.norm, x_out=x_out,
            source_rows=self._controls.source_rows, quantised=self._rows.quantised, plain=plain,
            row_count=rows.row_count,
        )  # fmt: skip
        launches = [
            replace(norm, part="chunk"),
            *self._begin(rows, "prompt", rows.ids, self._chunk_hidden),
            *self.attention.store_keys_values(rows, residual.before),
            self._input.carry(
                hidden=self._chunk_hidden, positions=rows.positions, row_count=rows.row_count,
                chunk_pending=self._controls.chunk_pending, carried=self.carried.tensor,
                slot=self._controls.chunk_slot,
            ),
        ]  # fmt: skip
        return _labelled(launches)

    def catch_up(self, rows: Rows) -> Iterator[Launch]:
        """Keys and values of positions that the trunk has evaluated in steps without drafts, from the carried hidden
        rows; rows: as of a prompt chunk, at most CARRIED_ROWS."""
        launches = [
            *self._begin(rows, "carried", rows.ids, self._chunk_hidden),
            *self.attention.store_keys_values(rows, self._residual.before),
        ]
        return _labelled(launches)

    def keep(self, step: Rows) -> Iterator[Launch]:
        """Keys and values of a step's rows that were accepted: of the first call after it, all but the draft."""
        step = replace(step, positions=self._row_positions)
        launches = [
            *self._begin(step, "step", self._controls.sampled, self._trunk.hidden),
            *self.attention.store_keys_values(step, self._residual.before),
        ]
        return _labelled(launches)

    def first_logits(self, step: Rows, drafts: Rows) -> Iterator[Launch]:
        """The call after a step up to its logits: keys and values of the rows that were accepted, the logits of a draft
        after the last of each sequence.

        step, drafts: the step's rows, and one of each sequence.
        """
        step = replace(step, positions=self._row_positions)
        launches = [
            *self._begin(step, "step", self._controls.sampled, self._trunk.hidden),
            *self.attention.project(step, self._residual.before),
        ]
        if step.per_sequence > 1:
            launches.append(self.attention.store(step))
        launches += self._logits(replace(drafts, positions=self._row_positions))
        return _labelled(launches)

    def next_logits(self, drafts: Rows, index: int) -> Iterator[Launch]:
        """Call `index`, from 2, up to its logits: goes on from the token and the hidden row of each sequence's call
        before."""
        before = (index - 1) * drafts.batch.size  # where the inputs of the call before end
        controls = self._controls
        rows = replace(drafts, ids=controls.ids.part(before), positions=controls.positions.part(before))
        launches = [
            *self._begin(rows, "draft", rows.ids, _hidden(self.head, self._trunk.hidden_rows)),
            *self.attention.project(rows, self._residual.before),
            *self._logits(rows),
        ]
        return _labelled(launches)

    def choice(self, drafts: Rows, index: int, mode: SamplingMode, chosen: Tensor) -> Iterator[Launch]:
        """The rest of call `index`, from 1; chosen: i32 [sequences], the drafts."""
        return _labelled(self.head.choice(drafts, mode, chosen, index - 1))

    def _begin(self, rows: Rows, order: Order, tokens: Tensor, hidden: Tensor) -> Iterator[Launch]:
        """Tokens joined with hidden rows."""
        yield self._input.launch(
            rows.count, order, rows.batch, weights=self.embedding.tensor, tokens=tokens, hidden=hidden,
            token_norm=self._token_norm, hidden_norm=self._hidden_norm, accepted=self._controls.accepted,
            positions=self._controls.positions if order == "step" else rows.positions,
            row_positions=self._row_positions, carried=self.carried.tensor, row_count=rows.row_count,
            **self._rows.arguments,
        )  # fmt: skip
        join = self._join.launch(
            rows.count, weights=self.joined_weights.tensor, output=self._residual.before, row_count=rows.row_count,
            **self._rows.arguments,
        )  # fmt: skip
        yield replace(join, part="eh_proj")

    def _logits(self, rows: Rows) -> Iterator[Launch]:
        """A row of each sequence from its projections to its logits."""
        yield from self.attention.mix(rows)
        yield from self.feed_forward.launches(rows)
        yield from self.head.logit_launches(rows)


def _own_embedding(weights: WeightPlan, name: str, of_trunk: Merged) -> Merged:
    """The block's own embedding, or the trunk's."""
    if name not in weights:
        return of_trunk
    matrix = of_trunk.matrices[0]
    return weights.merge(name.removesuffix(".weight"), [weights.matrix(name, matrix.n, matrix.k)])


def _head_weights(
    build: Builder, norm: Tensor, own_output: str, of_trunk: HeadWeights, tokens: RowIds | None
) -> HeadWeights:
    """The block's own output matrix, or that of the trunk's head, with the rows of `tokens` or all; the trunk's in its
    place if nothing differs."""
    (whole,), weights = of_trunk.output.segments, build.weights
    own = own_output in weights
    source, name = (weights, own_output) if own else (weights.with_file(whole.file), whole.tensor.name)
    output = source.matrix(name, whole.matrix.n, whole.matrix.k)
    if tokens is None:
        merged = of_trunk.output if output == whole else weights.merge("draft output", [output])
        return HeadWeights(norm, merged, of_trunk.vocabulary_used)
    columns = np.pad(tokens, (0, -len(tokens) % QUAD), mode="edge")
    of_columns = build.arena.tensor(
        "tokens of draft columns", I32, len(columns), kind=Kind.STATE, initial=lambda: columns
    )
    return HeadWeights(norm, weights.merge("draft output", [output.some(tokens)]), len(tokens), of_columns)


def _hidden(head: Head, rows: HiddenRows) -> Tensor:
    return head.before_norm if rows == "pre" else head.rows.plain


def _labelled(launches: Iterable[Launch]) -> Iterator[Launch]:
    return (replace(launch, block="mtp") for launch in launches)
