"""A model whose matrices are of every type that has a list of levels or few bits, against the same weights as F32."""

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from arcmtp import LLM, Generation
from arcmtp.gguf import GGUF
from scripts.make_random_model import write_model
from scripts.random_model.tensors import Geometry

SIZE = Geometry(
    layers=2, experts=4, experts_used=2, vocab=512, mtp=True, hidden=256, heads=4, kv_heads=1, head_dim=64,
    rope_dims=16, rope_sections=(3, 3, 2, 0), gdn_k_heads=2, gdn_v_heads=4, gdn_head_dim=64, expert_width=256,
    attention_interval=2,
)  # fmt: skip
TYPES = {
    "token_embd": Type.IQ3_S, "attn_qkv": Type.IQ4_XS, "attn_gate": Type.MXFP4,
    "ssm_out": Type.Q3_K, "ssm_beta": Type.BF16, "ssm_alpha": Type.Q2_K, "attn_q": Type.IQ1_S, "attn_k": Type.IQ1_M,
    "attn_v": Type.TQ2_0, "attn_output": Type.TQ1_0, "ffn_gate_exps": Type.IQ3_XXS, "ffn_up_exps": Type.IQ2_XXS,
    "ffn_down_exps": Type.IQ2_S, "ffn_gate_shexp": Type.IQ4_NL, "ffn_up_shexp": Type.IQ2_XS,
    "ffn_down_shexp": Type.Q2_K, "eh_proj": Type.IQ4_XS,
}  # fmt: skip
PROMPT = [int(token) for token in np.random.default_rng(1).integers(0, 256, 40)]


def write_twin(file: Path, twin: Path) -> None:
    """The same model with its matrices as float32."""
    write_model(twin, SIZE, Type.F32, Type.F32, seed=1)
    source, target = GGUF(file), GGUF(twin)
    with twin.open("r+b") as stream:
        for name, tensor in target.tensors.items():
            given = source.tensors[name]
            stream.seek(tensor.offset)
            rows = source.data(given).reshape(-1, given.row_bytes)
            stream.write(gguf.quants.dequantize(rows, Type(given.type)).astype(np.float32).tobytes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("types")
    write_model(made / "types.gguf", SIZE, Type.Q8_0, Type.IQ4_NL, seed=1, others=list(TYPES.items()))
    write_twin(made / "types.gguf", made / "twin.gguf")
    return made


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(folder / "types.gguf", device="cpu", ctx=64) as opened:
        yield opened


def generate(llm: LLM, draft: int) -> Generation:
    return llm.generate(PROMPT, max_tokens=8, logprobs=20, draft=draft)


def test_every_type_is_in_the_file(folder: Path) -> None:
    assert {tensor.type.name for tensor in GGUF(folder / "types.gguf").tensors.values()} == {
        "F32", *(kind.name for kind in TYPES.values()),
    }  # fmt: skip


def test_log_probabilities_are_those_of_the_weights_as_float32(llm: LLM, folder: Path) -> None:
    found = generate(llm, draft=0)
    with LLM(folder / "twin.gguf", device="cpu", ctx=64, draft=0) as twin:
        exact = twin.generate(PROMPT, max_tokens=1, logprobs=100)
    assert found.logprobs is not None and exact.logprobs is not None
    known = dict(exact.logprobs[0])
    off = [abs(known.get(token, -np.inf) - logprob) for token, logprob in found.logprobs[0]]
    assert np.mean(off) <= 0.03  # activations of 8 bits; the weights are exact


def test_drafts_change_no_bit(llm: LLM) -> None:
    plain, drafted = generate(llm, draft=0), generate(llm, draft=2)
    assert (plain.ids, plain.logprobs) == (drafted.ids, drafted.logprobs)
