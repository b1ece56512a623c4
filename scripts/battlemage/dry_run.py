#!/usr/bin/env python3
"""Run the bundled model and a dense sibling on the default device through every row count: prompts, decoding, 1…8 rows
of a sequence at once, and rows of several sequences.

Under run.sh no kernel executes, so what comes back means nothing and steers nothing: the run shows that the device
takes every kernel, argument, launch and graph, and how long the host is busy. Graphs hold what their launch lists do;
--write-kernels, in a card's geometry, and --compare-kernels show that these are the same on two devices. Exit status 1:
they are not.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from statistics import median

import numpy as np
from gguf import GGMLQuantizationType as Type

from arcmtp import LLM
from arcmtp.engine.prefix_cache import PrefixCache
from arcmtp.engine.slot import Slot
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.network import Network
from arcmtp.ops.launch import MAX_ROWS
from arcmtp.runtime.device import Device
from arcmtp.runtime.graphs import kernel_names
from arcmtp.runtime.timing import Timeline
from scripts.make_random_model import write_model
from scripts.random_model.tensors import Geometry

CYCLES = 64
MOST_US = 100  # of the host to replay a cycle
DRAFT = 3
SLOTS = 4
SHAPES = (*((rows, 1) for rows in range(1, MAX_ROWS + 1)), (1, SLOTS), (DRAFT + 1, SLOTS))  # rows a run, and runs
# `qwen35` of the bundled model's sizes, so that most of its kernels are compiled already.
DENSE = Geometry(
    layers=4, experts=0, experts_used=0, expert_width=0, dense_width=512, vocab=6144, mtp=True, hidden=256, heads=4,
    kv_heads=1, head_dim=64, rope_dims=16, rope_sections=(3, 3, 2, 0), gdn_k_heads=2, gdn_v_heads=4, gdn_head_dim=64,
)  # fmt: skip
Kernels = dict[str, list[str]]  # the names in each graph


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    device = Device()
    dry_run(device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dense.gguf"
        write_dense(path)
        dry_run(device, path)


def write_dense(path: Path) -> None:
    """Random weights of the dense sibling."""
    write_model(path, DENSE, Type.Q4_0, Type.Q8_0, seed=1)


def dry_run(device: Device, path: Path | None = None) -> None:
    """Run everything of a model (None: the bundled one) once."""
    # Left to itself, an LLM would remember for the real card that graphs are the faster way on this one.
    most = device.card.geometry.chunk_rows
    with LLM(path, device, ctx=2 * most, graphs=False, draft=DRAFT, parallel=SLOTS) as llm:
        network, architecture = llm.network, llm.config.architecture
        where = f"{device.sycl_device.name}, profile {device.card.profile}"
        print(f"{architecture} on {where}: loaded and compiled in {llm.load_seconds:.1f} s")
        for tokens in (5, most + 188):  # less than a chunk, and more
            prompt(network, [token % llm.config.vocab for token in range(tokens)])
        step = network.step(1, SamplingMode())
        print(f"{len(step)} launches per token without drafts for {llm.config.layers} layers")
        network.controls.slots.write(np.arange(SLOTS, dtype=np.int32))
        for rows, runs in SHAPES:
            begin = time.perf_counter()
            network.compile(rows, runs)
            compile_s = time.perf_counter() - begin
            us = [cycle_us(network, rows, runs, graphs) for graphs in (False, True)]
            print(
                f"cycle of {rows - 1} drafts, {runs} at once: compiled in {compile_s:.1f} s; host {us[0]:.0f} µs "
                f"launched one by one, {us[1]:.1f} µs replayed as {rows} graphs",
                flush=True,
            )
            if us[1] > MOST_US and not device.is_cpu:  # whose driver runs kernels while it submits
                sys.exit(f"replaying a cycle takes {us[1]:.0f} µs of the host, more than {MOST_US}")
        time_marks(device)
        captured = network.stage.graphs.captured
        compare(
            {name: kernel_names(graph) for name, (_, graph) in captured.items()},
            {name: launches.names() for name, (launches, _) in captured.items()},
        )


def prompt(network: Network, ids: Sequence[int]) -> None:
    """Evaluate `ids`; no token comes of it here."""
    begin = time.perf_counter()
    Slot(network, PrefixCache(network)).extend(ids)
    launches = -(-len(ids) // network.chunk_rows) * len(network.chunk())
    print(f"prompt of {len(ids)} tokens: {launches} launches, {1e3 * (time.perf_counter() - begin):.1f} ms", flush=True)


def cycle_us(network: Network, rows: int, runs: int, graphs: bool) -> float:
    """Microseconds of the host for a cycle: the drafts, and the step of `rows` rows of each of so many runs that
    verifies them, both ways of choosing tokens in turn. The median, since other work on the machine only adds time."""
    network.stage.graphs.enabled = graphs
    seconds = []
    for choice in (SamplingMode(), SamplingMode(by_options=True, top=True)):
        drafts = [network.draft(index, rows, choice, runs) for index in range(1, rows)]
        cycle = [*drafts, network.step(rows, choice, runs)]
        for piece in cycle:
            network.stage.submit(piece)  # captures its graph
        for _ in range(CYCLES // 2):
            begin = time.perf_counter()
            for piece in cycle:
                network.stage.submit(piece)
            seconds.append(time.perf_counter() - begin)
            network.device.wait()
    return 1e6 * median(seconds)


def time_marks(device: Device, count: int = 1000) -> None:
    """Put time marks on the queue, as drafting does around every call."""
    timeline = Timeline(device, count)
    begin = time.perf_counter()
    for _ in range(count):
        timeline.mark()
    mark_us = 1e6 * (time.perf_counter() - begin) / count
    device.wait()
    print(f"time marks ({timeline.way}): host {mark_us:.1f} µs per mark", flush=True)


def compare(graphs: Kernels, lists: Kernels) -> None:
    """Leave the program with the first kernel of a graph that is not its launch list's, if there is one."""
    for graph, names in graphs.items():
        for index, (name, expected) in enumerate(zip_longest(names, lists[graph])):
            if name != expected:
                sys.exit(f"graph {graph!r}: kernel {index} is {name}, the launch list's is {expected}")
    total = sum(map(len, graphs.values()))
    print(f"{total} kernels in {len(graphs)} graphs are their launch lists', name by name", flush=True)


if __name__ == "__main__":
    main()
