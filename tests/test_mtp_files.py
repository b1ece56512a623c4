"""`arcmtp mtp extract` and `merge`: what they write, and what they refuse."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from arcmtp import LLM, Generation
from arcmtp.cli import main
from arcmtp.engine.llm import BUNDLED_MODEL
from arcmtp.gguf import GGUF
from arcmtp.model.mtp_files import extract, merge
from arcmtp.runtime.paths import data_dir as package_data_dir
from scripts.make_random_model import write_model
from scripts.random_model.tensors import Geometry

TINY = package_data_dir() / BUNDLED_MODEL
MOE = Geometry(
    layers=4, experts=8, experts_used=2, vocab=512, mtp=True, hidden=256, heads=4, kv_heads=2, head_dim=64,
    rope_dims=32, rope_sections=(6, 5, 5, 0), gdn_k_heads=2, gdn_v_heads=4, gdn_head_dim=32, expert_width=64,
)  # fmt: skip
DENSE = replace(MOE, experts=0, experts_used=0, expert_width=0, dense_width=544)
PROMPT = "def __len__(self):\n        return"


def rewritten(
    path: Path, out: Path, changes: Mapping[str, Any], keep: Callable[[str], bool] = lambda _: True, parts: int = 1
) -> Path:
    """A copy by the gguf package, with other metadata (None: no such key) and only some tensors; its (first) part."""
    reader = gguf.GGUFReader(path)
    tensors = [tensor for tensor in reader.tensors if keep(tensor.name)]
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(out, architecture, split_max_tensors=-(-len(tensors) // parts) if parts > 1 else 0)
    for key, field in reader.fields.items():
        value = changes.get(key, field.contents())
        if not key.startswith("GGUF.") and key != "general.architecture" and value is not None:
            writer.add_key_value(key, value, field.types[0], field.types[-1] if len(field.types) > 1 else None)
    if "general.alignment" in changes:
        writer.add_custom_alignment(changes["general.alignment"])
    for key, value in changes.items():
        if key not in reader.fields and isinstance(value, list):
            writer.add_array(key, value)
    for tensor in tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out if parts == 1 else out.with_name(f"{out.stem}-00001-of-{parts:05}.gguf")


def stripped(path: Path, out: Path, changes: Mapping[str, Any] | None = None, parts: int = 1) -> Path:
    """The file without its MTP block, as publishers write it who leave the block out."""
    metadata = GGUF(path).metadata
    architecture, blocks = metadata["general.architecture"], metadata[f"{metadata['general.architecture']}.block_count"]
    assert isinstance(blocks, int)
    counts = {f"{architecture}.block_count": blocks - 1, f"{architecture}.nextn_predict_layers": None}
    return rewritten(
        path, out, {**counts, **(changes or {})}, lambda name: not name.startswith(f"blk.{blocks - 1}."), parts
    )


def contents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata and tensors of a file: values, and shape, type and bytes."""
    file = GGUF(path)
    metadata = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in file.metadata.items()}
    return metadata, {
        tensor.name: (tensor.shape, tensor.type, file.data(tensor).tobytes()) for tensor in file.tensors.values()
    }


def types(path: Path) -> dict[str, Any]:
    """The types of the metadata, as the gguf package reads them."""
    return {key: field.types for key, field in gguf.GGUFReader(path).fields.items() if not key.startswith("GGUF.")}


def generated(path: Path) -> Generation:
    with LLM(path, device="cpu", ctx=256) as llm:
        return llm.generate(PROMPT, 40, draft=3)


def fates(result: Generation) -> list[tuple[int, int, bool]]:
    return [(call.cycle, call.index, call.accepted) for call in result.draft_calls]


