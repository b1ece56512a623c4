"""How keys and values lie in a KV cache: sizes, and the numpy twin of what kernels store and load (kv_formats.hpp)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from arcmtp.errors import ArcmtpError

KEY_TILE = 64  # keys that are weighed together; a cache has whole tiles
TILE = 16  # keys that lie together

# A sign for each of 256 dimensions, a bit each: the first bits of pi's fraction.
SIGNS = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0, 0x082EFA98, 0xEC4E6C89)


@dataclass(frozen=True)
class KvFormat(ABC):
    """A cache of one sequence: for keys, then for values, tiles of 16 positions of each KV head, elements of `dtype`.
    cpp: the name of its twin. dims: of what a head must be a multiple."""

    name: str
    cpp: str
    dtype: np.dtype[np.generic]
    dims: int

    @abstractmethod
    def width(self, head_dim: int) -> int:
        """Elements that a position takes in the keys, or in the values, of a KV head."""

    @abstractmethod
    def store(self, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
        """A cache of float32 keys and values [positions, kv_heads, head_dim], whole tiles of 16 positions."""

    @abstractmethod
    def load(self, cache: np.ndarray, head_dim: int) -> tuple[np.ndarray, np.ndarray]:
        """float32 keys and values [positions, kv_heads, head_dim] of a cache in its shape."""

    def rounded(self, keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """float64 keys and values [positions, kv_heads, head_dim] as a cache gives them back."""
        count, padding = len(keys), [(0, -len(keys) % TILE), (0, 0), (0, 0)]
        whole = (np.pad(part, padding).astype(np.float32) for part in (keys, values))
        k, v = self.load(self.store(*whole), keys.shape[-1])
        return k[:count].astype(np.float64), v[:count].astype(np.float64)

    def rounded_queries(self, queries: np.ndarray) -> np.ndarray:
        """float64 queries [..., head_dim] as they are multiplied by keys."""
        return queries.astype(np.float64)

    def check(self, head_dim: int) -> None:
        """Raises ArcmtpError for a head that the format cannot hold."""
        if head_dim % self.dims:
            raise ArcmtpError(
                f"attention heads have {head_dim} dimensions; a KV cache of type {self.name} takes multiples of "
                f"{self.dims}"
            )

    def nbytes(self, head_dim: int) -> int:
        """Bytes that a position takes in the keys, or in the values, of a KV head."""
        return self.width(head_dim) * self.dtype.itemsize

    def shape(self, kv_heads: int, context: int, head_dim: int) -> tuple[int, int, int, int]:
        """Shape of a cache that holds `context` positions: keys and values, KV heads, positions, elements."""
        return 2, kv_heads, padded(context), self.width(head_dim)

    def spans(self, shape: tuple[int, ...], first: int, end: int) -> list[tuple[int, int]]:
        """(first byte, bytes) of each part of a cache of that shape where the positions first … end - 1 lie, as whole
        tiles; `first` begins one."""
        parts, kv_heads, positions, width = shape
        row = width * self.dtype.itemsize
        used = (-(-end // TILE) * TILE - first) * row
        return [((part * positions + first) * row, used) for part in range(parts * kv_heads)]


class HalfKv(KvFormat):
    """Keys [kv_heads, positions / 16, head_dim, 16], then values [kv_heads, positions, head_dim], f16."""

    def width(self, head_dim: int) -> int:
        return head_dim

    def store(self, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
        positions, heads, dims = keys.shape
        tiles = keys.reshape(positions // TILE, TILE, heads, dims).transpose(2, 0, 3, 1)
        parts = [tiles.reshape(heads, positions, dims), values.transpose(1, 0, 2)]
        return np.stack(parts).astype(self.dtype)

    def load(self, cache: np.ndarray, head_dim: int) -> tuple[np.ndarray, np.ndarray]:
        _, heads, positions, dims = cache.shape
        tiles = cache[0].reshape(heads, positions // TILE, dims, TILE).transpose(1, 3, 0, 2)
        keys = tiles.reshape(positions, heads, dims)
        return keys.astype(np.float32), cache[1].transpose(1, 0, 2).astype(np.float32)


@dataclass(frozen=True)
class CodedKv(KvFormat):
    """Bytes: a tile is codes, then scales f16 [blocks, 16 positions].

    A head is rotated (signs, then Hadamard, of at most `rotation` dimensions at once) and each block of at most `block`
    dimensions quantised: value = code * scale. Without magnitudes a code has 8 bits, scale = largest / 127. With them a
    code is the level of a magnitude and, in its highest bit, a sign; the scale gives the reconstruction the block's
    norm (TurboQuant, arXiv 2504.19874). deviation: the standard deviation of the values that the magnitudes are made
    for.
    """

    bits: int
    block: int
    rotation: int
    magnitudes: tuple[int, ...] = ()
    deviation: float = 0.0

    def width(self, head_dim: int) -> int:
        return self._code_bytes(head_dim) // TILE + 2 * self.blocks(head_dim)

    def blocks(self, head_dim: int) -> int:
        """Blocks of a head, each with a scale."""
        return head_dim // _power_of_two_divisor(head_dim, self.block)

    def store(self, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.stack([self._tiles(keys, of_keys=True), self._tiles(values, of_keys=False)])

    def load(self, cache: np.ndarray, head_dim: int) -> tuple[np.ndarray, np.ndarray]:
        return self._heads(cache[0], head_dim, of_keys=True), self._heads(cache[1], head_dim, of_keys=False)

    def rounded_queries(self, queries: np.ndarray) -> np.ndarray:
        """Rotated as keys are, and in the same blocks rounded to 1/127 of the largest."""
        dims = queries.shape[-1]
        block, rotation = (_power_of_two_divisor(dims, most) for most in (self.block, self.rotation))
        blocks = rotate(queries.astype(np.float32), rotation).reshape(*queries.shape[:-1], -1, block)
        largest = np.abs(blocks).max(-1)
        codes = np.rint(blocks * _inverse(127, largest, 1e-30))
        return rotate_back((codes * (largest / 127)[..., None]).reshape(queries.shape), rotation).astype(np.float64)

    def _code_bytes(self, head_dim: int) -> int:
        planes = {8: head_dim // 16, 4: head_dim // 32, 3: head_dim // 64 + -(-head_dim // 128)}
        return planes[self.bits] * TILE * TILE

    def _tiles(self, heads: np.ndarray, of_keys: bool) -> np.ndarray:
        """[kv_heads, positions, width] of [positions, kv_heads, head_dim]."""
        positions, count, dims = heads.shape
        block = _power_of_two_divisor(dims, self.block)
        rotated = rotate(heads.astype(np.float32), _power_of_two_divisor(dims, self.rotation))
        codes, scales = self._encode(rotated.reshape(positions, count, dims // block, block))
        matrices = self._pack(codes.reshape(positions, count, dims // TILE, TILE))
        tiles = matrices.reshape(positions // TILE, TILE, count, -1, TILE)
        # To [tile, head, matrix, what is summed over, what is a lane].
        tiles = tiles.transpose(0, 2, 3, 4, 1) if of_keys else tiles.transpose(0, 2, 3, 1, 4)
        words = tiles.reshape(*tiles.shape[:3], 4, 4, TILE).swapaxes(-1, -2)
        of_tile = scales.reshape(positions // TILE, TILE, count, -1).transpose(0, 2, 3, 1)
        parts = [np.ascontiguousarray(part).view(np.uint8).reshape(*tiles.shape[:2], -1) for part in (words, of_tile)]
        return np.concatenate(parts, -1).swapaxes(0, 1).reshape(count, positions, -1)

    def _heads(self, part: np.ndarray, head_dim: int, of_keys: bool) -> np.ndarray:
        """The inverse of `_tiles`, but for what rounding loses."""
        count, positions, width = part.shape
        block, size = _power_of_two_divisor(head_dim, self.block), self._code_bytes(head_dim)
        tiles = part.reshape(count, positions // TILE, width * TILE)
        words = tiles[..., :size].reshape(count, positions // TILE, -1, 4, TILE, 4).swapaxes(-1, -2)
        matrices = words.reshape(*words.shape[:3], TILE, TILE)
        matrices = matrices.transpose(1, 4, 0, 2, 3) if of_keys else matrices.transpose(1, 3, 0, 2, 4)
        codes = self._unpack(matrices.reshape(positions, count, -1, TILE), head_dim // TILE)
        scales = np.ascontiguousarray(tiles[..., size:]).view(np.float16).reshape(*tiles.shape[:2], -1, TILE)
        scales = scales.transpose(1, 3, 0, 2).reshape(positions, count, -1, 1)
        numbers = self._numbers(codes).reshape(positions, count, -1, block)
        heads = (numbers * scales.astype(np.float32)).reshape(positions, count, head_dim)
        return rotate_back(heads, _power_of_two_divisor(head_dim, self.rotation))

    def _encode(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes u8 [..., n] and scales f16 [...] of float32 blocks [..., n], in the kernels' order of sums."""
        if not self.magnitudes:
            scales = (np.abs(blocks).max(-1) / np.float32(127)).astype(np.float16)
            codes = np.clip(np.rint(blocks * _inverse(1, scales.astype(np.float32), 1e-8)), -127, 127)
            return (codes + 128).astype(np.uint8), scales
        size, magnitudes = blocks.shape[-1], np.array(self.magnitudes)
        norms = np.sqrt(_sum(blocks * blocks))
        length = np.float32(self.deviation) / _inverse_root(size)
        scaled = blocks * _inverse(length, norms, 1e-18)
        between = ((magnitudes[1:] + magnitudes[:-1]) / 2).astype(np.float32)
        levels = (np.abs(scaled)[..., None] > between).sum(-1)
        reconstructed = (magnitudes[levels] ** 2).sum(-1).astype(np.float32)
        codes = levels + (scaled < 0) * len(magnitudes)
        return codes.astype(np.uint8), (norms / np.sqrt(reconstructed)).astype(np.float16)

    def _numbers(self, codes: np.ndarray) -> np.ndarray:
        """float32: what the codes are in units of their block's scale."""
        if not self.magnitudes:
            return codes.astype(np.float32) - 128
        numbers = np.array([*self.magnitudes, *(-m for m in self.magnitudes)], np.float32)
        return numbers[codes]

    def _pack(self, codes: np.ndarray) -> np.ndarray:
        """Codes [positions, heads, head_dim / 16, 16] as bytes [positions, heads, matrices, 16]."""
        if self.bits == 8:
            return codes
        if self.bits == 4:
            return _share(codes, 4)
        return np.concatenate([_share(codes & 3, 2), _share(codes >> 2, 1)], axis=2)

    def _unpack(self, matrices: np.ndarray, count: int) -> np.ndarray:
        if self.bits == 8:
            return matrices
        if self.bits == 4:
            return _part(matrices, 4, count)
        low = count // 4
        return _part(matrices[:, :, :low], 2, count) | _part(matrices[:, :, low:], 1, count) << 2


