#!/usr/bin/env python3
"""Steps of one row at a depth of context with each type of KV cache, and with f16 in turn with them.

Nothing is evaluated before: what keys hold does not change how long a step takes. Of each pair the quotient is taken,
and the median of all quotients counts, which other work on the machine disturbs least.
"""

import argparse
import time
from pathlib import Path
from statistics import median

import numpy as np

from arcmtp import LLM
from arcmtp.cli.options import integer, integers
from arcmtp.formats.kv_cache import KV_F16, KV_FORMATS
from arcmtp.model.blocks.cache import KvCache
from arcmtp.model.blocks.head import SamplingMode

SOME_BYTES = 0x2C  # small numbers, as halves too: CPUs are slow at subnormal ones


def seconds(llm: LLM, depth: int) -> float:
    """Wall time of a step of one row at position `depth`."""
    network = llm.network
    network.controls.positions.write(np.array([depth], np.int32))
    step = network.step(1, SamplingMode())
    began = time.perf_counter()
    network.stage.run(step)
    return time.perf_counter() - began


def opened(options: argparse.Namespace, kv_type: str) -> LLM:
    """The model, whose caches hold something."""
    llm = LLM(options.file, ctx=max(options.depth) + 64, draft=0, kv_type=kv_type)
    for cache in llm.network.caches:
        if isinstance(cache, KvCache):
            cache.tensor.fill(SOME_BYTES)
    llm.new_sequence()
    return llm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE", nargs="?", help="GGUF file (default: the bundled one)")
    parser.add_argument("--depth", type=integers, default=[1024], metavar="N,N…", help="tokens of context (1024)")
    parser.add_argument("--pairs", type=integer(1), default=20, help="of each (%(default)s)")
    options = parser.parse_args()
    print("| type | depth | tokens/s | × f16 |\n|---|---:|---:|---:|")
    with opened(options, KV_F16.name) as f16:
        for name in KV_FORMATS:
            with opened(options, name) as llm:
                for depth in options.depth:
                    pairs = [(seconds(f16, depth), seconds(llm, depth)) for _ in range(options.pairs + 1)][1:]
                    quotient, best = median(a / b for a, b in pairs), min(b for _, b in pairs)
                    print(f"| {name} | {depth} | {1 / best:.1f} | {quotient:.2f} |", flush=True)


if __name__ == "__main__":
    main()
