#!/usr/bin/env python3
"""Write a GGUF file of random weights with the per-layer shapes of Qwen3.6-35B-A3B.

Such files measure speed and compare implementations where the real weights are not at hand. The bytes depend on the
arguments alone: everything comes from raw bits of one generator per tensor, through arithmetic that every machine
and numpy version rounds alike. Matrices map unit-RMS inputs to about unit-RMS outputs, so activations stay sane
through any number of layers.
"""

import argparse
import os
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from math import prod, sqrt
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type
from tqdm import tqdm

from arcmtp.model.tokenizer import BYTE_ALPHABET

Array = npt.NDArray[Any]
Sampler = Callable[["Bits", int], Array]
Others = Sequence[tuple[str, Type]]  # ends of matrices' names without ".weight", and their types: the first one counts

CHUNK_ELEMENTS = 1 << 22  # a tensor is made in pieces of at most 16 MiB
TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + (message.content | trim) + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
# The last ids of the vocabulary; GGUF's type 3 is control, 4 user-defined.
SPECIAL_TOKENS = {
    "<|endoftext|>": 3,
    "<|im_start|>": 3,
    "<|im_end|>": 3,
    "<think>": 4,
    "</think>": 4,
    "<tool_call>": 4,
    "</tool_call>": 4,
}


@dataclass(frozen=True)
class Geometry:
    """Sizes of the model; the defaults of everything without an option are Qwen3.6-35B-A3B's."""

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
    attention_interval: int = 4

    @property
    def gdn_inner(self) -> int:
        return self.gdn_v_heads * self.gdn_head_dim

    @property
    def gdn_qkv(self) -> int:
        return 2 * self.gdn_k_heads * self.gdn_head_dim + self.gdn_inner

    def is_attention(self, layer: int) -> bool:
        return layer >= self.layers or (layer + 1) % self.attention_interval == 0


FULL = Geometry(layers=40, experts=256, vocab=248_320)


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


