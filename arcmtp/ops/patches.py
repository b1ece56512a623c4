"""Products of prompt chunks on devices whose threads compute patches of rows × columns (sycl_kernels/patches.hpp)."""

from arcmtp.formats.matrix import LANES
from arcmtp.ops.launch import CHUNK_ROWS
from arcmtp.runtime.card import Geometry

GATE_UP_COLUMNS = 32  # of gate, and as many of up, that a thread computes: a group of activations
REGISTERS = 256  # of a thread: a patch of 16 rows × 64 columns and its sums take 128


def in_patches(rows: int, geometry: Geometry) -> bool:
    """Whether the kernel for `rows` rows is the one for prompt chunks (0 rows) of such a device."""
    return rows == 0 and geometry.prompt_rows > 0


def patch_tiles(tiles: int, geometry: Geometry) -> int:
    """Column tiles of a thread, where a matrix has so many: as patches.hpp finds them."""
    return next(n for n in range(geometry.prompt_columns // LANES, 0, -1) if tiles % n == 0)


def teams(threads: int, geometry: Geometry) -> int:
    """Work-groups of so many threads."""
    return -(-threads // geometry.prompt_team)


def row_patches(geometry: Geometry) -> int:
    """Patches of rows in a prompt chunk."""
    return -(-CHUNK_ROWS // geometry.prompt_rows)


def list_bytes(geometry: Geometry) -> int:
    """Team memory in which a work-group lists the rows of an expert: `ExpertEntries::BYTES`."""
    return -(-geometry.prompt_team * 4 // 64) * 64 + (CHUNK_ROWS + 16) * 4
