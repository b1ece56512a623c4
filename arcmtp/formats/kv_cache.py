"""How keys and values lie in a KV cache: sizes, and the numpy twin of what kernels store and load (kv_cache.hpp)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KEY_TILE = 64  # keys that are weighed together; a cache has whole tiles
TILE = 16  # keys that lie together


@dataclass(frozen=True)
class KvFormat:
    """A cache of one sequence: keys [kv_heads, positions / 16, head_dim, 16], then values [kv_heads, positions,
    head_dim], elements of `dtype`. cpp: the name of its twin."""

    cpp: str
    dtype: np.dtype[np.generic]

    def shape(self, kv_heads: int, context: int, head_dim: int) -> tuple[int, int, int, int]:
        """Shape of a cache that holds `context` positions: keys and values, KV heads, positions, dimensions."""
        return 2, kv_heads, padded(context), head_dim

    def spans(self, shape: tuple[int, ...], tokens: int) -> list[tuple[int, int]]:
        """(first byte, bytes) of each part of a cache of that shape where the first `tokens` positions lie."""
        parts, kv_heads, positions, head_dim = shape
        row = head_dim * self.dtype.itemsize
        used = -(-tokens // TILE) * TILE * row
        return [(part * positions * row, used) for part in range(parts * kv_heads)]

    def store(self, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
        """A cache of float keys and values [positions, kv_heads, head_dim], whole tiles of 16 positions."""
        positions, heads, dims = keys.shape
        tiles = keys.reshape(positions // TILE, TILE, heads, dims).transpose(2, 0, 3, 1)
        parts = [tiles.reshape(heads, positions, dims), values.transpose(1, 0, 2)]
        return np.stack(parts).astype(self.dtype)

    def load(self, cache: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """float32 keys and values [positions, kv_heads, head_dim] of a cache in its shape."""
        _, heads, positions, dims = cache.shape
        tiles = cache[0].reshape(heads, positions // TILE, dims, TILE).transpose(1, 3, 0, 2)
        keys = tiles.reshape(positions, heads, dims)
        return keys.astype(np.float32), cache[1].transpose(1, 0, 2).astype(np.float32)


KV_F16 = KvFormat("KvF16", np.dtype(np.float16))


def padded(context: int) -> int:
    """`context` rounded up to whole tiles of keys."""
    return -(-context // KEY_TILE) * KEY_TILE
