import hashlib
import subprocess
import sys
from dataclasses import replace
from math import prod
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from arcmtp.gguf import GGUF
from arcmtp.model.chat import ChatTemplate
from arcmtp.model.tokenizer import Tokenizer
from scripts.make_random_model import main, write_model
from scripts.random_model.tensors import FULL, Geometry, inventory
from scripts.random_model.weights import MATRIX, Bits, default_output_type

SMALL = Geometry(
    layers=4,
    experts=16,
    vocab=512,
    hidden=256,
    heads=4,
    kv_heads=1,
    head_dim=64,
    rope_dims=16,
    rope_sections=(3, 3, 2, 0),
    gdn_k_heads=2,
    gdn_v_heads=4,
    gdn_head_dim=64,
    expert_width=256,
)
SMALL_DENSE = replace(SMALL, experts=0, experts_used=0, gdn_v_heads=6, dense_width=512)
EXPERTS = {
    "ffn_gate_inp.weight",
    "ffn_gate_inp_shexp.weight",
    *(f"ffn_{part}_{kind}.weight" for part in ("gate", "up", "down") for kind in ("exps", "shexp")),
}
DENSE = {f"ffn_{part}.weight" for part in ("gate", "up", "down")}
NORMS = {"attn_norm.weight", "post_attention_norm.weight"}
GDN = {"attn_qkv.weight", "attn_gate.weight", "ssm_alpha.weight", "ssm_beta.weight", "ssm_out.weight"}
GDN |= {"ssm_conv1d.weight", "ssm_a", "ssm_dt.bias", "ssm_norm.weight"}
ATTENTION = {f"attn_{part}.weight" for part in ("q", "k", "v", "output", "q_norm", "k_norm")}
NEXTN = {f"nextn.{part}.weight" for part in ("eh_proj", "enorm", "hnorm", "shared_head_norm")}


def written(path: Path, size: Geometry = SMALL, kind: Type = Type.Q4_0, seed: int = 1) -> Path:
    write_model(path, size, kind, default_output_type(kind), seed)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sizes_of(size: Geometry) -> tuple[int, int]:
    """How many tensors and parameters a model has."""
    tensors = list(inventory(size, Type.Q4_0, Type.Q6_K))
    return len(tensors), sum(prod(tensor.shape) for tensor in tensors)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> GGUF:
    return GGUF(written(tmp_path_factory.mktemp("random") / "small.gguf"))


def test_the_full_size_has_the_tensors_and_parameters_of_qwen36_35b_a3b() -> None:
    full = FULL["qwen35moe"]
    assert sizes_of(full) == (733, 34_660_610_688)
    assert sizes_of(replace(full, mtp=True)) == (753, 35_505_251_456)


def test_the_full_dense_size_has_the_tensors_and_parameters_of_qwen36_27b() -> None:
    full = FULL["qwen35"]
    feed_forward, norms = 3 * 5120 * 17_408, 2 * 5120
    gdn = 5120 * (10_240 + 6144 + 48 + 48) + 6144 * 5120 + 10_240 * 4 + 48 + 48 + 128
    attention = 5120 * (12_288 + 1024 + 1024) + 6144 * 5120 + 256 + 256
    trunk = 64 * (feed_forward + norms) + 48 * gdn + 16 * attention + 2 * 248_320 * 5120 + 5120
    assert sizes_of(full) == (48 * 14 + 16 * 11 + 3, trunk)
    mtp = feed_forward + norms + attention + 2 * 5120 * 5120 + 3 * 5120
    assert sizes_of(replace(full, mtp=True)) == (48 * 14 + 17 * 11 + 3 + 4, trunk + mtp)


@pytest.mark.parametrize(("size", "feed_forward"), [(SMALL, EXPERTS), (SMALL_DENSE, DENSE)])
def test_every_fourth_layer_is_attention_and_the_others_gdn(
    tmp_path: Path, size: Geometry, feed_forward: set[str]
) -> None:
    expected = {"token_embd.weight", "output_norm.weight", "output.weight"}
    for layer in range(4):
        expected |= {f"blk.{layer}.{name}" for name in NORMS | feed_forward | (ATTENTION if layer == 3 else GDN)}
    assert set(GGUF(written(tmp_path / "layers.gguf", size)).tensors) == expected


