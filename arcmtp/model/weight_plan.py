"""What goes from a GGUF file to the device: tensors found, checked and laid out, every byte counted, nothing loaded."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from arcmtp.errors import ArcmtpError
from arcmtp.formats.matrix import BF16, Matrix, Requant, Scheme, format_of
from arcmtp.gguf import GGUF
from arcmtp.gguf_header import GgmlType, TensorInfo
from arcmtp.runtime.tensor import F32, U8, Arena, Kind, Tensor

SEGMENT_ALIGNMENT = 64
VECTOR_TYPES = (GgmlType.F32, GgmlType.F16, GgmlType.BF16)

RowIds = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Segment:
    """One matrix and its rows in the file: n rows from `first_row` of the tensor, or of its each expert.

    row_ids: int [n], ascending, of a matrix that has only these rows of the tensor."""

    matrix: Matrix
    file: GGUF
    tensor: TensorInfo
    first_row: int
    requantised: bool
    row_ids: RowIds | None = field(default=None, compare=False)

    def some(self, row_ids: RowIds) -> Segment:
        """A matrix of these of the rows."""
        return replace(self, matrix=replace(self.matrix, n=len(row_ids)), row_ids=row_ids)


@dataclass(frozen=True)
class Merged:
    """Matrices with the same input in one device buffer, each at a multiple of 64 bytes."""

    tensor: Tensor
    segments: tuple[Segment, ...]

    @property
    def matrices(self) -> list[Matrix]:
        """The matrix of each segment."""
        return [segment.matrix for segment in self.segments]


class WeightPlan:
    """The weights that blocks ask files for, each by name and shape, as tensors of an arena.

    Tensors that nobody asks for are ignored. requant: "int4" turns the large matrices into W4.
    All methods raise ArcmtpError, naming file and tensor, for a tensor that is missing, has another shape than asked
    for, or a type without a device format.
    """

    def __init__(self, gguf: GGUF, arena: Arena, requant: Requant | None = None) -> None:
        self.gguf = gguf
        self.merged: list[Merged] = []
        self.vectors: list[tuple[GGUF, TensorInfo, Tensor]] = []
        self._arena, self._requant = arena, requant

    def __contains__(self, name: str) -> bool:
        return name in self.gguf.tensors

    @property
    def nbytes(self) -> int:
        """Bytes of all weights as kernels read them."""
        return self._arena.nbytes(Kind.WEIGHTS)

    @property
    def host_nbytes(self) -> int:
        """Those of them that lie in host memory."""
        return self._arena.host_weights_bytes

    def with_file(self, gguf: GGUF) -> WeightPlan:
        """The same plan, by which further tensors come from the file `gguf`."""
        plan = copy.copy(self)
        plan.gguf = gguf
        return plan

    def with_requant(self, requant: Requant | None) -> WeightPlan:
        """The same plan, by which further matrices are requantised as `requant` says."""
        plan = copy.copy(self)
        plan._requant = requant
        return plan

    def merge(self, name: str, segments: Iterable[Segment]) -> Merged:
        """Lay segments out one after the other in the tensor `name`."""
        placed: list[Segment] = []
        end = 0
        for segment in segments:
            offset = -(-end // SEGMENT_ALIGNMENT) * SEGMENT_ALIGNMENT
            placed.append(replace(segment, matrix=replace(segment.matrix, offset=offset)))
            end = offset + segment.matrix.nbytes
        merged = Merged(self._arena.tensor(name, U8, end, kind=Kind.WEIGHTS), tuple(placed))
        self.merged.append(merged)
        return merged

    def matrix(self, name: str, n: int, k: int, experts: int | None = None, large: bool = True) -> Segment:
        """A whole tensor [n, k], or a stack of experts, as one segment; `large` ones are requantised if that is
        wanted, others of F32 that have numbers of BF16 alone are kept as these."""
        shape = (n, k) if experts is None else (experts, n, k)
        tensor = self._tensor(name, *([(k,)] if n == 1 else []), shape)
        try:
            exact = format_of(tensor.type)
        except ArcmtpError as error:
            raise self.error(f"tensor '{name}': {error}") from None
        if not large and self.gguf.in_bf16(tensor):
            exact = BF16
        form = format_of(tensor.type, self._requant) if large else exact
        return Segment(Matrix(form, n, k, 0, experts or 1), self.gguf, tensor, 0, requantised=form is not exact)

    def plain_matrix(self, name: str, n: int, k: int) -> Segment:
        """A matrix that must not be quantised."""
        segment = self.matrix(name, n, k, large=False)
        if segment.matrix.format.scheme is not Scheme.PLAIN:
            self._vector_type(segment.tensor)
        return segment

    def split_rows(
        self, fused: str, names: list[str], rows: list[int], k: int, experts: int | None = None
    ) -> list[Segment]:
        """Matrices from tensors of their own, or from the rows of one fused tensor if the file has that."""
        if fused not in self:
            return [self.matrix(name, n, k, experts) for name, n in zip(names, rows, strict=True)]
        whole = self.matrix(fused, sum(rows), k, experts)
        starts = np.cumsum([0, *rows[:-1]]).tolist()
        return [
            replace(whole, matrix=replace(whole.matrix, n=n), first_row=start)
            for n, start in zip(rows, starts, strict=True)
        ]

    def vector(self, name: str, *shape: int) -> Tensor:
        """A tensor of numbers that are float32 on the device."""
        tensor = self._tensor(name, shape)
        self._vector_type(tensor)
        made = self._arena.tensor(name, F32, *shape, kind=Kind.WEIGHTS)
        self.vectors.append((self.gguf, tensor, made))
        return made

    def error(self, message: str) -> ArcmtpError:
        """An error that names the file."""
        return ArcmtpError(f"{self.gguf.path}: {message}")

    def _vector_type(self, tensor: TensorInfo) -> None:
        if tensor.type not in VECTOR_TYPES:
            raise self.error(f"tensor '{tensor.name}' has type {tensor.type.name}, expected F32, F16 or BF16")

    def _tensor(self, name: str, *shapes: tuple[int, ...]) -> TensorInfo:
        tensor = self.gguf.tensors.get(name)
        if tensor is None:
            raise self.error(f"tensor '{name}' of shape {list(shapes[0])} is missing")
        if tensor.shape not in shapes:
            raise self.error(f"tensor '{name}' has shape {list(tensor.shape)}, expected {list(shapes[0])}")
        return tensor
