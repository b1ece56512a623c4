"""What blocks are built with: the file, the hyperparameters, the card's geometry, and the arena of their tensors."""

from __future__ import annotations

from dataclasses import dataclass

from arcmtp.formats.activations import row_bytes
from arcmtp.formats.kv_cache import KV_F16, KvFormat
from arcmtp.model.config import Config
from arcmtp.model.controls import Controls
from arcmtp.model.weight_plan import WeightPlan
from arcmtp.ops.launch import Batch, Consumers
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.launch import Argument
from arcmtp.runtime.tensor import F32, I32, U8, Arena, DType, Kind, Tensor


@dataclass(frozen=True)
class Rows:
    """The rows that launches work on.

    per_sequence: 1…8 for each of the sequences, or 0: a prompt chunk, of one. row_count: i32, `count` in device memory,
    for kernels that are not compiled for it. ids, positions: i32, of each row."""

    per_sequence: int
    batch: Batch
    row_count: Tensor
    ids: Tensor
    positions: Tensor

    @property
    def count(self) -> int:
        """Rows of all sequences, or 0: a prompt chunk."""
        return self.per_sequence * self.batch.size


@dataclass(frozen=True)
class ActivationRows:
    """Rows in the forms in which an operator may want them; without any of a form that it does not want."""

    quantised: Tensor
    plain: Tensor

    @property
    def arguments(self) -> dict[str, Argument]:
        """For a kernel that reads or writes them."""
        return {"quantised": self.quantised, "plain": self.plain}


@dataclass(frozen=True)
class Builder:
    """context: positions of a KV cache, whole tiles. activation_orders: copies of an activation row's codes. kv: how a
    KV cache lies."""

    config: Config
    weights: WeightPlan
    arena: Arena
    controls: Controls
    geometry: Geometry
    activation_orders: int
    slots: int
    context: int
    kv: KvFormat = KV_F16

    def rows(self, name: str, *columns: int, dtype: DType = F32) -> Tensor:
        """Scratch memory for the rows of a prompt chunk, which all tensors of that name share."""
        return self.arena.tensor(name, dtype, self.geometry.chunk_rows, *columns)

    def counters(self, name: str, *shape: int) -> Tensor:
        """int32 that are zero between launches."""
        return self.arena.tensor(name, I32, *shape, kind=Kind.COUNTERS)

    def step(self, name: str, *columns: int, dtype: DType = F32) -> Tensor:
        """Scratch memory for the rows of a step."""
        return self.arena.tensor(name, dtype, self.controls.step_rows, *columns)

    def per_slot(self, name: str, dtype: DType, *shape: int, kind: Kind = Kind.STATE) -> Tensor:
        """What there is once for each sequence, [slots, *shape]."""
        return self.arena.tensor(name, dtype, self.slots, *shape, kind=kind)

    def activations(self, name: str, k: int, readers: Consumers, rows: int | None = None) -> ActivationRows:
        """Rows of k values, in the forms that their readers want; None: those of a prompt chunk."""
        rows = rows or self.geometry.chunk_rows
        row = row_bytes(k, self.activation_orders)
        return ActivationRows(
            self.arena.tensor(f"{name} quantised", U8, rows * readers.quantised, row),
            self.arena.tensor(f"{name} plain", F32, rows * readers.plain, k),
        )


class Residual:
    """The residual stream of rows [rows, hidden] f32: `before` and `after` the mixer of a layer; `mixed`, the mixer's
    output, and `partials` [rows, partial sums, hidden], the feed-forward's, are what is added to it next."""

    def __init__(self, build: Builder, partial_sums: int) -> None:
        hidden = build.config.hidden
        self.before = build.rows("residual", hidden)
        self.after = build.rows("residual after the mixer", hidden)
        self.mixed = build.rows("mixed", hidden)
        self.partials = build.rows("partial sums", max(partial_sums, 1), hidden)
