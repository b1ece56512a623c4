#!/usr/bin/env python3
"""Count what the kernels of Qwen3.6-35B-A3B do on the emulated card (run.sh --execute), a launch at a time, for one
token, two draft calls, a verify and a prompt chunk.

No file is read: launches have the model's plan, shapes and arguments, and weights are zero but for norms, routers and
the embedding of the tokens, so that rows choose different experts. Every launch of a token, a draft call or a verify is
executed. Of a prompt chunk, a kernel is executed once for each thing that it does and counted as often as it is
launched. All drafts of the step before are accepted.

Figures are those of all launches of a row together. Bytes "needed" are what they must move at least
(arcmtp/ops/cost.py), "moved" what their messages load and store. With ARCMTP_EMULATOR_CHECKS=lines there are "lines"
too: the distinct cache lines of 64 bytes that each launch reads and writes.
"""

import argparse
import ctypes
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from arcmtp.formats.matrix import BF16, Format
from arcmtp.gguf import GGUF
from arcmtp.gguf_header import TensorInfo
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.network import Network
from arcmtp.model.weight_plan import Segment
from arcmtp.model.weights import WeightLoader
from arcmtp.ops.accept import turn
from arcmtp.runtime.device import Device
from arcmtp.runtime.launch import Launch, Work
from arcmtp.runtime.tensor import Tensor
from scripts.battlemage.models import MOE, network, stock_q4_0, unsloth_q4_k_m

LINE_BYTES = 64
POISONED_BYTES = 16 << 20  # up to here the emulator does not leave a new allocation zero
TOKENS = 4096  # that have embeddings: as many as a prompt chunk has rows at most
VERIFY_ROWS = 4
LEAST_CONTEXT = 2 * VERIFY_ROWS
MIXES = {"q4_0": stock_q4_0, "ud-q4_k_m": unsloth_q4_k_m}
Report = dict[str, Any]  # of the emulator, on one kernel
Key = tuple[str, str, str]  # the first fields of a Row


class Emulator:
    """The library that executes this process's kernels; leaves the program where there is none."""

    def __init__(self) -> None:
        if os.environ.get("ARCMTP_EMULATOR") != "1":
            sys.exit("no emulated card: start this by scripts/battlemage/run.sh --execute")
        self._library = ctypes.CDLL(os.environ["ZE_ENABLE_ALT_DRIVERS"])

    def reports(self, work: Callable[[], object]) -> list[Report]:
        """What each kernel does in `work`, which waits for its end."""
        self._library.emulator_reset_counts()
        work()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "counts.json"
            if self._library.emulator_write_counts(os.fsencode(path)):
                sys.exit(f"the emulator cannot write {path}")
            found: list[Report] = json.loads(path.read_text(encoding="utf-8"))
        return found


def counts_of(report: Report) -> Counter[str]:
    """A report's numbers, those of its parts as in "pipes.dpas"."""
    counts: Counter[str] = Counter()
    for name, value in report.items():
        if isinstance(value, dict):
            counts.update({f"{name}.{part}": number for part, number in value.items()})
        elif name not in ("kernel", "registers", "team_memory_bytes", "launches", "emulation_us"):
            counts[name] = value
    return counts


