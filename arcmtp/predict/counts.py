"""What launches do on a Battlemage card, from counts.json: counted on an emulated card, and scaled to any shape.

A thread of an operator does a fixed part, and a part for each unit of its launch (`Cost.units`). Both are known by
operator, row class and, units, by format (scripts/battlemage/count_operators.py).
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, fields, replace
from pathlib import Path

from arcmtp.errors import ArcmtpError
from arcmtp.formats.matrix import FORMATS, Scheme
from arcmtp.ops.launch import compiled_rows
from arcmtp.runtime.card import Card, cards
from arcmtp.runtime.launch import Launch, Work
from arcmtp.runtime.paths import kernel_dir

PATH = Path(__file__).with_name("counts.json")
CHUNK_ROWS = 1024  # of a prompt chunk that was counted
COUNTED = (
    "accept", "attention", "attention_store", "carry_hidden", "draft_input", "embedding", "experts_down",
    "experts_gate_up", "feed_forward_gate_up", "gated_delta_net", "mul_mat", "norm", "router", "sampling",
)  # fmt: skip
HEADERS = {
    "attention_store": "attention", "carry_hidden": "draft_input", "experts_down": "experts",
    "experts_gate_up": "experts", "feed_forward_gate_up": "feed_forward",
}  # fmt: skip
FORMATS_BY_NAME = {form.name: form for form in FORMATS}
THREAD = "thread"  # the key of the fixed part


@dataclass(frozen=True)
class Counts:
    """What a launch does, all threads together.

    Slots are cycles of a vector engine's pipe that takes a register of 64 bytes each. line_bytes: distinct cache lines
    of each work-group by itself. alone: the cycles that a thread takes with a vector engine for itself, waiting for its
    own results (scripts/battlemage/emulator/scoreboard.hpp), in three cases. longest: the same of the longest thread,
    times the threads.
    """

    instructions: float = 0
    floats: float = 0  # slots of the pipe, like the next two
    integers: float = 0
    math: float = 0
    dpas: float = 0
    dpas_rows: float = 0  # repeat counts added up
    send: float = 0
    messages: float = 0  # to memory
    moved_bytes: float = 0  # by these
    line_bytes: float = 0
    team_messages: float = 0
    team_bytes: float = 0
    alone_best: float = 0
    alone_expected: float = 0
    alone_worst: float = 0
    longest_best: float = 0
    longest_expected: float = 0
    longest_worst: float = 0

    def alone(self, case: str) -> float:
        """In one of the cases best, expected and worst."""
        return float(getattr(self, f"alone_{case}"))

    def longest(self, case: str) -> float:
        """The same of the longest thread."""
        return float(getattr(self, f"longest_{case}"))


QUANTITIES = tuple(f.name for f in fields(Counts))
Parts = dict[str, tuple[float, ...]]  # by format or THREAD: a thread's QUANTITIES, fixed or for each unit


@dataclass
class Operator:
    """What is known of an operator: registers of a thread, and parts, by row class (0: counted when it runs)."""

    registers: dict[int, int] = field(default_factory=dict)
    parts: dict[int, Parts] = field(default_factory=dict)

    def registers_at(self, rows: int) -> int:
        """Of a thread for so many rows: of the next larger row count that was counted, or the largest."""
        counted = sorted(self.registers)
        return self.registers[next((count for count in counted if count >= rows), counted[-1])]

    def at(self, form: str, rows: int) -> tuple[float, ...] | None:
        """A part for so many rows, between the two nearest counts of 1 to 8 rows; None: the format was not counted."""
        known = {counted: parts[form] for counted, parts in self.parts.items() if form in parts}
        if rows in known:
            return known[rows]
        if not rows or not any(known):
            return None
        below = max((counted for counted in known if 0 < counted < rows), default=None)
        above = min((counted for counted in known if counted > rows), default=None)
        if below is None or above is None:
            return known[below or above or 0]
        share = (rows - below) / (above - below)
        return tuple(a + share * (b - a) for a, b in zip(known[below], known[above], strict=True))


@dataclass
class CountFile:
    """counts.json: operators, and by operator the digest of the sources that were counted."""

    operators: dict[str, Operator]
    digests: dict[str, str]

    @classmethod
    def read(cls) -> CountFile:
        """The file that comes with the package."""
        content = json.loads(PATH.read_text(encoding="utf-8"))
        operators = {}
        for name, rows in content["operators"].items():
            operators[name] = operator = Operator()
            for counted, parts in rows.items():
                operator.registers[int(counted)] = parts.pop("registers")
                operator.parts[int(counted)] = {form: tuple(part) for form, part in parts.items()}
        return cls(operators, content["digests"])

    def write(self) -> None:
        """Replace the file."""
        lines = []
        for name, operator in sorted(self.operators.items()):
            rows = [
                f'  "{counted}": {{"registers": {operator.registers[counted]},\n'
                + ",\n".join(f'   "{form}": {json.dumps(list(part))}' for form, part in sorted(parts.items()))
                + "}"
                for counted, parts in sorted(operator.parts.items())
            ]
            lines.append(f' "{name}": {{\n' + ",\n".join(rows) + "}")
        head = f'"quantities": {json.dumps(QUANTITIES)},\n"digests": {json.dumps(self.digests, indent=1)},\n'
        PATH.write_text(f'{{{head}"operators": {{\n' + ",\n".join(lines) + "}}\n", encoding="utf-8")


def row_class(rows: int) -> int:
    """Of a launch of so many rows; 0: of prompt chunks and steps of more rows than a kernel is compiled for."""
    return compiled_rows(rows)


def units_of(launch: Launch, work: Work) -> Mapping[str, float]:
    """What a launch's counts grow with, by format."""
    cost = launch.cost(work)
    return cost.units or {"": cost.operations}


