"""What a GGUF version 3 file begins with: metadata and tensor table.

Every count, length, offset and product is checked against the file before anything is allocated for it, so a damaged
file ends in one `ArcmtpError`. 248,320 tokens and 247,587 merges parse in about 0.2 s.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from arcmtp.errors import ArcmtpError, shown

Bytes = npt.NDArray[np.uint8]
Value = int | float | bool | str | list[str] | npt.NDArray[Any]

DEFAULT_ALIGNMENT = 32
MAX_DIMS = 4
# Far above any real file (the longest string is a chat template of some 10 KB, the longest array the vocabulary), so
# that a damaged length in a 20 GB file cannot ask for gigabytes.
MAX_STRING_BYTES = 1 << 24
MAX_ARRAY_ELEMENTS = 1 << 24
MAX_HEADER_BYTES = 1 << 28

# Smallest possible encodings, to check counts before looping over them.
_MIN_KEY_VALUE_BYTES = 8 + 4 + 1
_MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8

_SCALARS = {code: struct.Struct("<" + letter) for code, letter in enumerate("BbHhIif?--Qqd") if letter != "-"}
_STRING, _ARRAY = 8, 9
_U32, _U64 = _SCALARS[4], _SCALARS[10]


class GgmlType(IntEnum):
    """Element types by their number in the file, with the elements and bytes of one block."""

    block: int
    block_bytes: int

    def __new__(cls, code: int, block: int, block_bytes: int) -> GgmlType:
        member = int.__new__(cls, code)
        member._value_ = code
        member.block = block
        member.block_bytes = block_bytes
        return member

    F32 = 0, 1, 4
    F16 = 1, 1, 2
    Q4_0 = 2, 32, 18
    Q4_1 = 3, 32, 20
    Q5_0 = 6, 32, 22
    Q5_1 = 7, 32, 24
    Q8_0 = 8, 32, 34
    Q8_1 = 9, 32, 40
    Q2_K = 10, 256, 84
    Q3_K = 11, 256, 110
    Q4_K = 12, 256, 144
    Q5_K = 13, 256, 176
    Q6_K = 14, 256, 210
    Q8_K = 15, 256, 292
    IQ2_XXS = 16, 256, 66
    IQ2_XS = 17, 256, 74
    IQ3_XXS = 18, 256, 98
    IQ1_S = 19, 256, 50
    IQ4_NL = 20, 32, 18
    IQ3_S = 21, 256, 110
    IQ2_S = 22, 256, 82
    IQ4_XS = 23, 256, 136
    I8 = 24, 1, 1
    I16 = 25, 1, 2
    I32 = 26, 1, 4
    I64 = 27, 1, 8
    F64 = 28, 1, 8
    IQ1_M = 29, 256, 56
    BF16 = 30, 1, 2
    TQ1_0 = 34, 256, 54
    TQ2_0 = 35, 256, 66
    MXFP4 = 39, 32, 17
    NVFP4 = 40, 64, 36
    Q1_0 = 41, 128, 18
    Q2_0 = 42, 64, 18


_TYPES = {int(kind): kind for kind in GgmlType}


@dataclass(frozen=True)
class TensorInfo:
    """One entry of the tensor table."""

    name: str
    shape: tuple[int, ...]  # numpy order: outputs before inputs
    type: GgmlType
    offset: int  # bytes from the start of its part
    nbytes: int
    part: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return self.nbytes // self.type.block_bytes * self.type.block

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, the last axis of the shape."""
        return self.shape[-1] // self.type.block * self.type.block_bytes


class Incomplete(Exception):
    """The header goes on behind the bytes that were given."""


