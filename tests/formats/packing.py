"""The packer of weights in numpy: every file type decoded, every device format packed, as plainly as can be."""

from __future__ import annotations

from collections.abc import Callable

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
    if form.bits == 8:
        return planes | {"codes": _join(codes, 8)}
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


def _decode_bf16(blocks: Bytes) -> Planes:
    high = blocks.reshape(len(blocks), -1).view("<u2").astype(np.uint32)
    return {"values": (high << 16).view(np.float32)}


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


_IQ4_NL_CODES = (
    np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int16) + 128
).astype(np.uint8)


def _decode_iq4_nl(blocks: Bytes) -> Planes:
    return {"codes": _IQ4_NL_CODES[_nibbles(blocks[..., 2:])], "scale": _f16(blocks, 0, 2)}


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
    GgmlType.BF16: _decode_bf16,
    GgmlType.Q4_0: _decode_q4_0,
    GgmlType.Q4_1: _decode_q4_1,
    GgmlType.Q5_0: _decode_q5_0,
    GgmlType.Q5_1: _decode_q5_1,
    GgmlType.Q8_0: _decode_q8_0,
    GgmlType.IQ4_NL: _decode_iq4_nl,
    GgmlType.Q4_K: _decode_q4_k,
    GgmlType.Q5_K: _decode_q5_k,
    GgmlType.Q6_K: _decode_q6_k,
}