@pytest.mark.parametrize(("size", "feed_forward"), [(SMALL, EXPERTS), (SMALL_DENSE, DENSE)])
def test_an_mtp_block_is_one_more_attention_block_and_is_counted(
    tmp_path: Path, size: Geometry, feed_forward: set[str]
) -> None:
    file = GGUF(written(tmp_path / "mtp.gguf", replace(size, layers=1, mtp=True)))
    names = {name.removeprefix("blk.1.") for name in file.tensors if name.startswith("blk.1.")}
    assert names == feed_forward | ATTENTION | NEXTN | NORMS
    assert file.metadata[f"{size.architecture}.block_count"] == 2
    assert file.metadata[f"{size.architecture}.nextn_predict_layers"] == 1


def test_matrices_are_quantised_and_what_the_quantiser_leaves_alone_is_f32(small: GGUF) -> None:
    kinds = {name: tensor.type.name for name, tensor in small.tensors.items()}
    assert kinds.pop("output.weight") == "Q6_K"
    unquantised = {"ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "ssm_conv1d.weight", "ssm_a", "ssm_dt.bias"}
    for name, kind in kinds.items():
        stays = name.endswith("norm.weight") or name.split(".", 2)[-1] in unquantised
        assert (name, kind) == (name, "F32" if stays else "Q4_0")


def test_matrices_with_a_type_of_their_own_have_it(tmp_path: Path) -> None:
    path = tmp_path / "mix.gguf"
    others = [("blk.1.ffn_down_exps", Type.Q6_K), ("ffn_down_exps", Type.Q5_K), ("eh_proj", Type.F16)]
    write_model(path, replace(SMALL, layers=2, mtp=True), Type.Q8_0, Type.Q6_K, 1, others)
    kinds = {name: tensor.type.name for name, tensor in GGUF(path).tensors.items()}
    down = [kinds[f"blk.{layer}.ffn_down_exps.weight"] for layer in range(3)]
    assert down == ["Q5_K", "Q6_K", "Q5_K"]
    assert (kinds["blk.2.nextn.eh_proj.weight"], kinds["blk.1.ffn_down_shexp.weight"]) == ("F16", "Q8_0")


def test_decay_rates_are_negative_and_norms_about_one(small: GGUF) -> None:
    for name, tensor in small.tensors.items():
        if tensor.type.name != "F32":
            continue
        values = small.data(tensor).view("<f4")
        assert np.isfinite(values).all()
        if name.endswith("ssm_a"):
            assert (values < 0).all()
        if name.endswith("norm.weight"):
            assert 0.9 < values.mean() < 1.1


def test_a_file_is_the_same_for_a_seed_and_another_for_another(tmp_path: Path) -> None:
    first, again, other = (
        digest(written(tmp_path / f"{index}.gguf", seed=seed)) for index, seed in enumerate((1, 1, 2))
    )
    assert first == again
    data = [GGUF(tmp_path / f"{index}.gguf") for index in (0, 2)]
    assert first != other
    for name, tensor in data[0].tensors.items():
        assert (data[0].data(tensor) != data[1].data(data[1].tensors[name])).any()


# Golden numbers elsewhere rest on these bytes: a change here makes them void.
@pytest.mark.parametrize(
    ("size", "expected"), [(SMALL, "9d37e8b0357b6fd0"), (SMALL_DENSE, "4baf764a3207b4d0")], ids=["qwen35moe", "qwen35"]
)
def test_the_bytes_of_a_file_never_change(tmp_path: Path, size: Geometry, expected: str) -> None:
    assert digest(written(tmp_path / "file.gguf", replace(size, mtp=True)))[:16] == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Type.F32, "9f8202ace24bc804"),
        (Type.F16, "e173420d6a1ab16d"),
        (Type.BF16, "76bd03547986aa3e"),
        (Type.Q4_0, "2c65eac218f55614"),
        (Type.Q4_1, "af7eb68e9ef14824"),
        (Type.Q5_0, "d47a4cb2196f3e97"),
        (Type.Q5_1, "ed4616fe0f8108af"),
        (Type.Q8_0, "54144f52c7fb3002"),
        (Type.IQ4_NL, "48501caef511eeff"),
        (Type.Q4_K, "61806bb7a9f02cd0"),
        (Type.Q5_K, "ccaf2162f73b5cc6"),
        (Type.Q6_K, "f65ac01383ee8061"),
        (Type.IQ4_XS, "cbfde1e7b3b2d35e"),
        (Type.MXFP4, "1b098481882677d2"),
        (Type.Q3_K, "fa2abd0acdd7f3c8"),
        (Type.IQ3_S, "4acce39c718059eb"),
        (Type.IQ3_XXS, "59272350635e466f"),
        (Type.Q2_K, "71c79becfc1070a8"),
        (Type.IQ2_S, "ab08162a599088c1"),
        (Type.IQ2_XS, "5fa244f40899fbf7"),
        (Type.IQ2_XXS, "c568eb295532e7c5"),
        (Type.IQ1_S, "d18e89107e603469"),
        (Type.IQ1_M, "1c7b90ae9f8844ff"),
        (Type.TQ2_0, "b9e58d34e8b12d4a"),
        (Type.TQ1_0, "19df37705f50422b"),
    ],
)
def test_the_weights_of_a_seed_never_change(kind: Type, expected: str) -> None:
    assert hashlib.sha256(MATRIX[kind](0.02, Bits(7, "blk.0"), 1 << 12).tobytes()).hexdigest()[:16] == expected


