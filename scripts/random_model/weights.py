"""Weights of random bits: for every type of a GGUF file, functions that make them with a wanted deviation."""

import zlib
from collections.abc import Callable
from functools import partial
from math import sqrt
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type

Array = npt.NDArray[Any]
Sampler = Callable[["Bits", int], Array]


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
