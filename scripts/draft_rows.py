#!/usr/bin/env python3
"""What a draft length of its own for each sequence of a batch would gain over one length for all.

Sequences that decode together have one draft length, so that all have equally many rows in a step. This measures what
a step takes by its rows and a draft call by its sequences, and what share of its drafts each request of `arcmtp bench
mtp` has accepted. From that it computes tokens per second for batches of such requests: with the best common length,
and with the best length for each. A step of any row count is taken to cost what lies between those measured, and a
draft call what its sequences need that still draft, so the gain is an upper bound. Needs the package alone.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median

import numpy as np

from arcmtp import LLM
from arcmtp.bench.mtp import prompts, questions
from arcmtp.cli.options import integer
from arcmtp.engine.auto_drafts import LENGTHS
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.stage import LaunchList

ROUNDS = 30


def acceptance(llm: LLM, prompt: list[int], tokens: int) -> list[float]:
    """The share of drafts that were accepted behind accepted ones, by place in the chain."""
    log = llm.generate(prompt, tokens, draft=LENGTHS[-1]).statistics.draft
    assert log is not None
    reached = [log.cycles, *log.accepted_by_position[:-1]]
    return [accepted / max(tried, 1) for accepted, tried in zip(log.accepted_by_position, reached, strict=True)]


def measure(llm: LLM, lists: dict[int, LaunchList]) -> Callable[[int], float]:
    """Microseconds of launch lists by a size, between those given too; they alternate, and the median counts."""
    stage, times = llm.network.stage, {size: list[float]() for size in lists}
    for _ in range(ROUNDS + 1):
        for size, launches in lists.items():
            began = time.perf_counter()
            stage.submit(launches)
            llm.device.wait()
            times[size].append((time.perf_counter() - began) * 1e6)
    medians = [median(each[1:]) for each in times.values()]
    return lambda size: float(np.interp(size, list(times), medians))


def tokens(shares: Sequence[float], length: int) -> float:
    """Of a cycle: 1 + a₁ + a₁a₂ + …"""
    return float(1 + np.cumprod(shares[:length]).sum())


def speed(batch: Sequence[list[float]], lengths: Sequence[int], step: Callable[[int], float],
          draft: Callable[[int], float]) -> float:  # fmt: skip
    """Tokens per second of sequences with these shares of accepted drafts and these draft lengths."""
    calls = (sum(length >= index for length in lengths) for index in range(1, max(lengths) + 1))
    us = step(sum(length + 1 for length in lengths)) + sum(map(draft, calls))
    return sum(map(tokens, batch, lengths)) / us * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE", nargs="?", help="GGUF file (default: the bundled one)")
    parser.add_argument("--sequences", type=integer(2), default=4, help="of a batch (%(default)s)")
    parser.add_argument("--tokens", type=integer(2), default=192, help="of each request (%(default)s)")
    options = parser.parse_args()
    count, mode = options.sequences, SamplingMode()
    with LLM(options.file, parallel=count, ctx=1024) as llm:
        asked = questions(llm.prompting, llm.context, prompts(), options.tokens)
        shares = {name: acceptance(llm, ids, options.tokens) for name, ids in asked.items()}
        llm.new_sequence()  # no generation is under way: a step changes nothing
        network = llm.network
        step = measure(llm, {count * (k + 1): network.step(k + 1, mode, count) for k in LENGTHS})
        draft = measure(llm, {size: network.draft(2, 1, mode, size) for size in range(1, count + 1)})
    print("| request | accepted behind accepted, by place |\n|---|---|")
    for name, of_one in shares.items():
        print(f"| {name} | {' '.join(f'{share:.2f}' for share in of_one)} |")
    gains = []
    for batch in itertools.combinations(shares.values(), count):
        common = max(speed(batch, [k] * count, step, draft) for k in LENGTHS)
        own = max(speed(batch, lengths, step, draft) for lengths in itertools.product(LENGTHS, repeat=count))
        gains.append(own / common)
    print(f"\n{len(gains)} batches of {count} requests: a length for each gains {fmean(gains) - 1:.1%} on average, "
          f"{max(gains) - 1:.1%} at most")  # fmt: skip


if __name__ == "__main__":
    main()
