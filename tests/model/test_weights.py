"""Planning and loading of weights, checked against the gguf package's dequantisation of the same tensors."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from arcmtp.errors import ArcmtpError
from arcmtp.formats.matrix import BF16 as DEVICE_BF16
from arcmtp.formats.matrix import F32, W4, W4_K, W6_16, W8, Matrix, Requant
from arcmtp.gguf import GGUF
from arcmtp.gguf_header import Bytes, GgmlType, TensorInfo
from arcmtp.model import weights
from tests.model.weight_files import (
    BF16,
    F16,
    F16_FILE,
    Q4_0_FILE,
    Q4_K_M_FILE,
    Q8_0,
    ModelFile,
    Values,
    assert_loaded_values,
    file_values,
    formats,
    loaded,
    matrices,
    memory_of,
    planned,
)


@pytest.mark.parametrize("path", [Q4_0_FILE, F16_FILE, Q4_K_M_FILE], ids=lambda path: path.stem)
def test_loaded_weights_are_the_files_values_bit_for_bit(path: Path) -> None:
    found, expected = loaded(planned(path)), file_values(path)
    assert_loaded_values(found, expected)
    segments = [segment.tensor.name for merged in found.plan.merged for segment in merged.segments]
    of_mtp = f"blk.{found.network.config.layers}."
    asked_for = {*segments, *(tensor.name for _, tensor, _ in found.plan.vectors)}
    assert asked_for == {name for name in expected if not name.startswith(of_mtp)}


def test_loading_in_small_pieces_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = loaded(planned(Q4_0_FILE))
    monkeypatch.setattr(weights, "STAGING_BYTES", 100_000)
    pieces = loaded(planned(Q4_0_FILE))
    for ours, theirs in zip(pieces.plan.merged, whole.plan.merged, strict=True):
        assert np.array_equal(memory_of(ours.tensor), memory_of(theirs.tensor))


def test_the_plan_names_formats_and_sizes() -> None:
    made = planned(Q4_K_M_FILE)
    by_name = {merged.tensor.name: merged for merged in made.weights.merged}
    assert by_name["token_embd"].matrices == [Matrix(W4_K, 6144, 256, offset=0)]
    assert formats(by_name["output"]) == [W6_16]
    assert [layer.mixer.kind for layer in made.stage.layers] == list(made.config.layer_kinds)
    assert set(formats(by_name["blk.0.router"])) == {F32}
    stack = by_name["blk.0.gate_up"].matrices[1]
    assert (stack.experts, stack.n, stack.k, stack.tiles) == (6, 256, 256, 16)
    assert stack.nbytes == 6 * W4_K.matrix_bytes(256, 256)


def test_segments_start_at_multiples_of_64_bytes_and_do_not_overlap() -> None:
    for path, requant in itertools.product([Q4_0_FILE, Q4_K_M_FILE], (None, "int4")):
        for merged in planned(path, requant).weights.merged:  # type: ignore[arg-type]
            end = 0
            for matrix in merged.matrices:
                assert matrix.offset % 64 == 0 and matrix.offset >= end
                end = matrix.offset + matrix.nbytes
            assert end == merged.tensor.nbytes


def test_progress_rises_to_the_plans_bytes() -> None:
    made = planned(Q4_0_FILE)
    calls: list[tuple[int, int]] = []
    loaded(made, lambda done, total: calls.append((done, total)))
    done = [call[0] for call in calls]
    assert done == sorted(done) and done[-1] == made.weights.nbytes
    assert {call[1] for call in calls} == {made.weights.nbytes}


def test_requantisation_makes_large_matrices_int4_and_reports_their_errors() -> None:
    found = loaded(planned(F16_FILE, "int4"))
    expected = file_values(F16_FILE)
    projections = formats(found["blk.0.projections"])
    assert projections[:2] == [W4, W4] and W4 not in projections[2:]
    assert formats(found["blk.0.router"]) == [F32, F32]
    for name in ("blk.0.gate_up", "blk.0.down", "blk.0.output", "token_embd"):
        assert set(formats(found[name])) == {W4}
    assert found.plan.nbytes < 0.35 * planned(F16_FILE).weights.nbytes
    for name, part in [("blk.0.attn_qkv.weight", "projections"), ("blk.0.ffn_gate_exps.weight", "gate_up")]:
        value = found[f"blk.0.{part}"]
        difference = matrices(value)[0] - expected[name]
        relative = float(np.sqrt(np.sum(difference**2) / np.sum(expected[name] ** 2)))
        assert found.requant_errors[name] == pytest.approx(relative, rel=1e-3)
        assert 0.01 < relative < 0.12
    assert "blk.0.ssm_alpha.weight" not in found.requant_errors
    assert_loaded_values(found, expected, lambda a, b: bool(np.linalg.norm(a - b) <= 0.12 * np.linalg.norm(b)))


def test_requantisation_leaves_q4_0_as_it_is() -> None:
    found = loaded(planned(Q4_0_FILE, "int4"))
    assert set(found.requant_errors) == {"output.weight"}
    assert formats(found["output"]) == [W4]


@pytest.fixture
def model() -> ModelFile:
    return ModelFile()


def test_fused_expert_and_attention_tensors_load_like_separate_ones(model: ModelFile, tmp_path: Path) -> None:
    values = model.values
    for index in range(2):
        gate, up = (values.pop(f"blk.{index}.ffn_{part}_exps.weight") for part in ("gate", "up"))
        values[f"blk.{index}.ffn_gate_up_exps.weight"] = np.concatenate([gate, up], axis=1)
    values["blk.1.attn_qkv.weight"] = np.concatenate([values.pop(f"blk.1.attn_{part}.weight") for part in "qkv"])
    held = model.write(tmp_path / "fused.gguf")
    assert_loaded_values(loaded(planned(tmp_path / "fused.gguf")), held)


def test_errors_of_fused_tensors_are_of_the_whole_tensor(model: ModelFile, tmp_path: Path) -> None:
    values = model.values
    gate, up = (values.pop(f"blk.0.ffn_{part}_exps.weight") for part in ("gate", "up"))
    values["blk.0.ffn_gate_up_exps.weight"] = fused = np.concatenate([gate, 100 * up], axis=1)
    model.write(tmp_path / "fused.gguf")
    found = loaded(planned(tmp_path / "fused.gguf", "int4"))
    difference = np.concatenate(matrices(found["blk.0.gate_up"]), axis=1) - fused
    relative = float(np.linalg.norm(difference) / np.linalg.norm(fused))
    assert found.requant_errors["blk.0.ffn_gate_up_exps.weight"] == pytest.approx(relative, rel=1e-3)


def test_mixed_types_and_other_spellings_are_accepted(model: ModelFile, tmp_path: Path) -> None:
    model.values["blk.0.ssm_dt"] = model.values.pop("blk.0.ssm_dt.bias")
    model.values["blk.1.ffn_gate_inp_shexp.weight"] = model.values["blk.1.ffn_gate_inp_shexp.weight"].reshape(1, -1)
    model.types = {
        "blk.0.ffn_gate_inp.weight": BF16,
        "blk.0.ffn_gate_inp_shexp.weight": BF16,
        "blk.0.ssm_alpha.weight": Q8_0,
        "blk.0.ssm_beta.weight": F16,
        "blk.0.attn_norm.weight": F16,
        "blk.1.attn_q_norm.weight": BF16,
        "blk.1.attn_k.weight": Q8_0,
    }
    held = model.write(tmp_path / "mixed.gguf")
    held["blk.0.ssm_dt.bias"] = held["blk.0.ssm_dt"]
    found = loaded(planned(tmp_path / "mixed.gguf"))
    assert formats(found["blk.1.projections"]) == [F32, W8, F32]
    assert_loaded_values(found, held)


SMALL = ("ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "ssm_alpha.weight", "ssm_beta.weight")


def rounded(values: Values) -> None:
    """Cut the small matrices to numbers that BF16 has."""
    for name, value in values.items():
        if name.endswith(SMALL):
            value.view(np.uint32)[...] &= np.uint32(0xFFFF0000)


@pytest.mark.parametrize("requant", [None, "int4"])
def test_small_f32_matrices_of_bf16_numbers_take_half_the_bytes(
    model: ModelFile, tmp_path: Path, requant: Requant | None
) -> None:
    rounded(model.values)
    held = model.write(tmp_path / "exact.gguf")
    found = loaded(planned(tmp_path / "exact.gguf", requant))
    assert formats(found["blk.0.router"]) == formats(found["blk.1.router"]) == [DEVICE_BF16] * 2
    assert formats(found["blk.0.projections"])[2:] == [DEVICE_BF16] * 2
    assert found["blk.0.router"].tensor.nbytes == 2 * 16 * 64 * 2  # two tiles
    small = {name for name in held if name.endswith(SMALL)}
    assert small.isdisjoint(found.requant_errors)
    if not requant:
        assert formats(found["blk.1.projections"]) == [F32] * 3  # large ones are not looked at
        assert_loaded_values(found, held)


@pytest.mark.parametrize("name", SMALL)
def test_one_number_that_bf16_has_not_keeps_f32(model: ModelFile, tmp_path: Path, name: str) -> None:
    rounded(model.values)
    model.values[f"blk.0.{name}"].reshape(-1).view(np.uint32)[-1] |= 1
    held = model.write(tmp_path / "not.gguf")
    found = loaded(planned(tmp_path / "not.gguf"))
    of_tensor = {one.tensor.name: one.matrix.format for merged in found.plan.merged for one in merged.segments}
    small = {name: form for name, form in of_tensor.items() if name.endswith(SMALL)}
    assert small.pop(f"blk.0.{name}") == F32 and set(small.values()) == {DEVICE_BF16}
    assert_loaded_values(found, held)


def test_without_an_output_matrix_the_embedding_serves(model: ModelFile, tmp_path: Path) -> None:
    del model.values["output.weight"]
    held = model.write(tmp_path / "tied.gguf")
    found = loaded(planned(tmp_path / "tied.gguf"))
    assert found.network.head.weights.output is found.network.embedding.weights
    assert_loaded_values(found, held)


def test_mtp_and_vision_tensors_are_left_aside(model: ModelFile, tmp_path: Path) -> None:
    model.write(tmp_path / "plain.gguf")
    model.metadata |= {"block_count": 3, "nextn_predict_layers": 1}
    model.values |= {
        "blk.2.nextn.eh_proj.weight": np.zeros((64, 128), np.float32),
        "mtp.norm.weight": np.zeros(64, np.float32),
        "v.patch.weight": np.zeros((8, 8), np.float32),
    }
    model.write(tmp_path / "mtp.gguf")
    plain, made = planned(tmp_path / "plain.gguf"), planned(tmp_path / "mtp.gguf")
    assert made.mtp is None
    assert (made.weights.nbytes, len(made.stage.layers)) == (plain.weights.nbytes, 2)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("token_embd.weight", None, "tensor 'token_embd.weight' is missing"),
        ("output_norm.weight", None, r"tensor 'output_norm.weight' of shape \[64\] is missing"),
        ("blk.0.ssm_a", None, r"tensor 'blk.0.ssm_a' of shape \[6\] is missing"),
        ("blk.0.ssm_dt.bias", None, r"tensor 'blk.0.ssm_dt.bias' of shape \[6\] is missing"),
        ("blk.1.attn_q.weight", (64, 64), r"'blk.1.attn_q.weight' has shape \[64, 64\], expected \[128, 64\]"),
        ("blk.0.ffn_down_exps.weight", (3, 32, 64), r"has shape \[3, 32, 64\], expected \[3, 64, 32\]"),
        ("blk.0.ffn_gate_inp_shexp.weight", (64, 1), r"has shape \[64, 1\], expected \[64\]"),
        ("output.weight", (47, 64), r"'output.weight' has shape \[47, 64\], expected \[48, 64\]"),
    ],
)
def test_missing_and_misshapen_tensors_are_named_with_both_shapes(
    model: ModelFile, tmp_path: Path, name: str, shape: tuple[int, ...] | None, message: str
) -> None:
    if shape is None:
        del model.values[name]
    else:
        model.values[name] = np.zeros(shape, np.float32)
    model.write(tmp_path / "bad.gguf")
    with pytest.raises(ArcmtpError, match=message) as caught:
        planned(tmp_path / "bad.gguf")
    assert "bad.gguf" in str(caught.value) and "\n" not in str(caught.value)


def test_types_without_a_device_format_are_named(model: ModelFile, tmp_path: Path) -> None:
    name, path = b"blk.0.attn_gate.weight", tmp_path / "bad.gguf"
    model.types[name.decode()] = Q8_0
    model.write(path)
    data = bytearray(path.read_bytes())
    kind = data.index(name) + len(name) + 4 + 2 * 8  # behind the number of dimensions and two of them
    assert data[kind] == GgmlType.Q8_0
    data[kind] = GgmlType.NVFP4
    path.write_bytes(data)
    message = r"bad.gguf: tensor 'blk.0.attn_gate.weight': type NVFP4 is not supported; supported are F32, F16"
    with pytest.raises(ArcmtpError, match=message):
        planned(path)


def test_vectors_must_not_be_quantised(model: ModelFile, tmp_path: Path) -> None:
    model.types["blk.0.attn_norm.weight"] = Q8_0
    model.write(tmp_path / "bad.gguf")
    with pytest.raises(ArcmtpError, match=r"'blk.0.attn_norm.weight' has type Q8_0, expected F32, F16 or BF16"):
        planned(tmp_path / "bad.gguf")


def test_weights_are_loaded_once_and_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    spans: dict[str, list[tuple[int, int]]] = defaultdict(list)
    read = GGUF.read

    def noted(file: GGUF, tensor: TensorInfo, start: int, into: Bytes) -> None:
        spans[tensor.name].append((start, start + into.nbytes))
        read(file, tensor, start, into)

    made = planned(Q4_0_FILE)
    monkeypatch.setattr(GGUF, "read", noted)
    monkeypatch.setattr(weights, "STAGING_BYTES", 100_000)
    loaded(made)
    for segment in (segment for merged in made.weights.merged for segment in merged.segments):
        of_tensor = spans[segment.tensor.name]
        assert of_tensor[0][0] == 0 and of_tensor[-1][1] == segment.tensor.nbytes
        assert all(before[1] == after[0] for before, after in itertools.pairwise(of_tensor)), segment.tensor.name
    assert max(stop - start for of_tensor in spans.values() for start, stop in of_tensor) <= 100_000