def counts_of(launch: Launch, work: Work) -> tuple[Counts, int]:
    """What a launch does, and the registers of its threads.

    Raises ArcmtpError for an operator that was not counted.
    """
    operators = counted_operators()
    if launch.operator not in operators:
        raise ArcmtpError(f"{launch.operator} was not counted on the emulated card; counted are {', '.join(operators)}")
    operator, rows = operators[launch.operator], row_class(launch.rows)
    fixed = operator.at(THREAD, rows)
    if fixed is None:
        raise ArcmtpError(f"{launch.operator} was not counted for {rows or 'a prompt chunk of'} rows")
    total = [launch.threads * value for value in fixed]
    for form, units in units_of(launch, work).items():
        part = operator.at(form, rows) or _of_product(operators, operator, form, rows)
        if part is None:
            raise ArcmtpError(f"{launch.operator} was not counted with {form}")
        total = [sum_ + units * value for sum_, value in zip(total, part, strict=True)]
    return Counts(*total), operator.registers_at(rows)


def _of_product(operators: dict[str, Operator], operator: Operator, form: str, rows: int) -> tuple[float, ...] | None:
    """Of a format that was not counted for an operator: as MUL_MAT's or, if it was not counted there either, as the
    operator's own with the most similar codes."""
    if of_mul_mat := operators["mul_mat"].at(form, rows):
        return of_mul_mat
    wanted = FORMATS_BY_NAME.get(form)
    known = {name for parts in operator.parts.values() for name in parts if name in FORMATS_BY_NAME}
    if not wanted or not known:
        return None

    def difference(name: str) -> tuple[bool, int]:
        other = FORMATS_BY_NAME[name]
        return (other.scheme is Scheme.PLAIN) != (wanted.scheme is Scheme.PLAIN), abs(other.bits - wanted.bits)

    return operator.at(min(sorted(known), key=difference), rows)


@functools.cache
def counted_operators() -> dict[str, Operator]:
    """Those of the file that comes with the package."""
    return CountFile.read().operators


def digest(operator: str) -> str:
    """Of what an operator's kernels are compiled from for a GPU: headers without comments, and the geometry."""
    sources: dict[str, str] = {}
    waiting = [f"{HEADERS.get(operator, operator)}.hpp"]
    while waiting:
        name = waiting.pop()
        if name in sources or name.endswith("_cpu.hpp"):
            continue
        text = (kernel_dir() / name).read_text(encoding="utf-8")
        sources[name] = re.sub(r"\s+", " ", re.sub(r"//[^\n]*", "", text))
        waiting += re.findall(r'#include "(\w+\.hpp)"', text)
    return hashlib.sha256(repr((sorted(sources.items()), astuple(counted_card().geometry))).encode()).hexdigest()[:16]


def counted_card() -> Card:
    """That whose kernels are counted: a B70, but that it asks memory for nothing ahead, which is no part of an
    operator, and that its chunks are shorter, which makes them half as long to execute."""
    card = cards()["arc-pro-b70"]
    return replace(card, geometry=replace(card.geometry, ahead_kib=0, chunk_rows=CHUNK_ROWS))