@pytest.mark.parametrize("kind", MATRIX)
def test_weights_of_every_type_are_finite_and_have_the_wanted_deviation(kind: Type) -> None:
    stored = MATRIX[kind](0.02, Bits(7, kind.name), 1 << 18)
    if kind not in (Type.F32, Type.F16):
        stored = np.ascontiguousarray(stored).view(np.uint8).reshape(1, -1)
    weights = gguf.dequantize(stored, kind).astype(np.float64)
    assert weights.size == 1 << 18
    assert np.isfinite(weights).all()
    # 8,192 block scales and 1,024 super-block scales leave 1 % and 2 % of chance; K-quants' scale bytes favour 16..31.
    assert weights.std() == pytest.approx(0.02, rel=0.05)
    assert abs(weights.mean()) < 0.001


def test_our_tokenizer_loads_the_vocabulary(small: GGUF) -> None:
    tokenizer = Tokenizer(small.metadata)
    text = "the quick brown fox, 123 ünïcödé 👍\n"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) < len(text.encode())
    assert tokenizer.vocab_used == 512
    assert {tokenizer.decode([token_id]) for token_id in tokenizer.eos_ids} == {"<|im_end|>", "<|endoftext|>"}


def test_the_chat_template_renders_chatml(small: GGUF) -> None:
    rendered = ChatTemplate.from_metadata(small.metadata).render([{"role": "user", "content": "hi"}])
    assert rendered == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_the_program_writes_the_real_layer_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "one.gguf"
    main(["--seed", "3", str(path), "--layers=1", "--experts=1", "--used=1", "--vocab=263", "--type=q8_0"])
    file = GGUF(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["one.gguf"]
    assert capsys.readouterr().out.startswith(f"{path}: 0.04 GB")
    assert file.tensors["blk.0.attn_qkv.weight"].shape == (8192, 2048)
    assert file.tensors["blk.0.ffn_down_exps.weight"].shape == (1, 2048, 512)
    assert file.tensors["output.weight"].type.name == "Q8_0"
    expected = {
        "general.architecture": "qwen35moe",
        "general.file_type": 7,
        "qwen35moe.block_count": 1,
        "qwen35moe.context_length": 262_144,
        "qwen35moe.embedding_length": 2048,
        "qwen35moe.attention.head_count": 16,
        "qwen35moe.attention.head_count_kv": 2,
        "qwen35moe.attention.key_length": 256,
        "qwen35moe.attention.value_length": 256,
        "qwen35moe.rope.dimension_count": 64,
        "qwen35moe.expert_count": 1,
        "qwen35moe.expert_used_count": 1,
        "qwen35moe.expert_feed_forward_length": 512,
        "qwen35moe.expert_shared_feed_forward_length": 512,
        "qwen35moe.ssm.conv_kernel": 4,
        "qwen35moe.ssm.state_size": 128,
        "qwen35moe.ssm.group_count": 16,
        "qwen35moe.ssm.time_step_rank": 32,
        "qwen35moe.ssm.inner_size": 4096,
        "qwen35moe.full_attention_interval": 4,
        "qwen35moe.rope.freq_base": 1e7,
        "qwen35moe.attention.layer_norm_rms_epsilon": float(np.float32(1e-6)),
    }
    assert {key: file.metadata[key] for key in expected} == expected
    assert list(np.asarray(file.metadata["qwen35moe.rope.dimension_sections"])) == [11, 11, 10, 0]
    assert "qwen35moe.nextn_predict_layers" not in file.metadata


def test_the_program_writes_the_dense_layer_shapes(tmp_path: Path) -> None:
    path = tmp_path / "dense.gguf"
    main([str(path), "--arch=qwen35", "--seed=3", "--layers=2", "--interval=2", "--vocab=263", "--mtp"])
    file = GGUF(path)
    shapes = {
        "token_embd.weight": (263, 5120),
        "blk.0.attn_qkv.weight": (10_240, 5120),
        "blk.0.attn_gate.weight": (6144, 5120),
        "blk.0.ssm_alpha.weight": (48, 5120),
        "blk.0.ssm_out.weight": (5120, 6144),
        "blk.1.attn_q.weight": (12_288, 5120),
        "blk.1.attn_k.weight": (1024, 5120),
        "blk.1.attn_output.weight": (5120, 6144),
        "blk.1.ffn_gate.weight": (17_408, 5120),
        "blk.1.ffn_down.weight": (5120, 17_408),
        "blk.2.nextn.eh_proj.weight": (5120, 10_240),
    }
    assert {name: file.tensors[name].shape for name in shapes} == shapes
    expected = {
        "general.architecture": "qwen35",
        "general.name": "random qwen35, seed 3",
        "qwen35.block_count": 3,
        "qwen35.nextn_predict_layers": 1,
        "qwen35.full_attention_interval": 2,
        "qwen35.embedding_length": 5120,
        "qwen35.feed_forward_length": 17_408,
        "qwen35.attention.head_count": 24,
        "qwen35.attention.head_count_kv": 4,
        "qwen35.ssm.time_step_rank": 48,
        "qwen35.ssm.inner_size": 6144,
    }
    assert {key: file.metadata[key] for key in expected} == expected
    assert not [key for key in file.metadata if "expert" in key]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--seed 1 --vocab 262", "--vocab from 263"),
        ("--seed 1 --layers 0", "--layers and --interval from 1"),
        ("--seed 1 --interval 0", "--layers and --interval from 1"),
        ("--seed 1 --arch qwen3", "invalid choice: 'qwen3'"),
        ("--seed 1 --arch qwen35 --experts 4", "--experts and --used are for qwen35moe"),
        ("--seed 1 --experts 4", "--used from 1 to --experts"),
        ("--seed -1", "--seed: -1 is negative"),
        ("--seed 1 --type q8_k", "invalid choice: 'q8_k'"),
    ],
)
def test_impossible_sizes_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path / "x.gguf"), *arguments.split()])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--seed", "1", "no/such/folder/x.gguf"])
    assert "no/such/folder is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["gguf", "tqdm"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(package: str) -> None:
    program = "import sys, runpy; sys.modules[sys.argv[1]] = None; runpy.run_path(sys.argv[2], run_name='__main__')"
    script = Path(__file__).parents[1] / "scripts/make_random_model.py"
    done = subprocess.run([sys.executable, "-c", program, package, script], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"{package} is missing: pip install 'arcmtp[test]'" in done.stderr
