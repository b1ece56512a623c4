"""From a plan to device memory: every matrix is read and repacked in pieces, through two arrays of a few megabytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from math import isfinite

import numpy as np

from arcmtp.errors import ArcmtpError, shown
from arcmtp.formats.matrix import BF16, LANES, Floats
from arcmtp.gguf import GGUF
from arcmtp.gguf_header import Bytes, GgmlType, TensorInfo
from arcmtp.model.weight_plan import Merged, Segment, WeightPlan
from arcmtp.runtime import _host
from arcmtp.runtime.tensor import Allocator, Tensor

STAGING_BYTES = 8 << 20  # 8 to 32 MiB load equally fast

Progress = Callable[[int, int], None]


class WeightLoader:
    """Brings the weights of a plan into a device's memory, calling `progress(done_bytes, total_bytes)` as it goes.

    Raises ArcmtpError when the device has no room, for a file that has become shorter, and for a tensor that has NaN or
    infinite numbers.
    """

    def __init__(self, plan: WeightPlan, device: Allocator, progress: Progress | None = None) -> None:
        self.plan, self.device = plan, device
        self.progress = progress or (lambda done, total: None)
        self.threads = len(os.sched_getaffinity(0))
        segments = [segment for merged in plan.merged for segment in merged.segments]
        self.staging = np.empty(max(STAGING_BYTES, *(one.matrix.tile_bytes for one in segments)), np.uint8)
        self.source = np.empty(max(STAGING_BYTES, *(LANES * one.tensor.row_bytes for one in segments)), np.uint8)
        self.done_bytes, self.total_bytes = 0, plan.nbytes
        self.squares: dict[str, tuple[float, float]] = {}  # of errors and of values

    def load(self) -> dict[str, float]:
        """Load everything; the relative RMS error of each requantised tensor."""
        for merged in self.plan.merged:
            self.fill(merged)
        for file, source, target in self.plan.vectors:
            if target.region.buffer is None:  # two blocks may share one
                target.region.buffer = self.device.alloc(target.nbytes)
                target.write(self.values(file, source))
                self.advance(target.nbytes)
        return {name: (error / value) ** 0.5 if value else 0.0 for name, (error, value) in self.squares.items()}

    def fill(self, merged: Merged) -> None:
        """Allocate and fill the buffer of a merged tensor."""
        region = merged.tensor.region
        region.buffer = (self.device.host_alloc if region.in_host_memory else self.device.alloc)(region.nbytes)
        end = 0
        for segment in merged.segments:
            self.advance(segment.matrix.offset - end)
            self.fill_segment(merged.tensor, segment)
            end = segment.matrix.offset + segment.matrix.nbytes

    def fill_segment(self, target: Tensor, segment: Segment) -> None:
        """Repack one matrix into its place in a merged tensor."""
        matrix, tile_bytes = segment.matrix, segment.matrix.tile_bytes
        for first, stop in self._pieces(segment):
            packed = self.staging[: (stop - first) * tile_bytes]
            kind, rows = segment.tensor.type, self._rows(segment, first, stop)
            if kind is GgmlType.F32 and matrix.format == BF16:
                kind, rows = GgmlType.BF16, _high_halves(rows)
            arguments = int(kind), rows, packed, 0, self.threads
            if segment.requantised:
                error, value = self.squares.get(segment.tensor.name, (0.0, 0.0))
                more_error, more_value = _host.requant_int4(*arguments)
                self.squares[segment.tensor.name] = error + more_error, value + more_value
                finite = isfinite(more_value)
            else:
                finite = _host.repack(*arguments)
            if not finite:
                raise _not_finite(segment.file, segment.tensor)
            target.write(packed, matrix.offset + first * tile_bytes)
            self.advance(packed.nbytes)

    def values(self, file: GGUF, tensor: TensorInfo) -> Floats:
        """A vector's numbers as float32."""
        values = _vector_values(file, tensor)
        if not np.isfinite(values).all():
            raise _not_finite(file, tensor)
        return values

    def advance(self, nbytes: int) -> None:
        """So many bytes more are done."""
        self.done_bytes += nbytes
        self.progress(self.done_bytes, self.total_bytes)

    def _pieces(self, segment: Segment) -> Iterator[tuple[int, int]]:
        """The first tiles and the ends of pieces for which the arrays have room: of one expert, or of whole ones."""
        tiles, experts = segment.matrix.tiles, segment.matrix.experts
        by_source = len(self.source) // (LANES * segment.tensor.row_bytes)
        most = min(len(self.staging) // segment.matrix.tile_bytes, by_source)
        if most >= tiles:
            step = most // tiles * tiles
            yield from ((first, min(first + step, experts * tiles)) for first in range(0, experts * tiles, step))
            return
        for begin in range(0, experts * tiles, tiles):
            yield from ((begin + tile, begin + min(tile + most, tiles)) for tile in range(0, tiles, most))

    def _rows(self, segment: Segment, first: int, stop: int) -> Bytes:
        """The file's rows of tiles `first` to `stop`, a piece, uint8 [experts, rows, row_bytes]."""
        tensor, matrix = segment.tensor, segment.matrix
        experts = range(first // matrix.tiles, -(-stop // matrix.tiles))
        begin = first % matrix.tiles * LANES
        end = min(begin + (stop - first) * LANES, matrix.n)
        source = self.source[: len(experts) * (end - begin) * tensor.row_bytes]
        rows = source.reshape(len(experts), end - begin, tensor.row_bytes)
        if segment.row_ids is not None:
            ids = segment.row_ids[begin:end]
            for run in np.split(np.arange(len(ids)), np.flatnonzero(np.diff(ids) != 1) + 1):
                segment.file.read(tensor, int(ids[run[0]]) * tensor.row_bytes, rows[0, run[0] : run[-1] + 1])
            return rows
        rows_of_expert = tensor.elements // matrix.experts // matrix.k
        for place, expert in enumerate(experts):
            row = expert * rows_of_expert + segment.first_row + begin
            segment.file.read(tensor, row * tensor.row_bytes, rows[place])
        return rows


def _not_finite(gguf: GGUF, tensor: TensorInfo) -> ArcmtpError:
    what = "has numbers that are NaN or infinite: the file is damaged, or its conversion failed"
    return ArcmtpError(f"{gguf.path}: tensor {shown(tensor.name)} {what}")


def _high_halves(rows: Bytes) -> Bytes:
    """BF16 rows, uint8 [experts, rows, row_bytes / 2], of F32 rows whose numbers BF16 has."""
    return np.ascontiguousarray(rows.view("<u2")[..., 1::2]).view(np.uint8)


def _vector_values(gguf: GGUF, tensor: TensorInfo) -> Floats:
    data = gguf.data(tensor)
    if tensor.type is GgmlType.BF16:
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return data.view("<f2" if tensor.type is GgmlType.F16 else "<f4").astype(np.float32)