class Header:
    """Metadata and tensor table of the file `path` of `size` bytes, which is part `part` of a model.

    data: the file's first bytes, or all. Integers, floats, booleans and strings become Python values, arrays of strings
    lists, other arrays numpy arrays.

    Raises Incomplete if more of the file is needed, and ArcmtpError for what is not GGUF version 3, truncated or
    inconsistent.
    """

    def __init__(self, path: Path, data: bytes, size: int, part: int) -> None:
        cursor = _Cursor(path, data, size)
        tensor_count, key_count = _read_counts(cursor)
        self.metadata: dict[str, Value] = {}
        self.entries: dict[str, slice] = {}  # where each key and its value are
        for number in range(key_count):
            start = cursor.position
            key = _read_key_value(cursor, number, self.metadata)
            self.entries[key] = slice(start, cursor.position)
        self.alignment = _alignment(path, self.metadata)
        self.tensors = _read_tensors(cursor, tensor_count, part, self.alignment)


class _Cursor:
    """A position in the header; every step forward is checked against the file's length."""

    def __init__(self, path: Path, data: bytes, size: int) -> None:
        self.path = path
        self.data = data
        self.size = size
        self.position = 0

    def error(self, message: str) -> ArcmtpError:
        return ArcmtpError(f"{self.path}: {message}")

    def advance(self, nbytes: int, what: str) -> int:
        """Step over `nbytes` and return where they start."""
        start = self.position
        if nbytes > self.size - start:
            raise self.error(f"truncated in {what}: needs {nbytes} bytes at {start}, the file has {self.size}")
        self.position = start + nbytes
        if self.position > len(self.data):
            raise Incomplete
        return start

    def scalar(self, form: struct.Struct, what: str) -> Any:
        return form.unpack_from(self.data, self.advance(form.size, what))[0]

    def string(self, what: str) -> str:
        length = self.scalar(_U64, what)
        if length > MAX_STRING_BYTES:
            raise self.error(f"{what} has a string of {length} bytes, at most {MAX_STRING_BYTES} are allowed")
        start = self.advance(length, what)
        try:
            return self.data[start : start + length].decode()
        except UnicodeDecodeError:
            raise self.error(f"{what} has a string that is not UTF-8") from None

    def count(self, value: int, least_bytes: int, what: str) -> int:
        """`value`, once it is clear that so many items of at least `least_bytes` fit into the rest of the file."""
        if value > (self.size - self.position) // least_bytes:
            raise self.error(f"truncated or damaged: {value} {what} do not fit into a file of {self.size} bytes")
        return value


def _read_counts(cursor: _Cursor) -> tuple[int, int]:
    if cursor.data[:4] != b"GGUF":
        raise cursor.error("not a GGUF file (it does not start with 'GGUF')")
    cursor.advance(4, "the header")
    version = cursor.scalar(_U32, "the header")
    if version == 3 << 24:
        raise cursor.error("a big-endian GGUF file; only little-endian ones can be read")
    if version != 3:
        raise cursor.error(f"GGUF version {version}; only version 3 can be read")
    tensor_count, key_count = cursor.scalar(_U64, "the header"), cursor.scalar(_U64, "the header")
    return cursor.count(tensor_count, _MIN_TENSOR_BYTES, "tensors"), cursor.count(
        key_count, _MIN_KEY_VALUE_BYTES, "metadata keys"
    )


def _read_key_value(cursor: _Cursor, index: int, metadata: dict[str, Value]) -> str:
    """Put the next value into `metadata`; its key."""
    key = cursor.string(f"metadata key {index}")
    if key in metadata:
        raise cursor.error(f"metadata key {shown(key)} appears twice")
    what = f"metadata key {shown(key)}"
    code = cursor.scalar(_U32, what)
    if code == _STRING:
        metadata[key] = cursor.string(what)
    elif code == _ARRAY:
        metadata[key] = _read_array(cursor, what)
    else:
        metadata[key] = cursor.scalar(_scalar_form(cursor, code, what), what)
    return key


def _scalar_form(cursor: _Cursor, code: int, what: str) -> struct.Struct:
    form = _SCALARS.get(code)
    if form is None:
        raise cursor.error(f"{what} has value type {code}, which GGUF version 3 does not define here")
    return form


