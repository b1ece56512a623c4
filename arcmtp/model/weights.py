"""From a plan to device memory: every matrix repacked tile by tile through one staging array, which lets go of the
file's pages as it passes them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from arcmtp.formats.matrix import LANES, Floats, Matrix
from arcmtp.gguf import GGUF, GgmlType, Tensor
from arcmtp.model.config import Config
from arcmtp.model.plan import LayerPlan, MtpPlan, Plan, Segment, Segments, buffer_bytes, elements
from arcmtp.runtime import _host

if TYPE_CHECKING:
    from arcmtp.runtime.device import Device
    from arcmtp.runtime.memory import Buffer

STAGING_BYTES = 8 << 20  # 8 to 32 MiB load equally fast

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Merged:
    """Matrices with the same input k in one device buffer, each at a multiple of 64 bytes."""

    buffer: Buffer
    segments: tuple[Matrix, ...]


@dataclass(frozen=True, kw_only=True)
class _LayerBase:
    attn_norm: Buffer  # float32 [hidden]
    post_norm: Buffer  # float32 [hidden]
    projections: Merged
    output: Merged  # 1 segment [hidden, heads × dim]
    router: Merged  # [experts, hidden] and the shared expert's gate [1, hidden]
    gate_up: Merged  # expert stacks [expert_ffn, hidden], gate and up
    down: Merged  # 1 expert stack [hidden, expert_ffn]
    shared_gate_up: Merged  # [shared_ffn, hidden], gate and up
    shared_down: Merged  # 1 segment [hidden, shared_ffn]


@dataclass(frozen=True, kw_only=True)
class GdnLayer(_LayerBase):
    """A gated delta net layer; projections are q/k/v, z, beta, alpha."""

    conv: Buffer  # float32 [channels, 4], the last tap for the current token
    a: Buffer  # float32 [v_heads], -exp(A_log)
    dt_bias: Buffer  # float32 [v_heads]
    gdn_norm: Buffer  # float32 [v_dim]
    kind: Literal["gdn"] = "gdn"


@dataclass(frozen=True, kw_only=True)
class AttentionLayer(_LayerBase):
    """A full attention layer; projections are q (each head's gate rows after its query rows), k, v."""

    q_norm: Buffer  # float32 [head_dim]
    k_norm: Buffer  # float32 [head_dim]
    kind: Literal["attention"] = "attention"


Layer = GdnLayer | AttentionLayer


@dataclass(frozen=True)
class MtpBlock:
    """The MTP block; embedding and output are the trunk's unless the file has some for it alone."""

    layer: AttentionLayer
    eh_proj: Merged  # 1 segment [hidden, 2 × hidden]: the embedding's columns, then the hidden row's
    token_norm: Buffer  # float32 [hidden]
    hidden_norm: Buffer  # float32 [hidden]
    head_norm: Buffer  # float32 [hidden]
    embedding: Merged
    output: Merged


@dataclass(frozen=True)
class Weights:
    """All weights of a plan in device memory."""

    config: Config
    embedding: Merged  # 1 segment [vocab, hidden]
    output_norm: Buffer  # float32 [hidden]
    output: Merged  # 1 segment [vocab, hidden]; the embedding itself if the file has no output matrix
    layers: tuple[Layer, ...]
    mtp: MtpBlock | None
    nbytes: int
    requant_errors: dict[str, float]  # relative RMS error of each requantised tensor


def load(plan: Plan, device: Device, progress: Progress | None = None) -> Weights:
    """Bring the plan's weights into the device's memory, calling `progress(done_bytes, total_bytes)` as it goes.

    Raises ArcmtpError when the device has no room.
    """
    loader = _Loader(plan, device, progress)
    embedding = loader.merged(plan.embedding)
    output = embedding if plan.output is None else loader.merged(plan.output)
    return Weights(
        plan.config,
        embedding=embedding,
        output_norm=loader.vector(plan.output_norm),
        output=output,
        layers=tuple(loader.layer(layer) for layer in plan.layers),
        mtp=None if plan.mtp is None else loader.mtp(plan.mtp, embedding, output),
        nbytes=plan.nbytes,
        requant_errors=loader.requant_errors(),
    )


class _Loader:
    def __init__(self, plan: Plan, device: Device, progress: Progress | None) -> None:
        self.gguf = plan.gguf
        self.device = device
        self.progress = progress or (lambda done, total: None)
        self.threads = len(os.sched_getaffinity(0))
        largest_tile = max(segment.matrix.tile_bytes for segments in plan.merged for segment in segments)
        self.staging = np.empty(max(STAGING_BYTES, largest_tile), np.uint8)
        self.done_bytes, self.total_bytes = 0, plan.nbytes
        self.squares: dict[str, tuple[float, float]] = {}  # of errors and of values

    def layer(self, plan: LayerPlan) -> Layer:
        fields: dict[str, Any] = {name: self.merged(segments) for name, segments in plan.merged.items()}
        fields |= {name: self.vector(tensor) for name, tensor in plan.vectors.items()}
        return GdnLayer(**fields) if plan.kind == "gdn" else AttentionLayer(**fields)

    def mtp(self, plan: MtpPlan, embedding: Merged, output: Merged) -> MtpBlock:
        layer = self.layer(plan.layer)
        assert isinstance(layer, AttentionLayer)
        return MtpBlock(
            layer=layer,
            eh_proj=self.merged(plan.eh_proj),
            **{name: self.vector(tensor) for name, tensor in plan.vectors.items()},
            embedding=self.merged(plan.embedding) if plan.embedding else embedding,
            output=self.merged(plan.output) if plan.output else output,
        )

    def vector(self, tensor: Tensor) -> Buffer:
        values = _vector_values(self.gguf, tensor)
        buffer = self.device.alloc(values.nbytes)
        buffer.write(values)
        self._advance(values.nbytes)
        return buffer

    def merged(self, segments: Segments) -> Merged:
        buffer = self.device.alloc(buffer_bytes(segments))
        end = 0
        for segment in segments:
            self._advance(segment.matrix.offset - end)
            self._fill(buffer, segment)
            end = segment.matrix.offset + segment.matrix.nbytes
        return Merged(buffer, tuple(segment.matrix for segment in segments))

    def requant_errors(self) -> dict[str, float]:
        return {name: (error / value) ** 0.5 if value else 0.0 for name, (error, value) in self.squares.items()}

    def _fill(self, buffer: Buffer, segment: Segment) -> None:
        matrix, tile_bytes = segment.matrix, segment.matrix.tile_bytes
        rows = self.gguf.rows(segment.tensor)[:, segment.first_row : segment.first_row + matrix.n]
        tiles, step = matrix.experts * matrix.tiles, len(self.staging) // tile_bytes
        for first in range(0, tiles, step):
            stop = min(first + step, tiles)
            packed = self.staging[: (stop - first) * tile_bytes]
            arguments = (int(segment.tensor.type), rows, packed, first, self.threads)
            if segment.requantised:
                error, value = self.squares.get(segment.tensor.name, (0.0, 0.0))
                more_error, more_value = _host.requant_int4(*arguments)
                self.squares[segment.tensor.name] = error + more_error, value + more_value
            else:
                _host.repack(*arguments)
            buffer.write(packed, matrix.offset + first * tile_bytes)
            self._release(segment, first, stop)
            self._advance(packed.nbytes)

    def _release(self, segment: Segment, first_tile: int, stop_tile: int) -> None:
        matrix, tensor = segment.matrix, segment.tensor
        expert_rows = elements(tensor) // matrix.experts // matrix.k

        def row_at(tile: int) -> int:
            return tile // matrix.tiles * expert_rows + segment.first_row + tile % matrix.tiles * LANES

        stop = min(row_at(stop_tile - 1) + LANES, matrix.experts * expert_rows)
        self.gguf.release(tensor, row_at(first_tile) * tensor.row_bytes, stop * tensor.row_bytes)

    def _advance(self, nbytes: int) -> None:
        self.done_bytes += nbytes
        self.progress(self.done_bytes, self.total_bytes)


def _vector_values(gguf: GGUF, tensor: Tensor) -> Floats:
    data = gguf.data(tensor)
    if tensor.type is GgmlType.BF16:
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return data.view("<f2" if tensor.type is GgmlType.F16 else "<f4").astype(np.float32)
