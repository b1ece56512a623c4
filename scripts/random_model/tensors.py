"""The tensors of a random model: their names, shapes, types, and what their weights are drawn from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod, sqrt

import gguf
from gguf import GGMLQuantizationType as Type

from scripts.random_model.weights import MATRIX, Sampler, spread, uniform

Others = Sequence[tuple[str, Type]]  # ends of matrices' names without ".weight", and their types: the first one counts


@dataclass(frozen=True)
class Geometry:
    """Sizes of a model: with experts of `qwen35moe`, without of its dense sibling `qwen35`. The defaults of everything
    without an option are Qwen3.6-35B-A3B's."""

    layers: int = 8
    experts: int = 64
    experts_used: int = 8
    vocab: int = 49_664
    mtp: bool = False
    hidden: int = 2048
    heads: int = 16
    kv_heads: int = 2
    head_dim: int = 256
    rope_dims: int = 64
    rope_sections: tuple[int, int, int, int] = (11, 11, 10, 0)
    gdn_k_heads: int = 16
    gdn_v_heads: int = 32
    gdn_head_dim: int = 128
    conv_kernel: int = 4
    expert_width: int = 512
    dense_width: int = 0
    attention_interval: int = 4

    @property
    def architecture(self) -> str:
        return "qwen35moe" if self.experts else "qwen35"

    @property
    def gdn_inner(self) -> int:
        return self.gdn_v_heads * self.gdn_head_dim

    @property
    def gdn_qkv(self) -> int:
        return 2 * self.gdn_k_heads * self.gdn_head_dim + self.gdn_inner

    def is_attention(self, layer: int) -> bool:
        return layer >= self.layers or (layer + 1) % self.attention_interval == 0


MOE = Geometry()
DENSE = Geometry(  # Qwen3.6-27B's layers
    experts=0, experts_used=0, hidden=5120, heads=24, kv_heads=4, gdn_v_heads=48, expert_width=0, dense_width=17_408
)  # fmt: skip
SHORT = {size.architecture: size for size in (MOE, DENSE)}
FULL = {
    "qwen35moe": replace(MOE, layers=40, experts=256, vocab=248_320),
    "qwen35": replace(DENSE, layers=64, vocab=248_320),
}


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]  # numpy order
    type: Type
    sample: Sampler  # (bits, elements) → their bytes in the file

    @property
    def nbytes(self) -> int:
        block, block_bytes = gguf.GGML_QUANT_SIZES[self.type]
        return prod(self.shape) // block * block_bytes


def inventory(size: Geometry, matrix_type: Type, output_type: Type, others: Others = ()) -> Iterator[Tensor]:
    """Every tensor of the file, in file order."""
    make = _Maker(size, matrix_type, others)
    yield make.matrix("token_embd", size.vocab, size.hidden, std=1.0)
    for layer in range(size.layers + size.mtp):
        block = f"blk.{layer}."
        yield _norm(block + "attn_norm", size.hidden)
        yield from make.attention(block) if size.is_attention(layer) else make.gdn(block)
        yield _norm(block + "post_attention_norm", size.hidden)
        yield from make.experts(block) if size.experts else make.dense(block)
    if size.mtp:
        yield make.matrix(block + "nextn.eh_proj", size.hidden, 2 * size.hidden)
        for name in ("enorm", "hnorm", "shared_head_norm"):
            yield _norm(f"{block}nextn.{name}", size.hidden)
    yield _norm("output_norm", size.hidden)
    yield make.matrix("output", size.vocab, size.hidden, kind=output_type)


def _values(name: str, *shape: int, sample: Sampler) -> Tensor:
    return Tensor(name, shape, Type.F32, sample)


def _norm(name: str, width: int) -> Tensor:
    return _values(name + ".weight", width, sample=partial(uniform, 0.8, 1.2))


@dataclass(frozen=True)
class _Maker:
    """The tensors of each kind of block."""

    size: Geometry
    matrix_type: Type
    others: Others

    def matrix(self, name: str, *shape: int, kind: Type | None = None, std: float | None = None) -> Tensor:
        kind = next((other for end, other in self.others if name.endswith(end)), kind or self.matrix_type)
        return Tensor(name + ".weight", shape, kind, partial(MATRIX[kind], std or 1 / sqrt(shape[-1])))

    def experts(self, block: str) -> Iterator[Tensor]:
        size = self.size
        hidden, width = size.hidden, size.expert_width
        # Routing logits of deviation 2 leave few near ties among the chosen experts' weights.
        yield _values(block + "ffn_gate_inp.weight", size.experts, hidden, sample=partial(spread, 2 / sqrt(hidden)))
        yield _values(block + "ffn_gate_inp_shexp.weight", hidden, sample=partial(spread, 1 / sqrt(hidden)))
        for suffix, stack in (("exps", (size.experts,)), ("shexp", ())):
            yield self.matrix(f"{block}ffn_gate_{suffix}", *stack, width, hidden)
            yield self.matrix(f"{block}ffn_up_{suffix}", *stack, width, hidden)
            yield self.matrix(f"{block}ffn_down_{suffix}", *stack, hidden, width)

    def dense(self, block: str) -> Iterator[Tensor]:
        size = self.size
        yield self.matrix(block + "ffn_gate", size.dense_width, size.hidden)
        yield self.matrix(block + "ffn_up", size.dense_width, size.hidden)
        yield self.matrix(block + "ffn_down", size.hidden, size.dense_width)

    def attention(self, block: str) -> Iterator[Tensor]:
        size = self.size
        yield self.matrix(block + "attn_q", 2 * size.heads * size.head_dim, size.hidden)
        yield self.matrix(block + "attn_k", size.kv_heads * size.head_dim, size.hidden)
        yield self.matrix(block + "attn_v", size.kv_heads * size.head_dim, size.hidden)
        yield self.matrix(block + "attn_output", size.hidden, size.heads * size.head_dim)
        yield _norm(block + "attn_q_norm", size.head_dim)
        yield _norm(block + "attn_k_norm", size.head_dim)

    def gdn(self, block: str) -> Iterator[Tensor]:
        size = self.size
        heads = size.gdn_v_heads
        yield self.matrix(block + "attn_qkv", size.gdn_qkv, size.hidden)
        yield self.matrix(block + "attn_gate", size.gdn_inner, size.hidden)
        yield self.matrix(block + "ssm_alpha", heads, size.hidden)
        yield self.matrix(block + "ssm_beta", heads, size.hidden)
        yield self.matrix(block + "ssm_out", size.hidden, size.gdn_inner)
        taps = size.conv_kernel
        yield _values(block + "ssm_conv1d.weight", size.gdn_qkv, taps, sample=partial(spread, 1 / sqrt(taps)))
        # Decay exp(ssm_a * softplus(alpha + dt)): with dt from -7 to -2 a head remembers from one to a thousand tokens.
        yield _values(block + "ssm_a", heads, sample=partial(uniform, -16, -1))
        yield _values(block + "ssm_dt.bias", heads, sample=partial(uniform, -7, -2))
        yield _norm(block + "ssm_norm", size.gdn_head_dim)