def _read_array(cursor: _Cursor, what: str) -> list[str] | npt.NDArray[Any]:
    code = cursor.scalar(_U32, what)
    count = cursor.scalar(_U64, what)
    if count > MAX_ARRAY_ELEMENTS:
        raise cursor.error(f"{what} has {count} array elements, at most {MAX_ARRAY_ELEMENTS} are allowed")
    if code == _STRING:
        return _read_strings(cursor, cursor.count(count, _U64.size, f"strings of {what}"), what)
    form = _scalar_form(cursor, code, what)
    start = cursor.advance(count * form.size, what)
    return np.frombuffer(cursor.data, form.format, count, start).copy()


def _read_strings(cursor: _Cursor, count: int, what: str) -> list[str]:
    """`count` strings; `_Cursor.string` unrolled, because it runs half a million times for a real vocabulary."""
    data, size, position = cursor.data, cursor.size, cursor.position
    length_at = _U64.unpack_from
    strings: list[str] = []
    try:
        for _ in range(count):
            start = position + 8
            position = start + length_at(data, position)[0]
            if position > size or position - start > MAX_STRING_BYTES:
                raise cursor.error(f"truncated in {what}: string {len(strings)} has {position - start} bytes")
            if position > len(data):
                raise Incomplete
            strings.append(data[start:position].decode())
    except struct.error:
        if len(data) < size:
            raise Incomplete from None
        raise cursor.error(f"truncated in {what}: string {len(strings)} of {count} is missing") from None
    except UnicodeDecodeError:
        raise cursor.error(f"{what}: string {len(strings)} is not UTF-8") from None
    cursor.position = position
    return strings


def _alignment(path: Path, metadata: Mapping[str, Value]) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or value & (value - 1):
        raise ArcmtpError(f"{path}: general.alignment is {shown(value)}, expected a power of two")
    return value


def _read_tensors(cursor: _Cursor, count: int, part: int, alignment: int) -> list[TensorInfo]:
    entries = [_read_tensor_info(cursor, index, alignment) for index in range(count)]
    data_start = -(-cursor.position // alignment) * alignment
    tensors = []
    for name, shape, kind, offset in entries:
        nbytes = prod(shape) // kind.block * kind.block_bytes
        end = data_start + offset + nbytes
        if end > cursor.size:
            raise cursor.error(f"truncated: tensor {shown(name)} ends at byte {end}, the file has {cursor.size}")
        tensors.append(TensorInfo(name, shape, kind, data_start + offset, nbytes, part))
    _check_overlap(cursor, tensors)
    return tensors


def _read_tensor_info(cursor: _Cursor, index: int, alignment: int) -> tuple[str, tuple[int, ...], GgmlType, int]:
    name = cursor.string(f"tensor {index}")
    what = f"tensor {shown(name)}"
    dims = cursor.scalar(_U32, what)
    if not 1 <= dims <= MAX_DIMS:
        raise cursor.error(f"{what} has {dims} dimensions, expected 1 to {MAX_DIMS}")
    shape = tuple(cursor.scalar(_U64, what) for _ in range(dims))[::-1]
    code = cursor.scalar(_U32, what)
    offset = cursor.scalar(_U64, what)
    kind = _TYPES.get(code)
    if kind is None:
        raise cursor.error(f"{what} has the unknown type {code}")
    if 0 in shape or shape[-1] % kind.block:
        raise cursor.error(f"{what} has shape {list(shape)}; rows of {kind.name} are whole blocks of {kind.block}")
    if offset % alignment:
        raise cursor.error(f"{what} starts at offset {offset}, expected a multiple of {alignment}")
    return name, shape, kind, offset


def _check_overlap(cursor: _Cursor, tensors: list[TensorInfo]) -> None:
    ordered = sorted(tensors, key=lambda tensor: tensor.offset)
    for before, after in pairwise(ordered):
        if before.offset + before.nbytes > after.offset:
            raise cursor.error(f"tensors {shown(before.name)} and {shown(after.name)} overlap")
