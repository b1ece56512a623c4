"""Launch lists of steps and draft calls, before anything is compiled."""

import pytest

from arcmtp.model.network import Network, NetworkOptions
from arcmtp.ops.launch import MAX_ROWS
from arcmtp.predict import card_on_paper
from arcmtp.predict.published import VOCAB_USED, published
from arcmtp.runtime.launch import Launch
from arcmtp.runtime.tensor import Tensor


@pytest.fixture(scope="module")
def network() -> Network:
    config, file = published("qwen3.6-35b-a3b")
    return Network(file, config, NetworkOptions(1024, VOCAB_USED, mtp=file), card_on_paper("arc-pro-b70"))


def normed(launch: Launch) -> str:
    """The weight of the norm that a launch ends with, or ""."""
    weight = launch.arguments.get("then_weight")
    return weight.name if isinstance(weight, Tensor) else ""


def test_of_one_row_on_a_gpu_experts_norm_it_for_what_follows(network: Network) -> None:
    launches = network.plain_step()
    assert [launch.operator for launch in launches].count("norm") == 1  # behind the embedding
    weights = [normed(launch) for launch in launches if launch.operator == "experts_down"]
    assert weights == [*(f"blk.{layer}.attn_norm.weight" for layer in range(1, 40)), "output_norm.weight"]
    for index in (1, 2):
        draft = [normed(launch) for launch in network.plain_draft(index) if launch.operator == "experts_down"]
        assert draft == ["blk.40.nextn.shared_head_norm.weight"]


@pytest.mark.parametrize("rows", [2, MAX_ROWS])
def test_several_rows_have_launches_of_their_own_for_norms(network: Network, rows: int) -> None:
    launches = network.plain_step(rows)
    assert [launch.operator for launch in launches].count("norm") == 41
    assert not any(map(normed, launches))

