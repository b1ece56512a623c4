"""`arcmtp mtp extract` and `merge`: what they write, and what they refuse."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from arcmtp.cli import main
from arcmtp.gguf import GGUF
from arcmtp.model.mtp_files import extract, merge
from scripts.make_random_model import write_model
from scripts.random_model.tensors import Geometry
from tests.mtp.conftest import ALL, Refused
from tests.mtp.models import DENSE, MOE, TINY, Files, contents, generated, rewritten, silent, stripped, types


@ALL
def test_an_extracted_file_has_all_metadata_and_every_tensor_outside_the_trunks_layers(files: Files) -> None:
    metadata, tensors = contents(files.whole)
    layers = metadata[f"{metadata['general.architecture']}.block_count"] - 1
    of_trunk = tuple(f"blk.{layer}." for layer in range(layers))
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(of_trunk)}
    assert {"token_embd.weight", "output_norm.weight", f"blk.{layers}.nextn.eh_proj.weight"} < kept.keys()
    assert contents(files.block) == (metadata, kept)
    assert types(files.block) == types(files.whole)


@ALL
@pytest.mark.parametrize("donor", ["whole", "block"])
def test_a_merged_file_has_the_metadata_and_tensors_of_the_original(files: Files, tmp_path: Path, donor: str) -> None:
    merge(files.trunk, getattr(files, donor), tmp_path / "merged.gguf", silent)
    assert contents(tmp_path / "merged.gguf") == contents(files.whole)
    assert types(tmp_path / "merged.gguf") == types(files.whole)


@ALL
def test_a_merged_file_generates_and_drafts_what_the_original_does(files: Files, tmp_path: Path) -> None:
    merge(files.trunk, files.block, tmp_path / "merged.gguf", silent)
    merged = generated(tmp_path / "merged.gguf")
    assert merged == generated(files.whole) and merged.fates
    if files.whole == TINY:
        assert len({accepted for _, _, accepted in merged.fates}) == 2


def test_split_inputs_and_other_alignments_end_in_one_file(moe: Files, tmp_path: Path) -> None:
    whole = rewritten(moe.whole, tmp_path / "whole.gguf", {}, parts=3)
    trunk = stripped(moe.whole, tmp_path / "trunk.gguf", {"general.alignment": 64}, parts=2)
    extract(whole, tmp_path / "block.gguf", silent)
    assert contents(tmp_path / "block.gguf") == contents(moe.block)
    merge(trunk, whole, tmp_path / "merged.gguf", silent)
    metadata, tensors = contents(moe.whole)
    assert contents(tmp_path / "merged.gguf") == ({**metadata, "general.alignment": 64}, tensors)
    assert all(tensor.offset % 64 == 0 for tensor in GGUF(tmp_path / "merged.gguf").tensors.values())


def test_a_file_whose_keys_announce_the_block_that_it_lacks_gets_one(moe: Files, tmp_path: Path) -> None:
    trunk = rewritten(moe.whole, tmp_path / "trunk.gguf", {}, lambda name: not name.startswith("blk.4."))
    merge(trunk, moe.block, tmp_path / "merged.gguf", silent)
    assert contents(tmp_path / "merged.gguf") == contents(moe.whole)


def test_metadata_with_a_number_per_layer_gets_one_for_the_block(moe: Files, tmp_path: Path) -> None:
    recurrent = [True, True, True, False]
    trunk = stripped(moe.whole, tmp_path / "trunk.gguf", {"qwen35moe.attention.recurrent_layers": recurrent})
    merge(trunk, moe.block, tmp_path / "merged.gguf", silent)
    metadata, tensors = contents(moe.whole)
    assert contents(tmp_path / "merged.gguf") == (
        {**metadata, "qwen35moe.attention.recurrent_layers": [*recurrent, False]}, tensors,
    )  # fmt: skip
    assert types(tmp_path / "merged.gguf")["qwen35moe.attention.recurrent_layers"][-1] == gguf.GGUFValueType.BOOL
    assert generated(tmp_path / "merged.gguf").fates


def test_the_commands_print_the_size_and_replace_an_older_file(
    moe: Files, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.gguf"
    out.write_text("old")
    for arguments in (["extract", moe.whole], ["merge", moe.trunk, moe.block]):
        assert main(["mtp", *map(str, arguments), str(out)]) == 0
        output = capfd.readouterr()
        assert output.out == f"{out}: {out.stat().st_size / 1e6:.1f} MB\n"
        assert output.err == "writing tensors …\n"
        assert [*tmp_path.iterdir()] == [out]
    assert contents(out) == contents(moe.whole)


def test_extract_refuses_a_file_without_an_mtp_block(refused: Refused, moe: Files, tmp_path: Path) -> None:
    line = refused("mtp", "extract", moe.trunk, tmp_path / "out")
    assert line == f"{moe.trunk}: has no MTP block (tensors 'blk.4.nextn.*')"


def test_merge_refuses_a_trunk_with_a_block_and_a_donor_without(refused: Refused, moe: Files, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for trunk in (moe.whole, moe.block):
        message = refused("mtp", "merge", trunk, moe.whole, out)
        assert message == f"{trunk}: has an MTP block already (tensor 'blk.4.attn_norm.weight')"
    line = refused("mtp", "merge", moe.trunk, moe.trunk, out)
    assert line == f"{moe.trunk}: has no MTP block (tensors 'blk.4.nextn.*')"


def test_merge_refuses_another_architecture(refused: Refused, moe: Files, dense: Files, tmp_path: Path) -> None:
    assert refused("mtp", "merge", moe.trunk, dense.block, tmp_path / "out") == (
        f"{dense.block}: metadata key 'general.architecture' is 'qwen35', expected 'qwen35moe' as in {moe.trunk}"
    )


SIZES = [
    (MOE, {"layers": 5}, "metadata keys 'qwen35moe.block_count' and 'nextn_predict_layers' leave 5 layers, expected 4"),
    (MOE, {"hidden": 512}, "metadata key 'qwen35moe.embedding_length' is 512, expected 256"),
    (MOE, {"heads": 8}, "metadata key 'qwen35moe.attention.head_count' is 8, expected 4"),
    (MOE, {"kv_heads": 1}, "metadata key 'qwen35moe.attention.head_count_kv' is 1, expected 2"),
    (MOE, {"head_dim": 32}, "metadata key 'qwen35moe.attention.key_length' is 32, expected 64"),
    (MOE, {"rope_dims": 16}, "metadata key 'qwen35moe.rope.dimension_count' is 16, expected 32"),
    (MOE, {"experts": 4}, "metadata key 'qwen35moe.expert_count' is 4, expected 8"),
    (MOE, {"experts_used": 3}, "metadata key 'qwen35moe.expert_used_count' is 3, expected 2"),
    (MOE, {"expert_width": 96}, "metadata key 'qwen35moe.expert_feed_forward_length' is 96, expected 64"),
    (DENSE, {"dense_width": 256}, "metadata key 'qwen35.feed_forward_length' is 256, expected 544"),
    (MOE, {"vocab": 544}, "tensor 'token_embd.weight' has 544 rows, expected 512"),
]


@pytest.mark.parametrize(("size", "change", "message"), SIZES, ids=[next(iter(change)) for _, change, _ in SIZES])
def test_merge_refuses_a_donor_of_other_dimensions(
    refused: Refused, request: pytest.FixtureRequest, tmp_path: Path, size: Geometry, change: dict[str, Any],
    message: str,
) -> None:  # fmt: skip
    trunk: Path = request.getfixturevalue("moe" if size is MOE else "dense").trunk
    write_model(tmp_path / "donor.gguf", replace(size, **change), Type.F16, Type.F16, seed=3)
    line = refused("mtp", "merge", trunk, tmp_path / "donor.gguf", tmp_path / "out")
    assert line == f"{tmp_path / 'donor.gguf'}: {message} as in {trunk}"


def other_tokens(tokens: Iterable[str]) -> list[str]:
    return ["other" if index == 300 else token for index, token in enumerate(tokens)]


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("tokenizer.ggml.tokens", other_tokens, "has 'other' for token 300, expected "),
        ("tokenizer.ggml.tokens", lambda tokens: tokens[:-1], "has 511 tokens, expected 512"),
        ("qwen35moe.rope.freq_base", lambda base: base / 1000, "is 10000.0, expected 10000000.0"),
        ("qwen35moe.attention.layer_norm_rms_epsilon", lambda eps: 0.5, "is 0.5, expected 9.99"),
    ],
)
def test_merge_refuses_a_donor_of_other_metadata(
    refused: Refused, moe: Files, tmp_path: Path, key: str, change: Callable[[Any], Any], message: str
) -> None:
    donor = rewritten(moe.whole, tmp_path / "donor.gguf", {key: change(contents(moe.whole)[0][key])})
    line = refused("mtp", "merge", moe.trunk, donor, tmp_path / "out")
    assert line.startswith(f"{donor}: metadata key '{key}' {message}") and line.endswith(f" as in {moe.trunk}")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("blk.4.attn_k.weight", (64, 256), "has shape [64, 256], expected [128, 256]"),
        ("blk.4.nextn.eh_proj.weight", (256, 256), "has shape [256, 256], expected [256, 512]"),
        ("blk.4.nextn.hnorm.weight", None, "of shape [256] is missing"),
        ("blk.4.ffn_down_exps.weight", (8, 64, 256), "has shape [8, 64, 256], expected [8, 256, 64]"),
        ("blk.4.ffn_gate_shexp.weight", None, "of shape [64, 256] is missing"),
        ("blk.4.nextn.shared_head_head.weight", (500, 256), "has shape [500, 256], expected [512, 256]"),
        ("blk.4.nextn.shared_head_norm.weight", (64,), "has shape [64], expected [256]"),
    ],
)
def test_merge_refuses_a_block_whose_tensors_are_missing_or_misshapen(
    refused: Refused, moe: Files, tmp_path: Path, name: str, values: tuple[int, ...] | None, message: str
) -> None:
    others = {name: np.zeros(values, np.float32)} if values else {}
    donor = rewritten(moe.block, tmp_path / "donor.gguf", {}, lambda kept: kept != name, others=others)
    line = refused("mtp", "merge", moe.trunk, donor, tmp_path / "out")
    assert line == f"{donor}: tensor '{name}' {message}"


def test_out_is_never_an_input(refused: Refused, moe: Files, tmp_path: Path) -> None:
    part = rewritten(moe.whole, tmp_path / "whole.gguf", {}, parts=2)
    before, second = part.read_bytes(), tmp_path / "whole-00002-of-00002.gguf"
    (tmp_path / "link").symlink_to(second)
    os.link(second, tmp_path / "hard")
    for out in (part, second, tmp_path / "link", tmp_path / "hard"):
        assert refused("mtp", "extract", part, out) == f"{out}: is also read; expected another file to write"
        assert refused("mtp", "merge", moe.trunk, part, out) == f"{out}: is also read; expected another file to write"
    assert part.read_bytes() == before
    before = moe.trunk.read_bytes()
    assert refused("mtp", "merge", moe.trunk, moe.block, moe.trunk).endswith("expected another file to write")
    assert moe.trunk.read_bytes() == before


def test_out_must_be_a_place_for_a_file(refused: Refused, moe: Files, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for out in (tmp_path, tmp_path / "fifo", Path("/dev/null")):
        assert refused("mtp", "extract", moe.whole, out) == f"{out}: is not a file; expected one that can be written"
    for out, reason in (
        (tmp_path / "none/out", "No such file or directory"),
        (tmp_path / "fifo/out", "Not a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        assert refused("mtp", "extract", moe.whole, out) == f"{out}: {reason}; expected a file that can be written"


def test_a_write_that_fails_leaves_the_older_file(refused: Refused, moe: Files, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_text("old")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python starts; Intel's compiler, once loaded, has its own way
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (moe.block.stat().st_size // 2, limits[1]))
    try:
        line = refused("mtp", "extract", moe.whole, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert line == f"{out}: File too large; expected a file that can be written"
    assert out.read_text() == "old"


def test_an_interruption_leaves_the_older_file(moe: Files, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_text("old")

    def interrupt(stage: str, done: int, total: int) -> None:
        if 2 * done > total:
            assert len(list(tmp_path.iterdir())) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(moe.trunk, moe.block, out, interrupt)
    assert (list(tmp_path.iterdir()), out.read_text()) == ([out], "old")
