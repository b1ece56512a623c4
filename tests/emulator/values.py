"""Values of Xe2's types: edges and random ones, and the exact arithmetic that tests compare with."""

import math
from fractions import Fraction
from typing import Any

import numpy as np

DTYPES: dict[str, Any] = {
    "ub": np.uint8, "b": np.int8, "uw": np.uint16, "w": np.int16, "ud": np.uint32, "d": np.int32,
    "uq": np.uint64, "q": np.int64, "hf": np.float16, "f": np.float32,
}  # fmt: skip
FLOAT_EDGES = (
    0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, 3.5, 0.49999997, 8388607.5, 16777216.0, math.inf, -math.inf, math.nan,
    2.0**31, -(2.0**31), 2.0**32, 4294967040.0, 2147483520.0, 65504.0, 65520.0, 2.0**-14, 2.0**-24, 2.0**-25, 2.0**-126,
    2.0**-127, -(2.0**-149), 3.4028235e38, -3.4028235e38, 1.0000001, 0.99999994,
)  # fmt: skip


def size(kind: str) -> int:
    return np.dtype(DTYPES[kind]).itemsize


def is_float(kind: str) -> bool:
    return kind in ("f", "hf")


def limits(kind: str) -> tuple[int, int]:
    info = np.iinfo(DTYPES[kind])
    return int(info.min), int(info.max)


def held(value: int, kind: str) -> int:
    """The integer as its type holds it: the lower bits."""
    low, _ = limits(kind)
    bits = 8 * size(kind)
    value &= (1 << bits) - 1
    return value - (1 << bits) if low < 0 and value >> (bits - 1) else value


def edges(kind: str) -> np.ndarray:
    """Values at which something changes."""
    if is_float(kind):
        with np.errstate(over="ignore"):
            return np.array(FLOAT_EDGES, np.float32).astype(DTYPES[kind])
    low, high = limits(kind)
    chosen = (0, 1, 2, 3, 7, 31, 32, 63, 64, high, high - 1, high >> 1, low, low + 1, -1, -2, -32, 1 << size(kind) * 4)
    return np.array([held(edge, kind) for edge in chosen], DTYPES[kind])


def integers(rng: np.random.Generator, kind: str, count: int) -> np.ndarray:
    """Half of them edges, the others of any number of bits."""
    random = rng.integers(256, size=(count, size(kind)), dtype=np.uint8).view(f"u{size(kind)}")[:, 0]
    any_bits = random >> rng.integers(8 * size(kind), size=count).astype(random.dtype)
    return np.where(rng.integers(2, size=count), any_bits.view(DTYPES[kind]), rng.choice(edges(kind), count))


def reals(rng: np.random.Generator, kind: str, count: int) -> np.ndarray:
    """A third of them edges, a third of any bits, a third around 1."""
    dtype = DTYPES[kind]
    any_bits = rng.integers(256, size=(count, size(kind)), dtype=np.uint8).view(dtype)[:, 0]
    common = rng.normal(scale=4, size=count).astype(dtype)
    return np.choose(rng.integers(3, size=count), (rng.choice(edges(kind), count), any_bits, common)).astype(dtype)


def values(rng: np.random.Generator, kind: str, shape: tuple[int, int]) -> np.ndarray:
    """Of that shape; the first column holds every edge, as it is all that instructions of one channel see."""
    result = (reals if is_float(kind) else integers)(rng, kind, shape[0] * shape[1]).reshape(shape)
    result[:, 0] = rng.permutation(np.resize(edges(kind), shape[0]))
    return result


def immediate(value: np.generic, kind: str) -> str:
    """The value as an immediate operand's text."""
    bits = np.array([value]).view(f"u{size(kind)}")[0]
    return f"0x{bits:X}:{kind}" if is_float(kind) or limits(kind)[0] == 0 else f"{int(value)}:{kind}"


def rounded(value: Fraction, to_zero: bool = False, digits: int = 24, least: int = -149, greatest: int = 128) -> float:
    """The nearest float of so many binary digits, or the next one towards zero; float32's limits by default."""
    if value == 0:
        return 0.0
    size = abs(value)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    step = Fraction(2) ** max(exponent - digits + 1, least)
    whole = math.floor(size / step) if to_zero else round(size / step)  # round() takes ties to even
    result = float(whole * step)
    if result >= 2.0**greatest:
        result = 2.0**greatest - 2.0 ** (greatest - digits) if to_zero else math.inf
    return math.copysign(result, value)


def fused(addend: float, a: float, b: float, to_zero: bool = False) -> float:
    """addend + a * b with one rounding to float32; the arguments are float32 values."""
    addend, a, b = float(addend), float(a), float(b)
    with np.errstate(all="ignore"):
        rough = float(np.float64(a) * np.float64(b) + np.float64(addend))  # the product is exact
    if not all(map(math.isfinite, (addend, a, b))) or rough == 0:
        return rough
    return rounded(Fraction(addend) + Fraction(a) * Fraction(b), to_zero)


def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where bits are equal; any NaN is like any other."""
    equal = a.view(f"u{a.itemsize}") == b.view(f"u{b.itemsize}")
    return equal | (np.isnan(a) & np.isnan(b)) if a.dtype.kind == "f" else equal
