#!/usr/bin/env python3
"""Check on this machine's CPU how arcmtp/predict/ finds a step's time: kernels from parts, a step from kernels.

    .venv/bin/python -m scripts.check_prediction_on_cpu [--repeats N]

Figures of the CPU are measured by kernels of their own: bytes a second by one that only reads, the time of a launch by
one that does nothing, seconds of a pass over a tile of weights by a product that lies in the caches. From these and the
units of each launch (arcmtp/ops/cost.py) the launches of a step of Qwen3.6-35B-A3B's shapes are predicted, 4 layers of
it, and the step as their sum. Of all times the best counts; caches are emptied before each launch that is timed.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from arcmtp.bench.operator_cases import Bench, chain_of_drafts, mul_mat
from arcmtp.formats import matrix as formats
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.network import Network
from arcmtp.model.weight_plan import Segment
from arcmtp.ops.bandwidth import ReadBandwidth
from arcmtp.predict.text import markdown
from arcmtp.runtime.device import Device
from arcmtp.runtime.launch import Launch, Work
from arcmtp.runtime.tensor import Tensor
from scripts.battlemage.count_launches import Unloaded
from scripts.battlemage.models import MOE, network, stock_q4_0

SMALL = 1024  # rows and columns of a product that lies in the caches
LEAST_SHARE = 0.05  # of a step, from which on a kernel's prediction is judged


@dataclass(frozen=True)
class Cpu:
    """Measured figures. passes: seconds of one, by format and rows."""

    bytes_a_second: float
    launch_seconds: float
    passes: dict[tuple[str, int], float]

    def seconds(self, launch: Launch, work: Work) -> float:
        """A launch as arcmtp/predict/kernel.py takes it: the longest of its parts, and the time of a launch."""
        cost = launch.cost(work)
        products = sum(count * self.passes.get((form, work.rows), 0) for form, count in cost.units.items())
        return max(cost.nbytes / self.bytes_a_second, products) + self.launch_seconds


class Touched(Unloaded):
    """Weights that take memory, unlike zeros that nothing was written to."""

    def fill_segment(self, target: Tensor, segment: Segment) -> None:
        target.fill(0x2C, segment.matrix.offset, segment.matrix.nbytes)
        if "ffn_gate_inp" in segment.tensor.name:
            super().fill_segment(target, segment)


def measured(bench: Bench, read: ReadBandwidth, rows: int, repeats: int) -> Cpu:
    """The machine's figures."""
    passes = {}
    for form in (formats.W4, formats.W6_16):
        (launch,) = mul_mat(form, SMALL, SMALL, bench, rows)(bench.weights.at(0), 0)
        (units,) = launch.cost(Work(rows, 0, 0)).units.values()
        passes[form.name, rows] = best(bench, [launch] * 64, repeats) / 64 / units
    (nothing,) = chain_of_drafts(bench, 1)(bench.weights.at(0), 0)
    launch_seconds = best(bench, [nothing] * 64, repeats) / 64
    for _ in range(repeats):
        read.measure()
    passes = {key: value - launch_seconds / (SMALL * SMALL / 512) for key, value in passes.items()}
    return Cpu(read.gbs * 1e9, launch_seconds, passes)


def best(bench: Bench, launches: Sequence[Launch], repeats: int, read: ReadBandwidth | None = None) -> float:
    """Seconds of launches one after the other; with `read` from memory, without it from caches."""
    device, took = bench.device, float("inf")
    device.compile(launch.kernel for launch in launches)
    bound = device.bind(launches)
    for _ in range(repeats):
        if read:
            read.measure()
        began = time.perf_counter()
        device.run(bound)
        took = min(took, time.perf_counter() - began)
    return took


def rows_of(model: Network, bench: Bench, read: ReadBandwidth, rows: int, repeats: int) -> list[tuple[str, ...]]:
    """A line for each kernel of a step, and one for the step."""
    cpu = measured(bench, read, rows, repeats)
    work = Work(rows, 64, min(model.config.experts, rows * model.config.experts_used))
    step = list(model.step(rows, SamplingMode()))
    groups: dict[str, list[Launch]] = {}
    for launch in step:
        groups.setdefault(f"{launch.block} {launch.title}".strip(), []).append(launch)
    whole = best(bench, step, repeats, read)
    lines = []
    for name, launches in groups.items():
        took = best(bench, launches, repeats, read)
        if took >= LEAST_SHARE * whole:
            lines.append((name, took, sum(cpu.seconds(launch, work) for launch in launches)))
    lines.append(("step", whole, sum(cpu.seconds(launch, work) for launch in step)))
    return [
        (f"{name}, {rows} rows", f"{1e6 * took:,.0f}", f"{1e6 * said:,.0f}", f"{said / took:.2f}")
        for name, took, said in lines
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20, metavar="N", help="of each time (default %(default)s)")
    options = parser.parse_args()
    device = Device("cpu")
    bench = Bench(device)
    read = ReadBandwidth(device, bench.weights)
    config = replace(MOE, layers=4, layer_kinds=MOE.layer_kinds[:4])
    model = network(device, config, stock_q4_0, context=512)
    model.load(loader=Touched)
    head = ("kernel", "µs measured", "µs predicted", "ratio")
    print(markdown([head, *(line for rows in (1, 4) for line in rows_of(model, bench, read, rows, options.repeats))]))


if __name__ == "__main__":
    main()
