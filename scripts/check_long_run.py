#!/usr/bin/env python3
"""Decode one long sequence with graphs and without: ids, captures, how the time per token grows with the context.

The sequence begins with one token and nothing ends it early. Since other work on the machine only ever makes cycles
slower, the line is that of each window's tenth percentile. Exit status 1 if the ids differ, if a graph was captured
after the first cycle, or if the speed at 16,000 tokens is below 0.7 of that at 1,000.
"""

import argparse
import sys
import time
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from arcmtp import LLM, ArcmtpError
from arcmtp.runtime.graphs import GraphStatistics

WAYS = ("graphs", "launches")
WINDOW = 1000  # tokens
NEAR, FAR, LEAST_RATIO = 1, 16, 0.7  # windows that are compared, and the least speed of the second, of the first's


@dataclass
class Run:
    """One generation. graphs: what was done after the first cycle."""

    way: str
    ids: list[int]
    mean_ms: np.ndarray  # per token, of each window
    fast_ms: np.ndarray  # per cycle: the tenth percentile of each window
    graphs: GraphStatistics
    bytes_to_host: int
    host_memory: int  # bytes by which the process grew

    def report(self) -> None:
        """Print what was measured."""
        windows = np.arange(len(self.fast_ms))
        slope, start = np.polyfit(windows, self.fast_ms, 1)
        worst = np.abs(self.fast_ms / (start + slope * windows) - 1).max()
        tokens = len(self.ids) - 1
        print(f"{self.way}: {len(self.ids)} ids, CRC-32 {zlib.crc32(np.array(self.ids, np.int32).tobytes()):08x}")
        print(f"  mean ms per token in windows of {WINDOW}: {' '.join(f'{ms:.2f}' for ms in self.mean_ms)}")
        print(f"  tenth percentile of ms per cycle: {' '.join(f'{ms:.2f}' for ms in self.fast_ms)}")
        print(f"  line: {start:.2f} ms + {slope * 1e3:.1f} µs per {WINDOW} tokens; largest deviation {worst:.1%}")
        if self.ratio is not None:
            speeds = " and ".join(f"{1e3 / self.fast_ms[i]:.1f} after {i * WINDOW}" for i in (NEAR, FAR))
            print(f"  cycles/s: {speeds}; ratio {self.ratio:.3f}")
        print(f"  {self.graphs.replays} replays, {self.graphs.captures} captures after the first cycle")
        print(f"  {self.bytes_to_host / tokens:.0f} bytes a token to the host; ", end="")
        print(f"host memory grew by {self.host_memory / tokens / 1024:.1f} KiB a token")

    @property
    def ratio(self) -> float | None:
        """Speed in the far window over that in the near one; None for a shorter run."""
        return float(self.fast_ms[NEAR] / self.fast_ms[FAR]) if len(self.fast_ms) > FAR else None

    @property
    def failures(self) -> list[str]:
        """What is not as it must be."""
        captures = self.graphs.captures
        failures = [f"{self.way}: {captures} captures after the first cycle"] if captures else []
        if self.ratio is not None and self.ratio < LEAST_RATIO:
            failures.append(f"{self.way}: ratio {self.ratio:.3f} is below {LEAST_RATIO}")
        return failures


def decode(llm: LLM, tokens: int, draft: int, way: str) -> Run:
    """Generate `tokens` tokens after the prompt [0]."""
    llm.network.stage.graphs.enabled = way == "graphs"
    sequence = llm.new_sequence(draft=draft)
    ids = sequence.prefill([0], tokens).tokens
    memory, statistics = 0, llm.network.stage.graphs.statistics.copy()
    passed = [(len(ids), time.perf_counter())]  # tokens, and when, after each cycle
    for number, cycle in enumerate(llm.cycles(sequence)):
        if number == 0:
            memory, statistics = own_memory(), llm.network.stage.graphs.statistics.copy()
        ids += cycle.tokens
        passed.append((len(ids), time.perf_counter()))
    counts, times = np.array(passed).T
    edges = np.searchsorted(counts, np.arange(0, tokens + 1, WINDOW))
    windows = [slice(a, b) for a, b in pairwise(edges)]
    cycle_ms = np.diff(times) * 1e3
    return Run(
        way, ids, np.diff(times[edges]) / np.diff(counts[edges]) * 1e3,
        np.array([np.percentile(cycle_ms[window], 10) for window in windows]),
        llm.network.stage.graphs.statistics.since(statistics), sequence.bytes_to_host, own_memory() - memory,
    )  # fmt: skip


def own_memory() -> int:
    """Bytes of anonymous memory of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--tokens", type=int, default=20_000, help="(%(default)s)")
    parser.add_argument("--draft", type=int, default=0, help="tokens to draft in each cycle (%(default)s)")
    parser.add_argument("--way", choices=WAYS, action="append", help="only this one: compare the checksums of the ids")
    parser.add_argument("--device", default="cpu", help="dpctl's filter string (%(default)s)")
    options = parser.parse_args()
    if options.tokens <= 2 * WINDOW:
        parser.error(f"--tokens should be above {2 * WINDOW}: a line needs two windows of {WINDOW}")
    return options


def main() -> int:
    options = parse()
    try:
        with LLM(options.file, options.device, options.tokens + 1, graphs=False, draft=options.draft) as llm:
            runs = [decode(llm, options.tokens, options.draft, way) for way in options.way or WAYS]
    except ArcmtpError as error:
        print(f"check_long_run: {error}", file=sys.stderr)
        return 2
    for run in runs:
        run.report()
    failures = [failure for run in runs for failure in run.failures]
    if any(run.ids != runs[0].ids for run in runs):
        failures.append("the ids differ")
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
