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
    SUPER_MIN = "super_min"
    SUPER16 = "super16"


@dataclass(frozen=True)
class Format:
    """One device weight format. `bits`: of a code (F16, F32: of a value)."""

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


def _from_words(form: Format, planes: Planes) -> Array:
    """Codes, uint8 [n, k], from the word planes."""
    codes = _split(planes["codes"], 8 if form.bits == 8 else 4)
    return codes | _split(planes["high"], 2) << 4 if form.bits == 6 else codes


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