@dataclass
class Row:
    """The launches of a kernel that do the same in a phase."""

    layer_kind: str
    operator: str  # and what it serves for
    kernel: str = ""
    registers: int = 0  # of a thread
    team_memory_bytes: int = 0  # that a work-group reserves
    launches: int = 0
    executed: int = 0
    needed_bytes: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, needed_bytes: int, report: Report | None) -> None:
        """One more launch, which must move so many bytes; without a report it was not executed."""
        self.launches += 1
        self.needed_bytes += needed_bytes
        if report:
            self.executed += 1
            self.registers, self.team_memory_bytes = report["registers"], report["team_memory_bytes"]
            self.counts.update(counts_of(report))

    def scaled(self) -> "Row":
        """With the counts of all launches."""
        every = Counter({name: count * self.launches // self.executed for name, count in self.counts.items()})
        return Row(**{**vars(self), "counts": every})

    @property
    def moved_bytes(self) -> int:
        """By messages to memory that all work-groups share."""
        return self.counts["bytes.global_load"] + self.counts["bytes.global_store"]

    @property
    def team_bytes(self) -> int:
        """By messages to the memory of a work-group."""
        return self.counts["bytes.team_load"] + self.counts["bytes.team_store"]

    @property
    def line_bytes(self) -> int:
        """Of distinct cache lines, each read or written or both."""
        return LINE_BYTES * (self.counts["lines_read"] + self.counts["lines_written"])


def total(rows: Iterable[Row]) -> Row:
    """Of a phase."""
    of_all = Row("", "total")
    for row in rows:
        of_all.launches += row.launches
        of_all.executed += row.executed
        of_all.needed_bytes += row.needed_bytes
        of_all.counts.update(row.counts)
    return of_all


class Unloaded(WeightLoader):
    """Weights that come from no file. Large allocations are zero, and take no memory of the host until written."""

    def values(self, file: GGUF, tensor: TensorInfo) -> np.ndarray:
        return np.full(tensor.elements, tensor.name.endswith("norm.weight"), np.float32)

    def fill_segment(self, target: Tensor, segment: Segment) -> None:
        matrix, name = segment.matrix, segment.tensor.name
        if target.nbytes <= POISONED_BYTES:
            target.fill(0, matrix.offset, matrix.nbytes)
        if "ffn_gate_inp" in name or name == "token_embd.weight":
            nbytes = min(matrix.nbytes, matrix.format.matrix_bytes(TOKENS, matrix.k))
            target.write(random_spans(matrix.format, nbytes, list(name.encode())), matrix.offset)


def random_spans(form: Format, nbytes: int, seed: Sequence[int]) -> np.ndarray:
    """So many bytes of random codes with equal scales, or of random values."""
    rng = np.random.default_rng(seed)
    spans = np.zeros(nbytes // form.span_dtype.itemsize, form.span_dtype)
    for name in form.span_dtype.names or ():
        plane = spans[name]
        if name == "values":
            values = rng.standard_normal(plane.shape, np.float32)
            plane[:] = values.view(np.uint32) >> 16 if form == BF16 else values
        elif name == "exponent":
            plane[:] = 120
        elif plane.dtype == np.float16:
            plane[:] = 0.01
        else:
            plane[:] = rng.integers(0, np.iinfo(plane.dtype).max, plane.shape, plane.dtype)
    return spans


class Phase(NamedTuple):
    """A launch list and what it runs on."""

    name: str
    launches: Iterable[Launch]
    positions: np.ndarray  # int32, of its rows
    chunk: bool = False

    def needed_bytes(self, launch: Launch, experts: float) -> int:
        """Of a launch, in a layer whose rows choose so many different experts."""
        return launch.cost(Work(len(self.positions), int(self.positions[-1]) + 1, experts)).nbytes


def phases(network: Network, context: int, with_chunk: bool) -> list[Phase]:
    """All that are counted; compiles their kernels."""
    mode, rows, positions = SamplingMode(), VERIFY_ROWS, np.arange(context, dtype=np.int32)
    chosen = np.full(rows, context - 1, np.int32)  # where the token is that the step before a draft call chose
    made = [
        Phase("token", network.step(1, mode), positions[-1:]),
        Phase(f"draft call after {rows} rows", network.draft(1, rows, mode), chosen),
        Phase("further draft call", network.draft(2, rows, mode), chosen),
        Phase(f"verify of {rows} rows", network.step(rows, mode), positions[-rows:]),
    ]
    if with_chunk:
        last = positions[-network.chunk_rows :]
        made.append(Phase(f"chunk of {len(last)} rows", network.chunk(), last, chunk=True))
    return made


def prepare(network: Network, phase: Phase) -> None:
    """Write what the kernels find of the phase before."""
    w, rows = network.controls, len(phase.positions)
    tokens = np.random.default_rng(0).permutation(TOKENS)[:rows].astype(np.int32)
    if phase.chunk:
        w.chunk_ids.write(tokens)
        w.chunk_positions.write(phase.positions)
        w.row_count.write(np.array([rows], np.int32))
    else:
        w.ids.write(tokens)
        w.sampled.write(tokens)
        w.positions.write(phase.positions)
        w.pending_count.write(np.array([rows], np.int32))
        w.accepted.write(np.array([rows - 1], np.int32))
        w.turns.write(turn(1 << 20, ()))


def count(network: Network, phase: Phase, emulator: Emulator) -> list[Row]:
    """A row for each kernel of a phase and each thing that it does there."""
    prepare(network, phase)
    rows: dict[Key, Row] = {}
    chosen: dict[Key, int] = {}  # different experts, by the last router that was executed
    experts = 0
    for launch in phase.launches:
        key = (launch.block, launch.title, launch.kernel.name)
        again = phase.chunk and key in rows
        run = partial(network.device.run, network.device.bind([launch]))
        report = None if again else only(emulator.reports(run))
        if launch.operator == "router":
            if not again:
                chosen[key] = distinct_experts(launch, len(phase.positions), network.config.experts_used)
            experts = chosen[key]
        rows.setdefault(key, Row(*key)).add(phase.needed_bytes(launch, experts), report)
    return [row.scaled() for row in rows.values()]


def only(reports: list[Report]) -> Report:
    """That of a single launch."""
    (report,) = reports
    assert report["launches"] == 1
    return report


def distinct_experts(router: Launch, rows: int, used: int) -> int:
    """How many the rows of a router have chosen."""
    selected = router.arguments["selected"]
    assert isinstance(selected, Tensor)
    return len(np.unique(selected.read(rows * used)))


Column = tuple[str, Callable[[Row], str]]


def thousands(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row.counts[name] / 1e3:.1f}"


def number(name: str) -> Callable[[Row], str]:
    return lambda row: str(row.counts[name])


def times(nbytes: int, row: Row) -> str:
    return f"{nbytes / row.needed_bytes:.2f}" if row.needed_bytes else "-"


COLUMNS: tuple[Column, ...] = (
    ("launches", lambda row: str(row.launches)),
    ("threads", number("threads")),
    ("GRF", lambda row: str(row.registers or "-")),
    ("kinstr", thousands("instructions")),
    *((pipe, thousands(f"pipes.{pipe}")) for pipe in ("dpas", "float", "integer", "integer64", "math")),
    *((pipe, thousands(f"pipes.{pipe}")) for pipe in ("branch", "sync", "send")),
    *((kind, number(f"messages.global_{kind}")) for kind in ("load", "prefetch", "store", "atomic", "fence")),
    ("barrier", number("messages.barrier")),
    ("team kB", lambda row: f"{row.team_bytes / 1e3:.1f}"),
    ("needed MB", lambda row: f"{row.needed_bytes / 1e6:.3f}"),
    ("moved MB", lambda row: f"{row.moved_bytes / 1e6:.3f}"),
    ("x", lambda row: times(row.moved_bytes, row)),
)
LINES: tuple[Column, ...] = (
    ("lines MB", lambda row: f"{row.line_bytes / 1e6:.3f}"),
    ("x", lambda row: times(row.line_bytes, row)),
)


def table(rows: Sequence[Row]) -> str:
    """Text; a line for each row and one for all of them. Columns for cache lines are there if they were counted."""
    every = [*rows, total(rows)]
    columns = [*COLUMNS, *(LINES if any(row.line_bytes for row in rows) else ())]
    cells = [["", *(heading for heading, _ in columns)]]
    cells += [[f"{row.layer_kind:9} {row.operator}", *(text(row) for _, text in columns)] for row in every]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(rest, widths[1:], strict=True))])
        for first, *rest in cells
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=1024, metavar="N", help="tokens that the last row sees")
    parser.add_argument("--mix", choices=MIXES, default="q4_0", help="the file's types (default: %(default)s)")
    parser.add_argument("--without-chunk", action="store_true", help="of which cache lines take over 10 GB to count")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts of each kernel")
    options = parser.parse_args()
    if not LEAST_CONTEXT <= options.context <= MOE.context_length:
        parser.error(f"--context is {options.context}; it must be {LEAST_CONTEXT} to {MOE.context_length}")
    emulator, device = Emulator(), Device()
    model = network(device, MOE, MIXES[options.mix], context=options.context)
    model.load(loader=Unloaded)
    found = {"device": device.sycl_device.name, "mix": options.mix, "context": options.context, "phases": []}
    for phase in phases(model, options.context, not options.without_chunk):
        began = time.perf_counter()
        rows = count(model, phase, emulator)
        of_all = total(rows)
        print(
            f"{phase.name} at context {options.context}: {of_all.executed} of {of_all.launches} launches executed in "
            f"{time.perf_counter() - began:.1f} s\n{table(rows)}\n",
            flush=True,
        )
        found["phases"].append({"name": phase.name, "rows": [vars(row) for row in rows], "total": vars(of_all)})
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
