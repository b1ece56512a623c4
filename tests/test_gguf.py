"""The GGUF reader against the gguf package, and against damaged files."""

from __future__ import annotations

import os
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from arcmtp import gguf as gguf_reader
from arcmtp.errors import ArcmtpError
from arcmtp.gguf import GGUF
from arcmtp.gguf_header import Bytes, GgmlType, TensorInfo

ROOT = Path(__file__).parents[1]
FILES = [
    ROOT / "arcmtp/data/tiny-qwen36moe-q4_0.gguf",
    ROOT / "tests/data/tiny-qwen36moe-f16.gguf",
    ROOT / "tests/data/tiny-qwen36moe-q4_k_m.gguf",
]


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def header(tensors: int, keys: int, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def info(name: str, shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    dims = shape[::-1]
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def padded(data: bytes, alignment: int = 32) -> bytes:
    return data + bytes(-len(data) % alignment)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def opened_error(path: Path) -> str:
    with pytest.raises(ArcmtpError) as caught:
        GGUF(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path.name) in message
    return message


def numbers(path: Path, values: np.ndarray, kind: GgmlType = GgmlType.F32) -> tuple[GGUF, Any]:
    """A file with one tensor `a` of these bytes."""
    begin = padded(header(1, 0) + info("a", (values.nbytes // kind.block_bytes,), int(kind)))
    file = GGUF(written(path, begin + padded(values.tobytes())))
    return file, file.tensors["a"]


def test_f32_numbers_that_bf16_has_are_known(tmp_path: Path) -> None:
    exact = (np.random.default_rng(0).standard_normal(200_000).astype("<f4").view("<u4") & 0xFFFF0000).view("<f4")
    exact[:4] = [0, -0.0, np.inf, 1e-40]
    exact[3:4].view("<u4")[:] = 0x00010000  # subnormal
    assert GGUF.in_bf16(*numbers(tmp_path / "exact.gguf", exact))
    for place in (0, 100_000, 199_999):
        changed = exact.copy()
        changed[place : place + 1].view("<u4")[:] |= 1
        assert not GGUF.in_bf16(*numbers(tmp_path / "not.gguf", changed)), place
    assert not GGUF.in_bf16(*numbers(tmp_path / "f16.gguf", exact.astype("<f2"), GgmlType.F16))


def test_numbers_are_looked_at_once_up_to_the_first_that_bf16_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.zeros(1_000_000, "<f4")
    values[1] = 0.1
    file, tensor = numbers(tmp_path / "a.gguf", values)
    pieces: list[int] = []
    read = GGUF.read

    def noted(file: GGUF, tensor: TensorInfo, start: int, into: Bytes) -> None:
        pieces.append(into.nbytes)
        read(file, tensor, start, into)

    monkeypatch.setattr(GGUF, "read", noted)
    assert not file.in_bf16(tensor) and not file.in_bf16(tensor)
    assert len(pieces) == 1 and pieces[0] < values.nbytes
    assert not GGUF(file.path, only_header=True).in_bf16(tensor)
    assert len(pieces) == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_metadata_and_tensors_agree_with_the_gguf_package(path: Path) -> None:
    ours, theirs = GGUF(path), gguf.GGUFReader(path)
    fields = {name: field for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert set(ours.metadata) == set(fields)
    for name, field in fields.items():
        found = ours.metadata[name]
        assert (found.tolist() if isinstance(found, np.ndarray) else found) == field.contents(), name
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        mine = ours.tensors[tensor.name]
        assert mine.shape == tuple(tensor.shape.tolist()[::-1])
        assert (int(mine.type), mine.offset, mine.nbytes) == (
            int(tensor.tensor_type),
            tensor.data_offset,
            tensor.n_bytes,
        )
        assert np.array_equal(ours.data(mine), tensor.data.reshape(-1).view(np.uint8))


def test_every_value_type_is_read(tmp_path: Path) -> None:
    values: dict[str, tuple[Any, gguf.GGUFValueType]] = {
        "u8": (200, gguf.GGUFValueType.UINT8),
        "i8": (-100, gguf.GGUFValueType.INT8),
        "u16": (60000, gguf.GGUFValueType.UINT16),
        "i16": (-30000, gguf.GGUFValueType.INT16),
        "u32": (4_000_000_000, gguf.GGUFValueType.UINT32),
        "i32": (-2_000_000_000, gguf.GGUFValueType.INT32),
        "u64": (1 << 63, gguf.GGUFValueType.UINT64),
        "i64": (-1 << 62, gguf.GGUFValueType.INT64),
        "f32": (0.5, gguf.GGUFValueType.FLOAT32),
        "f64": (0.1, gguf.GGUFValueType.FLOAT64),
        "flag": (True, gguf.GGUFValueType.BOOL),
        "text": ("naïve ✓", gguf.GGUFValueType.STRING),
    }
    writer = gguf.GGUFWriter(tmp_path / "values.gguf", "test")
    for key, (value, kind) in values.items():
        writer.add_key_value(key, value, kind)
    arrays: dict[str, list[Any]] = {
        "strings": ["a", "", "ÿ\n"],
        "flags": [True, False],
        "integers": [1, -2, 3],
        "floats": [0.5, 2.0],
    }
    for key, array in arrays.items():
        writer.add_array(key, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    metadata = GGUF(tmp_path / "values.gguf").metadata
    for key, (value, _) in values.items():
        assert metadata[key] == value and type(metadata[key]) is type(value), key
    for key, array in arrays.items():
        found = metadata[key]
        assert (found.tolist() if isinstance(found, np.ndarray) else found) == array


def test_block_sizes_of_every_type_are_those_of_the_gguf_package() -> None:
    ours = {int(kind): (kind.name, (kind.block, kind.block_bytes)) for kind in GgmlType}
    theirs = {int(kind): (kind.name, sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {code: ours[code] for code in theirs} == theirs


def write_split(
    folder: Path, parts: int = 3, name: str = "model", keep: Callable[[int], bool] = lambda _: True
) -> Path:
    """A split file with tensors t0, t1, … of 32 floats each, as llama.cpp's gguf-split writes them."""
    for index in range(parts):
        path = folder / f"{name}-{index + 1:05}-of-{parts:05}.gguf"
        keys = [("split.no", 2, "<H", index), ("split.count", 2, "<H", parts), ("split.tensors.count", 5, "<i", parts)]
        body = b"".join(
            string(key) + struct.pack("<I", code) + struct.pack(form, value) for key, code, form, value in keys
        )
        body += string("only.in.part") + struct.pack("<II", 4, index)
        content = padded(header(1, 4) + body + info(f"t{index}")) + np.full(32, index, "<f4").tobytes()
        if keep(index):
            path.write_bytes(content)
    return folder / f"{name}-00001-of-{parts:05}.gguf"


@pytest.mark.parametrize("part", [1, 2, 3])
def test_opening_any_part_of_a_split_file_opens_all(tmp_path: Path, part: int) -> None:
    write_split(tmp_path)
    file = GGUF(tmp_path / f"model-{part:05}-of-00003.gguf")
    assert file.metadata["only.in.part"] == 0
    assert {name: file.data(tensor).view("<f4")[0] for name, tensor in file.tensors.items()} == {
        "t0": 0,
        "t1": 1,
        "t2": 2,
    }


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    first = write_split(tmp_path, keep=lambda index: index != 1)
    with pytest.raises(ArcmtpError, match=r"model-00002-of-00003\.gguf: no such file"):
        GGUF(first)


def test_a_part_under_another_name_is_refused(tmp_path: Path) -> None:
    renamed = write_split(tmp_path).rename(tmp_path / "renamed.gguf")
    assert "-00001-of-00003.gguf" in opened_error(renamed)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("split.no", "model-00001-of-00003.gguf: split.no is an array of 2, expected 0 of 3"),
        ("split.count", "model-00001-of-00003.gguf: split.count is an array of 2, expected a number of parts"),
        ("split.tensors.count", "the parts hold 3 tensors, split.tensors.count says an array of 2"),
    ],
)
def test_arrays_instead_of_numbers_of_parts_are_refused(tmp_path: Path, key: str, message: str) -> None:
    first = write_split(tmp_path)
    content = first.read_bytes()
    begin = content.index(string(key)) + len(string(key))
    value = {"split.tensors.count": 4}.get(key, 2)
    array = struct.pack("<IIQ2I", 9, 4, 2, 0, 3)
    head = content[:begin] + array + content[begin + 4 + value : -128].rstrip(b"\0")
    first.write_bytes(padded(head + bytes(8)) + content[-128:])
    assert message in opened_error(first)


def test_parts_in_the_wrong_order_are_refused(tmp_path: Path) -> None:
    first = write_split(tmp_path)
    second = tmp_path / "model-00002-of-00003.gguf"
    second.write_bytes((tmp_path / "model-00003-of-00003.gguf").read_bytes())
    with pytest.raises(ArcmtpError, match=r"split.no is 2, expected 1 of 3"):
        GGUF(first)


BAD_CONTENT = {
    "empty": (b"", "the file is empty"),
    "zip": (b"PK\3\4" + bytes(64), "not a GGUF file"),
    "two bytes": (b"GG", "not a GGUF file"),
    "no counts": (b"GGUF\3\0\0\0", "truncated in the header"),
    "version 2": (header(0, 0, version=2), "GGUF version 2; only version 3"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "many tensors": (header(1 << 60, 0), "tensors do not fit"),
    "many keys": (header(0, 1 << 60), "metadata keys do not fit"),
    "long key": (header(0, 1) + struct.pack("<Q", 1 << 40) + bytes(64), "string of 1099511627776 bytes"),
    "long value": (
        header(0, 1) + string("k") + struct.pack("<IQ", 8, 999) + bytes(64),
        "truncated in metadata key 'k'",
    ),
    "not UTF-8": (
        header(0, 1) + string("k") + struct.pack("<IQ", 8, 1) + b"\xff" * 8,
        "'k' has a string that is not UTF-8",
    ),
    "value type": (header(0, 1) + string("k") + struct.pack("<I", 13) + bytes(8), "'k' has value type 13"),
    "nested array": (header(0, 1) + string("k") + struct.pack("<IIQ", 9, 9, 1) + bytes(16), "'k' has value type 9"),
    "long array": (header(0, 1) + string("k") + struct.pack("<IIQ", 9, 4, 1 << 50), "array elements, at most"),
    "cut array": (
        header(0, 1) + string("k") + struct.pack("<IIQ", 9, 4, 100) + bytes(64),
        "truncated in metadata key 'k'",
    ),
    "cut strings": (
        header(0, 1) + string("k") + struct.pack("<IIQ", 9, 8, 100) + bytes(64),
        "strings of metadata key 'k'",
    ),
    "cut string": (
        header(0, 1) + string("k") + struct.pack("<IIQQ", 9, 8, 2, 70) + bytes(64),
        "truncated in metadata key 'k': string 0",
    ),
    "same key": (header(0, 2) + (string("k") + struct.pack("<II", 4, 1)) * 2, "'k' appears twice"),
    "long key twice": (
        header(0, 2) + (string("k\x1b[2J\n" + "x" * 9999) + struct.pack("<II", 4, 1)) * 2,
        r"metadata key 'k\\x1b\[2J\\nx{54}'… \(10005 characters\) appears twice",
    ),
    "long tensor name": (
        padded(header(1, 0) + info("\r" + "x" * 999, kind=4)),
        r"tensor '\\rx{59}'… \(1000 characters\) has the unknown type 4",
    ),
    "array of alignments": (
        header(0, 1) + string("general.alignment") + struct.pack("<IIQ2I", 9, 4, 2, 32, 32),
        "general.alignment is an array of 2, expected a power of two",
    ),
    "array of counts": (
        header(0, 1) + string("split.count") + struct.pack("<IIQ2I", 9, 4, 2, 1, 1),
        "split.count is an array of 2, expected a number of parts",
    ),
    "alignment": (header(0, 1) + string("general.alignment") + struct.pack("<II", 4, 24), "general.alignment is 24"),
    "no dimensions": (padded(header(1, 0) + info("x", ()) + bytes(32)), "'x' has 0 dimensions"),
    "many dimensions": (padded(header(1, 0) + info("x", (1,) * 5)), "'x' has 5 dimensions"),
    "zero dimension": (padded(header(1, 0) + info("x", (0, 4))), r"'x' has shape \[0, 4\]"),
    "unknown type": (padded(header(1, 0) + info("x", kind=4)), "'x' has the unknown type 4"),
    "part of a block": (padded(header(1, 0) + info("x", (2, 33), kind=2)), "rows of Q4_0 are whole blocks of 32"),
    "misaligned": (
        padded(header(1, 0) + info("x", offset=16)) + bytes(256),
        "starts at offset 16, expected a multiple of 32",
    ),
    "beyond the end": (padded(header(1, 0) + info("x")) + bytes(127), "tensor 'x' ends at byte 192, the file has 191"),
    "huge product": (padded(header(1, 0) + info("x", (1 << 40, 1 << 40))), "truncated: tensor 'x' ends at"),
    "same tensor": (padded(header(2, 0) + info("x") + info("x", offset=128)) + bytes(256), "'x' appears twice"),
    "overlap": (padded(header(2, 0) + info("x") + info("y", offset=96)) + bytes(256), "'x' and 'y' overlap"),
}


@pytest.mark.parametrize("case", BAD_CONTENT)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    content, message = BAD_CONTENT[case]
    with pytest.raises(ArcmtpError, match=message):
        GGUF(written(tmp_path / "bad.gguf", content))
    opened_error(tmp_path / "bad.gguf")


def test_paths_that_are_no_files_are_refused_in_one_line(tmp_path: Path) -> None:
    assert "no such file" in opened_error(tmp_path / "missing.gguf")
    assert "is a directory" in opened_error(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in opened_error(tmp_path / "fifo")


def small_header() -> bytes:
    """A header with every kind of entry, its tensors' data after it."""
    keys = string("text") + struct.pack("<I", 8) + string("hello")
    keys += string("words") + struct.pack("<IIQ", 9, 8, 2) + string("a") + string("bc")
    keys += string("numbers") + struct.pack("<IIQ3i", 9, 5, 3, 1, 2, 3)
    keys += string("split.count") + struct.pack("<IH", 2, 1)
    keys += string("general.alignment") + struct.pack("<II", 4, 64)
    tensors = info("a", (4, 64), 2) + info("b", (2, 2, 256), 14, 192) + info("c", (8,), 0, 1088)
    return padded(header(3, 5) + keys + tensors, 64)


def test_truncations_and_flipped_bytes_parse_or_are_refused_without_large_allocations(tmp_path: Path) -> None:
    head, data = small_header(), bytes(1088 + 64)
    path = written(tmp_path / "fuzz.gguf", head + data)
    assert set(GGUF(path).tensors) == {"a", "b", "c"}
    rng = random.Random(1)
    variants = [(head + data)[:length] for length in range(0, len(head) + 1, 3)]
    for index in range(len(head)):
        for flip in (1 << rng.randrange(8), 0xFF):
            variants.append(head[:index] + bytes([head[index] ^ flip]) + head[index + 1 :] + data)
    refused = 0
    tracemalloc.start()
    try:
        for variant in variants:
            path.write_bytes(variant)
            try:
                file = GGUF(path)
                assert all(file.data(tensor).nbytes == tensor.nbytes for tensor in file.tensors.values())
            except ArcmtpError as error:
                assert "\n" not in str(error)
                refused += 1
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert len(head) // 2 < refused < len(variants)


@pytest.mark.parametrize("begin", [64, 1000])
def test_a_header_longer_than_what_is_read_at_first_is_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: int
) -> None:
    whole = GGUF(FILES[0])
    monkeypatch.setattr(gguf_reader, "HEADER_BYTES", begin)
    file = GGUF(FILES[0])
    assert file.tensors == whole.tensors and list(file.metadata) == list(whole.metadata)
    assert file.metadata["tokenizer.ggml.merges"] == whole.metadata["tokenizer.ggml.merges"]
    path = written(tmp_path / "long.gguf", header(0, 1) + string("k") + struct.pack("<IQ", 8, 9999) + b"x" * 9999)
    assert GGUF(path).metadata["k"] == "x" * 9999
    cut = header(0, 1) + string("k") + struct.pack("<IIQ", 9, 8, 1) + string("é" * 999)  # inside of an é
    assert GGUF(written(tmp_path / "cut.gguf", cut)).metadata["k"] == ["é" * 999]
    monkeypatch.setattr(gguf_reader, "MAX_HEADER_BYTES", 4 * begin)
    assert "the header has more than 0 MiB" in opened_error(path)
