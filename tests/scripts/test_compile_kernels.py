"""The shapes and type mixes whose kernels are compiled for Battlemage."""

from collections import Counter
from dataclasses import replace

import pytest
from gguf import GGMLQuantizationType as Type

from arcmtp.formats.matrix import Requant
from arcmtp.model.config import Config
from arcmtp.predict.published import unsloth_mxfp4_moe, unsloth_q4_k_s, unsloth_q4_k_xl, unsloth_q6_k_xl
from arcmtp.runtime.card import cards
from arcmtp.runtime.device import Device
from scripts.battlemage.compile_kernels import FILES, SLOTS, all_kernels, of_some_tokens
from scripts.battlemage.models import DENSE, MOE, Header, Mix, network, stock_q4_0, unsloth_q4_k_m
from scripts.random_model.tensors import FULL, inventory

B70 = cards()["arc-pro-b70"]


@pytest.mark.parametrize("config", [MOE, DENSE], ids=lambda config: config.architecture)
def test_the_stock_mix_is_the_full_random_model(config: Config) -> None:
    ours = {tensor.name: (tensor.shape, tensor.type.name) for tensor in Header(config, stock_q4_0).tensors.values()}
    theirs = inventory(replace(FULL[config.architecture], mtp=True), Type.Q4_0, Type.Q6_K)
    assert ours == {tensor.name: (tensor.shape, tensor.type.name) for tensor in theirs}


@pytest.mark.parametrize(
    ("mix", "nbytes", "types"),
    [
        (unsloth_q4_k_m, 22_663_387_424, {"F32": 368, "Q8_0": 259, "Q4_K": 82, "Q5_K": 38, "Q6_K": 4, "BF16": 2}),
        (unsloth_q4_k_xl, 22_853_663_008, {"F32": 368, "Q8_0": 260, "Q4_K": 80, "Q5_K": 40, "Q6_K": 3, "BF16": 2}),
        (unsloth_q6_k_xl, 32_611_711_264, {"F32": 368, "Q8_0": 303, "Q6_K": 80, "BF16": 2}),
        (unsloth_q4_k_s, 21_388_319_008, None),
        (unsloth_mxfp4_moe, 22_182_574_368, None),
    ],
)
def test_the_unsloth_mixes_are_the_published_files(mix: Mix, nbytes: int, types: dict[str, int] | None) -> None:
    """Sizes are those of huggingface.co/unsloth/Qwen3.6-35B-A3B-MTP-GGUF, whose files have metadata of one length."""
    tensors = Header(MOE, mix).tensors.values()
    assert nbytes - sum(tensor.nbytes for tensor in tensors) == 10_991_392
    assert types is None or types == Counter(tensor.type.name for tensor in tensors)


@pytest.mark.parametrize(
    ("mix", "types"),
    [
        (unsloth_q4_k_s, {"F32": 361, "Q8_0": 251, "Q4_K": 117, "Q6_K": 4}),
        (unsloth_mxfp4_moe, {"F32": 361, "Q8_0": 252, "MXFP4": 78, "Q5_K": 39, "Q6_K": 3}),  # published: 38 and 4
    ],
)
def test_the_unsloth_mixes_without_mtp_block(mix: Mix, types: dict[str, int]) -> None:
    tensors = Header(MOE, mix).tensors.values()
    assert types == Counter(tensor.type.name for tensor in tensors if not tensor.name.startswith("blk.40."))


def test_the_unsloth_mix_of_6_bits_has_the_published_expert_matrices() -> None:
    """Of github.com/nixabe/llmxabe, docs/MODEL.md: gate, up and down of blocks 0 to 38, 39 and 40."""
    tensors = Header(MOE, unsloth_q6_k_xl).tensors
    parts = ("gate", "up", "down")
    found = [" ".join(tensors[f"blk.{n}.ffn_{part}_exps.weight"].type.name for part in parts) for n in range(41)]
    assert found == [*["Q6_K Q6_K Q8_0"] * 39, "Q8_0 Q8_0 Q8_0", "Q6_K Q6_K Q8_0"]


@pytest.mark.parametrize("slots", [1, SLOTS])
@pytest.mark.parametrize("rows", [1, 4, 0])
@pytest.mark.parametrize(("config", "mix", "requant"), FILES)
def test_kernels_of_one_name_are_one_kernel(
    config: Config, mix: Mix, requant: Requant | None, rows: int, slots: int
) -> None:
    kernels = set(all_kernels(network(Device("cpu", B70), config, mix, requant, slots), rows))
    assert len(kernels) == len({kernel.name for kernel in kernels})


def test_drafts_of_some_tokens_have_kernels_of_their_own() -> None:
    device = Device("cpu", B70)
    made = [kernel.name for kernel in all_kernels(of_some_tokens(device), 1)]
    others = {kernel.name for file in FILES for kernel in all_kernels(network(device, *file), 1)}
    of_drafts = {"sampling_65536_of_65536_of_248320_r1", "mul_mat_2048_w4x4096_r1"}
    assert len(made) == len({*made}) and of_drafts <= {*made} - others, {*made} - others


def test_what_several_sequences_need_besides_is_drafts_of_all_and_steps_of_any_row_count() -> None:
    one, several = (network(Device("cpu", B70), MOE, stock_q4_0, slots=slots) for slots in (1, SLOTS))
    more = {rows: {*all_kernels(several, rows)} - {*all_kernels(one, rows)} for rows in (1, SLOTS, 0)}
    assert not more[1]
    assert {"draft_input_w4_2048_q_draft_r4_asks"} <= {kernel.name for kernel in more[SLOTS]}
    heads = {"norm_2048_9_gather_qf_chunk_asks", "draft_input_w4_2048_q_step_chunk_asks"}
    assert {*heads, "sampling_248077_of_248320_chunk"} <= {kernel.name for kernel in more[0]}