def silent(stage: str, done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class Files:
    """A model, the same without its MTP block, and the block."""

    whole: Path
    trunk: Path
    block: Path


def files_of(folder: Path, whole: Path) -> Files:
    extract(whole, folder / "block.gguf", silent)
    return Files(whole, stripped(whole, folder / "trunk.gguf"), folder / "block.gguf")


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("moe")
    write_model(folder / "whole.gguf", MOE, Type.Q4_0, Type.Q6_K, seed=3)
    return files_of(folder, folder / "whole.gguf")


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("dense")
    write_model(folder / "whole.gguf", DENSE, Type.Q4_1, Type.Q6_K, seed=4)
    return files_of(folder, folder / "whole.gguf")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return files_of(tmp_path_factory.mktemp("tiny"), TINY)


@pytest.fixture
def files(request: pytest.FixtureRequest) -> Files:
    files: Files = request.getfixturevalue(request.param)
    return files


ALL = pytest.mark.parametrize("files", ["tiny", "moe", "dense"], indirect=True)


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
    original, merged = generated(files.whole), generated(tmp_path / "merged.gguf")
    assert (merged.ids, merged.token_logprobs) == (original.ids, original.token_logprobs)
    assert fates(merged) == fates(original) != []
    if files.whole == TINY:
        assert len({accepted for _, _, accepted in fates(merged)}) == 2


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
    assert len(generated(tmp_path / "merged.gguf").draft_calls) > 0


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


Refused = Callable[..., str]


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Refused:
    """Runs `arcmtp mtp`, which must end with status 2 and one line and leave the folder as it is; gives that line."""

    def run(*arguments: object) -> str:
        before = sorted(tmp_path.iterdir())
        assert main(["mtp", *map(str, arguments)]) == 2
        output = capfd.readouterr()
        lines = [line for line in output.err.splitlines() if not line.endswith(" …")]
        assert (output.out, len(lines), sorted(tmp_path.iterdir())) == ("", 1, before), output
        return lines[0].removeprefix("arcmtp: ")

    return run


def test_extract_refuses_a_file_without_an_mtp_block(refused: Refused, moe: Files, tmp_path: Path) -> None:
    assert refused("extract", moe.trunk, tmp_path / "out") == f"{moe.trunk}: has no MTP block (tensors 'blk.4.nextn.*')"


def test_merge_refuses_a_trunk_with_a_block_and_a_donor_without(refused: Refused, moe: Files, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for trunk in (moe.whole, moe.block):
        message = refused("merge", trunk, moe.whole, out)
        assert message == f"{trunk}: has an MTP block already (tensor 'blk.4.attn_norm.weight')"
    assert refused("merge", moe.trunk, moe.trunk, out) == f"{moe.trunk}: has no MTP block (tensors 'blk.4.nextn.*')"


def test_merge_refuses_another_architecture(refused: Refused, moe: Files, dense: Files, tmp_path: Path) -> None:
    assert refused("merge", moe.trunk, dense.block, tmp_path / "out") == (
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
    line = refused("merge", trunk, tmp_path / "donor.gguf", tmp_path / "out")
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
    line = refused("merge", moe.trunk, donor, tmp_path / "out")
    assert line.startswith(f"{donor}: metadata key '{key}' {message}") and line.endswith(f" as in {moe.trunk}")


def test_out_is_never_an_input(refused: Refused, moe: Files, tmp_path: Path) -> None:
    part = rewritten(moe.whole, tmp_path / "whole.gguf", {}, parts=2)
    before, second = part.read_bytes(), tmp_path / "whole-00002-of-00002.gguf"
    (tmp_path / "link").symlink_to(second)
    os.link(second, tmp_path / "hard")
    for out in (part, second, tmp_path / "link", tmp_path / "hard"):
        assert refused("extract", part, out) == f"{out}: is also read; expected another file to write"
        assert refused("merge", moe.trunk, part, out) == f"{out}: is also read; expected another file to write"
    assert part.read_bytes() == before
    before = moe.trunk.read_bytes()
    assert refused("merge", moe.trunk, moe.block, moe.trunk).endswith("expected another file to write")
    assert moe.trunk.read_bytes() == before


def test_out_must_be_a_place_for_a_file(refused: Refused, moe: Files, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for out in (tmp_path, tmp_path / "fifo", Path("/dev/null")):
        assert refused("extract", moe.whole, out) == f"{out}: is not a file; expected one that can be written"
    for out, reason in (
        (tmp_path / "none/out", "No such file or directory"),
        (tmp_path / "fifo/out", "Not a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        assert refused("extract", moe.whole, out) == f"{out}: {reason}; expected a file that can be written"


def test_a_write_that_fails_leaves_the_older_file(refused: Refused, moe: Files, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_text("old")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python starts; Intel's compiler, once loaded, has its own way
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (moe.block.stat().st_size // 2, limits[1]))
    try:
        line = refused("extract", moe.whole, out)
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
