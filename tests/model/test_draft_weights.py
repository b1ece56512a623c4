"""The output matrix of drafts: some rows of the file's, in its format or in 4 bits."""

from pathlib import Path

import numpy as np
import pytest

from arcmtp.formats.matrix import Requant
from arcmtp.model import weights
from tests.model.weight_files import (
    F16_FILE,
    Q4_0_FILE,
    Q4_K_M_FILE,
    ModelFile,
    file_values,
    formats,
    loaded,
    matrices,
    planned,
)


@pytest.mark.parametrize("path", [Q4_0_FILE, F16_FILE, Q4_K_M_FILE], ids=lambda path: path.stem)
def test_rows_of_some_tokens_are_those_of_the_file(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    tokens = np.sort(np.random.default_rng(2).permutation(6144)[:200]).astype(np.int32)
    monkeypatch.setattr(weights, "STAGING_BYTES", 100_000)
    found, expected = loaded(planned(path, mtp=True, draft_tokens=tokens)), file_values(path)["output.weight"]
    assert formats(found["draft output"]) == formats(found["output"])
    assert np.array_equal(matrices(found["draft output"])[0], expected[tokens])
    assert np.array_equal(matrices(found["output"])[0], expected)


@pytest.mark.parametrize(("requant", "draft_requant"), [("int4", None), (None, "int4")])
def test_rows_of_some_tokens_are_requantised_like_all(requant: Requant | None, draft_requant: Requant | None) -> None:
    tokens = np.arange(3, 6000, 7, dtype=np.int32)
    every = matrices(loaded(planned(F16_FILE, "int4"))["output"])[0]
    calls: list[tuple[int, int]] = []
    made = planned(F16_FILE, requant, mtp=True, draft_tokens=tokens, draft_requant=draft_requant)
    found = loaded(made, lambda done, total: calls.append((done, total)))
    assert np.array_equal(matrices(found["draft output"])[0], every[tokens])
    assert calls[-1] == (made.weights.nbytes, made.weights.nbytes)


@pytest.mark.parametrize("tokens", [None, np.array([0, 5, 47], np.int32)], ids=["all", "some"])
def test_an_mtp_block_may_have_an_output_matrix_of_its_own(tmp_path: Path, tokens: np.ndarray | None) -> None:
    model = ModelFile()
    model.metadata |= {"block_count": 3, "nextn_predict_layers": 1}
    of_layer = {name: value for name, value in model.values.items() if name.startswith("blk.1.")}
    model.values |= {name.replace("blk.1.", "blk.2."): value for name, value in of_layer.items()}
    model.values |= {f"blk.2.nextn.{name}.weight": np.zeros(64, np.float32) for name in ("enorm", "hnorm")}
    model.values["blk.2.nextn.eh_proj.weight"] = np.zeros((64, 128), np.float32)
    model.values["blk.2.nextn.shared_head_head.weight"] = own = -2 * model.values["output.weight"]
    model.write(tmp_path / "own.gguf")
    found = loaded(planned(tmp_path / "own.gguf", mtp=True, draft_tokens=tokens))
    assert np.array_equal(matrices(found["draft output"])[0], own if tokens is None else own[tokens])
