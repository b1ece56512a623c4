#!/usr/bin/env python3
"""Count what each operator does on the emulated card, and write the counts that `arcmtp predict` ships with.

    ARCMTP_EMULATOR_CHECKS=lines scripts/battlemage/run.sh --execute .venv/bin/python \
        scripts/battlemage/count_operators.py [--only NAME]

Run it after a kernel has changed; `--only` counts one operator anew and keeps the others. Launches come from networks
without weights, of several shapes and formats (SHAPES, FORMATS). What a thread does is then written as a fixed part and
a part for each of its launch's units (`Cost.units`), by operator, row class and format, fitted to all launches.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from arcmtp.formats.kv_cache import KV_FORMATS
from arcmtp.formats.matrix import Requant
from arcmtp.gguf_header import GgmlType
from arcmtp.model.config import Config
from arcmtp.model.network import Network, NetworkOptions
from arcmtp.predict.counts import (
    CHUNK_ROWS,
    COUNTED,
    CountFile,
    Counts,
    counted_card,
    digest,
    row_class,
    units_of,
)
from arcmtp.predict.machine import CASES
from arcmtp.predict.published import VOCAB_USED
from arcmtp.runtime.device import Device
from arcmtp.runtime.launch import Launch, Work
from arcmtp.runtime.tensor import Tensor
from scripts.battlemage.count_launches import (
    Emulator,
    Phase,
    Report,
    Unloaded,
    counts_of,
    distinct_experts,
    only,
    prepare,
)
from scripts.battlemage.fit_counts import Sample, differences, fitted
from scripts.battlemage.models import DENSE, MOE, Header, Mix, WideHeader, stock_q4_0, unsloth_q4_k_m

# Tokens that a row of a step sees: one tile of attention, few splits, then all, with as many tiles of each as a team
# takes.
CONTEXTS = (16, 128, 512, 2048, 4096)
CODED_CONTEXTS = (16, 512, 8192, 16384)
PRODUCTS = ("mul_mat", "experts_gate_up", "experts_down")
CHUNK_CONTEXTS = (CHUNK_ROWS, 2 * CHUNK_ROWS)  # the last row of a prompt chunk
ROWS = (1, 2, 4, 8, 0)
FEW_ROWS = (1, 4, 0)
HALF = replace(
    MOE, hidden=1024, expert_ffn=256, shared_ffn=256, q_heads=8, kv_heads=1, gdn_k_heads=8, gdn_v_heads=16
)
QUARTER = replace(DENSE, hidden=1280, ffn=4352)


class Counted(NamedTuple):
    """A network whose launches are counted, for these rows; those of some operators alone, or of a part."""

    config: Config
    mix: Mix
    rows: tuple[int, ...]
    operators: tuple[str, ...] = COUNTED
    part: str | None = None
    kv: str = "f16"
    requant: Requant | None = None
    header: type[Header] = Header
    contexts: tuple[int, ...] = ()  # of steps; none: those of the cache's format
    chunk_contexts: tuple[int, ...] = CHUNK_CONTEXTS


def every(ggml_type: GgmlType) -> Mix:
    """A file whose matrices have one type."""
    return lambda layer, name: GgmlType.F32 if "ffn_gate_inp" in name else ggml_type


FORMATS = (
    GgmlType.Q4_K, GgmlType.Q5_K, GgmlType.Q6_K, GgmlType.Q8_0, GgmlType.BF16, GgmlType.Q4_1, GgmlType.Q5_0,
    GgmlType.Q5_1, GgmlType.Q2_0, GgmlType.Q2_K, GgmlType.F16, GgmlType.IQ4_NL, GgmlType.IQ4_XS, GgmlType.MXFP4,
    GgmlType.IQ3_S, GgmlType.IQ3_XXS, GgmlType.Q3_K, GgmlType.IQ2_XXS, GgmlType.IQ2_S, GgmlType.IQ1_S, GgmlType.IQ1_M,
    GgmlType.F32,
)  # fmt: skip
SHAPES = (
    Counted(MOE, stock_q4_0, ROWS),
    Counted(HALF, stock_q4_0, FEW_ROWS),
    Counted(QUARTER, stock_q4_0, FEW_ROWS),
    Counted(HALF, unsloth_q4_k_m, FEW_ROWS, PRODUCTS),
    Counted(HALF, stock_q4_0, FEW_ROWS, ("router",), header=WideHeader),
    # Its threads go from row to row: of half a chunk they do half as much.
    Counted(MOE, stock_q4_0, (0,), ("gated_delta_net",), chunk_contexts=(CHUNK_ROWS // 2,)),
    *(
        Counted(HALF, stock_q4_0, FEW_ROWS, ("attention", "attention_store"), kv=kv)
        for kv in KV_FORMATS
        if kv != "f16"
    ),
    *(Counted(HALF, every(ggml_type), FEW_ROWS, ("mul_mat",), part="output") for ggml_type in FORMATS),
)


def silent_device() -> Device:
    """The emulated card, as it is counted."""
    return Device(card=counted_card())


def samples(counted: Counted, device: Device, emulator: Emulator, only_operator: str | None) -> Iterator[Sample]:
    """What launches of a network do; kernels that do the same in several layers are executed once."""
    wanted = [name for name in counted.operators if only_operator in (None, name)]
    if not wanted:
        return
    config = replace(counted.config, layers=4, layer_kinds=counted.config.layer_kinds[:4])
    contexts = counted.contexts or (CONTEXTS if counted.kv == "f16" else CODED_CONTEXTS)
    file, kv = counted.header(config, counted.mix), KV_FORMATS[counted.kv]
    options = NetworkOptions(max(contexts), VOCAB_USED, mtp=file, requant=counted.requant, kv=kv)
    model = Network(file, config, options, device)
    model.load(loader=Unloaded)
    seen = set()
    for rows in counted.rows:
        for context in contexts if rows else counted.chunk_contexts:
            launches = []
            for launch in model.launches(rows):
                kind = (launch.kernel.name, context if launch.operator == "attention" else 0)
                needed = launch.operator in wanted and counted.part in (None, launch.part)
                chooses = launch.operator == "router" and any("experts" in name for name in wanted)
                # Draft calls after a step of several rows would find no positions of their own.
                if row_class(launch.rows) == rows and (needed or chooses) and kind not in seen:
                    seen.add(kind)
                    launches.append(launch)
            of_all = of_rows(model, rows, context, launches, emulator)
            yield from (one for one in of_all if one.operator in wanted)


def of_rows(
    model: Network, rows: int, context: int, launches: list[Launch], emulator: Emulator
) -> Iterator[Sample]:
    """Of launches for so many rows (0: a prompt chunk) of which the last one sees `context` keys."""
    positions = np.arange(context, dtype=np.int32)[-(rows or model.chunk_rows) :]
    model.device.compile(launch.kernel for launch in launches)
    prepare(model, Phase("", launches, positions, chunk=not rows))
    experts = min(model.config.experts, len(positions) * model.config.experts_used)
    for launch in launches:
        run = partial(model.device.run, model.device.bind([launch]))
        report = only(emulator.reports(run))
        if launch.operator == "router":
            if not rows:  # the choices of a network without weights are far from even
                choose_evenly(launch, len(positions), model.config)
            experts = distinct_experts(launch, len(positions), model.config.experts_used)
        yield sample(launch, report, Work(len(positions), context, experts))


def choose_evenly(router: Launch, rows: int, config: Config) -> None:
    """Write other choices of a prompt chunk of `rows` rows: any expert as often as another one, as predictions take
    it."""
    rng, selected = np.random.default_rng(0), router.arguments["selected"]
    assert isinstance(selected, Tensor)
    chosen = [rng.permutation(config.experts)[: config.experts_used] for _ in range(rows)]
    selected.write(np.array(chosen, np.int32))


def sample(launch: Launch, report: Report, work: Work) -> Sample:
    """Of an executed launch."""
    assert report["threads"] == launch.threads, launch
    counts = counts_of(report)
    slots = {pipe: counts[f"slots.{pipe}"] for pipe in ("float", "integer", "integer64", "math", "dpas")}
    messages = {kind: counts[f"messages.global_{kind}"] for kind in ("load", "prefetch", "store", "atomic", "fence")}
    number = Counts(
        instructions=counts["instructions"],
        floats=slots["float"],
        integers=slots["integer"] + slots["integer64"],
        math=slots["math"],
        dpas=counts["pipes.dpas"],
        dpas_rows=slots["dpas"],
        send=counts["pipes.send"],
        messages=sum(messages.values()),
        moved_bytes=counts["bytes.global_load"] + counts["bytes.global_store"],
        line_bytes=64 * counts["group_lines"],
        team_messages=sum(counts[f"messages.team_{kind}"] for kind in ("load", "store")),
        team_bytes=counts["bytes.team_load"] + counts["bytes.team_store"],
        **{f"alone_{case}": counts[f"thread_cycles.{case}"] for case in CASES},
        **{f"longest_{case}": counts[f"longest_cycles.{case}"] * launch.threads for case in CASES},
    )
    kind = (launch.operator, row_class(launch.rows))
    return Sample(*kind, launch.kernel.name, launch.threads, dict(units_of(launch, work)), report["registers"], number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=COUNTED, help="count one operator, keep the counts of the others")
    parser.add_argument("--samples", metavar="FILE", help="write what each launch did, too")
    options = parser.parse_args()
    if "lines" not in os.environ.get("ARCMTP_EMULATOR_CHECKS", ""):
        parser.error("cache lines are counted with ARCMTP_EMULATOR_CHECKS=lines")
    emulator, device = Emulator(), silent_device()
    found: list[Sample] = []
    for counted in SHAPES:
        began = time.perf_counter()
        new = list(samples(counted, device, emulator, options.only))
        found += new
        what = f"{counted.config.architecture} {counted.config.hidden} {counted.kv}"
        print(f"{what}: {len(new)} launches in {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
        if options.samples:
            with open(options.samples, "a", encoding="utf-8") as log:
                log.writelines(f"{one.as_json()}\n" for one in new)
    file = CountFile.read() if options.only else CountFile({}, {})
    made = fitted(found)
    file.operators.update(made)
    file.digests.update({operator: digest(operator) for operator in made})
    file.write()
    for quantity in ("alone_expected", "instructions"):
        for name, error in differences(found, made, quantity):
            print(f"{name}: {quantity} of a launch differ by up to {error:.0%}")


if __name__ == "__main__":
    main()
