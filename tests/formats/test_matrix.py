"""Device weight formats against the gguf package's dequantisation, and the native repacking against the reference."""

from __future__ import annotations

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from arcmtp.errors import ArcmtpError
from arcmtp.formats.matrix import (
    FORMATS,
    SUPPORTED_TYPES,
    W4,
    W4_K,
    W6,
    W8,
    format_of,
    unpack,
)
from arcmtp.gguf_header import Bytes, GgmlType
from arcmtp.runtime import _host
from tests.formats.packing import pack

FLOAT_FIELDS = {  # byte positions of the f16 scales in a block
    GgmlType.Q4_1: (0, 2),
    GgmlType.Q5_1: (0, 2),
    GgmlType.Q4_K: (0, 2),
    GgmlType.Q5_K: (0, 2),
    GgmlType.Q6_K: (208,),
    GgmlType.Q2_K: (80, 82),
    GgmlType.Q3_K: (108,),
    GgmlType.TQ1_0: (52,),
    GgmlType.TQ2_0: (64,),
    GgmlType.MXFP4: (),
    GgmlType.IQ1_M: (),
}
SHAPES = [(16, 256), (37, 768), (1, 256), (33, 96), (5, 32), (48, 288)]
CASES = [(kind, n, k) for kind in SUPPORTED_TYPES for n, k in SHAPES if k % kind.block == 0]