class Bits:
    """Random bits of one tensor."""

    def __init__(self, seed: int, name: str) -> None:
        self._generator = np.random.SFC64([seed, zlib.crc32(name.encode())])

    def raw(self, dtype: npt.DTypeLike, count: int) -> Array:
        """`count` values of `dtype`, every bit random."""
        dtype = np.dtype(dtype)
        words = self._generator.random_raw(-(-count * dtype.itemsize // 8))
        return words.astype("<u8", copy=False).view(np.uint8)[: count * dtype.itemsize].view(dtype)


# Samplers: `count` elements as they lie in the file. Values first, then blocks, whose codes are all random and whose
# scales give the weights the standard deviation `std`.


def uniform(low: float, high: float, bits: Bits, count: int) -> Array:
    values = bits.raw("<u4", count).astype(np.float32)
    values *= np.float32((high - low) / 2**32)
    values += np.float32(low)
    return values


def spread(std: float, bits: Bits, count: int) -> Array:
    return uniform(-std * sqrt(3), std * sqrt(3), bits, count)


def _f16(std: float, bits: Bits, count: int) -> Array:
    return spread(std, bits, count).astype(np.float16)


def _bf16(std: float, bits: Bits, count: int) -> Array:
    return (spread(std, bits, count).view(np.uint32) >> 16).astype(np.uint16)


def _scales(random_bits: Array, rms: float) -> Array:
    """Scales within ±50 % of each other around `rms`, so that a kernel that takes a neighbour's is found out."""
    jitter = 0.5 + (random_bits & 0x7FFF) / 2**15
    scales = (jitter * (rms / sqrt(13 / 12))).astype(np.float32)
    return scales.astype(
        np.float16
    )  # by way of float32: numpy converts float64 in different ways on different machines


def _rms(codes: Array) -> float:
    return float(np.sqrt(np.mean(np.square(codes, dtype=np.float64))))


def _one_scale(fields: list[Any], block: int, codes: Array, std: float, bits: Bits, count: int) -> Array:
    """d * code. Scales of both signs keep the mean at zero where the codes are not centred on it."""
    blocks = bits.raw(np.dtype(fields), count // block)
    random_bits = blocks["d"].view("<u2")
    sign = np.where(random_bits >> 15, np.float16(-1), np.float16(1))
    blocks["d"] = sign * _scales(random_bits, std / _rms(codes))
    return blocks


def _scale_and_minimum(fields: list[Any], block: int, levels: int, std: float, bits: Bits, count: int) -> Array:
    """d * code + m, the middle code at zero."""
    middle = (levels - 1) / 2
    blocks = bits.raw(np.dtype(fields), count // block)
    blocks["d"] = _scales(blocks["d"].view("<u2"), std / _rms(np.arange(levels) - middle))
    blocks["m"] = -middle * blocks["d"]
    return blocks


def _super_block(fields: list[Any], levels: int, std: float, bits: Bits, count: int) -> Array:
    """d * scale * code - dmin * minimum over eight sub-blocks of 32."""
    middle = (levels - 1) / 2
    blocks = bits.raw(np.dtype(fields), count // 256)
    blocks["d"] = _scales(blocks["d"].view("<u2"), std / (_rms(np.arange(16, 64)) * _rms(np.arange(levels) - middle)))
    blocks["dmin"] = middle * blocks["d"]
    blocks["scales"] = _sub_block_scales(blocks["scales"])
    return blocks


def _sub_block_scales(random_bytes: Array) -> Array:
    """Q4_K's and Q5_K's 12 bytes: eight 6-bit scales from 16 to 63 and eight minimums within 3 of their scale."""
    scale = 16 + random_bytes[:, :8] % 48
    shifts = np.tile(np.arange(0, 8, 2, dtype=np.uint8), 2)
    minimum = scale ^ (np.repeat(random_bytes[:, 8:10], 4, axis=1) >> shifts & 3)
    return np.concatenate(
        [
            scale[:, :4] | scale[:, 4:] >> 4 << 6,
            minimum[:, :4] | minimum[:, 4:] >> 4 << 6,
            scale[:, 4:] & 15 | minimum[:, 4:] << 4,
        ],
        axis=1,
    )


_INT8 = np.arange(-128, 128)
_IQ4_NL = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])
_HALF, _NIBBLES = ("d", "<f2"), ("qs", "u1", 16)
_SUPER = [_HALF, ("dmin", "<f2"), ("scales", "u1", 12)]
_Q6_K = [("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), _HALF]

# Functions of (std, bits, count).
MATRIX: dict[Type, Callable[..., Array]] = {
    Type.F32: spread,
    Type.F16: _f16,
    Type.BF16: _bf16,
    Type.Q4_0: partial(_one_scale, [_HALF, _NIBBLES], 32, np.arange(16) - 8),
    Type.Q4_1: partial(_scale_and_minimum, [_HALF, ("m", "<f2"), _NIBBLES], 32, 16),
    Type.Q5_0: partial(_one_scale, [_HALF, ("qh", "u1", 4), _NIBBLES], 32, np.arange(32) - 16),
    Type.Q5_1: partial(_scale_and_minimum, [_HALF, ("m", "<f2"), ("qh", "u1", 4), _NIBBLES], 32, 32),
    Type.Q8_0: partial(_one_scale, [_HALF, ("qs", "i1", 32)], 32, _INT8),
    Type.IQ4_NL: partial(_one_scale, [_HALF, _NIBBLES], 32, _IQ4_NL),
    Type.Q4_K: partial(_super_block, [*_SUPER, ("qs", "u1", 128)], 16),
    Type.Q5_K: partial(_super_block, [*_SUPER, ("qh", "u1", 32), ("qs", "u1", 128)], 32),
    Type.Q6_K: partial(_one_scale, _Q6_K, 256, np.outer(_INT8, np.arange(64) - 32)),
}


def default_output_type(matrix_type: Type) -> Type:
    """What llama.cpp's quantiser gives `output.weight` beside matrices of `matrix_type`."""
    return matrix_type if matrix_type in (Type.F32, Type.F16, Type.BF16, Type.Q8_0) else Type.Q6_K


def file_type(matrix_type: Type) -> int:
    """What `general.file_type` says of a file with such matrices."""
    names = {Type.F32: "ALL_F32", Type.Q4_K: "MOSTLY_Q4_K_S", Type.Q5_K: "MOSTLY_Q5_K_S"}
    return gguf.LlamaFileType[names.get(matrix_type, "MOSTLY_" + matrix_type.name)]


def inventory(size: Geometry, matrix_type: Type, output_type: Type, others: Others = ()) -> Iterator[Tensor]:
    """Every tensor of the file, in file order."""

    def matrix(name: str, *shape: int, kind: Type = matrix_type, std: float | None = None) -> Tensor:
        kind = next((other for end, other in others if name.endswith(end)), kind)
        return Tensor(name + ".weight", shape, kind, partial(MATRIX[kind], std or 1 / sqrt(shape[-1])))

    def values(name: str, *shape: int, sample: Sampler) -> Tensor:
        return Tensor(name, shape, Type.F32, sample)

    def norm(name: str, width: int) -> Tensor:
        return values(name + ".weight", width, sample=partial(uniform, 0.8, 1.2))

    def experts(block: str) -> Iterator[Tensor]:
        hidden, width = size.hidden, size.expert_width
        # Routing logits of deviation 2 leave few near ties among the chosen experts' weights.
        yield values(block + "ffn_gate_inp.weight", size.experts, hidden, sample=partial(spread, 2 / sqrt(hidden)))
        yield values(block + "ffn_gate_inp_shexp.weight", hidden, sample=partial(spread, 1 / sqrt(hidden)))
        for suffix, stack in (("exps", (size.experts,)), ("shexp", ())):
            yield matrix(f"{block}ffn_gate_{suffix}", *stack, width, hidden)
            yield matrix(f"{block}ffn_up_{suffix}", *stack, width, hidden)
            yield matrix(f"{block}ffn_down_{suffix}", *stack, hidden, width)

    def attention(block: str) -> Iterator[Tensor]:
        yield matrix(block + "attn_q", 2 * size.heads * size.head_dim, size.hidden)
        yield matrix(block + "attn_k", size.kv_heads * size.head_dim, size.hidden)
        yield matrix(block + "attn_v", size.kv_heads * size.head_dim, size.hidden)
        yield matrix(block + "attn_output", size.hidden, size.heads * size.head_dim)
        yield norm(block + "attn_q_norm", size.head_dim)
        yield norm(block + "attn_k_norm", size.head_dim)

    def gdn(block: str) -> Iterator[Tensor]:
        heads = size.gdn_v_heads
        yield matrix(block + "attn_qkv", size.gdn_qkv, size.hidden)
        yield matrix(block + "attn_gate", size.gdn_inner, size.hidden)
        yield matrix(block + "ssm_alpha", heads, size.hidden)
        yield matrix(block + "ssm_beta", heads, size.hidden)
        yield matrix(block + "ssm_out", size.hidden, size.gdn_inner)
        taps = size.conv_kernel
        yield values(block + "ssm_conv1d.weight", size.gdn_qkv, taps, sample=partial(spread, 1 / sqrt(taps)))
        # Decay exp(ssm_a * softplus(alpha + dt)): with dt from -7 to -2 a head remembers from one to a thousand tokens.
        yield values(block + "ssm_a", heads, sample=partial(uniform, -16, -1))
        yield values(block + "ssm_dt.bias", heads, sample=partial(uniform, -7, -2))
        yield norm(block + "ssm_norm", size.gdn_head_dim)

    yield matrix("token_embd", size.vocab, size.hidden, std=1.0)
    for layer in range(size.layers + size.mtp):
        block = f"blk.{layer}."
        yield norm(block + "attn_norm", size.hidden)
        yield from attention(block) if size.is_attention(layer) else gdn(block)
        yield norm(block + "post_attention_norm", size.hidden)
        yield from experts(block)
    if size.mtp:
        yield matrix(block + "nextn.eh_proj", size.hidden, 2 * size.hidden)
        for name in ("enorm", "hnorm", "shared_head_norm"):
            yield norm(f"{block}nextn.{name}", size.hidden)
    yield norm("output_norm", size.hidden)
    yield matrix("output", size.vocab, size.hidden, kind=output_type)


def _merges() -> Iterator[tuple[str, str]]:
    """Ever longer words of lower-case letters, with and without a space in front, as (stem, letter)."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    stems = deque([BYTE_ALPHABET[ord(" ")], *letters])
    while True:
        stem = stems.popleft()
        for letter in letters:
            yield stem, letter
            stems.append(stem + letter)


def vocabulary(count: int) -> tuple[list[str], list[int], list[str]]:
    """Tokens, their types, and merges of a byte-level BPE: the bytes, synthetic words, the special tokens."""
    merges = list(islice(_merges(), count - 256 - len(SPECIAL_TOKENS)))
    words = [stem + letter for stem, letter in merges]
    types = [1] * (256 + len(words)) + list(SPECIAL_TOKENS.values())
    return [*BYTE_ALPHABET, *words, *SPECIAL_TOKENS], types, [" ".join(merge) for merge in merges]


def add_metadata(writer: gguf.GGUFWriter, size: Geometry, matrix_type: Type, seed: int) -> None:
    writer.add_string("general.name", f"random qwen35moe, seed {seed}")
    writer.add_uint32("general.file_type", file_type(matrix_type))
    writer.add_uint32("general.quantization_version", 2)
    writer.add_int32("general.sampling.top_k", 20)
    writer.add_float32("general.sampling.top_p", 0.95)
    writer.add_float32("general.sampling.temp", 1.0)
    integers = {
        "block_count": size.layers + size.mtp,
        "context_length": 262_144,
        "embedding_length": size.hidden,
        "attention.head_count": size.heads,
        "attention.head_count_kv": size.kv_heads,
        "attention.key_length": size.head_dim,
        "attention.value_length": size.head_dim,
        "rope.dimension_count": size.rope_dims,
        "expert_count": size.experts,
        "expert_used_count": size.experts_used,
        "expert_feed_forward_length": size.expert_width,
        "expert_shared_feed_forward_length": size.expert_width,
        "ssm.conv_kernel": size.conv_kernel,
        "ssm.state_size": size.gdn_head_dim,
        "ssm.group_count": size.gdn_k_heads,
        "ssm.time_step_rank": size.gdn_v_heads,
        "ssm.inner_size": size.gdn_inner,
        "full_attention_interval": size.attention_interval,
    }
    if size.mtp:
        integers["nextn_predict_layers"] = 1
    for name, value in integers.items():
        writer.add_uint32("qwen35moe." + name, value)
    writer.add_float32("qwen35moe.attention.layer_norm_rms_epsilon", 1e-6)
    writer.add_float32("qwen35moe.rope.freq_base", 1e7)
    writer.add_array("qwen35moe.rope.dimension_sections", list(size.rope_sections))


def add_tokenizer(writer: gguf.GGUFWriter, count: int) -> None:
    tokens, types, merges = vocabulary(count)
    writer.add_string("tokenizer.ggml.model", "gpt2")
    writer.add_string("tokenizer.ggml.pre", "qwen35")
    writer.add_array("tokenizer.ggml.tokens", tokens)
    writer.add_array("tokenizer.ggml.token_type", types)
    writer.add_array("tokenizer.ggml.merges", merges)
    writer.add_uint32("tokenizer.ggml.bos_token_id", tokens.index("<|endoftext|>"))
    writer.add_uint32("tokenizer.ggml.eos_token_id", tokens.index("<|im_end|>"))
    writer.add_uint32("tokenizer.ggml.padding_token_id", tokens.index("<|endoftext|>"))
    writer.add_bool("tokenizer.ggml.add_bos_token", False)
    writer.add_string("tokenizer.chat_template", TEMPLATE)


def write_model(
    path: Path, size: Geometry, matrix_type: Type, output_type: Type, seed: int, others: Others = ()
) -> None:
    """Write the file; no more than one chunk of one tensor is in memory at a time."""
    tensors = list(inventory(size, matrix_type, output_type, others))
    writer = gguf.GGUFWriter(path, "qwen35moe")
    add_metadata(writer, size, matrix_type, seed)
    add_tokenizer(writer, size.vocab)
    for tensor in tensors:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.nbytes, tensor.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    with tqdm(total=sum(tensor.nbytes for tensor in tensors), unit="B", unit_scale=True, disable=None) as progress:
        for tensor in tensors:
            bits = Bits(seed, tensor.name)
            elements = prod(tensor.shape)
            for start in range(0, elements, CHUNK_ELEMENTS):
                chunk = tensor.sample(bits, min(CHUNK_ELEMENTS, elements - start))
                file.write(chunk.view(np.uint8).data)
                progress.update(chunk.nbytes)
            writer.write_padding(file, tensor.nbytes)
    writer.close()


def parse_arguments(arguments: list[str] | None) -> tuple[Path, Geometry, Type, Type, int]:
    parser = argparse.ArgumentParser(description="Write a random-weight GGUF with Qwen3.6-35B-A3B's layer shapes.")
    types = [kind.name.lower() for kind in MATRIX]
    parser.add_argument("out", type=Path, metavar="OUT.gguf")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--layers", type=int, help=f"trunk layers, every 4th attention ({Geometry.layers})")
    parser.add_argument("--experts", type=int, help=f"({Geometry.experts})")
    parser.add_argument("--used", type=int, dest="experts_used", help=f"experts per token ({Geometry.experts_used})")
    parser.add_argument("--vocab", type=int, help=f"({Geometry.vocab})")
    parser.add_argument("--type", choices=types, default="q4_0", help="of the matrices (q4_0)")
    parser.add_argument("--output-type", choices=types, help="of output.weight (as llama.cpp's quantiser)")
    parser.add_argument("--mtp", action="store_true", help="add an MTP block")
    parser.add_argument("--full", action="store_true", help="40 layers, 256 experts, vocabulary 248,320: 20 GB in q4_0")
    options = parser.parse_args(arguments)
    sizes = {name: getattr(options, name) for name in ("layers", "experts", "experts_used", "vocab")}
    size = replace(
        FULL if options.full else Geometry(), mtp=options.mtp, **{k: v for k, v in sizes.items() if v is not None}
    )
    least_vocab = 256 + len(SPECIAL_TOKENS)
    if not (size.layers > 0 and least_vocab <= size.vocab <= 1 << 20 and 0 < size.experts_used <= size.experts):
        parser.error(f"expected --layers from 1, --vocab from {least_vocab} to 1048576, --used from 1 to --experts")
    if options.seed < 0:
        parser.error(f"argument --seed: {options.seed} is negative")
    if not options.out.parent.is_dir():
        parser.error(f"{options.out.parent} is not a folder")
    matrix_type = Type[options.type.upper()]
    output_type = Type[options.output_type.upper()] if options.output_type else default_output_type(matrix_type)
    return options.out, size, matrix_type, output_type, options.seed


def main(arguments: list[str] | None = None) -> None:
    path, size, matrix_type, output_type, seed = parse_arguments(arguments)
    begin = time.perf_counter()
    unfinished = path.with_name(path.name + ".part")
    try:
        write_model(unfinished, size, matrix_type, output_type, seed)
        os.replace(unfinished, path)
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")
    finally:
        unfinished.unlink(missing_ok=True)
    print(f"{path}: {path.stat().st_size / 1e9:.2f} GB in {time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    main()
