"""What threads of an operator do, as a fixed part and a part for each unit, fitted to counted launches."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import groupby

import numpy as np

from arcmtp.predict.counts import QUANTITIES, THREAD, Counts, Operator, Parts


@dataclass(frozen=True)
class Sample:
    """A launch that was executed."""

    operator: str
    rows: int  # class
    kernel: str
    threads: int
    units: dict[str, float]
    registers: int
    counts: Counts

    def as_json(self) -> str:
        """On one line."""
        return json.dumps({**vars(self), "counts": vars(self.counts)})

    @classmethod
    def from_json(cls, line: str) -> "Sample":
        """What `as_json` wrote."""
        content = json.loads(line)
        return cls(**{**content, "counts": Counts(**content["counts"])})


def fitted(samples: Sequence[Sample]) -> dict[str, Operator]:
    """Operators by name."""
    found: dict[str, Operator] = {}
    ordered = sorted(samples, key=lambda sample: (sample.operator, sample.rows))
    for (name, rows), group in groupby(ordered, key=lambda sample: (sample.operator, sample.rows)):
        members = list(group)
        operator = found.setdefault(name, Operator())
        operator.registers[rows] = max(member.registers for member in members)
        operator.parts[rows] = _parts(members)
    return found


def _parts(samples: Sequence[Sample]) -> Parts:
    """Not negative; errors count in proportion to what was counted, so that small launches weigh as much as large."""
    forms = [THREAD, *sorted({form for sample in samples for form in sample.units})]
    features = np.array(
        [[sample.threads, *(sample.units.get(form, 0) for form in forms[1:])] for sample in samples], np.float64
    )
    counted = np.array([astuple(sample.counts) for sample in samples])
    columns = [_least_squares(features, counted[:, i]) for i in range(len(QUANTITIES))]
    return {form: tuple(float(f"{column[i]:.4g}") for column in columns) for i, form in enumerate(forms)}


def _least_squares(features: np.ndarray, counted: np.ndarray) -> np.ndarray:
    weights = 1 / np.maximum(counted, 1)
    scale = np.maximum(np.abs(features * weights[:, None]).max(axis=0), 1e-300)
    a, b = features * weights[:, None] / scale, counted * weights
    used = np.ones(features.shape[1], bool)
    while used.any():
        solution = np.zeros(features.shape[1])
        solution[used] = np.linalg.lstsq(a[:, used], b, rcond=None)[0]
        if (solution >= -1e-12).all():
            break
        used[np.argmin(solution)] = False
    else:
        solution = np.zeros(features.shape[1])
    return np.maximum(solution, 0) / scale


def differences(
    samples: Sequence[Sample], operators: dict[str, Operator], quantity: str
) -> Iterator[tuple[str, float]]:
    """By operator the largest relative difference between a quantity of a launch, counted and scaled."""
    worst: dict[str, float] = {}
    place = QUANTITIES.index(quantity)
    for sample in samples:
        parts = operators[sample.operator].parts[sample.rows]
        scaled = sample.threads * parts[THREAD][place]
        scaled += sum(units * parts[form][place] for form, units in sample.units.items())
        error = abs(scaled / getattr(sample.counts, quantity) - 1)
        worst[sample.operator] = max(error, worst.get(sample.operator, 0))
    yield from worst.items()
