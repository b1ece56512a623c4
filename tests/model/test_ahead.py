"""What launches ask memory for ahead of the launch that reads it."""

from dataclasses import replace
from itertools import pairwise

import pytest

from arcmtp.model.network import Network, NetworkOptions
from arcmtp.predict import card_on_paper
from arcmtp.predict.published import VOCAB_USED, published
from arcmtp.runtime.card import cards
from arcmtp.runtime.launch import ASK_BYTES, Launch
from arcmtp.runtime.tensor import Tensor

CARD = card_on_paper("arc-pro-b70")
MOST = CARD.card.geometry.ahead_kib << 10
CONTEXT = 32768


@pytest.fixture(scope="module")
def network() -> Network:
    config, file = published("qwen3.6-35b-a3b")
    # In 4 bits some weights are less than a launch asks for.
    options = NetworkOptions(CONTEXT, VOCAB_USED, mtp=file, requant="int4")
    return Network(file, config, options, CARD)


def tensor_of(launch: Launch, name: str) -> Tensor:
    """An argument."""
    tensor = launch.arguments[name]
    assert isinstance(tensor, Tensor)
    return tensor


@pytest.mark.parametrize("rows", [1, 4])
def test_a_later_launch_reads_what_is_asked_for(network: Network, rows: int) -> None:
    for launches in (network.plain_step(rows), network.plain_draft(1, rows), network.plain_draft(2, rows)):
        asked: dict[str, int] = {}  # bytes, by tensor
        for launch in launches:
            if launch.streams:
                weights = tensor_of(launch, launch.streams)
                assert launch.asked == asked.pop(weights.region.name, 0) <= weights.nbytes
            if launch.asks:
                ahead = tensor_of(launch, "ahead")
                assert ahead.offset == asked.get(ahead.region.name, 0)  # where the launch before ended
                assert 0 < launch.asks <= MOST and launch.asks % ASK_BYTES == 0
                asked[ahead.region.name] = ahead.offset + launch.asks
        assert not asked


def test_nearly_every_launch_of_a_step_asks(network: Network) -> None:
    silent = [launch.title for launch in network.plain_step() if not launch.asks]
    assert silent == 10 * ["mul_mat projections"] + ["mul_mat head", "sampling", "accept"]


def test_nothing_is_asked_for_that_attention_would_drive_out(network: Network) -> None:
    config, file = published("qwen3.6-35b-a3b")
    short = Network(file, config, NetworkOptions(1024, VOCAB_USED, mtp=file, requant="int4"), CARD)
    kernels = []
    for model, asks in ((network, False), (short, True)):
        made = model.plain_step()
        before = [launch for launch, later in pairwise(made) if later.operator == "attention"]
        assert len(before) == 10 and all(bool(launch.asks) is asks for launch in before)
        kernels.append([launch.kernel.name for launch in before])
    assert kernels[0] == kernels[1]


def test_prompts_and_devices_whose_profile_says_so_ask_for_nothing(network: Network) -> None:
    assert not any(launch.asks or launch.asked for launch in network.plain_chunk())
    assert cards()["cpu"].geometry.ahead_kib == 0
    config, file = published("qwen3.6-35b-a3b")
    silent = replace(CARD.card, geometry=replace(CARD.card.geometry, ahead_kib=0))
    paper = card_on_paper("arc-pro-b70")
    paper.card = silent
    made = Network(file, config, NetworkOptions(CONTEXT, VOCAB_USED, mtp=file), paper).plain_step()
    assert not any(launch.asks or launch.asked for launch in made)