KV_F16 = HalfKv("f16", "KvF16", np.dtype(np.float16), 32)
KV_Q8 = CodedKv("q8_0", "KvQ8", np.dtype(np.uint8), 32, bits=8, block=32, rotation=256)
KV_TURBO4 = CodedKv(
    "turbo4", "KvTurbo4", np.dtype(np.uint8), 32, bits=4, block=128, rotation=128,
    magnitudes=(6, 18, 30, 43, 57, 73, 93, 123), deviation=45.1,
)  # fmt: skip
KV_TURBO3 = CodedKv(
    "turbo3", "KvTurbo3", np.dtype(np.uint8), 64, bits=3, block=128, rotation=128,
    magnitudes=(13, 40, 71, 114), deviation=53.0,
)  # fmt: skip
KV_FORMATS = {kv.name: kv for kv in (KV_F16, KV_Q8, KV_TURBO4, KV_TURBO3)}


def kv_format(name: str) -> KvFormat:
    """The format of that name. Raises ArcmtpError for an unknown one."""
    if name not in KV_FORMATS:
        raise ArcmtpError(f"kv_type is {name!r}; it must be one of {', '.join(KV_FORMATS)}")
    return KV_FORMATS[name]


def padded(context: int) -> int:
    """`context` rounded up to whole tiles of keys."""
    return -(-context // KEY_TILE) * KEY_TILE


def rotate(heads: np.ndarray, size: int) -> np.ndarray:
    """float32 [..., head_dim], each `size` dimensions: signs, then the orthonormal Hadamard transform."""
    return _hadamard(heads * _signs(heads.shape[-1]), size)


def rotate_back(heads: np.ndarray, size: int) -> np.ndarray:
    """The inverse of `rotate`."""
    return _hadamard(heads, size) * _signs(heads.shape[-1])


def _signs(dims: int) -> np.ndarray:
    bits = [SIGNS[d // 32 % len(SIGNS)] >> d % 32 & 1 for d in range(dims)]
    return np.float32(1) - 2 * np.array(bits, np.float32)


def _hadamard(x: np.ndarray, size: int) -> np.ndarray:
    shape, step = x.shape, 1
    while step < size:
        pairs = x.reshape(*shape[:-1], -1, 2, step)
        a, b = pairs[..., 0, :], pairs[..., 1, :]
        x = np.stack([a + b, a - b], axis=-2).reshape(shape)
        step *= 2
    return x * _inverse_root(size)


def _inverse_root(n: int) -> np.float32:
    """1 / sqrt(n) for a power of two."""
    return np.float32(1 / np.sqrt(n))


def _inverse(numerator: float | np.float32, x: np.ndarray, smallest: float) -> np.ndarray:
    """float32 numerator / x [..., 1], where x is less than `smallest` by that."""
    return (np.float32(numerator) / np.maximum(x, np.float32(smallest)))[..., None]


def _sum(x: np.ndarray) -> np.ndarray:
    """The float32 sum over the last axis, vector after vector of 16 lanes, then halves folded onto each other."""
    lanes = np.zeros((*x.shape[:-1], TILE), np.float32)
    for start in range(0, x.shape[-1], TILE):
        lanes = lanes + x[..., start : start + TILE]
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def _power_of_two_divisor(n: int, most: int) -> int:
    """The largest power of two that divides n, at most `most`."""
    return min(n & -n, most)


def _share(codes: np.ndarray, bits: int) -> np.ndarray:
    """Matrices of `bits` a code, as many together in a byte as it has room for."""
    count = 8 // bits
    padding = [(0, 0), (0, 0), (0, -codes.shape[2] % count), (0, 0)]
    groups = np.pad(codes, padding).reshape(*codes.shape[:2], -1, count, TILE)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    return np.bitwise_or.reduce(groups << shifts, axis=3).astype(np.uint8)


def _part(matrices: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The inverse of `_share`: the first `count` matrices."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    codes = matrices[:, :, :, None, :] >> shifts & (1 << bits) - 1
    return codes.reshape(*matrices.shape[:2], -1, TILE)[:, :, :count]
