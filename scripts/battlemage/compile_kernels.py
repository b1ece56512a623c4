#!/usr/bin/env python3
"""Compile every kernel of Qwen3.6-35B-A3B and Qwen3.6-27B for the default device, from their shapes alone: no weights
are needed.

With run.sh and the compiler's dump switched on (check.sh does both), isa.py then reports on each of them.
"""

import sys
import time
from collections.abc import Iterable

import numpy as np

from arcmtp.formats.kv_cache import KV_F16, KV_FORMATS
from arcmtp.formats.matrix import Requant
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.config import Config
from arcmtp.model.network import Network, NetworkOptions
from arcmtp.ops.launch import MAX_ROWS
from arcmtp.predict.published import VOCAB_USED
from arcmtp.runtime.device import Device
from arcmtp.runtime.launch import Kernel, kernels_of
from scripts.battlemage.models import (
    CONTEXT,
    DENSE,
    DRAFT_TOKENS,
    MOE,
    Mix,
    WideHeader,
    network,
    stock_q4_0,
    unsloth_q4_k_m,
)

ROW_COUNTS = (1, 4, 0)  # a step, one that verifies drafts, a prompt chunk
SLOTS = 4  # of a network that advances several sequences at once
FILES: tuple[tuple[Config, Mix, Requant | None], ...] = (
    (MOE, stock_q4_0, None),
    (MOE, unsloth_q4_k_m, None),
    (MOE, unsloth_q4_k_m, "int4"),
    (DENSE, stock_q4_0, None),
)


def main() -> None:
    device = Device()
    print(f"{device.card.name}: {device.sycl_device.name}", flush=True)
    networks = [network(device, *file) for file in FILES]
    networks.append(network(device, *FILES[0], slots=SLOTS))
    networks += [of_some_tokens(device), of_f32_numbers(device)]
    coded = [kv for kv in KV_FORMATS.values() if kv is not KV_F16]
    networks += [network(device, *file, kv=kv) for file in (FILES[0], FILES[-1]) for kv in coded]
    for rows in ROW_COUNTS:
        kernels = _distinct(kernel for network in networks for kernel in all_kernels(network, rows))
        begin = time.perf_counter()
        device.compile(kernels)
        what = f"{rows} rows" if rows > 1 else "1 row" if rows else "chunk"
        print(f"{what}: {len(kernels)} kernels in {time.perf_counter() - begin:.1f} s", flush=True)


def of_some_tokens(device: Device) -> Network:
    """The commonest file, whose drafts are of some tokens in 4-bit weights."""
    tokens = np.arange(DRAFT_TOKENS, dtype=np.int32)
    return network(device, *FILES[1], draft_tokens=tokens, draft_requant="int4")


def of_f32_numbers(device: Device) -> Network:
    """A file whose small matrices need F32."""
    file = WideHeader(MOE, unsloth_q4_k_m)
    return Network(file, MOE, NetworkOptions(CONTEXT, VOCAB_USED, mtp=file), device)


def all_kernels(network: Network, rows: int) -> list[Kernel]:
    """For `rows` rows of one sequence, for as many of one row each, and, with 0, for prompt chunks and larger steps;
    with 1, also those of draft calls that are skipped where a draft before them was too unlikely."""
    shapes = [(rows, 1)]
    if network.slots > 1:
        shapes += [(1, rows)] if 1 < rows <= network.slots else []
        shapes += [] if rows else [(MAX_ROWS, network.slots)]
    modes = [SamplingMode()]
    if rows == 1:
        modes += [SamplingMode(by_options=True, top=True), SamplingMode(by_options=True, masked=True)]
    return kernels_of(
        launch
        for mode in modes
        for rows, sequences in shapes
        for launch in network.launches(rows, sequences, mode, if_likely=rows == 1)
    )


def _distinct(kernels: Iterable[Kernel]) -> list[Kernel]:
    found: dict[str, Kernel] = {}
    for kernel in kernels:
        if found.setdefault(kernel.name, kernel) != kernel:
            sys.exit(f"two kernels share the name {kernel.name}")
    return list(found.values())


if __name__ == "__main__":
    main()
