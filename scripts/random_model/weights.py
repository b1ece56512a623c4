"""Weights of random bits: for every type of a GGUF file, functions that make them with a wanted deviation."""

import zlib
from collections.abc import Callable
from functools import partial
from math import floor, log2, sqrt
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


def _two_bit_super_block(std: float, bits: Bits, count: int) -> Array:
    """Q2_K: d * scale * code - dmin * minimum over 16 sub-blocks, whose scale and minimum are equal, from 4 to 15."""
    blocks = bits.raw(np.dtype([("scales", "u1", 16), ("qs", "u1", 64), _HALF, ("dmin", "<f2")]), count // 256)
    rms = _rms(np.arange(4, 16)) * _rms(np.arange(4) - 1.5)
    blocks["d"] = _scales(blocks["d"].view("<u2"), std / rms)
    blocks["dmin"] = np.float16(1.5) * blocks["d"]
    blocks["scales"] = (4 + blocks["scales"] % 12) * 0x11
    return blocks


def _split_scale(codes: Array, std: float, bits: Bits, count: int) -> Array:
    """IQ1_M, whose half lies in the highest bits of four words."""
    blocks = bits.raw(np.dtype([("qs", "u1", 48), ("scales", "<u2", 4)]), count // 256)
    halves = _scales(blocks["scales"][:, 0], std / _rms(codes)).view("<u2")[:, None]
    quarters = halves >> np.array([0, 4, 8, 12], np.uint16) & 15
    blocks["scales"] = blocks["scales"] & 0xFFF | quarters << 12
    return blocks


def _power_of_two(std: float, bits: Bits, count: int) -> Array:
    """MXFP4: of two neighbouring powers of two so many that the deviation is `std`."""
    blocks = bits.raw(np.dtype([("e", "u1"), ("qs", "u1", 16)]), count // 32)
    wanted = (std / _rms(_E2M1)) ** 2
    low = floor(log2(wanted) / 2)
    share = (wanted / 4.0**low - 1) / 3  # of the larger one
    blocks["e"] = 128 + low + (blocks["e"] < round(256 * share))
    return blocks


def _ternary(std: float, bits: Bits, count: int) -> Array:
    """TQ2_0: -1, 0, 1, of two bits that are never both set."""
    blocks = _one_scale([("qs", "u1", 64), _HALF], 256, np.array([-1, 0, 0, 1]), std, bits, count)
    blocks["qs"] &= ~(blocks["qs"] << 1 & 0xAA)
    return blocks


def _ternary_digits(std: float, bits: Bits, count: int) -> Array:
    """TQ1_0: five digits of base 3 in a byte, four in each of the last, as fractions of 256."""
    blocks = _one_scale([("qs", "u1", 52), _HALF], 256, np.array([-1, 0, 1]), std, bits, count)
    number = blocks["qs"].astype(np.uint16) % 243
    number[:, 48:] -= number[:, 48:] % 3
    blocks["qs"] = (number * 256 + 242) // 243
    return blocks


def _grid(kind: Type) -> Array:
    """The magnitudes of an IQ type's grid."""
    traits = getattr(gguf.quants, kind.name)
    traits.init_grid()
    return np.asarray(traits.grid).reshape(-1)


def _odd_scales(kind: Type, bits_of_scale: int, divisor: int) -> Callable[..., Array]:
    """An IQ type with a half at its beginning: d * (2 scale + 1) / divisor * magnitude, every other bit random."""
    fields = [_HALF, ("rest", "u1", gguf.GGML_QUANT_SIZES[kind][1] - 2)]
    return partial(_one_scale, fields, 256, np.outer(np.arange(1, 2 << bits_of_scale, 2) / divisor, _grid(kind)))


_INT8 = np.arange(-128, 128)
_E2M1 = np.array([0, 1, 2, 3, 4, 6, 8, 12])
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
    Type.IQ4_XS: partial(_one_scale, [_HALF, ("rest", "u1", 134)], 256, np.outer(np.arange(-32, 32), _IQ4_NL)),
    Type.MXFP4: _power_of_two,
    Type.Q3_K: partial(_one_scale, [("rest", "u1", 108), _HALF], 256, np.outer(np.arange(-32, 32), np.arange(-4, 4))),
    Type.IQ3_S: _odd_scales(Type.IQ3_S, 4, 1),
    Type.IQ3_XXS: _odd_scales(Type.IQ3_XXS, 4, 4),
    Type.Q2_K: _two_bit_super_block,
    Type.IQ2_S: _odd_scales(Type.IQ2_S, 4, 8),
    Type.IQ2_XS: _odd_scales(Type.IQ2_XS, 4, 8),
    Type.IQ2_XXS: _odd_scales(Type.IQ2_XXS, 4, 8),
    Type.IQ1_S: _odd_scales(Type.IQ1_S, 3, 1),
    Type.IQ1_M: partial(_split_scale, np.outer(np.arange(1, 16, 2), _grid(Type.IQ1_S))),
    Type.TQ2_0: _ternary,
    Type.TQ1_0: _ternary_digits,
}


def default_output_type(matrix_type: Type) -> Type:
    """What llama.cpp's quantiser gives `output.weight` beside matrices of `matrix_type`."""
    return matrix_type if matrix_type in (Type.F32, Type.F16, Type.BF16, Type.Q8_0) else Type.Q6_K


def file_type(matrix_type: Type) -> int:
    """What `general.file_type` says of a file with such matrices."""
    names = {Type.F32: "ALL_F32", Type.MXFP4: "MOSTLY_MXFP4_MOE"}
    names |= {kind: f"MOSTLY_{kind.name}_S" for kind in (Type.Q3_K, Type.Q4_K, Type.Q5_K)}
    return gguf.LlamaFileType[names.get(matrix_type, "MOSTLY_" + matrix_type.name)]
