"""Rows of int8 activations: the layout that `activations.hpp` writes and every quantised product reads."""

import numpy as np

# The order of the codes within each 8 or 16 values, per copy (simd.hpp): bytes, nibbles, two-bit fields.
_ORDERS = (range(8), (0, 2, 4, 6, 1, 3, 5, 7), tuple(4 * i + j for j in range(4) for i in range(4)))


def row_bytes(k: int, orders: int) -> int:
    """Bytes of one row of k values with `orders` copies of its codes (`Device.activation_orders`)."""
    return orders * k + k // 32 * 4 + k // 16 * 4


def quantise(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes int8 [rows, k] and scales float32 [rows, k/32] of x [rows, k]: scale = max|x| / 127 of each 32 values."""
    groups = x.astype(np.float32).reshape(len(x), -1, 32)
    largest = np.abs(groups).max(-1, keepdims=True)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    codes = np.rint(groups * inverse).astype(np.int8)
    return codes.reshape(x.shape), (largest / np.float32(127))[..., 0]


def dequantise(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """float32 [rows, k]: what a product sees of the values that `quantise` took."""
    return codes.astype(np.float32) * np.repeat(scales, 32, axis=-1)


def pack_rows(codes: np.ndarray, scales: np.ndarray, orders: int) -> np.ndarray:
    """Device rows, uint8 [rows, row_bytes(k, orders)]."""
    copies = [codes.reshape(len(codes), -1, len(o))[:, :, list(o)].reshape(codes.shape) for o in _ORDERS[:orders]]
    halves = codes.reshape(len(codes), -1, 2, 16).sum(-1, dtype=np.int32)
    minus_sums = np.concatenate([-halves.sum(-1, dtype=np.int32), -halves[..., 1]], axis=1)
    parts = [*copies, np.ascontiguousarray(scales, np.float32), minus_sums]
    return np.concatenate([np.ascontiguousarray(part).view(np.uint8) for part in parts], axis=1)
