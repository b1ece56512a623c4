"""Device weight formats (docs/design.md): sizes, the file types they hold, and the numpy reference of both directions.

A matrix [n, k] is `ceil(n / 16)` column tiles of 16 outputs ("lanes"), a tile is spans of inputs one behind the other.
`Format.span_dtype` is the layout itself: one numpy record per span whose fields are its planes in order. The loader
packs with `arcmtp.runtime._host.repack`, which tests compare with `pack_reference` byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from arcmtp.errors import ArcmtpError
from arcmtp.gguf import Bytes, GgmlType

LANES = 16  # outputs of a column tile
GROUP = 32  # inputs that share a scale
SUPER = 256  # inputs of a file's super-block

Requant = Literal["int4"]
Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
Planes = dict[str, Array]


class Scheme(StrEnum):
    """How codes become values; the formulas are in docs/design.md."""

    PLAIN = "plain"
    GROUP = "group"
    GROUP_MIN = "group_min"
    SUPER_MIN = "super_min"
    SUPER16 = "super16"


@dataclass(frozen=True)
class Format:
    """One device weight format. `bits` are those of a code (of a value for F16 and F32)."""

    name: str
    bits: int
    scheme: Scheme
    zero: int = 0

    @property
    def multiple(self) -> int:
        """What k must be a multiple of."""
        return SUPER if self.scheme in (Scheme.SUPER_MIN, Scheme.SUPER16) else GROUP

    @property
    def span(self) -> int:
        """Inputs whose planes lie together: two groups, so that codes begin at cache lines, or a super-block."""
        if self.scheme is Scheme.PLAIN:
            return GROUP
        return max(self.multiple, 2 * GROUP)

    @property
    def span_dtype(self) -> np.dtype[np.void]:
        """The layout of one span of a tile: a packed record with one field per plane, 16 lanes fastest."""
        groups = self.span // GROUP
        if self.scheme is Scheme.PLAIN:
            return np.dtype([("values", f"<f{self.bits // 8}", (self.span, LANES))])
        codes: list[Any] = [("codes", "<u4", (groups, 8 if self.bits == 8 else 4, LANES))]
        if self.bits == 6:
            codes.append(("high", "<u4", (groups, 2, LANES)))
        scales: dict[Scheme, list[Any]] = {
            Scheme.GROUP: [("scale", "<f2", (groups, LANES))],
            Scheme.GROUP_MIN: [("scale", "<f2", (groups, LANES)), ("minimum", "<f2", (groups, LANES))],
            Scheme.SUPER_MIN: [
                ("scale", "u1", (groups, LANES)),
                ("minimum", "u1", (groups, LANES)),
                ("d", "<f2", (2, LANES)),
            ],
            Scheme.SUPER16: [("scale", "i1", (2 * groups, LANES)), ("d", "<f2", (LANES,))],
        }
        return np.dtype(codes + scales[self.scheme])

    def tile_bytes(self, k: int) -> int:
        """Bytes of one tile with k inputs, what fills its last span included.

        Raises ValueError if k is not a multiple of 32 (of 256 for the super schemes).
        """
        if k <= 0 or k % self.multiple:
            raise ValueError(f"{self.name} needs k to be a multiple of {self.multiple}, not {k}")
        return -(-k // self.span) * self.span_dtype.itemsize

    def matrix_bytes(self, n: int, k: int) -> int:
        """Bytes of a matrix [n, k], missing outputs of the last tile included."""
        return -(-n // LANES) * self.tile_bytes(k)


@dataclass(frozen=True)
class Matrix:
    """`experts` matrices [n outputs, k inputs], one after the other from byte `offset` of a buffer."""

    format: Format
    n: int
    k: int
    offset: int = 0
    experts: int = 1

    @property
    def tiles(self) -> int:
        """Column tiles of one of the matrices."""
        return -(-self.n // LANES)

    @property
    def tile_bytes(self) -> int:
        """Bytes of one column tile."""
        return self.format.tile_bytes(self.k)

    @property
    def nbytes(self) -> int:
        """Bytes of all the matrices."""
        return self.experts * self.tiles * self.tile_bytes


W4 = Format("W4", 4, Scheme.GROUP, zero=8)
W4_MIN = Format("W4_MIN", 4, Scheme.GROUP_MIN)
W4_K = Format("W4_K", 4, Scheme.SUPER_MIN)
W6 = Format("W6", 6, Scheme.GROUP, zero=16)
W6_MIN = Format("W6_MIN", 6, Scheme.GROUP_MIN)
W6_K = Format("W6_K", 6, Scheme.SUPER_MIN)
W6_16 = Format("W6_16", 6, Scheme.SUPER16, zero=32)
W8 = Format("W8", 8, Scheme.GROUP, zero=128)
F16 = Format("F16", 16, Scheme.PLAIN)
F32 = Format("F32", 32, Scheme.PLAIN)

FORMATS = (W4, W4_MIN, W4_K, W6, W6_MIN, W6_K, W6_16, W8, F16, F32)

_FORMAT_OF: dict[GgmlType, Format] = {
    GgmlType.F32: F32,
    GgmlType.F16: F16,
    GgmlType.Q4_0: W4,
    GgmlType.Q4_1: W4_MIN,
    GgmlType.Q5_0: W6,
    GgmlType.Q5_1: W6_MIN,
    GgmlType.Q8_0: W8,
    GgmlType.Q4_K: W4_K,
    GgmlType.Q5_K: W6_K,
    GgmlType.Q6_K: W6_16,
    GgmlType.IQ4_NL: W8,
    GgmlType.BF16: F32,
}
SUPPORTED_TYPES = tuple(_FORMAT_OF)


def format_of(ggml_type: GgmlType, requant: Requant | None = None) -> Format:
    """The device format of a file type: the exact one, or W4 with `requant="int4"`.

    Raises ArcmtpError for a type that has none, naming it and the supported ones.
    """
    exact = _FORMAT_OF.get(ggml_type)
    if exact is None:
        supported = ", ".join(kind.name for kind in SUPPORTED_TYPES)
        raise ArcmtpError(f"type {ggml_type.name} is not supported; supported are {supported}")
    return exact if requant is None else W4


def pack_reference(ggml_type: GgmlType, rows: Bytes, n: int, k: int) -> Bytes:
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


def unpack(form: Format, tiles: Bytes, n: int, k: int) -> Floats:
    """The values, float32 [n, k], of packed tiles uint8 [ceil(n / 16) * tile_bytes]; the inverse of packing."""
    spans = np.ascontiguousarray(tiles).view(form.span_dtype).reshape(tiles.nbytes // form.tile_bytes(k), -1)
    planes = {}
    for name in form.span_dtype.names or ():
        lanes_last = spans[name].reshape(len(spans), -1, LANES)
        planes[name] = np.moveaxis(lanes_last, -1, 1).reshape(len(spans) * LANES, -1)[:n]
    if form.scheme is Scheme.PLAIN:
        return planes["values"].astype(np.float32)
    return _values(form, _from_words(form, planes), planes).reshape(n, -1)[:, :k]


def _to_words(form: Format, planes: Planes) -> Planes:
    """Replace one code per byte by the format's 32-bit words; all planes are [n, ...] with inputs in order."""
    if form.scheme is Scheme.PLAIN:
        return planes
    codes = planes["codes"].reshape(len(planes["codes"]), -1)
    if form.bits == 8:
        return planes | {"codes": _join(codes, 8)}
    words = planes | {"codes": _join(codes & 15, 4)}
    return words if form.bits == 4 else words | {"high": _join(codes >> 4, 2)}


