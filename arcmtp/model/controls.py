"""Words in device memory that steer launches: which rows and sequences they work on, and how tokens are chosen."""

from __future__ import annotations

import numpy as np

from arcmtp.ops.accept import DONE, RECORD, RECORDS, TURN_WORDS, turn
from arcmtp.ops.gumbel_sampling import BIASES, OPTION_WORDS, Masks, mask_words
from arcmtp.ops.launch import MAX_ROWS, STEP_ROWS, Batch
from arcmtp.ops.sampling import STATS
from arcmtp.ops.top_logprobs import MAX_TOP
from arcmtp.runtime.tensor import F32, I32, U32, Arena, Kind, Tensor


class Controls:
    """For a network with `slots` sequences, whose logits have `stride` columns. All int32 unless said otherwise.

    Per row of a step: `ids`, the tokens that it evaluates; `positions`; `source_rows`, the rows whose logits are
    wanted; `targets`, tokens whose log-probability is wanted, or -1; `sampled`, the chosen tokens; `stats` f32 [3],
    largest logit, log-sum-exp, log-probability of the target or else of the chosen token; `top_ids` and `top_logprobs`
    f32 [MAX_TOP + 1] in host memory; in host memory too, `masks` u32 [mask_words], the tokens that may be chosen, and
    `told`, those that were chosen by masks.
    Per sequence of the batch: `slots`, where it is kept; `accepted`, the last row that counts; `drafted`, how many
    drafts of a cycle count at most. `goes_on`: whether any chain of draft calls does.
    Per slot: `pending_count`, how many of the pending rows count; `turns`, the generation under way
    (accept.hpp); `draft_floors` f32, the log-probability of a draft below which no more are made; `top_counts`, how
    many of the likeliest tokens are wanted; `options`, `token_states` and `biases` f32 of sampling with options;
    `records` in host memory, what steps gave.
    Of a prompt chunk, at most `chunk_rows` rows: `chunk_ids`, `chunk_positions`, `chunk_slot`, `row_count`, and
    `chunk_pending`, how many of its last rows stay pending. `arrivals` [1] of work-groups, zero between launches.
    """

    def __init__(self, arena: Arena, slots: int, stride: int, chunk_rows: int) -> None:
        self.step_rows = min(slots * MAX_ROWS, STEP_ROWS)
        rows = self.step_rows

        def words(name: str, *shape: int) -> Tensor:
            return arena.tensor(name, I32, *shape, kind=Kind.STATE)

        self.ids = words("ids", rows)
        self.positions = words("positions", slots * MAX_ROWS)
        self.slots = words("slots", slots)
        self.row_counts = arena.tensor(
            "row counts", I32, STEP_ROWS + 1, kind=Kind.STATE, initial=lambda: np.arange(STEP_ROWS + 1, dtype=np.int32)
        )
        self.source_rows = arena.tensor(
            "source rows", I32, rows, kind=Kind.STATE, initial=lambda: np.arange(rows, dtype=np.int32)
        )
        self.targets = arena.tensor(
            "targets", I32, rows, kind=Kind.STATE, initial=lambda: np.full(rows, -1, np.int32)
        )
        self.sampled = words("sampled", rows)
        self.stats = arena.tensor("stats", F32, rows, STATS, kind=Kind.STATE)
        self.masks = arena.tensor("token masks", U32, rows, mask_words(stride), kind=Kind.HOST)
        self.told = arena.tensor("told tokens", I32, rows, kind=Kind.HOST)
        self.accepted = words("accepted", slots)
        self.drafted = arena.tensor(
            "drafted", I32, slots, kind=Kind.STATE, initial=lambda: np.full(slots, MAX_ROWS, np.int32)
        )
        self.arrivals = arena.tensor("arrivals", I32, 1, kind=Kind.COUNTERS)
        self.goes_on = words("chains go on", 1)
        self.draft_floors = arena.tensor("draft floors", F32, slots, kind=Kind.STATE)
        self.pending_count = words("pending count", slots)
        self.turns = words("turns", slots, TURN_WORDS)
        self.top_counts = words("top counts", slots)
        self.options = words("sampling options", slots, OPTION_WORDS)
        self.token_states = words("token states", slots, stride)
        self.biases = arena.tensor("biases", F32, slots, BIASES, kind=Kind.STATE)
        self.chunk_ids, self.chunk_positions = words("chunk ids", chunk_rows), words("chunk positions", chunk_rows)
        self.chunk_slot, self.row_count = words("chunk slot", 1), words("row count", 1)
        self.chunk_pending = words("chunk pending", 1)
        record_words = RECORD.itemsize // 4
        self.records = arena.tensor("records", I32, slots, RECORDS, record_words, kind=Kind.HOST)
        self.top_ids = arena.tensor("top ids", I32, rows, MAX_TOP + 1, kind=Kind.HOST)
        self.top_logprobs = arena.tensor("top logprobs", F32, rows, MAX_TOP + 1, kind=Kind.HOST)

    def reset(self, slot: int) -> None:
        """No generation is under way in a slot: a step changes nothing."""
        idle = turn(0, ())
        idle[DONE] = 1
        self.turns.write(idle, slot * idle.nbytes)

    @property
    def row_masks(self) -> Masks:
        """The masks as sampling takes them."""
        return Masks(self.masks, self.told)

    def step_batch(self, count: int) -> Batch:
        """The sequences of a step."""
        return Batch(count, self.slots)

    @property
    def chunk_batch(self) -> Batch:
        """The sequence of a prompt chunk."""
        return Batch(1, self.chunk_slot)
