"""Labels say of every launch which operator it is, and costs are those of a hand count."""

import pytest

from arcmtp import LLM
from arcmtp.formats import matrix as formats
from arcmtp.formats.matrix import Matrix
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.network import Network
from arcmtp.ops.attention import Attention, Columns
from arcmtp.ops.experts import ExpertsDown
from arcmtp.ops.launch import Consumers
from arcmtp.ops.mul_mat import MulMat
from arcmtp.profile.launches import Work, labels
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.device import Device

OPERATORS = {
    "accept", "attention", "attention_store", "carry_hidden", "draft_input", "embedding", "experts_down",
    "experts_gate_up", "gated_delta_net", "mul_mat", "norm", "router", "sampling",
}  # fmt: skip


@pytest.fixture(scope="module")
def network() -> Network:
    return LLM(device="cpu", ctx=64, draft=2, graphs=False).network


@pytest.fixture(scope="module")
def geometry() -> Geometry:
    return Device("cpu").card.geometry


def operator_of(kernel: str) -> str:
    """The longest operator that the name begins with."""
    return max((operator for operator in OPERATORS if kernel.startswith(operator + "_")), key=len)


@pytest.mark.parametrize("draft", [0, 1, 2])
def test_every_launch_has_the_label_of_its_kernel(network: Network, draft: int) -> None:
    rows = draft + 1
    pieces = [network.first(SamplingMode()), network.step(rows, SamplingMode())]
    pieces += [network.draft(index, rows, SamplingMode()) for index in range(1, rows)]
    named = {**{piece.name: piece.launches for piece in pieces}, "block": network.block()}
    found = labels(network, draft)
    assert found.keys() == named.keys()
    for name, launches in named.items():
        work = Work(rows, 40, [4] * len(network.layers))
        assert [label.operator for label in found[name](work)] == [operator_of(kernel) for kernel in launches.names()]


def test_layers_are_numbered_and_of_their_kind(network: Network) -> None:
    step = list(labels(network, 0)["step of 1"](Work(1, 1, [4] * len(network.layers))))
    assert {label.layer: label.kind for label in step if label.layer is not None} == dict(
        enumerate(network.config.layer_kinds)
    )
    mixers = {label.operator: label.kind for label in step if label.operator in ("attention", "gated_delta_net")}
    assert mixers == {"attention": "attention", "gated_delta_net": "gdn"}


def test_a_product_moves_its_weights_once_and_its_rows_each(geometry: Geometry) -> None:
    op = MulMat([Matrix(formats.W4, 32, 64)], geometry)
    weights, row = 32 * 64 // 2 + 32 * 2 * 2, 64 + 2 * 4 + 4 * 4 + 32 * 4  # codes, scales, sums; results
    assert [op.cost(rows).nbytes for rows in (1, 3)] == [weights + row, weights + 3 * row]
    assert op.cost(3).operations == 2 * 3 * 32 * 64


def test_experts_are_counted_once_however_many_rows_choose_them(geometry: Geometry) -> None:
    down, shared = Matrix(formats.W4, 32, 64, experts=8), Matrix(formats.W4, 32, 64)
    op = ExpertsDown(down, shared, 2, geometry)
    apart, together = op.cost(4, experts=8), op.cost(4, experts=2)
    assert apart.nbytes - together.nbytes == 6 * shared.nbytes
    assert apart.operations == together.operations == 2 * 4 * (2 + 1) * 32 * 64


def test_attention_reads_the_cache_once_and_each_row_sees_its_own_keys(geometry: Geometry) -> None:
    op = Attention(4, 2, 64, 64, Columns(1024, 512, 768), 1e-6, Consumers(quantised=False, plain=True), geometry)
    (near,), (far,) = op.costs(1, 100), op.costs(1, 200)
    assert far.nbytes - near.nbytes == 100 * 2 * 2 * 64 * 2
    assert far.operations - near.operations == 100 * 4 * 4 * 64
    (two,) = op.costs(2, 200)
    assert two.operations == far.operations + op.costs(1, 199)[0].operations
    assert sum((cost.operations for cost in op.costs(2, 200, block=True)), 0) == two.operations
