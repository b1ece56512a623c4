"""From a plan to device memory: every matrix repacked tile by tile through one staging array, which lets go of the
file's pages as it passes them."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from arcmtp.formats.matrix import LANES, Floats
from arcmtp.gguf import GGUF
from arcmtp.gguf_header import Bytes, GgmlType, TensorInfo
from arcmtp.model.weight_plan import Merged, Segment, WeightPlan
from arcmtp.runtime import _host
from arcmtp.runtime.tensor import Allocator, Tensor

STAGING_BYTES = 8 << 20  # 8 to 32 MiB load equally fast

Progress = Callable[[int, int], None]


class WeightLoader:
    """Brings the weights of a plan into a device's memory, calling `progress(done_bytes, total_bytes)` as it goes.

    Raises ArcmtpError when the device has no room.
    """

    def __init__(self, plan: WeightPlan, device: Allocator, progress: Progress | None = None) -> None:
        self.plan, self.device = plan, device
        self.progress = progress or (lambda done, total: None)
        self.threads = len(os.sched_getaffinity(0))
        largest_tile = max(matrix.tile_bytes for merged in plan.merged for matrix in merged.matrices)
        self.staging = np.empty(max(STAGING_BYTES, largest_tile), np.uint8)
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
        tiles, step = matrix.experts * matrix.tiles, len(self.staging) // tile_bytes
        for first in range(0, tiles, step):
            stop = min(first + step, tiles)
            packed = self.staging[: (stop - first) * tile_bytes]
            rows, first_tile = self._rows(segment, first, stop)
            arguments = (int(segment.tensor.type), rows, packed, first_tile, self.threads)
            if segment.requantised:
                error, value = self.squares.get(segment.tensor.name, (0.0, 0.0))
                more_error, more_value = _host.requant_int4(*arguments)
                self.squares[segment.tensor.name] = error + more_error, value + more_value
            else:
                _host.repack(*arguments)
            target.write(packed, matrix.offset + first * tile_bytes)
            self._release(segment, first, stop)
            self.advance(packed.nbytes)

    def values(self, file: GGUF, tensor: TensorInfo) -> Floats:
        """A vector's numbers as float32."""
        return _vector_values(file, tensor)

    def advance(self, nbytes: int) -> None:
        """So many bytes more are done."""
        self.done_bytes += nbytes
        self.progress(self.done_bytes, self.total_bytes)

    def _rows(self, segment: Segment, first: int, stop: int) -> tuple[Bytes, int]:
        """The file's rows uint8 [experts, n, row_bytes] from which to pack tiles `first` to `stop`, and the place of
        the first among their tiles."""
        rows, row_ids = segment.file.rows(segment.tensor), segment.row_ids
        if row_ids is not None:  # a copy, but of these tiles' rows only
            return rows[:, row_ids[first * LANES : stop * LANES]], 0
        return rows[:, segment.first_row : segment.first_row + segment.matrix.n], first

    def _release(self, segment: Segment, first_tile: int, stop_tile: int) -> None:
        matrix, tensor = segment.matrix, segment.tensor
        if segment.row_ids is not None:
            read = segment.row_ids[first_tile * LANES : stop_tile * LANES].tolist()
            segment.file.release(tensor, read[0] * tensor.row_bytes, (read[-1] + 1) * tensor.row_bytes)
            return
        expert_rows = tensor.elements // matrix.experts // matrix.k

        def row_at(tile: int) -> int:
            return tile // matrix.tiles * expert_rows + segment.first_row + tile % matrix.tiles * LANES

        stop = min(row_at(stop_tile - 1) + LANES, matrix.experts * expert_rows)
        segment.file.release(tensor, row_at(first_tile) * tensor.row_bytes, stop * tensor.row_bytes)


def _vector_values(gguf: GGUF, tensor: TensorInfo) -> Floats:
    data = gguf.data(tensor)
    if tensor.type is GgmlType.BF16:
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return data.view("<f2" if tensor.type is GgmlType.F16 else "<f4").astype(np.float32)
