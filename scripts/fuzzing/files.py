"""The files that are damaged: the bundled model, its MTP block alone, and the model split into two files."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from arcmtp.engine.llm import bundled_model
from arcmtp.gguf import GGUF
from arcmtp.gguf_writer import Source, file_pieces
from arcmtp.model.mtp_files import extract

UINT16, INT32 = 2, 5  # value types


@dataclass(frozen=True)
class Part:
    """A whole file, and where in it each metadata entry and each tensor's name, shape, type and offset are."""

    path: Path
    content: bytes
    entries: list[slice]
    tensors: list[slice]
    data: int  # where the tensors' bytes begin


def write_all(folder: Path) -> dict[str, list[Part]]:
    """Write the files, each in a folder of its own; their parts by kind."""
    for name in ("whole", "mtp", "split"):
        (folder / name).mkdir()
    whole, mtp = folder / "whole" / "model.gguf", folder / "mtp" / "block.gguf"
    whole.write_bytes(bundled_model().read_bytes())
    extract(whole, mtp, lambda stage, done, total: None)
    return {"whole": [_part(whole)], "mtp": [_part(mtp)], "split": [_part(path) for path in _split(whole, folder)]}


def _split(whole: Path, folder: Path) -> list[Path]:
    file, paths = GGUF(whole), []
    tensors = list(file.tensors.values())
    halves = tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :]
    for number, half in enumerate(halves):
        entries = [file.entry(key) for key in file.metadata] if number == 0 else []
        for key, kind, form, value in (
            ("split.no", UINT16, "<IH", number), ("split.count", UINT16, "<IH", 2),
            ("split.tensors.count", INT32, "<Ii", len(tensors)),
        ):  # fmt: skip
            entries.append(string(key) + struct.pack(form, kind, value))
        paths.append(folder / "split" / f"model-{number + 1:05}-of-00002.gguf")
        sources = [Source(file, tensor) for tensor in half]
        paths[-1].write_bytes(b"".join(file_pieces(entries, sources, 32, lambda stage, done, total: None)))
    return paths


def _part(path: Path) -> Part:
    content = path.read_bytes()
    header = GGUF(path) if "-of-" not in path.name else None
    entries, position = [], 24
    for _ in range(struct.unpack_from("<Q", content, 16)[0]):
        end = _entry_end(content, position)
        entries.append(slice(position, end))
        position = end
    tensors = []
    for _ in range(struct.unpack_from("<Q", content, 8)[0]):
        name_end = position + 8 + struct.unpack_from("<Q", content, position)[0]
        end = name_end + 4 + 8 * struct.unpack_from("<I", content, name_end)[0] + 12
        tensors.append(slice(position, end))
        position = end
    alignment = header.alignment if header else 32
    return Part(path, content, entries, tensors, -(-position // alignment) * alignment)


def _entry_end(content: bytes, position: int) -> int:
    position += 8 + struct.unpack_from("<Q", content, position)[0]
    return _value_end(content, position + 4, struct.unpack_from("<I", content, position)[0])


def _value_end(content: bytes, position: int, kind: int) -> int:
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    if kind in sizes:
        return position + sizes[kind]
    if kind == 8:
        return position + 8 + struct.unpack_from("<Q", content, position)[0]
    inner, count = struct.unpack_from("<IQ", content, position)
    position += 12
    if inner in sizes:
        return position + sizes[inner] * count
    for _ in range(count):
        position = _value_end(content, position, inner)
    return position


def string(text: str) -> bytes:
    """A string as GGUF has it."""
    return struct.pack("<Q", len(text.encode())) + text.encode()
