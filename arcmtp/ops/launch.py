"""What all launchers share."""

MAX_ROWS = 8  # rows that a kernel can be compiled for; more are counted when it runs
BLOCK_ROWS = 512  # rows of a prompt block


def row_suffix(rows: int) -> str:
    """The part of a kernel's name that tells its row count: `r4`, or `block` when it is counted at run time."""
    return f"r{rows}" if rows else "block"
