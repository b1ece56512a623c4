#!/usr/bin/env python3
"""Run the bundled model on the default device through every row count: prompts, decoding, 1…8 rows at once.

Under run.sh no kernel executes, so what comes back means nothing and steers nothing: the run shows that the device
takes every kernel, argument, launch and graph, and how long the host is busy. Graphs hold what their launch lists do;
--write-kernels and --compare-kernels show that these are the same on two devices. Exit status 1: they are not.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from arcmtp import LLM
from arcmtp.engine.sequence import TokenSequence
from arcmtp.model.network import Network
from arcmtp.ops.launch import BLOCK_ROWS, MAX_ROWS
from arcmtp.runtime.device import Device
from arcmtp.runtime.graphs import GraphCache, kernel_names
from arcmtp.runtime.timing import Timeline

PROMPTS = (5, BLOCK_ROWS + 188)  # tokens: less than a block, and more
STEPS = 64
Kernels = dict[str, list[str]]  # the names in each graph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write-kernels", metavar="FILE", type=Path, help="write the kernels of each graph as JSON")
    parser.add_argument("--compare-kernels", metavar="FILE", type=Path, help="expect those that another device wrote")
    options = parser.parse_args()
    kernels = dry_run()
    if options.write_kernels:
        options.write_kernels.write_text(json.dumps(kernels), encoding="utf-8")
    if options.compare_kernels:
        compare(kernels, json.loads(options.compare_kernels.read_text(encoding="utf-8")), "the other device's")


def dry_run() -> Kernels:
    """Run everything once; the kernels of the graphs that this captured."""
    # Left to itself, an LLM would remember for the real card that graphs are the faster way on this one.
    with LLM(ctx=2 * BLOCK_ROWS, graphs=False) as llm:
        card, network = llm.device.card, llm.network
        print(f"{llm.device.sycl_device.name}, profile {card.profile}: loaded and compiled in {llm.load_seconds:.1f} s")
        for tokens in PROMPTS:
            sequence = prompt(network, [token % llm.config.vocab for token in range(tokens)])
        print(f"{len(network.step())} launches per token for {llm.config.layers} layers")
        for graphs in (False, True):
            decode(network, sequence, graphs)
        for rows in range(1, MAX_ROWS + 1):
            step_of(network, rows)
        time_marks(llm.device)
        return graph_kernels(network.graphs)


def prompt(network: Network, ids: Sequence[int]) -> TokenSequence:
    """A new sequence that has evaluated `ids`."""
    begin = time.perf_counter()
    sequence = TokenSequence(network)
    sequence.prefill(ids)
    blocks = -(-len(ids) // BLOCK_ROWS)
    launches = blocks * len(network.trunk(0)) + len(network.head(1, pending=0))
    print(f"prompt of {len(ids)} tokens: {launches} launches, {1e3 * (time.perf_counter() - begin):.1f} ms", flush=True)
    return sequence


def decode(network: Network, sequence: TokenSequence, graphs: bool) -> None:
    """Single-token steps, each waiting for its token as plain decoding does."""
    network.graphs.enabled = graphs
    next(sequence.steps(1))  # captures the graph
    begin = time.perf_counter()
    for _ in sequence.steps(STEPS):
        pass
    step_us = 1e6 * (time.perf_counter() - begin) / STEPS
    way = "replayed as a graph" if graphs else "launched one by one"
    print(f"{STEPS} decode steps {way}: host {step_us:.0f} µs per step", flush=True)


def step_of(network: Network, rows: int) -> None:
    """One step of `rows` rows with the logits of each, as verifying drafts will need it, both ways."""
    begin = time.perf_counter()
    network.compile(rows)
    compiled = time.perf_counter()
    device = network.device
    for launches in (network.trunk(rows), network.head(rows)):
        launches.submit(device.queue)
    device.wait()
    run_us = 1e6 * (time.perf_counter() - compiled)
    network.graphs.submit(f"trunk {rows}", network.trunk(rows))
    network.graphs.submit(f"head {rows}", network.head(rows))
    device.wait()
    what = f"{rows} rows" if rows > 1 else "1 row"
    print(f"step of {what}: compiled in {compiled - begin:.1f} s, host {run_us:.0f} µs", flush=True)


def time_marks(device: Device, count: int = 1000) -> None:
    """Put time marks on the queue, as drafting does around every call."""
    timeline = Timeline(device, count)
    begin = time.perf_counter()
    for _ in range(count):
        timeline.mark()
    mark_us = 1e6 * (time.perf_counter() - begin) / count
    device.wait()
    print(f"time marks ({timeline.way}): host {mark_us:.1f} µs per mark", flush=True)


def graph_kernels(graphs: GraphCache) -> Kernels:
    """The kernels of every graph, which are to be those of its launch list."""
    captured = {name: kernel_names(graph) for name, (_, graph) in graphs.captured.items()}
    compare(captured, {name: launches.names() for name, (launches, _) in graphs.captured.items()}, "the launch list's")
    return captured


def compare(kernels: Kernels, expected: Kernels, whose: str) -> None:
    """Leave the program with the first difference, if there is one."""
    if kernels.keys() != expected.keys():
        sys.exit(f"graphs {sorted(kernels)} are not {whose}: {sorted(expected)}")
    for graph, names in kernels.items():
        for index, (name, other) in enumerate(zip_longest(names, expected[graph])):
            if name != other:
                sys.exit(f"graph {graph!r}: kernel {index} is {name}, {whose} is {other}")
    total = sum(map(len, kernels.values()))
    print(f"{total} kernels in {len(kernels)} graphs are {whose}, name by name", flush=True)


if __name__ == "__main__":
    main()
