"""The head: final norm, logits, and the choice of a token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from arcmtp.model.builder import Builder, Residual, Rows
from arcmtp.model.weight_plan import Merged
from arcmtp.ops.gumbel_sampling import GumbelSampling, History
from arcmtp.ops.launch import Consumers
from arcmtp.ops.mul_mat import MulMat
from arcmtp.ops.norm import Norm
from arcmtp.ops.sampling import Sampling, Vocabulary
from arcmtp.ops.top_logprobs import TopLogprobs
from arcmtp.runtime.launch import Launch
from arcmtp.runtime.tensor import Tensor


class SamplingMode(NamedTuple):
    """How the tokens of a step are chosen; a graph is made for each mode, not for each value of an option."""

    by_options: bool = False  # by `Controls.options`, otherwise greedily
    top: bool = False  # also find the likeliest tokens of each row
    masked: bool = False  # by options, among the tokens that `Controls.masks` allows


@dataclass(frozen=True)
class HeadWeights:
    """The norm's weight f32 [hidden], the output matrix [rows, hidden], and how many of its rows are tokens.

    tokens: i32 [whole quads of 64], the token of each row, where these are some tokens and not all."""

    norm: Tensor
    output: Merged
    vocabulary_used: int
    tokens: Tensor | None = None


class Head:
    """Chooses tokens for rows of a step.

    name: tells its tensors from those of another head. partial_sums: those that the last layer leaves. plain: also keep
    the normed rows as float32. gather: take the rows that `source_rows` names.
    """

    def __init__(
        self, build: Builder, name: str, weights: HeadWeights, partial_sums: int, plain: bool, gather: bool = False
    ) -> None:
        config, geometry, step_rows = build.config, build.geometry, build.controls.step_rows
        self.weights = weights
        readers = Consumers.of(weights.output.matrices)
        readers = Consumers(readers.quantised, readers.plain or plain)
        self.norm = Norm(config.hidden, config.rms_eps, partial_sums, readers, geometry, gather)
        self.product = MulMat(weights.output.matrices, geometry)
        all_tokens = build.controls.token_states.shape[1]
        vocabulary = Vocabulary(weights.vocabulary_used, self.product.columns, weights.tokens, all_tokens)
        self.vocabulary = vocabulary
        self.sampling = Sampling(vocabulary, geometry)
        self.gumbel_sampling = GumbelSampling(vocabulary, geometry)

        self._residual = Residual(build, partial_sums)
        self.before_norm = build.step(f"{name} rows before the norm", config.hidden)
        self.rows = build.activations(f"{name} rows", config.hidden, readers, step_rows)
        self.logits = build.step("logits", vocabulary.stride)
        self._partials = build.step("sampling partials", *self.sampling.partials_shape(1)[1:])
        self._arrivals = build.counters("sampling arrivals", step_rows)
        self._scratch = build.step("sampling scratch", *self.gumbel_sampling.scratch_shape(1)[1:])
        self._counters = build.counters("sampling counters", step_rows, 3)
        self._controls = build.controls

    def logit_launches(self, rows: Rows) -> Iterator[Launch]:
        """From the residual stream to the logits."""
        residual, count, row_count = self._residual, rows.count, rows.row_count
        norm = self.norm.launch(
            count, x=residual.after, partials=residual.partials, x_out=self.before_norm, weight=self.weights.norm,
            source_rows=self._controls.source_rows, row_count=row_count, **self.rows.arguments,
        )  # fmt: skip
        product = self.product.launch(
            count, weights=self.weights.output.tensor, output=self.logits, row_count=row_count, **self.rows.arguments
        )
        yield from (replace(norm, part="head"), replace(product, part="head"))

    def choice(self, rows: Rows, mode: SamplingMode, chosen: Tensor, first_row: int = 0) -> Iterator[Launch]:
        """From the logits to i32 `chosen` [rows]; row 0 of each sequence has the options and the mask of its row
        `first_row`."""
        c, logits = self._controls, self.logits
        if mode.by_options:
            masks = c.row_masks if mode.masked else None
            history = History(c.options, c.token_states, c.biases, c.ids, c.positions, rows.batch, first_row, masks)
            yield from self.gumbel_sampling.launches(
                rows.count, history, logits=logits, targets=c.targets, ids=chosen, stats=c.stats, scratch=self._scratch,
                counters=self._counters,
            )  # fmt: skip
        else:
            yield self.sampling.launch(
                rows.count, logits=logits, targets=c.targets, ids=chosen, stats=c.stats, partials=self._partials,
                arrivals=self._arrivals, row_count=rows.row_count,
            )  # fmt: skip


class TrunkHead(Head):
    """The head of a step: takes the rows that `source_rows` names, and can also find the likeliest tokens of each.

    hidden_rows: also keep the normed rows as float32.
    """

    def __init__(self, build: Builder, weights: HeadWeights, partial_sums: int, hidden_rows: bool) -> None:
        super().__init__(build, "trunk", weights, partial_sums, plain=hidden_rows, gather=True)
        self._top_logprobs = TopLogprobs(self.vocabulary, build.geometry)
        self._top_scratch = build.step("likeliest scratch", *self._top_logprobs.scratch_shape(1)[1:])
        self._top_counters = build.counters("likeliest counters", build.controls.step_rows)

    def choice(self, rows: Rows, mode: SamplingMode, chosen: Tensor, first_row: int = 0) -> Iterator[Launch]:
        """That of `Head`, and with `mode.top` one launch more."""
        yield from super().choice(rows, mode, chosen, first_row)
        c = self._controls
        if mode.top:
            yield self._top_logprobs.launch(
                rows.count, rows.batch, logits=self.logits, stats=c.stats, counts=c.top_counts, chosen=chosen,
                ids=c.top_ids, logprobs=c.top_logprobs, scratch=self._top_scratch, counters=self._top_counters,
            )  # fmt: skip


def trunk_head(
    build: Builder, embedding: Merged, vocabulary_used: int, partial_sums: int, hidden_rows: bool
) -> TrunkHead:
    """The trunk's head; its output matrix is the embedding in files that have no other."""
    config, weights, output = build.config, build.weights, embedding
    norm = weights.vector("output_norm.weight", config.hidden)
    if "output.weight" in weights:
        output = weights.merge("output", [weights.matrix("output.weight", config.vocab, config.hidden)])
    return TrunkHead(build, HeadWeights(norm, output, vocabulary_used), partial_sums, hidden_rows)
