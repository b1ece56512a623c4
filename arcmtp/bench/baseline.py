"""Whether a matrix is slower, or accepts fewer drafts, than an earlier one of the same model and device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from arcmtp.bench.matrix import Cell, Matrix, name_of
from arcmtp.bench.matrix_text import BENCHMARK, FORMAT, Setup
from arcmtp.engine.loading import Draft
from arcmtp.errors import ArcmtpError

TOLERANCE = 0.05  # by which speeds may fall
ACCEPTANCE_TOLERANCE = 0.01  # by which the acceptance of a fixed draft length may fall: it does not depend on time


@dataclass(frozen=True)
class _Saved:
    benchmark: Literal["arcmtp bench mtp --matrix"]
    format: Literal[1]
    setup: Setup
    cells: list[Cell]
    differences: list[str]


@dataclass(frozen=True)
class Baseline:
    """What `arcmtp bench mtp --matrix -o json` wrote to `path`."""

    path: Path
    setup: Setup
    matrix: Matrix

    def check(self, setup: Setup, lengths: Sequence[int], drafts: Sequence[Draft]) -> None:
        """Raise ArcmtpError unless the baseline is of this model, on this device, with these options, prompt lengths
        and draft settings."""
        for what, then, now in (
            ("model", self.setup.model, setup.model),
            ("bytes of weights", self.setup.weights_bytes, setup.weights_bytes),
            ("device", self.setup.device, setup.device),
            ("card profile", self.setup.profile, setup.profile),
            ("options", self.setup.options, setup.options),
            ("prompt lengths", self.matrix.lengths, sorted(lengths)),
            ("draft settings", set(self.matrix.drafts), set(drafts)),
        ):
            if then != now:
                raise ArcmtpError(f"{self.path}: has other {what} ({then}) than this run ({now}); expected the same")

    def regressions(self, matrix: Matrix, tolerance: float = TOLERANCE) -> list[str]:
        """What is worse than it was, a line each.

        A speed is, if the fastest repetition is slower than the slowest one of the baseline by more than `tolerance`, a
        fraction; the acceptance of a fixed draft length, if it is lower by more than 0.01.
        """
        before = {(cell.prompt, cell.draft): cell for cell in self.matrix.cells}
        return [
            line for cell in matrix.cells for line in _worse(before[cell.prompt, cell.draft], cell, tolerance)
        ]  # fmt: skip


def read_baseline(path: Path) -> Baseline:
    """Raises ArcmtpError for a file that `arcmtp bench mtp --matrix -o json` has not written."""
    try:
        saved = TypeAdapter(_Saved).validate_json(path.read_bytes())
    except OSError as error:
        raise ArcmtpError(f"{path}: {error.strerror}; expected a file of `{BENCHMARK} -o json`") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ArcmtpError(
            f"{path}: is not what `{BENCHMARK} -o json` writes in format {FORMAT}: {where} {first['msg']}"
        ) from None
    return Baseline(path, saved.setup, Matrix(saved.cells, saved.differences))


def _worse(before: Cell, now: Cell, tolerance: float) -> Iterator[str]:
    where = f"{now.prompt} tokens, draft {name_of(now.draft)}"
    for what, old, new in (("input", before.inputs, now.inputs), ("output", before.outputs, now.outputs)):
        if max(new) < min(old) * (1 - tolerance):
            yield (
                f"{where}: {what} has {median(new) / median(old):.2f} times the baseline's speed, {median(new):.1f} "
                f"instead of {median(old):.1f} tokens/s; its fastest is {max(new):.1f}, the baseline's slowest "
                f"{min(old):.1f}"
            )
    fixed = isinstance(now.draft, int)
    if fixed and before.acceptance and (now.acceptance or 0) < before.acceptance - ACCEPTANCE_TOLERANCE:
        yield f"{where}: acceptance is {now.acceptance or 0:.3f}, the baseline's is {before.acceptance:.3f}"
