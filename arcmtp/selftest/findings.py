"""What the parts of a selftest find: how far results are from what they must be, and what things take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """Results beside what they must be. The value told is the one that is furthest outside of what is allowed, or
    nearest to its bound.

    largest: |got - want| there; allowed: what it may be; count: how many values were compared.
    """

    what: str
    count: int
    largest: float
    allowed: float
    where: tuple[int, ...]
    got: float
    want: float

    @property
    def ok(self) -> bool:
        """Whether all values are as they must be; not a number is not."""
        return self.largest <= self.allowed

    def __str__(self) -> str:
        relation = "of" if self.ok else "more than"
        place = f" at {list(self.where)}: {self.got:.9g}, expected {self.want:.9g}" if self.where else ""
        return f"{self.what}: {self.largest:.3g} {relation} the {self.allowed:.3g} allowed{place}"


@dataclass(frozen=True)
class Figure:
    """What something takes or gives, in `unit`; None: an emulator ran it, whose speed means nothing. predicted: at
    best, expected, at worst; None: there is no prediction for this device."""

    what: str
    value: float | None
    unit: str
    predicted: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Note:
    """What else a part has to say: a line."""

    text: str


Finding = Difference | Figure | Note
Findings = Iterator[Finding]


def close(what: str, got: np.ndarray, want: np.ndarray, atol: float = 0.0, rtol: float = 0.0) -> Difference:
    """Arrays of one shape, of which each value may be off by atol + rtol * |want|. Equal infinities are equal, and so
    is not a number to another one.

    Raises ValueError for different shapes.
    """
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        raise ValueError(f"{what}: the results have shape {got.shape}, expected {want.shape}")
    if not got.size:
        return Difference(what, 0, 0.0, 0.0, (), math.nan, math.nan)
    found, expected = got.astype(np.float64), want.astype(np.float64)
    with np.errstate(invalid="ignore"):
        off = np.where((got == want) | (np.isnan(found) & np.isnan(expected)), 0.0, np.abs(found - expected))
        allowed = np.where(np.isfinite(expected), atol + rtol * np.abs(expected), atol)
    off[np.isnan(off)] = np.inf
    where = np.unravel_index(np.argmax(off - allowed), off.shape)
    place = tuple(int(i) for i in where)
    return Difference(
        what, got.size, float(off[where]), float(allowed[where]), place, float(found[where]), float(expected[where])
    )


def equal(what: str, got: np.ndarray, want: np.ndarray) -> Difference:
    """Arrays of which every value must be the same."""
    return close(what, got, want)
