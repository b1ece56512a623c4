"""What a launch must do at least: the measure that its time is held against.

Bytes are weights, caches and state that it uses, each once, and the rows that it reads and writes; scratch memory is
not counted. Operations are multiplications and additions of the algorithm, whatever their type; exp and sqrt are one.
"""

import math

from arcmtp.formats.activations import row_bytes
from arcmtp.formats.matrix import Matrix
from arcmtp.ops.launch import MAX_ROWS, Consumers
from arcmtp.runtime.launch import Cost

DEPTH = 32  # inputs of a dpas


def consumed_bytes(consumers: Consumers, k: int) -> int:
    """Bytes of a row of k values in the forms that its readers want, with one copy of int8 codes."""
    return row_bytes(k, orders=1) * consumers.quantised + 4 * k * consumers.plain


def product_cost(matrix: Matrix, rows: int, experts: float = 1) -> Cost:
    """Weights and operations of `rows` rows, each times one of `experts` different matrices of a stack.

    Its units are passes over tiles of 16 columns and 32 inputs, which dpas multiplies with up to 8 rows.
    """
    passes = experts * matrix.tiles * -(-matrix.k // DEPTH) * math.ceil(rows / max(experts, 1) / MAX_ROWS)
    nbytes = int(experts * matrix.tiles * matrix.tile_bytes)
    return Cost(nbytes, 2 * rows * matrix.n * matrix.k, {matrix.format.name: passes})
