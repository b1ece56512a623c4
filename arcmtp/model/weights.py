"""From a GGUF file to device memory: first a plan that checks every tensor and counts every byte, then the loading.

A plan describes each device buffer as segments, the matrices that share one input; loading repacks them tile by tile
through one staging array and lets go of the file's pages as it passes them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from arcmtp.errors import ArcmtpError
from arcmtp.model.config import Config, LayerKind
from arcmtp.model.formats import LANES, Floats, Matrix, Requant, Scheme, format_of
from arcmtp.model.gguf import GGUF, GgmlType, Tensor
from arcmtp.runtime import _host

if TYPE_CHECKING:
    from arcmtp.runtime.device import Device
    from arcmtp.runtime.memory import Buffer

SEGMENT_ALIGNMENT = 64
STAGING_BYTES = 8 << 20  # 8 to 32 MiB load equally fast
VECTOR_TYPES = (GgmlType.F32, GgmlType.F16, GgmlType.BF16)

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
class Weights:
    """All weights of the trunk in device memory."""

    config: Config
    embedding: Merged  # 1 segment [vocab, hidden]
    output_norm: Buffer  # float32 [hidden]
    output: Merged  # 1 segment [vocab, hidden]; the embedding itself if the file has no output matrix
    layers: tuple[Layer, ...]
    nbytes: int
    requant_errors: dict[str, float]  # relative RMS error of each requantised tensor


@dataclass(frozen=True)
class Segment:
    """One matrix of the plan and its rows in the file: n rows from `first_row` of the tensor, or of its each expert."""

    matrix: Matrix
    tensor: Tensor
    first_row: int
    requantised: bool


Segments = tuple[Segment, ...]  # of one merged buffer


@dataclass(frozen=True)
class LayerPlan:
    """What goes to the fields of a `Layer`, by their names."""

    kind: LayerKind
    merged: dict[str, Segments]
    vectors: dict[str, Tensor]


@dataclass(frozen=True)
class Plan:
    """Everything that `load` will do, checked; `nbytes` of device memory are needed."""

    gguf: GGUF
    config: Config
    embedding: Segments
    output_norm: Tensor
    output: Segments | None  # None: the embedding serves
    layers: tuple[LayerPlan, ...]
    mtp_bytes: int  # of the file's MTP tensors, which are left aside

    @property
    def merged(self) -> tuple[Segments, ...]:
        """The segments of every merged buffer."""
        of_layers = (segments for layer in self.layers for segments in layer.merged.values())
        return (self.embedding, *([self.output] if self.output else []), *of_layers)

    @property
    def nbytes(self) -> int:
        """Bytes of device memory that the weights take."""
        vectors = [self.output_norm, *(tensor for layer in self.layers for tensor in layer.vectors.values())]
        return sum(map(_buffer_bytes, self.merged)) + sum(4 * _elements(tensor) for tensor in vectors)


def plan(gguf: GGUF, config: Config, requant: Requant | None = None) -> Plan:
    """Find and check every tensor of the trunk; `requant="int4"` turns the large matrices into W4.

    Tensors that the trunk does not use are ignored. Raises ArcmtpError, naming file and tensor, for a tensor that is
    missing, has another shape than the hyperparameters ask for, or a type without a device format.
    """
    planner = _Planner(gguf, config, requant)
    vocabulary = (config.vocab, config.hidden)
    return Plan(
        gguf,
        config,
        embedding=planner.merge([planner.matrix("token_embd.weight", *vocabulary)]),
        output_norm=planner.vector("output_norm.weight", config.hidden),
        output=planner.merge([planner.matrix("output.weight", *vocabulary)])
        if "output.weight" in gguf.tensors
        else None,
        layers=tuple(planner.layer(index, kind) for index, kind in enumerate(config.layer_kinds)),
        mtp_bytes=sum(tensor.nbytes for name, tensor in gguf.tensors.items() if _is_mtp(name, config)),
    )


def load(plan: Plan, device: Device, progress: Progress | None = None) -> Weights:
    """Bring the plan's weights into the device's memory, calling `progress(done_bytes, total_bytes)` as it goes.

    Raises ArcmtpError when the device has no room.
    """
    loader = _Loader(plan, device, progress)
    embedding = loader.merged(plan.embedding)
    return Weights(
        plan.config,
        embedding=embedding,
        output_norm=loader.vector(plan.output_norm),
        output=embedding if plan.output is None else loader.merged(plan.output),
        layers=tuple(loader.layer(layer) for layer in plan.layers),
        nbytes=plan.nbytes,
        requant_errors=loader.requant_errors(),
    )


def _elements(tensor: Tensor) -> int:
    return tensor.nbytes // tensor.type.block_bytes * tensor.type.block


def _buffer_bytes(segments: Iterable[Segment]) -> int:
    return max((segment.matrix.offset + segment.matrix.nbytes for segment in segments), default=0)


def _is_mtp(name: str, config: Config) -> bool:
    head, _, rest = name.partition(".")
    block = rest.partition(".")[0]
    return head == "mtp" or (head == "blk" and block.isdecimal() and int(block) >= config.layers)


Fields = tuple[dict[str, Segments], dict[str, Tensor]]


class _Planner:
    """Looks tensors up, checks them, and lays them out."""

    def __init__(self, gguf: GGUF, config: Config, requant: Requant | None) -> None:
        self.gguf = gguf
        self.config = config
        self.requant = requant

    def layer(self, index: int, kind: LayerKind) -> LayerPlan:
        prefix = f"blk.{index}."
        merged, vectors = self._gdn(prefix) if kind == "gdn" else self._attention(prefix)
        norms = {
            "attn_norm": self.vector(f"{prefix}attn_norm.weight", self.config.hidden),
            "post_norm": self.vector(f"{prefix}post_attention_norm.weight", self.config.hidden),
        }
        return LayerPlan(kind, merged | self._moe(prefix), norms | vectors)

    def _gdn(self, prefix: str) -> Fields:
        config, hidden = self.config, self.config.hidden
        inner = config.gdn_v_heads * config.gdn_v_dim
        projections = [
            self.matrix(f"{prefix}attn_qkv.weight", config.gdn_channels, hidden),
            self.matrix(f"{prefix}attn_gate.weight", inner, hidden),
            self.matrix(f"{prefix}ssm_beta.weight", config.gdn_v_heads, hidden, large=False),
            self.matrix(f"{prefix}ssm_alpha.weight", config.gdn_v_heads, hidden, large=False),
        ]
        dt = f"{prefix}ssm_dt"
        vectors = {
            "conv": self.vector(f"{prefix}ssm_conv1d.weight", config.gdn_channels, config.conv_kernel),
            "a": self.vector(f"{prefix}ssm_a", config.gdn_v_heads),
            "dt_bias": self.vector(dt if dt in self.gguf.tensors else f"{dt}.bias", config.gdn_v_heads),
            "gdn_norm": self.vector(f"{prefix}ssm_norm.weight", config.gdn_v_dim),
        }
        output = [self.matrix(f"{prefix}ssm_out.weight", hidden, inner)]
        return {"projections": self.merge(projections), "output": self.merge(output)}, vectors

    def _attention(self, prefix: str) -> Fields:
        config = self.config
        inner, kv = config.q_heads * config.head_dim, config.kv_heads * config.head_dim
        names = [f"{prefix}attn_{part}.weight" for part in "qkv"]
        projections = self._split_rows(f"{prefix}attn_qkv.weight", names, [2 * inner, kv, kv], config.hidden)
        output = [self.matrix(f"{prefix}attn_output.weight", config.hidden, inner)]
        vectors = {
            "q_norm": self.vector(f"{prefix}attn_q_norm.weight", config.head_dim),
            "k_norm": self.vector(f"{prefix}attn_k_norm.weight", config.head_dim),
        }
        return {"projections": self.merge(projections), "output": self.merge(output)}, vectors

    def _moe(self, prefix: str) -> dict[str, Segments]:
        config, hidden = self.config, self.config.hidden
        gate_up = self._split_rows(
            f"{prefix}ffn_gate_up_exps.weight",
            [f"{prefix}ffn_gate_exps.weight", f"{prefix}ffn_up_exps.weight"],
            [config.expert_ffn] * 2,
            hidden,
            config.experts,
        )
        parts = {
            "router": [
                self._plain(self.matrix(f"{prefix}ffn_gate_inp.weight", config.experts, hidden, large=False)),
                self._plain(self.matrix(f"{prefix}ffn_gate_inp_shexp.weight", 1, hidden, large=False)),
            ],
            "gate_up": gate_up,
            "down": [self.matrix(f"{prefix}ffn_down_exps.weight", hidden, config.expert_ffn, config.experts)],
            "shared_gate_up": [
                self.matrix(f"{prefix}ffn_gate_shexp.weight", config.shared_ffn, hidden),
                self.matrix(f"{prefix}ffn_up_shexp.weight", config.shared_ffn, hidden),
            ],
            "shared_down": [self.matrix(f"{prefix}ffn_down_shexp.weight", hidden, config.shared_ffn)],
        }
        return {name: self.merge(segments) for name, segments in parts.items()}

    def _split_rows(
        self, fused: str, names: list[str], rows: list[int], k: int, experts: int | None = None
    ) -> list[Segment]:
        """Matrices from tensors of their own, or from the rows of one fused tensor if the file has that."""
        if fused not in self.gguf.tensors:
            return [self.matrix(name, n, k, experts) for name, n in zip(names, rows, strict=True)]
        whole = self.matrix(fused, sum(rows), k, experts)
        starts = np.cumsum([0, *rows[:-1]]).tolist()
        return [
            replace(whole, matrix=replace(whole.matrix, n=n), first_row=start)
            for n, start in zip(rows, starts, strict=True)
        ]

    def merge(self, segments: list[Segment]) -> Segments:
        """Lay segments out one after the other."""
        placed: list[Segment] = []
        for segment in segments:
            offset = -(-_buffer_bytes(placed) // SEGMENT_ALIGNMENT) * SEGMENT_ALIGNMENT
            placed.append(replace(segment, matrix=replace(segment.matrix, offset=offset)))
        return tuple(placed)

    def matrix(self, name: str, n: int, k: int, experts: int | None = None, large: bool = True) -> Segment:
        """A whole tensor as one segment; `large` ones are requantised if that is wanted."""
        shape = (n, k) if experts is None else (experts, n, k)
        tensor = self._tensor(name, *([(k,)] if n == 1 else []), shape)
        try:
            exact = format_of(tensor.type)
        except ArcmtpError as error:
            raise self._error(f"tensor '{name}': {error}") from None
        form = format_of(tensor.type, self.requant if large else None)
        return Segment(Matrix(form, n, k, 0, experts or 1), tensor, 0, requantised=form is not exact)

    def vector(self, name: str, *shape: int) -> Tensor:
        tensor = self._tensor(name, shape)
        if tensor.type not in VECTOR_TYPES:
            raise self._error(f"tensor '{name}' has type {tensor.type.name}, expected F32, F16 or BF16")
        return tensor

    def _plain(self, segment: Segment) -> Segment:
        """The segment, if it is not quantised: a quantised router would choose other experts."""
        if segment.matrix.format.scheme is not Scheme.PLAIN:
            self.vector(segment.tensor.name, *segment.tensor.shape)
        return segment

    def _tensor(self, name: str, *shapes: tuple[int, ...]) -> Tensor:
        tensor = self.gguf.tensors.get(name)
        if tensor is None:
            raise self._error(f"tensor '{name}' of shape {list(shapes[0])} is missing")
        if tensor.shape not in shapes:
            raise self._error(f"tensor '{name}' has shape {list(tensor.shape)}, expected {list(shapes[0])}")
        return tensor

    def _error(self, message: str) -> ArcmtpError:
        return ArcmtpError(f"{self.gguf.path}: {message}")


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

    def vector(self, tensor: Tensor) -> Buffer:
        values = _vector_values(self.gguf, tensor)
        buffer = self.device.alloc(values.nbytes)
        buffer.write(values)
        self._advance(values.nbytes)
        return buffer

    def merged(self, segments: Segments) -> Merged:
        buffer = self.device.alloc(_buffer_bytes(segments))
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
        expert_rows = _elements(tensor) // matrix.experts // matrix.k

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
