"""The hyperparameters that files of both architectures yield, and files that cannot run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from arcmtp.errors import ArcmtpError
from arcmtp.gguf import GGUF
from arcmtp.model.config import Config
from scripts.make_random_model import write_model
from scripts.random_model.tensors import DENSE, Geometry

TINY = Path(__file__).parents[1] / "data/tiny-qwen36moe-f16.gguf"
SMALL_DENSE = replace(
    DENSE, layers=2, attention_interval=2, vocab=263, hidden=256, heads=2, kv_heads=1, head_dim=64, rope_dims=16,
    gdn_k_heads=2, gdn_v_heads=6, gdn_head_dim=32, dense_width=512,
)  # fmt: skip


def tiny_metadata(changes: dict[str, Any]) -> GGUF:
    """The f16 test file with metadata changed; None removes a key."""
    return changed(GGUF(TINY), changes)


def changed(file: GGUF, changes: dict[str, Any]) -> GGUF:
    merged = dict(file.metadata) | changes
    file.metadata = {key: value for key, value in merged.items() if value is not None}
    return file


def dense_metadata(folder: Path, changes: dict[str, Any], size: Geometry = SMALL_DENSE) -> GGUF:
    """A `qwen35` file with metadata changed; None removes a key."""
    path = folder / "dense.gguf"
    if not path.exists():
        write_model(path, size, Type.Q4_0, Type.Q4_0, 1)
    return changed(GGUF(path), changes)


def test_the_hyperparameters_of_the_tiny_model_are_read() -> None:
    config = Config.from_gguf(GGUF(TINY))
    assert config.architecture == "qwen35moe"
    assert config.layer_kinds == ("gdn", "gdn", "gdn", "attention") * 2
    assert (config.hidden, config.layers, config.mtp_layers, config.vocab) == (256, 8, 1, 6144)
    assert (config.q_heads, config.kv_heads, config.head_dim, config.rope_dim, config.rope_theta) == (4, 1, 64, 16, 1e7)
    assert (config.gdn_k_heads, config.gdn_v_heads, config.gdn_k_dim, config.gdn_v_dim) == (2, 4, 64, 64)
    assert (config.gdn_channels, config.conv_kernel, config.context_length) == (512, 4, 4096)
    assert (config.experts, config.experts_used, config.expert_ffn, config.shared_ffn, config.ffn) == (
        6,
        2,
        256,
        256,
        0,
    )
    assert config.rms_eps == pytest.approx(1e-6)


def test_the_hyperparameters_of_a_dense_model_are_read(tmp_path: Path) -> None:
    size = replace(DENSE, layers=2, attention_interval=2, vocab=263, mtp=True)
    config = Config.from_gguf(dense_metadata(tmp_path, {}, size))
    assert (config.architecture, config.layer_kinds, config.mtp_layers) == ("qwen35", ("gdn", "attention"), 1)
    assert (config.hidden, config.ffn, config.vocab) == (5120, 17_408, 263)
    assert (config.q_heads, config.kv_heads, config.head_dim, config.rope_dim) == (24, 4, 256, 64)
    assert (config.gdn_k_heads, config.gdn_v_heads, config.gdn_k_dim, config.gdn_v_dim) == (16, 48, 128, 128)
    assert (config.experts, config.experts_used, config.expert_ffn, config.shared_ffn) == (0, 0, 0, 0)
    per_layer = {"qwen35.feed_forward_length": np.full(3, 17_408, np.uint32), "qwen35.expert_count": 0}
    assert Config.from_gguf(dense_metadata(tmp_path, per_layer, size)) == config


def test_variants_of_the_metadata_give_the_same_hyperparameters() -> None:
    plain = Config.from_gguf(GGUF(TINY))
    recurrent = np.array([True, True, True, False, True, True, True, False, False])
    variants: list[dict[str, Any]] = [
        {"qwen35moe.attention.head_count_kv": np.array([0, 0, 0, 1, 0, 0, 0, 1, 1], np.int32)},
        {"qwen35moe.expert_feed_forward_length": np.full(9, 256, np.uint32)},
        {"qwen35moe.attention.recurrent_layers": recurrent, "qwen35moe.full_attention_interval": 2},
        {"qwen35moe.full_attention_interval": None},
        {"qwen35moe.rope.scaling.type": "none", "qwen35moe.ssm.v_head_reordered": True},
        {"qwen35moe.attention.value_length": None},
        {"qwen35moe.embedding_length": 256.0},
    ]
    for variant in variants:
        assert Config.from_gguf(tiny_metadata(variant)) == plain, variant


def test_without_nextn_predict_layers_every_block_is_a_trunk_layer() -> None:
    config = Config.from_gguf(tiny_metadata({"qwen35moe.nextn_predict_layers": None}))
    assert (config.layers, config.mtp_layers) == (9, 0)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("general.architecture", "qwen3", "is architecture 'qwen3'; arcmtp runs 'qwen35moe' and 'qwen35'"),
        ("general.architecture", None, "is architecture None; arcmtp runs 'qwen35moe' and 'qwen35'"),
        ("general.architecture", np.array([1, 2]), "is architecture an array of 2; arcmtp runs 'qwen35moe'"),
        ("general.architecture", ["qwen35moe"], "is architecture an array of 1; arcmtp runs 'qwen35moe' and 'qwen35'"),
        ("general.architecture", "qwen35", "'qwen35.block_count' is missing"),
        ("qwen35moe.expert_count", None, "'qwen35moe.expert_count' is missing"),
        ("qwen35moe.embedding_length", None, "'qwen35moe.embedding_length' is missing"),
        ("qwen35moe.embedding_length", "256", "is '256', expected a number"),
        ("qwen35moe.embedding_length", True, "is True, expected a number"),
        ("qwen35moe.embedding_length", 0, "is 0, expected an integer from 1 to"),
        ("qwen35moe.embedding_length", float("nan"), "is nan, expected an integer"),
        ("qwen35moe.embedding_length", 250, "embedding_length is 250; arcmtp runs multiples of 32"),
        ("qwen35moe.block_count", 1 << 31, "expected an integer from 1 to 1024"),
        ("qwen35moe.nextn_predict_layers", 9, "expected an integer from 0 to 8"),
        ("qwen35moe.attention.head_count_kv", np.array([1, 2]), r"has the values \[1, 2\], expected one for all"),
        ("qwen35moe.attention.head_count_kv", 3, "attention.head_count is 4; arcmtp runs multiples of 3"),
        ("qwen35moe.attention.value_length", 32, "value_length is 32, expected key_length 64"),
        ("qwen35moe.attention.recurrent_layers", np.array([True]), "is not an array of 9 flags"),
        ("qwen35moe.rope.dimension_count", 24, "dimension_count is 24; arcmtp runs 16 and multiples of 32"),
        ("qwen35moe.rope.dimension_count", 128, "dimension_count is 128, expected at most key_length 64"),
        ("qwen35moe.rope.freq_base", 0.0, "freq_base' is 0.0, expected a positive number"),
        ("qwen35moe.rope.scaling.type", "yarn", "rope.scaling.type is 'yarn'; arcmtp runs unscaled RoPE"),
        ("qwen35moe.rope.scaling.type", np.array([1, 2]), "rope.scaling.type is an array of 2; arcmtp runs"),
        ("qwen35moe.rope.scaling.type", ["none"], "rope.scaling.type is an array of 1; arcmtp runs"),
        ("qwen35moe.rope.scaling.type", "\x1b[2J" + "x" * 999, r"is '\\x1b\[2Jx{56}'… \(1003 characters\); arcmtp"),
        ("qwen35moe.rope.scaling.factor", np.array([1.0, 1.0]), "rope.scaling.factor is an array of 2; arcmtp runs"),
        ("qwen35moe.rope.scaling.factor", 4.0, "rope.scaling.factor is 4.0; arcmtp runs unscaled RoPE"),
        ("qwen35moe.ssm.conv_kernel", 3, "conv_kernel is 3; arcmtp runs 4"),
        ("qwen35moe.ssm.inner_size", 255, "inner_size 255 is not a multiple of ssm.time_step_rank 4"),
        ("qwen35moe.ssm.group_count", 3, "time_step_rank is 4; arcmtp runs multiples of 3"),
        ("qwen35moe.ssm.v_head_reordered", False, "v_head_reordered is false"),
        ("qwen35moe.expert_used_count", 7, "expert_used_count is 7, expected at most expert_count 6"),
        ("tokenizer.ggml.tokens", ["x"] * 6145, "6145 tokens, 'token_embd.weight' only 6144 rows"),
    ],
)
def test_hyperparameters_that_cannot_run_are_refused_by_name(key: str, value: Any, message: str) -> None:
    with pytest.raises(ArcmtpError, match=message) as caught:
        Config.from_gguf(tiny_metadata({key: value}))
    assert str(TINY) in str(caught.value) and "\n" not in str(caught.value)


def test_heads_that_the_kernels_do_not_run_are_refused() -> None:
    sizes = {"qwen35moe.attention.key_length": 48, "qwen35moe.attention.value_length": 48}
    with pytest.raises(ArcmtpError, match=r"attention\.key_length is 48; arcmtp runs multiples of 32"):
        Config.from_gguf(tiny_metadata(sizes))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("qwen35.feed_forward_length", None, "'qwen35.feed_forward_length' is missing"),
        ("qwen35.feed_forward_length", 500, "feed_forward_length is 500; arcmtp runs multiples of 32"),
        (
            "qwen35.feed_forward_length",
            np.array([512, 256]),
            r"'qwen35.feed_forward_length' has the values \[256, 512\]",
        ),
        ("qwen35.expert_count", 8, "'qwen35.expert_count' is 8; architecture 'qwen35' has no experts"),
        ("qwen35.expert_feed_forward_length", np.array([64, 64]), "expert_feed_forward_length' is .*no experts"),
        ("general.architecture", "qwen35moe", "'qwen35moe.block_count' is missing"),
    ],
)
def test_a_dense_file_that_cannot_run_is_refused_by_name(tmp_path: Path, key: str, value: Any, message: str) -> None:
    file = dense_metadata(tmp_path, {key: value})
    with pytest.raises(ArcmtpError, match=message) as caught:
        Config.from_gguf(file)
    assert str(file.path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["ffn_gate_inp", "ffn_gate_inp_shexp", "ffn_down_exps", "ffn_gate_up_exps", "ffn_up_shexp"]
)
def test_a_dense_file_with_tensors_of_experts_is_refused_by_name(tmp_path: Path, name: str) -> None:
    file = dense_metadata(tmp_path, {})
    extra = f"blk.1.{name}.weight"
    file.tensors = {**file.tensors, extra: file.tensors["output_norm.weight"]}
    with pytest.raises(ArcmtpError, match=f"tensor '{extra}' is of experts; architecture 'qwen35' has no experts"):
        Config.from_gguf(file)
