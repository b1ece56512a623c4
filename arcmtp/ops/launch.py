"""What all operators share."""

from collections.abc import Iterable
from dataclasses import dataclass

from arcmtp.formats.matrix import LANES, Matrix, Scheme
from arcmtp.runtime.launch import INT, Agreement, Argument, parameters, reads
from arcmtp.runtime.tensor import I32

MAX_ROWS = 8  # rows that a kernel can be compiled for; more are counted when it runs
STEP_ROWS = 32  # rows of a step of several sequences at most
CARRIED_ROWS = 64  # hidden rows of each sequence's latest positions that are kept: a power of two


@dataclass(frozen=True)
class Consumers:
    """In which forms the readers of an operator's rows want them: int8 activation rows, float32 rows, or both."""

    quantised: bool
    plain: bool

    @classmethod
    def of(cls, matrices: Iterable[Matrix]) -> "Consumers":
        """What products with `matrices` read."""
        plain = {matrix.format.scheme is Scheme.PLAIN for matrix in matrices}
        return cls(quantised=False in plain, plain=True in plain)

    @property
    def template(self) -> str:
        """The QUANTISED and PLAIN template arguments of a RowSink."""
        return f"{cpp_bool(self.quantised)}, {cpp_bool(self.plain)}"

    @property
    def suffix(self) -> str:
        """The part of a kernel's name that tells the forms."""
        return "q" * self.quantised + "f" * self.plain


@dataclass(frozen=True)
class Batch:
    """Which rows of a launch belong to which sequences: `size` sequences with as many rows each, row r of sequence u
    being row r * size + u. `slots` int32 [size]: the slot of each sequence."""

    size: int
    slots: Argument

    @property
    def arguments(self) -> dict[str, Argument]:
        """For a kernel with BATCH_PARAMETERS."""
        return {"batch_size": self.size, "slots": self.slots}


BATCH_PARAMETERS = parameters(batch_size=INT, slots=reads(I32))  # which make `Batch{batch_size, slots}` of batch.hpp


def cpp_bool(value: bool) -> str:
    """A C++ literal."""
    return "true" if value else "false"


def compiled_rows(rows: int) -> int:
    """The row count that a kernel is compiled for, or 0 if it is counted when it runs: any above MAX_ROWS, of which
    `rows` are the most, and 0, a prompt chunk."""
    return rows if rows <= MAX_ROWS else 0


def row_suffix(rows: int) -> str:
    """The part of a kernel's name that tells its row count: `r4`, or `chunk` when it is counted at run time."""
    return f"r{rows}" if compiled_rows(rows) else "chunk"


def segment(matrix: Matrix) -> str:
    """The C++ Segment of a matrix."""
    return f"Segment<{matrix.format.name}, {matrix.offset}, {matrix.tiles}>"


def matrices_agree(*matrices: Matrix) -> Agreement:
    """What formats.hpp must know of device formats as Python does: lanes, zero points, bytes of a column tile."""
    checks: dict[str, int] = {"LANES": LANES}
    for matrix in matrices:
        name = matrix.format.name
        if matrix.format.scheme is not Scheme.PLAIN:
            checks[f"{name}::ZERO"] = matrix.format.zero
        checks[f"tile_bytes<{name}, {matrix.k}>()"] = matrix.tile_bytes
    return tuple(checks.items())
