"""Files with and without an MTP block, and blocks as files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from arcmtp import LLM
from arcmtp.engine.llm import BUNDLED_MODEL
from arcmtp.gguf import GGUF
from arcmtp.model.mtp_files import extract
from arcmtp.runtime.paths import data_dir as package_data_dir
from scripts.random_model.tensors import Geometry

Floats = npt.NDArray[np.float32]

TINY = package_data_dir() / BUNDLED_MODEL
MOE = Geometry(
    layers=4, experts=8, experts_used=2, vocab=512, mtp=True, hidden=256, heads=4, kv_heads=2, head_dim=64,
    rope_dims=32, rope_sections=(6, 5, 5, 0), gdn_k_heads=2, gdn_v_heads=4, gdn_head_dim=32, expert_width=64,
)  # fmt: skip
DENSE = replace(MOE, experts=0, experts_used=0, expert_width=0, dense_width=544)
PROMPT = "def __len__(self):\n        return"


def rewritten(
    path: Path, out: Path, changes: Mapping[str, Any], keep: Callable[[str], bool] = lambda _: True, parts: int = 1,
    others: Mapping[str, Floats] | None = None,
) -> Path:  # fmt: skip
    """A copy by the gguf package, with other metadata (None: no such key), only some tensors, and `others` in place
    of or beside them; its (first) part."""
    reader, others = gguf.GGUFReader(path), others or {}
    tensors = [tensor for tensor in reader.tensors if keep(tensor.name) and tensor.name not in others]
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
    for name, values in others.items():
        writer.add_tensor(name, values)
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


def file_values(path: Path) -> dict[str, Floats]:
    """All tensors as numbers."""
    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        for tensor in gguf.GGUFReader(path).tensors
    }


@dataclass(frozen=True)
class Generated:
    """What a model wrote, what became of each draft, and the bytes of its weights."""

    ids: list[int]
    token_logprobs: list[float]
    fates: list[tuple[int, int, bool]]  # cycle, index in its chain, accepted
    weights_bytes: int


def generated(path: Path, mtp_model: Path | None = None) -> Generated:
    with LLM(path, device="cpu", ctx=256, draft=3, mtp_model=mtp_model) as llm:
        result = llm.generate(PROMPT, 40, draft=3)
        fates = [(call.cycle, call.index, call.accepted) for call in result.draft_calls]
        return Generated(result.ids, result.token_logprobs, fates, llm.network.weights.nbytes)


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
