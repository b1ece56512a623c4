"""The packer of weights in numpy: every file type decoded, every device format packed, as plainly as can be."""

from __future__ import annotations

from collections.abc import Callable

import gguf
import numpy as np

from arcmtp.formats.matrix import LANES, Array, Format, Planes, Scheme, format_of
from arcmtp.gguf_header import Bytes, GgmlType


def pack(ggml_type: GgmlType, rows: Bytes, n: int, k: int) -> Bytes:
    """Pack a matrix [n, k], given as the file's uint8 [n, row_bytes], into tiles uint8 [ceil(n / 16) * tile_bytes].

    Raises ArcmtpError for an unsupported type, ValueError for a k that the format does not hold.
    """
    form = format_of(ggml_type)
    tiles = np.zeros(form.matrix_bytes(n, k), np.uint8)
    spans = tiles.view(form.span_dtype).reshape(-(-n // LANES), -1)
    blocks = np.ascontiguousarray(rows).reshape(n, -1, ggml_type.block_bytes)
    for name, plane in _to_words(form, _DECODERS[ggml_type](blocks)).items():
        rows, field = plane.reshape(n, -1), spans[name]
        fill = np.zeros((len(spans) * LANES, field[0].size // LANES), plane.dtype)
        fill[:n, : rows.shape[1]] = rows
        lanes_last = np.moveaxis(fill.reshape(len(spans), LANES, -1), 1, -1)
        spans[name] = lanes_last.reshape(field.shape)
    return tiles


def _to_words(form: Format, planes: Planes) -> Planes:
    """Replace one code per byte by the format's 32-bit words; all planes are [n, ...] with inputs in order."""
    if form.scheme is Scheme.PLAIN:
        return planes
    codes = planes["codes"].reshape(len(planes["codes"]), -1)
    if form.bits in (2, 8):
        return planes | {"codes": _join(codes, form.bits)}
    if form.bits == 3:
        ordered = codes.reshape(len(codes), -1, 4, 8).swapaxes(-1, -2).reshape(len(codes), -1, 1, 32)
        bits = ordered >> np.arange(3, dtype=np.uint8)[:, None] & 1
        return planes | {"codes": _join(bits.reshape(len(codes), -1), 1)}
    words = planes | {"codes": _join(codes & 15, 4)}
    return words if form.bits == 4 else words | {"high": _join(codes >> 4, 2)}


def _join(fields: Array, bits: int) -> Array:
    """Fields [n, k], the first lowest, into words [n, k * bits / 32]."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    wide = fields.reshape(len(fields), -1, 32 // bits).astype(np.uint32)
    return np.bitwise_or.reduce(wide << shifts, axis=-1)


# Decoders take blocks, uint8 [n, blocks, block_bytes], and return the planes with one code per byte, inputs in order.


def _f16(blocks: Bytes, start: int, stop: int) -> Array:
    return np.ascontiguousarray(blocks[..., start:stop]).view("<f2")


def _nibbles(qs: Array) -> Array:
    """Low halves of the last axis, then its high halves."""
    return np.concatenate([qs & 15, qs >> 4], axis=-1)


def _fifth_bits(blocks: Bytes, start: int) -> Array:
    return np.unpackbits(blocks[..., start : start + 4], axis=-1, bitorder="little") << 4


def _decode_plain(dtype: str) -> Callable[[Bytes], Planes]:
    return lambda blocks: {"values": blocks.reshape(len(blocks), -1).view(dtype)}


def _decode_q4_0(blocks: Bytes) -> Planes:
    return {"codes": _nibbles(blocks[..., 2:]), "scale": _f16(blocks, 0, 2)}


def _decode_q4_1(blocks: Bytes) -> Planes:
    return {"codes": _nibbles(blocks[..., 4:]), "scale": _f16(blocks, 0, 2), "minimum": _f16(blocks, 2, 4)}


def _decode_q5_0(blocks: Bytes) -> Planes:
    return {"codes": _nibbles(blocks[..., 6:]) | _fifth_bits(blocks, 2), "scale": _f16(blocks, 0, 2)}


def _decode_q5_1(blocks: Bytes) -> Planes:
    codes = _nibbles(blocks[..., 8:]) | _fifth_bits(blocks, 4)
    return {"codes": codes, "scale": _f16(blocks, 0, 2), "minimum": _f16(blocks, 2, 4)}


def _decode_q8_0(blocks: Bytes) -> Planes:
    return {"codes": blocks[..., 2:] ^ 128, "scale": _f16(blocks, 0, 2)}


def _decode_iq4_xs(blocks: Bytes) -> Planes:
    low = (blocks[..., 4:8, None] >> np.array([0, 4], np.uint8) & 15).reshape(*blocks.shape[:2], 8)
    high = _u16(blocks, 2, 4) >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    scale = (low | high << 4).astype(np.int8) - 32
    codes = _nibbles(blocks[..., 8:].reshape(*blocks.shape[:2], 8, 16))
    return {"codes": codes, "scale": scale, "d": _f16(blocks, 0, 2)}


def _decode_mxfp4(blocks: Bytes) -> Planes:
    return {"codes": _nibbles(blocks[..., 1:]), "exponent": blocks[..., :1]}


def _pairs(packed: Bytes) -> Array:
    """The two-bit fields of uint8 [..., 64]: each half's lowest ones first."""
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    return packed.reshape(*packed.shape[:-1], 2, 1, 32) >> shifts & 3


def _decode_q3_k(blocks: Bytes) -> Planes:
    shape = blocks.shape[:2]
    high = blocks[..., None, :32] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    low_scale = _nibbles(blocks[..., 96:104])
    high_scale = blocks[..., None, 104:108] >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & 3
    scale = (low_scale | high_scale.reshape(*shape, 16) << 4).astype(np.int8) - 32
    codes = _pairs(blocks[..., 32:96]).reshape(*shape, 8, 32) | high << 2
    return {"codes": codes, "scale": scale, "d": _f16(blocks, 108, 110)}


def _decode_q2_k(blocks: Bytes) -> Planes:
    return {"codes": _pairs(blocks[..., 16:80]), "scale": blocks[..., :16], "d": _f16(blocks, 80, 84)}


def _decode_q2_0(blocks: Bytes) -> Planes:
    codes = blocks[..., 2:, None] >> np.arange(0, 8, 2, dtype=np.uint8) & 3
    return {"codes": codes, "scale": _f16(blocks, 0, 2).repeat(2, axis=-1)}


def _decode_q1_0(blocks: Bytes) -> Planes:
    codes = np.unpackbits(blocks[..., 2:], axis=-1, bitorder="little") << 1
    return {"codes": codes, "scale": _f16(blocks, 0, 2).repeat(4, axis=-1)}


def _decode_ternary(kind: GgmlType) -> Callable[[Bytes], Planes]:
    """Codes 0, 1, 2, 3 for -d, 0, d, 2 d: scale and minimum are 1."""

    def decode(blocks: Bytes) -> Planes:
        d = _f16(blocks, kind.block_bytes - 2, kind.block_bytes)
        codes = _values(kind, blocks) / d.astype(np.float32) + 1
        scale = np.full((*blocks.shape[:2], 16), 0x11, np.uint8)
        return {"codes": codes.astype(np.uint8), "scale": scale, "d": d.repeat(2, axis=-1)}

    return decode


def _values(kind: GgmlType, blocks: Bytes) -> Array:
    """What the gguf package makes of blocks: float32 [n, blocks, block]."""
    rows = blocks.reshape(len(blocks), -1)
    return gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(kind)).reshape(*blocks.shape[:2], kind.block)


def _decode_grid(kind: GgmlType, scale_of: Callable[[Bytes], Array]) -> Callable[[Bytes], Planes]:
    """Codes of the levels that the dequantised values have; scale_of: the stored scales s, which mean 2 s + 1."""
    form = format_of(kind)

    def decode(blocks: Bytes) -> Planes:
        scale = (2 * scale_of(blocks) + 1).astype(np.int8)
        d = _iq1_m_d(blocks) if kind is GgmlType.IQ1_M else _f16(blocks, 0, 2)
        units = _values(kind, blocks).reshape(*scale.shape, -1) * form.divisor
        levels = units / (d.astype(np.float32) * scale)[..., None]
        matches = levels[..., None] == np.array(form.levels)
        assert matches.any(axis=-1).all()
        return {"codes": matches.argmax(axis=-1).astype(np.uint8), "scale": scale, "d": d}

    return decode


def _u16(blocks: Bytes, start: int, stop: int) -> Array:
    return np.ascontiguousarray(blocks[..., start:stop]).view("<u2")


def _scale_nibbles(start: int) -> Callable[[Bytes], Array]:
    """4-bit scales from byte `start` to the end, the low half of a byte first."""
    return lambda blocks: (blocks[..., start:, None] >> np.array([0, 4], np.uint8) & 15).reshape(*blocks.shape[:2], -1)


def _top_nibbles(start: int, stop: int) -> Callable[[Bytes], Array]:
    """The highest four bits of 32-bit words, the last of each 8 or 4 bytes."""
    return lambda blocks: blocks[..., start:stop].reshape(*blocks.shape[:2], 8, -1)[..., -1] >> 4


def _iq1_s_scales(blocks: Bytes) -> Array:
    return _u16(blocks, 34, 50) >> 12 & 7


def _iq1_m_scales(blocks: Bytes) -> Array:
    words = _u16(blocks, 48, 56)
    return (words[..., None] >> np.array([0, 3, 6, 9], np.uint16) & 7).reshape(*blocks.shape[:2], 16)


def _iq1_m_d(blocks: Bytes) -> Array:
    quarters = _u16(blocks, 48, 56) >> 12 << np.array([0, 4, 8, 12], np.uint16)
    return np.bitwise_or.reduce(quarters, axis=-1, keepdims=True).view("<f2")


def _k_scales(packed: Bytes) -> tuple[Array, Array]:
    """The eight 6-bit scales and minimums of Q4_K and Q5_K from their 12 bytes: the last four are spread."""
    first, second, third = packed[..., 0:4], packed[..., 4:8], packed[..., 8:12]
    scale = np.concatenate([first & 63, (third & 15) | (first >> 6) << 4], axis=-1)
    minimum = np.concatenate([second & 63, (third >> 4) | (second >> 6) << 4], axis=-1)
    return scale, minimum


def _decode_q4_k(blocks: Bytes) -> Planes:
    scale, minimum = _k_scales(blocks[..., 4:16])
    codes = _nibbles(blocks[..., 16:].reshape(*blocks.shape[:2], 4, 32))
    return {"codes": codes, "scale": scale, "minimum": minimum, "d": _f16(blocks, 0, 4)}


def _decode_q5_k(blocks: Bytes) -> Planes:
    scale, minimum = _k_scales(blocks[..., 4:16])
    low = _nibbles(blocks[..., 48:].reshape(*blocks.shape[:2], 4, 32)).reshape(*blocks.shape[:2], 8, 32)
    high = blocks[..., None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    return {"codes": low | high << 4, "scale": scale, "minimum": minimum, "d": _f16(blocks, 0, 4)}


def _decode_q6_k(blocks: Bytes) -> Planes:
    shape = blocks.shape[:2]
    low = _nibbles(blocks[..., :128].reshape(*shape, 2, 64)).reshape(*shape, 2, 4, 32)
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = blocks[..., 128:192].reshape(*shape, 2, 1, 32) >> shifts & 3
    return {"codes": low | high << 4, "scale": blocks[..., 192:208].view(np.int8), "d": _f16(blocks, 208, 210)}


_DECODERS: dict[GgmlType, Callable[[Bytes], Planes]] = {
    GgmlType.F32: _decode_plain("<f4"),
    GgmlType.F16: _decode_plain("<f2"),
    GgmlType.BF16: _decode_plain("<u2"),
    GgmlType.Q4_0: _decode_q4_0,
    GgmlType.Q4_1: _decode_q4_1,
    GgmlType.Q5_0: _decode_q5_0,
    GgmlType.Q5_1: _decode_q5_1,
    GgmlType.Q8_0: _decode_q8_0,
    GgmlType.IQ4_NL: _decode_q4_0,  # the layout is the same
    GgmlType.IQ4_XS: _decode_iq4_xs,
    GgmlType.MXFP4: _decode_mxfp4,
    GgmlType.Q2_K: _decode_q2_k,
    GgmlType.Q3_K: _decode_q3_k,
    GgmlType.IQ2_XXS: _decode_grid(GgmlType.IQ2_XXS, _top_nibbles(2, 66)),
    GgmlType.IQ2_XS: _decode_grid(GgmlType.IQ2_XS, _scale_nibbles(66)),
    GgmlType.IQ2_S: _decode_grid(GgmlType.IQ2_S, _scale_nibbles(74)),
    GgmlType.IQ3_XXS: _decode_grid(GgmlType.IQ3_XXS, _top_nibbles(66, 98)),
    GgmlType.IQ3_S: _decode_grid(GgmlType.IQ3_S, _scale_nibbles(106)),
    GgmlType.IQ1_S: _decode_grid(GgmlType.IQ1_S, _iq1_s_scales),
    GgmlType.IQ1_M: _decode_grid(GgmlType.IQ1_M, _iq1_m_scales),
    GgmlType.Q1_0: _decode_q1_0,
    GgmlType.Q2_0: _decode_q2_0,
    GgmlType.TQ1_0: _decode_ternary(GgmlType.TQ1_0),
    GgmlType.TQ2_0: _decode_ternary(GgmlType.TQ2_0),
    GgmlType.Q4_K: _decode_q4_k,
    GgmlType.Q5_K: _decode_q5_k,
    GgmlType.Q6_K: _decode_q6_k,
}
