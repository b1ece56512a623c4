"""GGUF version 3 reader: the headers and the bytes of one file or of all parts of a split file.

Files are read and not mapped: of a mapped file that becomes shorter, or whose disk fails, the process would die.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from io import FileIO
from pathlib import Path

import numpy as np

from arcmtp.errors import ArcmtpError, shown
from arcmtp.gguf_header import MAX_HEADER_BYTES, Bytes, GgmlType, Header, Incomplete, TensorInfo, Value

PIECE_BYTES = 1 << 18
HEADER_BYTES = 16 << 20  # read at first: the header of a vocabulary of 248,320 tokens takes 10 MB
_PART_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)


class GGUF:
    """An open GGUF file: `metadata` of the (first) part, `tensors` of all parts by name.

    Integers, floats, booleans and strings become Python values, arrays of strings lists, other arrays numpy arrays.
    """

    def __init__(self, path: str | os.PathLike[str], only_header: bool = False) -> None:
        """Open the file at `path`; any part of a split file opens all parts. only_header: tensors have no bytes in it.

        Raises ArcmtpError for a file that is missing, not GGUF version 3, truncated or inconsistent.
        """
        self.path, self._only_header = Path(path), only_header
        self._in_bf16: dict[str, bool] = {}
        opened = _Part(self.path, 0)
        count = _split_count(opened)
        self._parts = [opened] if count == 1 else _open_parts(self.path, count)
        self.metadata: Mapping[str, Value] = self._parts[0].header.metadata
        self.tensors: dict[str, TensorInfo] = {}
        for part in self._parts:
            for tensor in part.header.tensors:
                if tensor.name in self.tensors:
                    raise ArcmtpError(f"{part.path}: tensor {shown(tensor.name)} appears twice")
                self.tensors[tensor.name] = tensor
        if count > 1:
            self._check_split_total()

    @property
    def paths(self) -> list[Path]:
        """The file, or all parts of a split file."""
        return [part.path for part in self._parts]

    @property
    def alignment(self) -> int:
        """Bytes of which every tensor's offset is a multiple, in the (first) part."""
        return self._parts[0].header.alignment

    def entry(self, key: str) -> bytes:
        """A key of `metadata` and its value, as the file has them."""
        part = self._parts[0]
        place = part.header.entries[key]
        entry = np.empty(place.stop - place.start, np.uint8)
        part.read(place.start, entry, "the metadata")
        return entry.tobytes()

    def data(self, tensor: TensorInfo) -> Bytes:
        """The tensor's bytes in the file, uint8 [nbytes]."""
        data = np.empty(tensor.nbytes, np.uint8)
        self.read(tensor, 0, data)
        return data

    def read(self, tensor: TensorInfo, start: int, into: Bytes) -> None:
        """Fill `into`, contiguous uint8, with the tensor's bytes from byte `start` on.

        Raises ArcmtpError for a file that is shorter by now or cannot be read.
        """
        self._parts[tensor.part].read(tensor.offset + start, into, f"tensor {shown(tensor.name)}")

    def in_bf16(self, tensor: TensorInfo) -> bool:
        """Whether every number of the tensor is one that BF16 has; of a type other than F32, and of tensors without
        bytes, this is not known: False. The first time it is read for this, up to the first number that is not.

        Raises ArcmtpError as `read` does.
        """
        if tensor.type is not GgmlType.F32 or self._only_header:
            return False
        if tensor.name not in self._in_bf16:
            self._in_bf16[tensor.name] = self._low_halves_are_zero(tensor)
        return self._in_bf16[tensor.name]

    def _low_halves_are_zero(self, tensor: TensorInfo) -> bool:
        piece = np.empty(min(PIECE_BYTES, tensor.nbytes), np.uint8)
        for start in range(0, tensor.nbytes, PIECE_BYTES):
            words = piece[: tensor.nbytes - start]
            self.read(tensor, start, words)
            if np.bitwise_or.reduce(words.view("<u4")) & 0xFFFF:
                return False
        return True

    def _check_split_total(self) -> None:
        expected = self.metadata.get("split.tensors.count", len(self.tensors))
        if not isinstance(expected, int) or expected != len(self.tensors):
            raise ArcmtpError(
                f"{self.path}: the parts hold {len(self.tensors)} tensors, split.tensors.count says {shown(expected)}"
            )


def _split_count(part: _Part) -> int:
    count = part.header.metadata.get("split.count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= 0xFFFF:
        raise ArcmtpError(f"{part.path}: split.count is {shown(count)}, expected a number of parts")
    return max(count, 1)


def _open_parts(path: Path, count: int) -> list[_Part]:
    match = _PART_NAME.fullmatch(path.name)
    if match is None or int(match[3]) != count:
        raise ArcmtpError(f"{path}: is one of {count} parts, so its name must end in -00001-of-{count:05}.gguf")
    parts = []
    for index in range(count):
        part = _Part(path.with_name(f"{match[1]}-{index + 1:05}-of-{count:05}.gguf"), index)
        number = part.header.metadata.get("split.no")
        if _split_count(part) != count or not isinstance(number, int) or number != index:
            raise ArcmtpError(f"{part.path}: split.no is {shown(number)}, expected {index} of {count}")
        parts.append(part)
    return parts


class _Part:
    """One open file and what its header says."""

    def __init__(self, path: Path, index: int) -> None:
        self.path = path
        try:
            self._file = _open(path)
        except FileNotFoundError:
            raise ArcmtpError(f"{path}: no such file") from None
        except (OSError, ValueError) as error:
            raise ArcmtpError(f"{path}: cannot be opened: {getattr(error, 'strerror', None) or error}") from None
        self.header = self._header(index)

    def read(self, start: int, into: Bytes, what: str) -> None:
        """Fill `into` from byte `start` of the file on; what: is read, in words."""
        rest = into.data.cast("B")
        while rest:
            try:
                count = os.preadv(self._file.fileno(), [rest], start)
            except OSError as error:
                raise ArcmtpError(f"{self.path}: {what} cannot be read: {error.strerror}") from None
            if not count:
                raise ArcmtpError(f"{self.path}: has become shorter while it was read: {what} is not all there")
            start, rest = start + count, rest[count:]

    def _header(self, index: int) -> Header:
        size = os.fstat(self._file.fileno()).st_size
        have = HEADER_BYTES
        while True:
            begin = np.empty(min(have, size), np.uint8)
            self.read(0, begin, "the header")
            try:
                return Header(self.path, begin.tobytes(), size, index)
            except Incomplete:
                have *= 4
            if have > MAX_HEADER_BYTES:
                raise ArcmtpError(f"{self.path}: the header has more than {MAX_HEADER_BYTES >> 20} MiB")


def _open(path: Path) -> FileIO:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ArcmtpError(f"{path}: is a directory, expected a GGUF file")
    if not stat.S_ISREG(status.st_mode):
        raise ArcmtpError(f"{path}: not a regular file, expected a GGUF file")
    if status.st_size == 0:
        raise ArcmtpError(f"{path}: the file is empty, expected a GGUF file")
    return FileIO(path)
