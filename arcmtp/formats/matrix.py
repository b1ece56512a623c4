"""Device weight formats (docs/design.md): sizes, the file types they hold, and their values by numpy.

A matrix [n, k] is `ceil(n / 16)` column tiles of 16 outputs ("lanes"), a tile is spans of inputs one behind the other.
`Format.span_dtype` is the layout itself: one numpy record per span whose fields are its planes in order. The loader
packs with `arcmtp.runtime._host.repack`, which tests compare byte for byte with a packer in numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from arcmtp.errors import ArcmtpError
from arcmtp.gguf_header import Bytes, GgmlType

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
    EXPONENT = "exponent"
    SUPER = "super"
    SUPER_MIN = "super_min"
    SUPER16 = "super16"
    SUPER16_MIN = "super16_min"


@dataclass(frozen=True)
class Format:
    """One device weight format.

    bits: of a code (F16, BF16, F32: of a value). A code means code - zero, or, where the format has `levels`,
    levels[code] / divisor; `zero` is then what makes every level at least 0.
    """

    name: str
    bits: int
    scheme: Scheme
    zero: int = 0
    levels: tuple[int, ...] = ()
    divisor: int = 1

    @property
    def multiple(self) -> int:
        """What k must be a multiple of."""
        return SUPER if self.scheme in _SUPER_SCHEMES else GROUP

    @property
    def span(self) -> int:
        """Inputs whose planes lie together: two groups, so that codes begin at cache lines (four where scales are
        bytes), or a super-block."""
        if self.scheme is Scheme.PLAIN:
            return GROUP
        return max(self.multiple, (4 if self.scheme is Scheme.EXPONENT else 2) * GROUP)

    @property
    def span_dtype(self) -> np.dtype[np.void]:
        """The layout of one span of a tile: a packed record with one field per plane, 16 lanes fastest."""
        groups = self.span // GROUP
        if self.scheme is Scheme.PLAIN:
            return np.dtype([("values", "<u2" if self == BF16 else f"<f{self.bits // 8}", (self.span, LANES))])
        codes: list[Any] = [("codes", "<u4", (groups, 4 if self.bits == 6 else self.bits, LANES))]
        if self.bits == 6:
            codes.append(("high", "<u4", (groups, 2, LANES)))
        scales: dict[Scheme, list[Any]] = {
            Scheme.GROUP: [("scale", "<f2", (groups, LANES))],
            Scheme.GROUP_MIN: [("scale", "<f2", (groups, LANES)), ("minimum", "<f2", (groups, LANES))],
            Scheme.EXPONENT: [("exponent", "u1", (groups, LANES))],
            Scheme.SUPER: [("scale", "i1", (groups, LANES)), ("d", "<f2", (LANES,))],
            Scheme.SUPER_MIN: [
                ("scale", "u1", (groups, LANES)),
                ("minimum", "u1", (groups, LANES)),
                ("d", "<f2", (2, LANES)),
            ],
            Scheme.SUPER16: [("scale", "i1", (2 * groups, LANES)), ("d", "<f2", (LANES,))],
            Scheme.SUPER16_MIN: [("scale", "u1", (2 * groups, LANES)), ("d", "<f2", (2, LANES))],
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


_SUPER_SCHEMES = (Scheme.SUPER, Scheme.SUPER_MIN, Scheme.SUPER16, Scheme.SUPER16_MIN)


def _coded(name: str, scheme: Scheme, levels: tuple[int, ...], divisor: int = 1) -> Format:
    """A format whose codes are places in `levels`."""
    return Format(name, (len(levels) - 1).bit_length(), scheme, -min(levels), levels, divisor)


def _signed(*magnitudes: int) -> tuple[int, ...]:
    """The levels of codes whose highest bit is the sign."""
    return (*magnitudes, *(-magnitude for magnitude in magnitudes))


W4 = Format("W4", 4, Scheme.GROUP, zero=8)
W4_MIN = Format("W4_MIN", 4, Scheme.GROUP_MIN)
W4_K = Format("W4_K", 4, Scheme.SUPER_MIN)
W6 = Format("W6", 6, Scheme.GROUP, zero=16)
W6_MIN = Format("W6_MIN", 6, Scheme.GROUP_MIN)
W6_K = Format("W6_K", 6, Scheme.SUPER_MIN)
W6_16 = Format("W6_16", 6, Scheme.SUPER16, zero=32)
W8 = Format("W8", 8, Scheme.GROUP, zero=128)
W2 = Format("W2", 2, Scheme.GROUP, zero=1)
W2_K = Format("W2_K", 2, Scheme.SUPER16_MIN)
F16 = Format("F16", 16, Scheme.PLAIN)
BF16 = Format("BF16", 16, Scheme.PLAIN)
F32 = Format("F32", 32, Scheme.PLAIN)

# Levels are ggml's, in their smallest whole numbers. A file's codes of IQ2 and IQ3 are a place in a grid of eight or
# four magnitudes and as many signs, those of IQ1 a place in a grid of -1, 0, 1 and one shift by ±1/8 for all eight.
_IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_IQ2, _IQ1 = _signed(8, 25, 43, 0), (-7, 1, 9, 0, -9, -1, 7, 0)
IQ4_NL = _coded("IQ4_NL", Scheme.GROUP, _IQ4)
IQ4_XS = _coded("IQ4_XS", Scheme.SUPER, _IQ4)
MXFP4 = _coded("MXFP4", Scheme.EXPONENT, _signed(0, 1, 2, 3, 4, 6, 8, 12))
IQ3_S = _coded("IQ3_S", Scheme.SUPER, _signed(1, 3, 5, 7, 9, 11, 13, 15))
IQ3_XXS = _coded("IQ3_XXS", Scheme.SUPER, _signed(2, 6, 10, 14, 18, 22, 26, 31), 2)
Q3_K = _coded("Q3_K", Scheme.SUPER16, tuple(range(-4, 4)))
IQ2 = _coded("IQ2", Scheme.SUPER, _IQ2, 8)
IQ2_16 = _coded("IQ2_16", Scheme.SUPER16, _IQ2, 8)
IQ1 = _coded("IQ1", Scheme.SUPER, _IQ1, 8)
IQ1_16 = _coded("IQ1_16", Scheme.SUPER16, _IQ1, 8)

LINEAR = (W4, W4_MIN, W4_K, W6, W6_MIN, W6_K, W6_16, W8, W2, W2_K)
CODED = (IQ4_NL, IQ4_XS, MXFP4, IQ3_S, IQ3_XXS, Q3_K, IQ2, IQ2_16, IQ1, IQ1_16)
FORMATS = (*LINEAR, *CODED, F16, BF16, F32)

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
    GgmlType.IQ4_NL: IQ4_NL,
    GgmlType.IQ4_XS: IQ4_XS,
    GgmlType.MXFP4: MXFP4,
    GgmlType.Q3_K: Q3_K,
    GgmlType.IQ3_S: IQ3_S,
    GgmlType.IQ3_XXS: IQ3_XXS,
    GgmlType.Q2_K: W2_K,
    GgmlType.IQ2_XXS: IQ2,
    GgmlType.IQ2_XS: IQ2_16,
    GgmlType.IQ2_S: IQ2_16,
    GgmlType.IQ1_S: IQ1,
    GgmlType.IQ1_M: IQ1_16,
    GgmlType.Q1_0: W2,
    GgmlType.Q2_0: W2,
    GgmlType.TQ1_0: W2_K,
    GgmlType.TQ2_0: W2_K,
    GgmlType.BF16: BF16,
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


def unpack(form: Format, tiles: Bytes, n: int, k: int) -> Floats:
    """The values, float32 [n, k], of packed tiles uint8 [ceil(n / 16) * tile_bytes]; the inverse of packing."""
    spans = np.ascontiguousarray(tiles).view(form.span_dtype).reshape(tiles.nbytes // form.tile_bytes(k), -1)
    planes = {}
    for name in form.span_dtype.names or ():
        lanes_last = spans[name].reshape(len(spans), -1, LANES)
        planes[name] = np.moveaxis(lanes_last, -1, 1).reshape(len(spans) * LANES, -1)[:n]
    if form.scheme is Scheme.PLAIN:
        values = planes["values"]
        return (values.astype(np.uint32) << 16).view(np.float32) if form == BF16 else values.astype(np.float32)
    return _values(form, _from_words(form, planes), planes).reshape(n, -1)[:, :k]


def _from_words(form: Format, planes: Planes) -> Array:
    """Codes, uint8 [n, k], from the word planes."""
    if form.bits == 3:  # bit 4i + r of a group's word b is bit b of the code of input 8r + i
        bits = _split(planes["codes"], 1).reshape(len(planes["codes"]), -1, 3, 8, 4).swapaxes(-1, -2)
        return (bits << np.arange(3, dtype=np.uint8)[:, None, None]).sum(axis=2, dtype=np.uint8).reshape(len(bits), -1)
    codes = _split(planes["codes"], 4 if form.bits == 6 else form.bits)
    return codes | _split(planes["high"], 2) << 4 if form.bits == 6 else codes


def _split(words: Array, bits: int) -> Array:
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    return (words[..., None] >> shifts & (1 << bits) - 1).astype(np.uint8).reshape(len(words), -1)


def _values(form: Format, codes: Array, planes: Planes) -> Floats:
    n, k = codes.shape
    scale, minimum = _scales(form, planes)
    numbers = np.array(form.levels, np.float32)[codes] if form.levels else codes.astype(np.float32) - form.zero
    grouped = numbers.reshape(*scale.shape, -1)
    values = scale[..., None] * grouped if minimum is None else scale[..., None] * grouped + minimum[..., None]
    return values.reshape(n, k)


def _scales(form: Format, planes: Planes) -> tuple[Floats, Floats | None]:
    """What codes are multiplied by, float32 [n, groups of 32 or 16], and what is then added."""
    if form.scheme is Scheme.EXPONENT:  # 2^(exponent - 128), the two least subnormal
        exponent = planes["exponent"].astype(np.uint32)
        bits = np.where(exponent < 2, 0x00200000 << exponent, exponent - 1 << 23)
        return bits.astype(np.uint32).view(np.float32), None
    if form.scheme in (Scheme.GROUP, Scheme.GROUP_MIN):
        scale, minimum = planes["scale"].astype(np.float32), planes.get("minimum")
        return scale, None if minimum is None else minimum.astype(np.float32)
    d = planes["d"].astype(np.float32)
    stored = planes["scale"]
    if form.scheme in (Scheme.SUPER, Scheme.SUPER16):
        by_group = d.repeat(stored.shape[1] // d.shape[1], axis=1) / np.float32(form.divisor)
        return by_group * stored.astype(np.float32), None
    low, high = (stored & 15, stored >> 4) if form.scheme is Scheme.SUPER16_MIN else (stored, planes["minimum"])
    pairs = d.reshape(len(d), -1, 2).repeat(2 * stored.shape[1] // d.shape[1], axis=1)
    return pairs[..., 0] * low.astype(np.float32), -(pairs[..., 1] * high.astype(np.float32))
