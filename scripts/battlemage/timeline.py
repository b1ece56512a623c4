#!/usr/bin/env python3
"""Where a thread of an operator's kernel waits, on the emulated card, in the shapes of Qwen3.6-35B-A3B.

    export ARCMTP_EMULATOR_CHECKS=lines ARCMTP_EMULATOR_TIMELINE=router_2048:16:0
    scripts/battlemage/run.sh --execute .venv/bin/python scripts/battlemage/timeline.py router --rows 4 2>FILE
    .venv/bin/python scripts/battlemage/timeline.py --waits 100 <FILE

The first command executes the operator's launches for so many rows (0: a prompt chunk) and prints the cycles of their
threads; the instructions of one thread go to standard error. The second leaves those that begin so many cycles
behind the instruction before them.
"""

import argparse
import sys

from scripts.battlemage.count_launches import Emulator
from scripts.battlemage.count_operators import Counted, samples, silent_device
from scripts.battlemage.models import MOE, stock_q4_0


def waits(least: int) -> None:
    """Of the instructions on standard input those that begin `least` cycles after the one before."""
    before = 0
    for line in sys.stdin:
        cycle, _, instruction = line.partition(" ")
        if not cycle.isdecimal():
            continue
        if int(cycle) - before >= least:
            print(f"{before:9} → {cycle:9} {instruction}", end="")
        before = int(cycle)
    print(f"{before:9} the end")


def execute(operator: str, rows: int, context: int) -> None:
    """Prints the mean and the longest thread of each launch, in cycles."""
    counted = Counted(MOE, stock_q4_0, (rows,), contexts=(context,), chunk_contexts=(context,))
    for one in samples(counted, silent_device(), Emulator(), operator):
        mean, longest = one.counts.alone_expected / one.threads, one.counts.longest_expected / one.threads
        print(f"{one.kernel}: {one.threads} threads, {mean:.0f} cycles in the mean, {longest:.0f} at most", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operator", nargs="?")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--context", type=int, default=1024, help="keys that the last row sees")
    parser.add_argument("--waits", type=int, metavar="CYCLES")
    options = parser.parse_args()
    if options.waits is not None:
        waits(options.waits)
    elif options.operator:
        execute(options.operator, options.rows, options.context)
    else:
        parser.error("an operator or --waits is missing")


if __name__ == "__main__":
    main()