def _from_words(form: Format, planes: Planes) -> Array:
    """Codes, uint8 [n, k], from the word planes."""
    codes = _split(planes["codes"], 8 if form.bits == 8 else 4)
    return codes | _split(planes["high"], 2) << 4 if form.bits == 6 else codes


def _join(fields: Array, bits: int) -> Array:
    """Fields [n, k], the first lowest, into words [n, k * bits / 32]."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    wide = fields.reshape(len(fields), -1, 32 // bits).astype(np.uint32)
    return np.bitwise_or.reduce(wide << shifts, axis=-1)


def _split(words: Array, bits: int) -> Array:
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    return (words[..., None] >> shifts & (1 << bits) - 1).astype(np.uint8).reshape(len(words), -1)


def _values(form: Format, codes: Array, planes: Planes) -> Floats:
    n, k = codes.shape
    scale = planes["scale"].astype(np.float32)[..., None]  # [n, groups of 32 or 16, 1]
    grouped = codes.reshape(n, scale.shape[1], -1).astype(np.float32)
    if form.scheme is Scheme.GROUP:
        return scale * (grouped - form.zero)
    if form.scheme is Scheme.GROUP_MIN:
        return scale * grouped + planes["minimum"].astype(np.float32)[..., None]
    d = planes["d"].astype(np.float32)
    if form.scheme is Scheme.SUPER16:
        return d.repeat(SUPER // 16, axis=1)[..., None] * scale * (grouped - form.zero)
    pairs = d.reshape(n, k // SUPER, 2).repeat(SUPER // GROUP, axis=1)[..., None]
    minimum = planes["minimum"].astype(np.float32)[..., None]
    return pairs[:, :, 0] * scale * grouped - pairs[:, :, 1] * minimum


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
