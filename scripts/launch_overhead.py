#!/usr/bin/env python3
"""What launches cost beside their work: the launch lists of a draft cycle, and the same launches without any work.

A launch that does nothing (`Launch.only_if` with a flag of 0) is submitted, scheduled and waited for as any other. The
lists alternate, and the fastest twentieth of the rounds counts, since other programs only add time. Needs the package
alone.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from arcmtp import LLM
from arcmtp.cli.options import integer
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.runtime import _host
from arcmtp.runtime.device import Device

ROUNDS = 300


def fastest(device: Device, lists: list[_host.LaunchList]) -> list[float]:
    """Microseconds to submit each of the lists and wait for it."""
    times: list[list[float]] = [[] for _ in lists]
    for _ in range(ROUNDS):
        for launches, of_one in zip(lists, times, strict=True):
            began = time.perf_counter()
            device.run(launches)
            of_one.append((time.perf_counter() - began) * 1e6)
    return [float(np.percentile(of_one, 5)) for of_one in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE", nargs="?", help="GGUF file (default: the bundled one)")
    parser.add_argument("--draft", type=integer(1), default=3, help="tokens of a cycle (%(default)s)")
    options = parser.parse_args()
    mode, rows = SamplingMode(), options.draft + 1
    with LLM(options.file, draft=options.draft, graphs=False) as llm:
        llm.new_sequence()  # no generation is under way: a step changes nothing
        network, device = llm.network, llm.device
        never = device.zeros(4)
        cycle = [*(network.draft(index, rows, mode) for index in range(1, rows)), network.step(rows, mode)]
        print("| launch list | launches | µs | with no work | share |\n|---|---:|---:|---:|---:|")
        whole, empty = 0.0, 0.0
        for launches in (network.step(1, mode), *cycle):
            idle = device.bind([launch.only_if(never) for launch in launches])
            us, idle_us = fastest(device, [launches.bound, idle])
            print(f"| {launches.name} | {len(launches)} | {us:.0f} | {idle_us:.0f} | {idle_us / us:.0%} |")
            whole, empty = (whole + us, empty + idle_us) if launches in cycle else (whole, empty)
        count = sum(map(len, cycle))
        print(f"| cycle of {options.draft} drafts | {count} | {whole:.0f} | {empty:.0f} | {empty / whole:.0%} |")


if __name__ == "__main__":
    main()
