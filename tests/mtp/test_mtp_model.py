"""`mtp_model`: the MTP block of another file drafts for the trunk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arcmtp import LLM, ArcmtpError
from arcmtp.cli import main
from arcmtp.formats.matrix import W4, Requant
from arcmtp.gguf import GGUF
from arcmtp.model.blocks.mtp import MtpBlock
from arcmtp.model.config import Config
from arcmtp.model.mtp_files import merge
from arcmtp.model.network import Network, NetworkOptions
from arcmtp.runtime.device import Device
from tests.mtp.conftest import ALL, Refused
from tests.mtp.models import PROMPT, TINY, Files, contents, file_values, generated, rewritten, silent

OWN = ("shared_head_norm", "shared_head_head", "embed_tokens")


@ALL
@pytest.mark.parametrize(("trunk", "donor"), [("trunk", "block"), ("trunk", "whole"), ("whole", "block")])
def test_text_drafts_and_bytes_are_those_of_one_file(files: Files, trunk: str, donor: str) -> None:
    assert generated(getattr(files, trunk), getattr(files, donor)) == generated(files.whole)


def test_a_split_file_gives_its_block(moe: Files, tmp_path: Path) -> None:
    donor = rewritten(moe.whole, tmp_path / "whole.gguf", {}, parts=3)
    assert generated(moe.trunk, donor) == generated(moe.whole)


@pytest.fixture
def other_block(tiny: Files, tmp_path: Path) -> Path:
    """The bundled model's block with a last norm, an output matrix and an embedding of its own, which are not the
    trunk's."""
    values = file_values(TINY)
    prefix = next(name for name in values if name.endswith("eh_proj.weight")).removesuffix("eh_proj.weight")
    others = {
        f"{prefix}shared_head_norm.weight": -values["output_norm.weight"],
        f"{prefix}shared_head_head.weight": values["output.weight"] * np.float32(0.5),
        f"{prefix}embed_tokens.weight": values["token_embd.weight"][::-1].copy(),
    }
    return rewritten(tiny.block, tmp_path / "other.gguf", {}, others=others)


def test_the_block_of_the_other_file_drafts_with_its_own_embedding_and_head(
    tiny: Files, other_block: Path, tmp_path: Path
) -> None:
    merge(tiny.trunk, other_block, tmp_path / "merged.gguf", silent)
    original, merged = generated(tiny.whole), generated(tmp_path / "merged.gguf")
    assert merged.ids == original.ids and merged.fates != original.fates
    assert merged.weights_bytes > original.weights_bytes
    for trunk in (tiny.trunk, tiny.whole):
        assert generated(trunk, other_block) == merged


def planned(trunk: Path, donor: Path, requant: Requant | None = None) -> tuple[Network, MtpBlock]:
    """A network of which nothing is loaded, and its MTP block."""
    file = GGUF(trunk)
    config = Config.from_gguf(file)
    options = NetworkOptions(64, config.vocab, mtp=GGUF(donor), requant=requant)
    network = Network(file, config, options, Device("cpu"))
    assert network.mtp is not None
    return network, network.mtp


@pytest.mark.parametrize("name", OWN)
def test_what_the_block_has_not_of_its_own_is_the_trunks(
    tiny: Files, other_block: Path, tmp_path: Path, name: str
) -> None:
    of_trunk = tuple(f".nextn.{other}.weight" for other in OWN if other != name)
    donor = rewritten(other_block, tmp_path / "one.gguf", {}, lambda kept: not kept.endswith(of_trunk))
    network, mtp = planned(tiny.trunk, donor)
    assert (mtp.head.weights.norm is not network.head.weights.norm) == (name == "shared_head_norm")
    assert (mtp.head.weights.output is not network.head.weights.output) == (name == "shared_head_head")
    assert (mtp.embedding is not network.embedding.weights) == (name == "embed_tokens")


def test_progress_counts_both_files(tiny: Files) -> None:
    calls: list[tuple[int, int]] = []

    def note(stage: str, done: int, total: int) -> None:
        if stage == "loading weights":
            calls.append((done, total))

    with LLM(tiny.trunk, device="cpu", ctx=256, mtp_model=tiny.block, progress=note) as llm:
        nbytes = llm.network.weights.nbytes
    done = [call[0] for call in calls]
    assert done == sorted(done) and {call[1] for call in calls} == {done[-1]} == {nbytes}


