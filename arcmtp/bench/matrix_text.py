"""The report of `arcmtp bench mtp --matrix` as text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from arcmtp.bench.matrix import Cell, Matrix, name_of

BENCHMARK = "arcmtp bench mtp --matrix"
FORMAT = 1  # of the JSON object; another number has another shape
HEAD = (
    "prompt", "draft", "input tok/s", "output tok/s", "lowest – highest", "× off", "cold input", "cold output",
    "tokens", "drafted", "accepted", "acceptance",
)  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """What was measured, on what, and how."""

    model: str  # name of the file
    weights_bytes: int
    device: str
    driver: str  # its version
    profile: str  # name of the card profile
    graphs: bool  # whether steps were replayed as graphs
    options: dict[str, Any]  # that decide what is generated

    def __str__(self) -> str:
        how = "replayed as graphs" if self.graphs else "launched one by one"
        weights = f"{self.weights_bytes / 1e6:.1f} MB of weights"
        return f"{self.model} ({weights}), {self.device}, driver {self.driver}, profile {self.profile}, kernels {how}"


def as_markdown(matrix: Matrix, setup: Setup) -> str:
    """What was measured, a line per prompt and draft setting, and whether the texts were the same."""
    lines = [f"| {' | '.join(HEAD)} |", f"|---:|---|{'---:|' * (len(HEAD) - 2)}"]
    lines += [f"| {' | '.join(_row(cell, matrix).values())} |" for cell in matrix.cells]
    verdict = "\n".join(matrix.differences) or "The texts are identical with every draft setting."
    return "\n\n".join([str(setup), "\n".join(lines), verdict])


def as_csv(matrix: Matrix, setup: Setup) -> str:
    """The same lines; model and device are in each."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["model", "device", *HEAD], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"model": setup.model, "device": setup.device, **_row(c, matrix)} for c in matrix.cells)
    return text.getvalue().rstrip("\n")


def as_json(matrix: Matrix, setup: Setup) -> str:
    """All numbers as one object, which `--baseline` reads."""
    return json.dumps(
        {"benchmark": BENCHMARK, "format": FORMAT, "setup": asdict(setup), **asdict(matrix)}, indent=1
    )


def _row(cell: Cell, matrix: Matrix) -> dict[str, str]:
    return dict(zip(HEAD, _values(cell, matrix), strict=True))


def _values(cell: Cell, matrix: Matrix) -> Iterator[str]:
    output = median(cell.outputs)
    off = next((median(c.outputs) for c in matrix.cells if (c.prompt, c.draft) == (cell.prompt, 0)), 0)
    yield str(cell.prompt)
    yield name_of(cell.draft)
    yield f"{median(cell.inputs):.1f}"
    yield f"{output:.1f}"
    yield f"{min(cell.outputs):.1f} – {max(cell.outputs):.1f}"
    yield f"{output / off:.2f}" if off else "n/a"
    yield f"{cell.cold.input:.1f}"
    yield f"{cell.cold.output:.1f}"
    yield str(cell.tokens)
    yield str(cell.drafted)
    yield str(cell.accepted)
    yield "n/a" if cell.acceptance is None else f"{cell.acceptance:.3f}"


FORMS: dict[str, Callable[[Matrix, Setup], str]] = {"md": as_markdown, "json": as_json, "csv": as_csv}
