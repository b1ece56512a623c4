"""GGUF version 3 reader: the headers and the mapped bytes of one file or of all parts of a split file."""

from __future__ import annotations

import mmap
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from arcmtp.errors import ArcmtpError
from arcmtp.gguf_header import Bytes, Header, TensorInfo, Value

_PART_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)


class GGUF:
    """An open GGUF file: `metadata` of the (first) part, `tensors` of all parts by name.

    Integers, floats, booleans and strings become Python values, arrays of strings lists, other arrays numpy arrays.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file at `path`; any part of a split file opens all parts.

        Raises ArcmtpError for a file that is missing, not GGUF version 3, truncated or inconsistent.
        """
        self.path = Path(path)
        opened = _Part(self.path, 0)
        count = _split_count(opened)
        self._parts = [opened] if count == 1 else _open_parts(self.path, count)
        self.metadata: Mapping[str, Value] = self._parts[0].header.metadata
        self.tensors: dict[str, TensorInfo] = {}
        for part in self._parts:
            for tensor in part.header.tensors:
                if tensor.name in self.tensors:
                    raise ArcmtpError(f"{part.path}: tensor {tensor.name!r} appears twice")
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
        return part.map[part.header.entries[key]]

    def data(self, tensor: TensorInfo) -> Bytes:
        """The tensor's bytes in the file, uint8 [nbytes], read-only and not yet read from disk."""
        return self._parts[tensor.part].bytes[tensor.offset : tensor.offset + tensor.nbytes]

    def rows(self, tensor: TensorInfo) -> Bytes:
        """The tensor's bytes as uint8 [experts, rows, row_bytes]; a matrix has 1 expert, a vector 1 row."""
        experts = tensor.shape[0] if len(tensor.shape) == 3 else 1
        return self.data(tensor).reshape(experts, -1, tensor.row_bytes)

    def release(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Drop the whole pages inside the tensor's bytes [start, stop) from memory; they can be read again."""
        page = mmap.PAGESIZE
        first = -(-(tensor.offset + start) // page) * page
        length = (tensor.offset + stop) // page * page - first
        if length > 0:
            self._parts[tensor.part].map.madvise(mmap.MADV_DONTNEED, first, length)

    def _check_split_total(self) -> None:
        expected = self.metadata.get("split.tensors.count", len(self.tensors))
        if expected != len(self.tensors):
            raise ArcmtpError(
                f"{self.path}: the parts hold {len(self.tensors)} tensors, split.tensors.count says {expected}"
            )


def _split_count(part: _Part) -> int:
    count = part.header.metadata.get("split.count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= 0xFFFF:
        raise ArcmtpError(f"{part.path}: split.count is {count!r}, expected a number of parts")
    return max(count, 1)


def _open_parts(path: Path, count: int) -> list[_Part]:
    match = _PART_NAME.fullmatch(path.name)
    if match is None or int(match[3]) != count:
        raise ArcmtpError(f"{path}: is one of {count} parts, so its name must end in -00001-of-{count:05}.gguf")
    parts = []
    for index in range(count):
        part = _Part(path.with_name(f"{match[1]}-{index + 1:05}-of-{count:05}.gguf"), index)
        number = part.header.metadata.get("split.no")
        if _split_count(part) != count or number != index:
            raise ArcmtpError(f"{part.path}: split.no is {number}, expected {index} of {count}")
        parts.append(part)
    return parts


class _Part:
    """One mapped file and what its header says."""

    def __init__(self, path: Path, index: int) -> None:
        self.path = path
        self.map = _map_file(path)
        self.bytes: Bytes = np.frombuffer(self.map, np.uint8)
        self.header = Header(path, self.map, index)


def _map_file(path: Path) -> mmap.mmap:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ArcmtpError(f"{path}: is a directory, expected a GGUF file")
        if not stat.S_ISREG(status.st_mode):
            raise ArcmtpError(f"{path}: not a regular file, expected a GGUF file")
        if status.st_size == 0:
            raise ArcmtpError(f"{path}: the file is empty, expected a GGUF file")
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise ArcmtpError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise ArcmtpError(f"{path}: cannot be opened: {getattr(error, 'strerror', None) or error}") from None
