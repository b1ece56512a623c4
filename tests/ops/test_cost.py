"""Costs of launches are those of a hand count."""

from dataclasses import replace

from arcmtp.formats import matrix as formats
from arcmtp.formats.matrix import Matrix
from arcmtp.ops.attention import Attention, Columns, Heads
from arcmtp.ops.experts import ExpertsDown
from arcmtp.ops.launch import Batch, Consumers
from arcmtp.ops.mul_mat import MulMat
from arcmtp.runtime.launch import Work
from arcmtp.runtime.memory import Buffer
from tests.ops.conftest import cpu_device


def anything(names: str) -> dict[str, Buffer]:
    """Arguments of launches that never run."""
    return dict.fromkeys(names.split(), cpu_device().zeros(4))


def test_a_product_moves_its_weights_once_and_its_rows_each() -> None:
    op = MulMat([Matrix(formats.W4, 32, 64)], cpu_device().card.geometry)
    arguments = anything("weights quantised plain output row_count")
    weights, row = 32 * 64 // 2 + 32 * 2 * 2, 64 + 2 * 4 + 4 * 4 + 32 * 4  # codes, scales, sums; results
    for rows in (1, 3):
        told, counted = op.launch(rows, **arguments), op.launch(0, **arguments)
        assert told.cost(Work(0, 0, 0)) == counted.cost(Work(rows, 0, 0))
        assert told.cost(Work(0, 0, 0)).nbytes == weights + rows * row
        assert told.cost(Work(0, 0, 0)).operations == 2 * rows * 32 * 64


def test_experts_are_counted_once_however_many_rows_choose_them() -> None:
    down, shared = Matrix(formats.W4, 32, 64, experts=8), Matrix(formats.W4, 32, 64)
    launch = ExpertsDown(down, shared, 2, cpu_device().card.geometry).launch(
        4,
        **anything("weights shared_weights hidden_quantised hidden_plain shared_quantised shared_plain"),
        **anything("selected slot_weights partials row_count"),
    )
    apart, together = launch.cost(Work(4, 0, experts=8)), launch.cost(Work(4, 0, experts=2))
    assert apart.nbytes - together.nbytes == 6 * shared.nbytes
    assert apart.operations == together.operations == 2 * 4 * (2 + 1) * 32 * 64
    assert apart.nbytes - launch.cost(Work(4, 0, experts=5.5)).nbytes == 2.5 * shared.nbytes


def test_attention_reads_the_cache_once_and_each_row_sees_its_own_keys() -> None:
    columns, consumers = Columns(1024, 512, 768), Consumers(quantised=False, plain=True)
    op = Attention(Heads(4, 2, 64, 64), columns, 1e-6, consumers, cpu_device().card.geometry)
    inputs, out = anything("projected q_norm k_norm rope positions caches"), anything("quantised plain")
    sequences, scratch, count = Batch(1, cpu_device().zeros(4)), anything("partials counters"), anything("row_count")
    one, two = (op.step(rows, sequences, 256, **inputs, **scratch, **out) for rows in (1, 2))
    near, far = one.cost(Work(1, 100, 0)), one.cost(Work(1, 200, 0))
    assert far.nbytes - near.nbytes == 100 * 2 * 2 * 64 * 2
    assert far.operations - near.operations == 100 * 4 * 4 * 64
    of_two = two.cost(Work(2, 200, 0))
    assert of_two.operations == far.operations + one.cost(Work(1, 199, 0)).operations
    of_chunk = [op.store(0, sequences, 256, **inputs, **count), op.chunk(sequences, 256, **inputs, **count, **out)]
    both = of_chunk[0].cost(Work(2, 200, 0)) + of_chunk[1].cost(Work(2, 200, 0))
    folded = 2 * 4 * 4  # of 2 rows and 4 heads those of 200 keys: a step has more to do, and moves no more
    assert of_two == replace(both, units={**both.units, "f16 splits": folded})
