"""GGUF version 3 writer: a file of metadata entries and of tensors that other files hold, byte for byte."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from arcmtp.gguf import GGUF
from arcmtp.gguf_header import TensorInfo
from arcmtp.progress import Progress

PIECE_BYTES = 8 << 20
_VERSION, _UINT32 = 3, 4


@dataclass(frozen=True)
class Source:
    """A tensor of an open file."""

    gguf: GGUF
    tensor: TensorInfo


def uint32_entry(key: str, value: int) -> bytes:
    """A key with a whole number."""
    return _string(key) + struct.pack("<II", _UINT32, value)


def longer_entry(entry: bytes, array: npt.NDArray[np.generic], more: npt.NDArray[np.generic]) -> bytes:
    """An entry whose value is `array`, with the numbers `more` behind those that it has."""
    before_count = len(entry) - array.nbytes - 8
    return b"".join((entry[:before_count], struct.pack("<Q", len(array) + len(more)), array.tobytes(), more.tobytes()))


def file_pieces(
    entries: Sequence[bytes], tensors: Sequence[Source], alignment: int, progress: Progress
) -> Iterator[bytes | memoryview]:
    """The bytes of a file, in pieces of at most 8 MiB besides the header.

    entries: of the metadata, as `GGUF.entry` and the functions above give them. alignment: that which they state.
    progress: called as progress("writing tensors", done bytes, all bytes).
    """
    header = b"".join(_header(entries, tensors, alignment))
    yield header + _padding(len(header), alignment)
    done, total = 0, sum(source.tensor.nbytes for source in tensors)
    for source in tensors:
        tensor = source.tensor
        for start in range(0, tensor.nbytes, PIECE_BYTES):
            piece = np.empty(min(PIECE_BYTES, tensor.nbytes - start), np.uint8)
            source.gguf.read(tensor, start, piece)
            yield piece.data
            done += len(piece)
            progress("writing tensors", done, total)
        yield _padding(tensor.nbytes, alignment)


def _header(entries: Sequence[bytes], tensors: Iterable[Source], alignment: int) -> Iterator[bytes]:
    infos, offset = [], 0
    for tensor in (source.tensor for source in tensors):
        dims = tensor.shape[::-1]
        numbers = struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, tensor.type, offset)
        infos.append(_string(tensor.name) + numbers)
        offset += tensor.nbytes + -tensor.nbytes % alignment
    yield b"GGUF" + struct.pack("<IQQ", _VERSION, len(infos), len(entries))
    yield from entries
    yield from infos


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _padding(nbytes: int, alignment: int) -> bytes:
    return bytes(-nbytes % alignment)
