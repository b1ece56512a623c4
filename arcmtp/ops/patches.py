"""Products of prompt chunks on devices whose threads compute patches of rows × columns (sycl_kernels/patches.hpp)."""

from arcmtp.formats.matrix import LANES, Matrix, Scheme
from arcmtp.runtime.card import Geometry

GATE_UP_COLUMNS = 32  # of gate, and as many of up, that a thread computes: a group of activations
REGISTERS = 256  # of a thread: a patch of 16 rows × 64 columns and its sums take 128


def in_patches(rows: int, geometry: Geometry) -> bool:
    """Whether the kernel for `rows` rows is the one for prompt chunks (0 rows) of such a device."""
    return rows == 0 and geometry.prompt_rows > 0


def patch_tiles(geometry: Geometry, tiles: int, *matrices: Matrix) -> int:
    """Column tiles of a thread where the matrices have so many: a number that divides them.

    Half of `prompt_columns` where registers are needed for codes that are neither weights as they are nor with a sign.
    One where all are floats: their tiles share no loads, and a thread of several would be a launch's longest.
    """
    if all(matrix.format.scheme is Scheme.PLAIN for matrix in matrices):
        return 1
    most = geometry.prompt_columns // LANES // (1 if all(map(_are_weights, matrices)) else 2)
    return next(n for n in range(most, 0, -1) if tiles % n == 0)


def _are_weights(matrix: Matrix) -> bool:
    """Whether dpas takes a matrix's codes with nothing to start from, and one scale of a column for its 32 inputs."""
    form = matrix.format
    if form.scheme is Scheme.PLAIN:
        return True
    signed = form.bits in (4, 8) and form.zero == 1 << form.bits - 1
    halves = form.scheme in (Scheme.SUPER16, Scheme.SUPER16_MIN)
    return not form.levels and not halves and (signed or form.zero == 0)


def segment_tiles(geometry: Geometry, matrix: Matrix) -> int:
    """`patch_tiles` of a MUL_MAT's segment."""
    return patch_tiles(geometry, matrix.tiles, matrix)


def teams(threads: int, geometry: Geometry) -> int:
    """Work-groups of so many threads."""
    return -(-threads // geometry.prompt_team)


def gate_up_rows(geometry: Geometry, *matrices: Matrix) -> int:
    """Rows of a thread that multiplies by gate and by up: 8, dpas' most, where codes need registers too."""
    return geometry.prompt_rows if all(map(_are_weights, matrices)) else 8


def row_patches(rows: int, geometry: Geometry) -> int:
    """Patches of so many rows in a prompt chunk."""
    return -(-geometry.chunk_rows // rows)


def list_bytes(geometry: Geometry) -> int:
    """Team memory in which a work-group lists the rows of an expert: `ExpertEntries::BYTES`."""
    return -(-geometry.prompt_team * 4 // 64) * 64 + (geometry.chunk_rows + 16) * 4