def random_rows(kind: GgmlType, n: int, k: int, seed: int = 0) -> Bytes:
    """File bytes uint8 [n, row_bytes]: every bit random, but for scales that are ordinary numbers of either sign."""
    rng = np.random.default_rng(seed)
    if kind.block == 1:
        values = rng.standard_normal((n, k)).astype(np.float32)
        return gguf.quants.quantize(values, gguf.GGMLQuantizationType(kind)).view(np.uint8).reshape(n, -1)
    blocks = rng.integers(0, 256, (n, k // kind.block, kind.block_bytes), dtype=np.uint8)
    scales = rng.standard_normal((*blocks.shape[:2], 1)).astype("<f2")
    for start in FLOAT_FIELDS.get(kind, (0,)):
        blocks[..., start : start + 2] = scales.view(np.uint8)
        scales = rng.standard_normal(scales.shape).astype("<f2")
    if kind is GgmlType.MXFP4:  # the scales that are subnormal and the least that is not, and ordinary ones
        blocks[..., 0] = rng.choice([0, 1, 2, *range(100, 136)], blocks.shape[:2])
    if kind is GgmlType.IQ1_M:  # the highest bits of its four scale words are a half
        quarters = scales.view(np.uint16) >> np.array([0, 4, 8, 12], np.uint16)
        blocks[..., 49::2] = blocks[..., 49::2] & 15 | (quarters & 15).astype(np.uint8) << 4
    if kind is GgmlType.TQ1_0:  # five digits of base 3 in a byte, four in the last ones
        digits = rng.integers(0, 3, (*blocks.shape[:2], 52, 5))
        digits[..., 48:, 4] = 0
        number = digits @ np.array([81, 27, 9, 3, 1])
        blocks[..., :52] = (number * 256 + 242) // 243
    return blocks.reshape(n, -1)


def dequantise(kind: GgmlType, rows: Bytes) -> npt.NDArray[np.float32]:
    """The gguf package's values; a zero is +0, whatever sign its scale has."""
    if kind in (GgmlType.Q1_0, GgmlType.Q2_0):  # which the package does not know yet
        blocks = rows.reshape(len(rows), -1, kind.block_bytes)
        bits = np.unpackbits(blocks[..., 2:], axis=-1, bitorder="little")
        numbers = 2.0 * bits - 1 if kind is GgmlType.Q1_0 else bits.reshape(*bits.shape[:2], -1, 2) @ [1, 2] - 1.0
        scale = np.ascontiguousarray(blocks[..., :2]).view("<f2").astype(np.float32)
        return (numbers.astype(np.float32) * scale).reshape(len(rows), -1) + np.float32(0)
    return gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(kind)).astype(np.float32) + np.float32(0)


def same_bits(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    return a.shape == b.shape and np.array_equal(a.view(np.uint32), b.view(np.uint32))


@pytest.mark.parametrize(("kind", "n", "k"), CASES, ids=lambda value: getattr(value, "name", value))
def test_unpacking_what_was_packed_gives_the_dequantised_bits(kind: GgmlType, n: int, k: int) -> None:
    rows = random_rows(kind, n, k)
    tiles = pack(kind, rows, n, k)
    assert tiles.nbytes == format_of(kind).matrix_bytes(n, k)
    assert same_bits(unpack(format_of(kind), tiles, n, k) + np.float32(0), dequantise(kind, rows))


@pytest.mark.parametrize("kind", SUPPORTED_TYPES, ids=lambda kind: kind.name)
def test_missing_outputs_of_the_last_tile_are_zero(kind: GgmlType) -> None:
    tiles = pack(kind, random_rows(kind, 17, 256), 17, 256)
    padded = unpack(format_of(kind), tiles, 32, 256)
    assert np.any(padded[:17])
    assert not np.any(padded[17:])


def test_codes_lie_where_the_design_says() -> None:
    """Spot checks of the word order, input by input, that a symmetric pack and unpack could get wrong together."""
    n, k, lane, group = 16, 128, 3, 1  # of the second of two spans
    for kind, form in [(GgmlType.Q4_0, W4), (GgmlType.Q5_0, W6), (GgmlType.Q8_0, W8)]:
        rows = random_rows(kind, n, k)
        tile = pack(kind, rows, n, k)
        scale = float(rows.reshape(n, 4, -1)[lane, 2 + group, :2].view("<f2")[0])
        codes = np.rint(dequantise(kind, rows)[lane, 96:128] / scale).astype(int) + form.zero
        words = tile[len(tile) // 2 :].view("<u4")
        for i, code in enumerate(codes):
            if form.bits == 8:
                found = words[(group * 8 + i // 4) * 16 + lane] >> 8 * (i % 4) & 255
            else:
                found = words[(group * 4 + i // 8) * 16 + lane] >> 4 * (i % 8) & 15
            if form.bits == 6:
                high = words[4 * 16 * 2 :][(group * 2 + i // 16) * 16 + lane]
                found |= (high >> 2 * (i % 16) & 3) << 4
            assert found == code, (form.name, i)


@pytest.mark.parametrize(
    ("kind", "bits"),
    [
        ("Q4_0", 4.5), ("Q4_K", 4.625), ("Q5_0", 6.5), ("Q6_K", 6.5625), ("Q8_0", 8.5), ("IQ4_NL", 4.5),
        ("IQ4_XS", 4.3125), ("MXFP4", 4.25), ("IQ3_S", 4.3125), ("IQ3_XXS", 4.3125), ("Q3_K", 3.5625), ("Q2_K", 2.625),
        ("IQ2_S", 3.5625), ("IQ2_XXS", 3.3125), ("IQ1_S", 3.3125), ("IQ1_M", 3.5625), ("TQ2_0", 2.625), ("BF16", 16),
    ],
)  # fmt: skip
def test_bits_per_weight_are_those_of_the_design(kind: str, bits: float) -> None:
    assert format_of(GgmlType[kind]).matrix_bytes(2048, 512) * 8 == 2048 * 512 * bits


def test_every_format_holds_whole_groups_only() -> None:
    for form in FORMATS:
        with pytest.raises(ValueError, match="multiple"):
            form.tile_bytes(form.multiple + 8)


def test_requantisation_makes_every_supported_type_w4() -> None:
    assert {format_of(kind, "int4") for kind in SUPPORTED_TYPES} == {W4}


def test_an_unsupported_type_is_named_with_the_supported_ones() -> None:
    with pytest.raises(ArcmtpError, match=r"type NVFP4 is not supported; supported are F32, .*IQ4_NL"):
        format_of(GgmlType.NVFP4)


@pytest.mark.parametrize(("kind", "n", "k"), CASES, ids=lambda value: getattr(value, "name", value))
def test_native_tiles_are_the_reference_byte_for_byte(kind: GgmlType, n: int, k: int) -> None:
    rows = random_rows(kind, n, k, seed=1)
    expected = pack(kind, rows, n, k)
    for threads in (1, 3):
        tiles = np.full(expected.nbytes, 0xA5, np.uint8)
        _host.repack(kind, rows[None], tiles, threads=threads)
        assert np.array_equal(tiles, expected)


def test_native_repacking_takes_tile_ranges_of_expert_stacks_with_any_stride() -> None:
    """As the loader does for one half of a fused gate and up tensor, in pieces."""
    kind, experts, n, k = GgmlType.Q4_K, 5, 37, 256
    fused = random_rows(kind, experts * 2 * n, k).reshape(experts, 2 * n, -1)
    up = fused[:, n:]
    expected = np.concatenate([pack(kind, expert, n, k) for expert in up])
    size, tiles = W4_K.tile_bytes(k), experts * 3
    for piece in (1, 4, tiles):
        for first in range(0, tiles, piece):
            target = np.full(min(piece, tiles - first) * size, 0xA5, np.uint8)
            _host.repack(kind, up, target, first, threads=2)
            assert np.array_equal(target, expected[first * size :][: target.nbytes])


def test_native_repacking_refuses_what_does_not_fit() -> None:
    rows = random_rows(GgmlType.Q4_0, 16, 64)[None]
    target = np.zeros(W4.tile_bytes(64), np.uint8)
    bad = [
        (GgmlType.NVFP4, rows, target, 0),
        (GgmlType.Q4_0, rows[..., :-1], target, 0),
        (GgmlType.Q4_0, rows[0], target, 0),
    ]
    bad += [(GgmlType.Q4_0, rows, target[:-1], 0), (GgmlType.Q4_0, rows, target, 1), (GgmlType.Q4_0, rows, target, -1)]
    for arguments in bad:
        with pytest.raises(ValueError, match=r"must|no device format"):
            _host.repack(*arguments)


def requantised(kind: GgmlType, rows: Bytes, threads: int = 1) -> tuple[Bytes, float, float]:
    k = rows.shape[-1] // kind.block_bytes * kind.block
    tiles = np.full(W4.matrix_bytes(len(rows), k), 0xA5, np.uint8)
    return tiles, *_host.requant_int4(kind, rows[None], tiles, threads=threads)


@pytest.mark.parametrize("kind", SUPPORTED_TYPES, ids=lambda kind: kind.name)
def test_requantised_values_are_nearest_codes_and_their_error_is_reported(kind: GgmlType) -> None:
    n, k = 37, 768
    rows = random_rows(kind, n, k)
    exact = dequantise(kind, rows).astype(np.float64)
    tiles, error, value = requantised(kind, rows, threads=2)
    found = unpack(W4, tiles, n, k).astype(np.float64)
    assert error == pytest.approx(np.sum((exact - found) ** 2), rel=1e-4)
    assert value == pytest.approx(np.sum(exact**2), rel=1e-4)
    scale = tiles.view(W4.span_dtype)["scale"].astype(np.float64).reshape(-1, k // 32, 16)  # [tiles, groups, lanes]
    scale = np.moveaxis(scale, 2, 1).reshape(-1, k // 32)[:n].repeat(32, axis=1)
    codes = np.divide(exact, scale, out=np.zeros_like(exact), where=scale != 0)
    nearest = scale * np.clip(np.rint(codes), -8, 7)
    assert np.abs(exact - found) == pytest.approx(np.abs(exact - nearest), abs=1e-5 * np.abs(exact).max())


def test_requantisation_is_better_than_mapping_the_extreme_value_to_the_last_code() -> None:
    values = np.random.default_rng(3).standard_normal((64, 512)).astype(np.float32)
    grouped = values.reshape(64, -1, 32)
    extreme = np.take_along_axis(grouped, np.abs(grouped).argmax(-1)[..., None], -1)
    plain = extreme / -8 * np.clip(np.rint(grouped / (extreme / -8)), -8, 7)
    plain_error = float(np.sum((grouped - plain) ** 2) / np.sum(grouped**2)) ** 0.5
    _, error, value = requantised(GgmlType.F32, values.view(np.uint8).reshape(64, -1))
    assert (error / value) ** 0.5 < 0.95 * plain_error


def test_requantisation_gives_the_same_bytes_and_sums_for_any_number_of_threads() -> None:
    rows = random_rows(GgmlType.Q6_K, 300, 256)
    tiles, *sums = requantised(GgmlType.Q6_K, rows)
    again, *same_sums = requantised(GgmlType.Q6_K, rows, threads=5)
    assert np.array_equal(tiles, again)
    assert sums == same_sums


def test_requantisation_keeps_zeros_subnormal_scales_and_huge_values_finite() -> None:
    values = np.zeros((16, 64), np.float32)
    values[1, :32] = 1e-6
    values[2, 5] = 1e9
    values[3, 40] = -1e-30
    tiles, error, _ = requantised(GgmlType.F32, values.view(np.uint8).reshape(16, -1))
    found = unpack(W4, tiles, 16, 64)
    assert np.isfinite(found).all() and np.isfinite(error)
    assert not np.any(found[0]) and not np.any(found[3])
    assert found[1, :32] == pytest.approx(np.full(32, 1e-6), rel=0.1)
    assert found[2, 5] > 4e5
