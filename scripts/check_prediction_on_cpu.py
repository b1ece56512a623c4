#!/usr/bin/env python3
"""Check on this machine's CPU how arcmtp/predict/ finds a step's time: kernels from parts, a step from kernels.

    .venv/bin/python -m scripts.check_prediction_on_cpu [--repeats N]

Figures of the CPU are measured by kernels of their own: bytes a second by one that only reads, the time of a launch by
one that does nothing, seconds of a pass over a tile of weights by a product that lies in the caches. A core of a CPU
does not compute all the time that it waits for memory, so there is one figure that a card has not: the share of the
shorter of both that adds to the longer, by a long product that comes from memory. From these and the units of each
launch (arcmtp/ops/cost.py) the launches of a step of Qwen3.6-35B-A3B's shapes are predicted, 4 layers of it, and the
step as their sum. Of all times the best counts; caches are emptied before each launch that is timed.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from arcmtp.bench.operator_cases import Bench, chain_of_drafts, mul_mat
from arcmtp.formats import matrix as formats
from arcmtp.formats.matrix import Format
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.network import Network
from arcmtp.model.weight_plan import Segment
from arcmtp.ops.bandwidth import ReadBandwidth
from arcmtp.predict.text import markdown
from arcmtp.runtime import _host
from arcmtp.runtime.device import Device
from arcmtp.runtime.launch import Launch, Work
from arcmtp.runtime.tensor import Tensor
from scripts.battlemage.count_launches import Unloaded, distinct_experts
from scripts.battlemage.models import MOE, network, stock_q4_0

SMALL = 1024  # rows and columns of a product that lies in the caches
LONG = 64 * SMALL  # columns of one that does not
FORMATS = (formats.W4, formats.W6_16)  # of the step's products
MANY = 64  # launches that are timed together
LEAST_SHARE = 0.05  # of a step, from which on a kernel's prediction is judged


@dataclass(frozen=True)
class Cpu:
    """Measured figures. passes: seconds of one, by format. exposed: what of the shorter part adds to the longer."""

    bytes_a_second: float
    launch_seconds: float
    passes: dict[str, float]
    exposed: float = 0.0

    def seconds(self, launch: Launch, work: Work) -> float:
        """A launch as arcmtp/predict/kernel.py takes it: the longest of its parts, and the time of a launch; and here
        what a core does not do at a time."""
        shorter, longer = sorted(self.parts(launch, work))
        return longer + self.exposed * shorter + self.launch_seconds

    def parts(self, launch: Launch, work: Work) -> tuple[float, float]:
        """Seconds of its bytes, and of its products."""
        cost = launch.cost(work)
        products = sum(count * self.passes.get(form, 0) for form, count in cost.units.items())
        return cost.nbytes / self.bytes_a_second, products


class Touched(Unloaded):
    """Weights that take memory, unlike zeros that nothing was written to."""

    def fill_segment(self, target: Tensor, segment: Segment) -> None:
        target.fill(0x2C, segment.matrix.offset, segment.matrix.nbytes)
        if "ffn_gate_inp" in segment.tensor.name:
            super().fill_segment(target, segment)


class Clock:
    """Times lists of launches in turn, since a machine is not always as fast. Of all times of a list the least counts.
    """

    def __init__(self, bench: Bench) -> None:
        self._device = bench.device
        self._read = ReadBandwidth(bench.device, bench.weights)
        self._lists: dict[str, tuple[_host.LaunchList, bool]] = {}
        self.seconds: dict[str, float] = {}

    def add(self, name: str, launches: Sequence[Launch], from_memory: bool) -> None:
        """Launches one after the other, whose weights lie in memory or, what was read just before, in caches."""
        self._device.compile(launch.kernel for launch in launches)
        self._lists[name] = self._device.bind(launches), from_memory

    def run(self, repeats: int) -> float:
        """Time each list so often; bytes a second of reading alone."""
        for _ in range(repeats):
            for name, (launches, from_memory) in self._lists.items():
                if from_memory:
                    self._read.measure()
                else:
                    self._device.run(launches)
                began = time.perf_counter()
                self._device.run(launches)
                took = time.perf_counter() - began
                self.seconds[name] = min(took, self.seconds.get(name, took))
        return self._read.gbs * 1e9


def kernels_of(step: Sequence[Launch]) -> dict[str, list[Launch]]:
    """The launches of a step, by what they are."""
    kernels: dict[str, list[Launch]] = {}
    for launch in step:
        kernels.setdefault(f"{launch.block} {launch.title}".strip(), []).append(launch)
    return kernels


def small_product(form: Format, bench: Bench, rows: int, columns: int = SMALL) -> Launch:
    """A product for the CPU's figures."""
    return mul_mat(form, columns, SMALL, bench, rows)(bench.weights.at(0), 0)[0]


def figures(clock: Clock, bench: Bench, rows: int, bytes_a_second: float) -> Cpu:
    """The machine's, of what the clock has timed."""
    launch_seconds, passes = clock.seconds["nothing"] / MANY, {}
    for form in FORMATS:
        (units,) = small_product(form, bench, rows).cost(Work(rows, 0, 0)).units.values()
        passes[form.name] = (clock.seconds[form.name] / MANY - launch_seconds) / units
    cpu = Cpu(bytes_a_second, launch_seconds, passes)
    shorter, longer = sorted(cpu.parts(small_product(formats.W4, bench, rows, LONG), Work(rows, 0, 0)))
    return replace(cpu, exposed=max(clock.seconds["long"] - launch_seconds - longer, 0) / shorter)


def rows_of(model: Network, bench: Bench, rows: int, repeats: int) -> list[tuple[str, ...]]:
    """A line for each kernel of a step, and one for the step."""
    clock, step = Clock(bench), list(model.step(rows, SamplingMode()))
    clock.add("nothing", chain_of_drafts(bench, 1)(bench.weights.at(0), 0) * MANY, from_memory=False)
    for form in FORMATS:
        clock.add(form.name, [small_product(form, bench, rows)] * MANY, from_memory=False)
    clock.add("long", [small_product(formats.W4, bench, rows, LONG)], from_memory=True)
    lists = {**kernels_of(step), "step": step}
    for name, launches in lists.items():
        clock.add(name, launches, from_memory=True)
    cpu = figures(clock, bench, rows, clock.run(repeats))
    # Without weights of their own, rows choose nearly the same experts.
    routers = [launch for launch in step if launch.operator == "router"]
    experts = np.mean([distinct_experts(launch, rows, model.config.experts_used) for launch in routers])
    work, lines = Work(rows, 64, float(experts)), list[tuple[str, ...]]()
    for name, launches in lists.items():
        took, said = clock.seconds[name], sum(cpu.seconds(launch, work) for launch in launches)
        if took >= LEAST_SHARE * clock.seconds["step"]:
            lines.append((f"{name}, {rows} rows", f"{1e6 * took:,.0f}", f"{1e6 * said:,.0f}", f"{said / took:.2f}"))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20, metavar="N", help="of each time (default %(default)s)")
    options = parser.parse_args()
    device = Device("cpu")
    bench = Bench(device)
    config = replace(MOE, layers=4, layer_kinds=MOE.layer_kinds[:4])
    model = network(device, config, stock_q4_0, context=512)
    model.load(loader=Touched)
    head = ("kernel", "µs measured", "µs predicted", "ratio")
    print(markdown([head, *(line for rows in (1, 4) for line in rows_of(model, bench, rows, options.repeats))]))


if __name__ == "__main__":
    main()
