"""A layer of each kind with the shapes of Qwen3.6-35B-A3B or the heads of Qwen3.6-27B, an MTP block and the head, of
random weights."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from gguf import GGMLQuantizationType as Type

from arcmtp.runtime.device import Device
from scripts.make_random_model import write_model
from scripts.random_model.tensors import DENSE, MOE, Others
from tests.battlemage.pair import Pair

pytestmark = pytest.mark.emulated
# A gated delta net and attention; of the vocabulary a slice.
SIZE = replace(MOE, layers=2, attention_interval=2, experts=256, vocab=8192, mtp=True)
# A quarter of the width, with which a step's work and time grow and its kinds of kernels do not.
DENSE_SIZE = replace(DENSE, layers=2, attention_interval=2, vocab=8192, mtp=True, hidden=1280, dense_width=4352)
# As in the file that unsloth publishes as UD-Q4_K_M, Q6_K experts too, which only some of its layers have.
UD_Q4_K_M: Others = (
    ("blk.1.ffn_down_exps", Type.Q6_K),
    ("ffn_down_exps", Type.Q5_K),
    ("ffn_gate_exps", Type.Q4_K),
    ("ffn_up_exps", Type.Q4_K),
    ("ssm_alpha", Type.F32),
    ("ssm_beta", Type.F32),
)
FILES = {
    "q4_0": (SIZE, Type.Q4_0, ()),
    "ud-q4_k_m": (SIZE, Type.Q8_0, UD_Q4_K_M),
    "qwen35": (DENSE_SIZE, Type.Q4_0, ()),
}


@pytest.fixture(scope="module", params=FILES)
def pair(
    request: pytest.FixtureRequest, emulated_card: Device, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    path = tmp_path_factory.mktemp("real") / "layers.gguf"
    size, kind, others = FILES[request.param]
    write_model(path, size, kind, Type.Q6_K, 5, others)
    pair = Pair(emulated_card, path, ctx=64, draft=3)
    path.unlink()  # up to 1.4 GB, and pytest keeps the folders of three runs
    yield pair
    pair.close()


def test_logits_of_a_prompt_chunk_and_of_steps(pair: Pair) -> None:
    ids = list(range(100, 140))
    pair.start()
    pair.chunk(ids[:24])
    pair.step(ids[24:25])
    pair.step(ids[25:27])
    pair.step(ids[27:31], accepted=1)
    pair.step(ids[28:32])


@pytest.mark.parametrize(
    "graphs", [pytest.param(False, id="launches"), pytest.param(True, id="graphs", marks=pytest.mark.nightly)]
)
def test_tokens_and_drafts(pair: Pair, monkeypatch: pytest.MonkeyPatch, graphs: bool) -> None:
    monkeypatch.setattr(pair.card.network.stage.graphs, "enabled", graphs)
    pair.generate(list(range(300, 324)), max_tokens=6, draft=3, logprobs=3)