def test_without_a_draft_length_it_drafts_and_with_0_nothing_of_it_is_loaded(tiny: Files) -> None:
    with (
        LLM(tiny.trunk, device="cpu", ctx=256) as without,
        LLM(tiny.trunk, device="cpu", ctx=256, mtp_model=tiny.block) as llm,
        LLM(tiny.trunk, device="cpu", ctx=256, mtp_model=tiny.block, draft=0) as unused,
    ):
        assert (without.draft, llm.draft, unused.draft) == (0, "auto", 0)
        assert len(llm.generate(PROMPT, 8, draft=2).draft_calls) > 0
        assert unused.network.weights.nbytes == without.network.weights.nbytes
        assert unused.network.nbytes == without.network.nbytes
    with pytest.raises(ArcmtpError, match="has no MTP block"):
        LLM(tiny.trunk, device="cpu", mtp_model=tiny.trunk, draft=0)


def test_requantisation_reaches_the_block(tiny: Files) -> None:
    _, mtp = planned(tiny.trunk, tiny.block, "int4")
    assert [matrix.format for matrix in mtp.joined_weights.matrices] == [W4]


def test_generate_takes_the_file(tiny: Files, capfd: pytest.CaptureFixture[str]) -> None:
    found = []
    for model in (["-m", tiny.whole], ["-m", tiny.trunk, "--mtp-model", tiny.block]):
        arguments = ["generate", "--raw", "--json", "-n", "16", "-c", "256", "--device", "cpu", "-p", PROMPT, *model]
        arguments += ["--draft", "2"]
        assert main([*map(str, arguments)]) == 0
        result = json.loads(capfd.readouterr().out)
        found.append((result["ids"], [call["accepted"] for call in result["draft_calls"]]))
    assert found[0] == found[1] and found[0][1]


@pytest.mark.parametrize("command", ["generate -p x", "serve --port 0", "bench mtp", "profile"])
def test_every_command_that_drafts_passes_it_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    def opened(*_: Any, mtp_model: str, **__: Any) -> None:
        raise ArcmtpError(f"opened with {mtp_model}")

    monkeypatch.setattr("arcmtp.engine.LLM", opened)
    assert main([*command.split(), "--mtp-model", "block.gguf"]) == 2
    assert capfd.readouterr().err == "arcmtp: opened with block.gguf\n"


Bad = Callable[[Files, Files, Path], tuple[Path, str]]


def of_another_architecture(moe: Files, dense: Files, folder: Path) -> tuple[Path, str]:
    return dense.block, f"metadata key 'general.architecture' is 'qwen35', expected 'qwen35moe' as in {moe.trunk}"


def of_other_tokens(moe: Files, dense: Files, folder: Path) -> tuple[Path, str]:
    tokens = contents(moe.block)[0]["tokenizer.ggml.tokens"]
    donor = rewritten(moe.block, folder / "donor.gguf", {"tokenizer.ggml.tokens": [*tokens[:-1], "other"]})
    message = f"metadata key 'tokenizer.ggml.tokens' has 'other' for token 511, expected {tokens[-1]!r} as in"
    return donor, f"{message} {moe.trunk}"


def without_a_block(moe: Files, dense: Files, folder: Path) -> tuple[Path, str]:
    return moe.trunk, "has no MTP block (tensors 'blk.4.nextn.*')"


def that_is_missing(moe: Files, dense: Files, folder: Path) -> tuple[Path, str]:
    return folder / "none.gguf", "no such file"


def that_is_no_gguf(moe: Files, dense: Files, folder: Path) -> tuple[Path, str]:
    (folder / "text.gguf").write_text("import os\n")
    return folder / "text.gguf", "not a GGUF file (it does not start with 'GGUF')"


def with_a_tensor_of_another_shape(moe: Files, dense: Files, folder: Path) -> tuple[Path, str]:
    others = {"blk.4.attn_norm.weight": np.zeros(128, np.float32)}
    donor = rewritten(moe.block, folder / "donor.gguf", {}, others=others)
    return donor, "tensor 'blk.4.attn_norm.weight' has shape [128], expected [256]"


@pytest.mark.parametrize(
    "bad",
    [
        of_another_architecture, of_other_tokens, without_a_block, that_is_missing, that_is_no_gguf,
        with_a_tensor_of_another_shape,
    ],
)  # fmt: skip
def test_a_file_is_refused(bad: Bad, refused: Refused, moe: Files, dense: Files, tmp_path: Path) -> None:
    donor, message = bad(moe, dense, tmp_path)
    line = refused("generate", "--device", "cpu", "-p", "x", "-m", moe.trunk, "--mtp-model", donor)
    assert line == f"{donor}: {message}"


def test_a_file_whose_other_parts_are_missing_is_refused(refused: Refused, moe: Files, tmp_path: Path) -> None:
    donor = rewritten(moe.whole, tmp_path / "whole.gguf", {}, parts=2)
    second = tmp_path / "whole-00002-of-00002.gguf"
    second.unlink()
    line = refused("generate", "--device", "cpu", "-p", "x", "-m", moe.trunk, "--mtp-model", donor)
    assert line == f"{second}: no such file"
