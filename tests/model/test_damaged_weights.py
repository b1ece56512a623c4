"""Files that are damaged where their weights are."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from arcmtp.errors import ArcmtpError
from arcmtp.formats.matrix import Requant
from arcmtp.gguf import GGUF
from arcmtp.gguf_header import GgmlType
from tests.model.weight_files import BF16, F16, Q4_0_FILE, Q4_K_M_FILE, ModelFile, loaded, planned


def test_a_file_that_becomes_shorter_while_it_is_loaded_is_named(tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(Q4_0_FILE.read_bytes())
    made = planned(path)
    os.truncate(path, path.stat().st_size // 2)
    message = r"short\.gguf: has become shorter while it was read: tensor '[\w.]+' is not all there"
    with pytest.raises(ArcmtpError, match=message):
        loaded(made)


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("blk.0.ssm_beta.weight", gguf.GGMLQuantizationType.F32, np.inf),
        ("blk.0.attn_gate.weight", F16, np.nan),
        ("blk.1.attn_k.weight", BF16, -np.inf),
        ("blk.1.attn_norm.weight", gguf.GGMLQuantizationType.F32, np.nan),
    ],
)
@pytest.mark.parametrize("requant", [None, "int4"])
def test_numbers_that_are_not_finite_are_found_while_loading(
    tmp_path: Path, name: str, kind: Any, value: float, requant: Requant | None
) -> None:
    model = ModelFile()
    model.values[name].reshape(-1)[-1] = value
    model.types[name] = kind
    model.write(tmp_path / "bad.gguf")
    message = rf"bad\.gguf: tensor '{re.escape(name)}' has numbers that are NaN or infinite"
    with pytest.raises(ArcmtpError, match=message):
        loaded(planned(tmp_path / "bad.gguf", requant))


@pytest.mark.parametrize("file", [Q4_0_FILE, Q4_K_M_FILE], ids=lambda file: file.stem)
def test_scales_that_are_not_finite_are_found_while_loading(file: Path, tmp_path: Path) -> None:
    """The last block's scale of each quantised type in the files, one after the other."""
    path, content = tmp_path / "bad.gguf", file.read_bytes()
    tensors = {tensor.type: tensor for tensor in GGUF(file).tensors.values() if tensor.type.block > 1}
    assert len(tensors) > 1
    for tensor in tensors.values():
        offset = tensor.offset + tensor.nbytes - tensor.type.block_bytes
        offset += tensor.type.block_bytes - 2 if tensor.type is GgmlType.Q6_K else 0
        path.write_bytes(content[:offset] + b"\x00\x7c" + content[offset + 2 :])
        with pytest.raises(ArcmtpError, match=rf"tensor '{re.escape(tensor.name)}' has numbers that are NaN"):
            loaded(planned(path, mtp=True))
