"""What goes from a GGUF file to the device: every tensor found and checked, every byte counted, nothing loaded.

A plan describes each device buffer as segments, the matrices that share one input.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from arcmtp.errors import ArcmtpError
from arcmtp.formats.matrix import Matrix, Requant, Scheme, format_of
from arcmtp.gguf import GGUF, GgmlType, Tensor
from arcmtp.model.config import Config, LayerKind

SEGMENT_ALIGNMENT = 64
VECTOR_TYPES = (GgmlType.F32, GgmlType.F16, GgmlType.BF16)


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
class MtpPlan:
    """The MTP block: a layer, and what joins it to the trunk."""

    layer: LayerPlan
    eh_proj: Segments  # [hidden, 2 × hidden]
    vectors: dict[str, Tensor]  # norms [hidden]: of tokens, of hidden rows, before the head
    embedding: Segments | None  # None: the trunk's
    output: Segments | None


@dataclass(frozen=True)
class Plan:
    """Everything that `load` will do, checked; `nbytes` of device memory are needed."""

    gguf: GGUF
    config: Config
    embedding: Segments
    output_norm: Tensor
    output: Segments | None  # None: the embedding serves
    layers: tuple[LayerPlan, ...]
    mtp: MtpPlan | None  # None: the file has no MTP block, or it is left aside

    @property
    def merged(self) -> tuple[Segments, ...]:
        """The segments of every merged buffer."""
        mtp = self.mtp
        layers = [*self.layers, *([mtp.layer] if mtp else [])]
        of_layers = (segments for layer in layers for segments in layer.merged.values())
        optional = (self.output, *((mtp.eh_proj, mtp.embedding, mtp.output) if mtp else ()))
        return (self.embedding, *(segments for segments in optional if segments), *of_layers)

    @property
    def nbytes(self) -> int:
        """Bytes of device memory that the weights take."""
        vectors = [self.output_norm, *(tensor for layer in self.layers for tensor in layer.vectors.values())]
        if self.mtp:
            vectors += [*self.mtp.layer.vectors.values(), *self.mtp.vectors.values()]
        return sum(map(buffer_bytes, self.merged)) + sum(4 * elements(tensor) for tensor in vectors)


def has_mtp(gguf: GGUF, config: Config) -> bool:
    """Whether the file has an MTP block: some are published without the one that their keys announce."""
    return config.mtp_layers > 0 and f"blk.{config.layers}.nextn.eh_proj.weight" in gguf.tensors


def plan(gguf: GGUF, config: Config, requant: Requant | None = None, mtp: bool = False) -> Plan:
    """Find and check every tensor of the trunk, and of the MTP block if `mtp`; `requant="int4"` turns the large
    matrices into W4.

    Other tensors are ignored. Raises ArcmtpError, naming file and tensor, for a tensor that is missing, has another
    shape than the hyperparameters ask for, or a type without a device format; and for a file without an MTP block.
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
        mtp=planner.mtp() if mtp else None,
    )


def elements(tensor: Tensor) -> int:
    return tensor.nbytes // tensor.type.block_bytes * tensor.type.block


def buffer_bytes(segments: Iterable[Segment]) -> int:
    return max((segment.matrix.offset + segment.matrix.nbytes for segment in segments), default=0)


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

    def mtp(self) -> MtpPlan:
        if not has_mtp(self.gguf, self.config):
            raise self._error("the file has no MTP block (blk.*.nextn tensors), so nothing can be drafted")
        prefix, hidden = f"blk.{self.config.layers}.", self.config.hidden
        nextn = f"{prefix}nextn."
        norms = {"token_norm": f"{nextn}enorm.weight", "hidden_norm": f"{nextn}hnorm.weight"}
        own_norm = f"{nextn}shared_head_norm.weight"
        norms["head_norm"] = own_norm if own_norm in self.gguf.tensors else "output_norm.weight"
        return MtpPlan(
            layer=self.layer(self.config.layers, "attention"),
            eh_proj=self.merge([self.matrix(f"{nextn}eh_proj.weight", hidden, 2 * hidden)]),
            vectors={name: self.vector(tensor, hidden) for name, tensor in norms.items()},
            embedding=self._own_vocabulary(f"{nextn}embed_tokens.weight"),
            output=self._own_vocabulary(f"{nextn}shared_head_head.weight"),
        )

    def _own_vocabulary(self, name: str) -> Segments | None:
        if name not in self.gguf.tensors:
            return None
        return self.merge([self.matrix(name, self.config.vocab, self.config.hidden)])

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
            offset = -(-buffer_bytes(placed) // SEGMENT_ALIGNMENT) * SEGMENT_ALIGNMENT
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
