"""Routers in F32 whose numbers BF16 has are kept as BF16, and no bit of a result differs."""

from pathlib import Path

import numpy as np
import pytest

from arcmtp import LLM
from arcmtp.engine.llm import bundled_model
from arcmtp.gguf import GGUF
from tests.engine.conftest import CONTEXT, Feeder

LENGTH, ROUTERS = 60, ("ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight")


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, whose routers have numbers of BF16 alone, as those of published models have."""
    path = tmp_path_factory.mktemp("bf16") / "exact.gguf"
    content = np.fromfile(bundled_model(), np.uint8)
    for tensor in GGUF(bundled_model()).tensors.values():
        if tensor.name.endswith(ROUTERS):
            content[tensor.offset : tensor.offset + tensor.nbytes].view("<u4")[...] &= np.uint32(0xFFFF0000)
    content.tofile(path)
    return path


def evaluated(path: Path, ids: list[int]) -> tuple[set[str], list[np.ndarray]]:
    """Formats of the routers; logits of a prompt and of steps of 1 to 8 rows, and ids and log-probabilities."""
    with LLM(path, device="cpu", ctx=CONTEXT, draft=2) as llm:
        routers = (merged for merged in llm.network.weights.merged if merged.tensor.name.endswith("router"))
        formats = {matrix.format.name for merged in routers for matrix in merged.matrices}
        feeder = Feeder(llm.network)
        logits = [feeder.chunk(ids[:20])]
        for rows, at in ((1, 20), (2, 21), (3, 23), (5, 26), (8, 31), (1, 39)):
            logits.append(feeder.step(ids[at : at + rows]))
        llm.new_sequence()
        written = llm.generate(llm.detokenize(ids), max_tokens=24)
        return formats, [*logits, np.array([*written.ids, *written.token_logprobs])]


def test_results_are_those_of_f32_to_the_bit(exact: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with LLM(device="cpu", ctx=CONTEXT) as llm:
        ids = llm.tokenize(text)[:LENGTH]
    narrow, found = evaluated(exact, ids)
    monkeypatch.setattr(GGUF, "in_bf16", lambda file, tensor: False)
    wide, expected = evaluated(exact, ids)
    assert (narrow, wide) == ({"BF16"}, {"F32"})
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
