#!/usr/bin/env python3
"""Run the bundled model on the default device through every row count: prompts, decoding, 1…8 rows at once.

Under run.sh no kernel executes, so what comes back means nothing and steers nothing: the run shows that the device
takes every kernel, argument and launch, and how long the host is busy.
"""

import time
from collections.abc import Sequence

from arcmtp import LLM
from arcmtp.engine.sequence import TokenSequence
from arcmtp.model.network import Network
from arcmtp.ops.launch import BLOCK_ROWS, MAX_ROWS

PROMPTS = (5, BLOCK_ROWS + 188)  # tokens: less than a block, and more
STEPS = 64


def main() -> None:
    with LLM(ctx=2 * BLOCK_ROWS) as llm:
        card, network = llm.device.card, llm.network
        print(f"{llm.device.sycl_device.name}, profile {card.profile}: loaded and compiled in {llm.load_seconds:.1f} s")
        for tokens in PROMPTS:
            sequence = prompt(network, [token % llm.config.vocab for token in range(tokens)])
        decode(network, sequence)
        for rows in range(1, MAX_ROWS + 1):
            step_of(network, rows)


def prompt(network: Network, ids: Sequence[int]) -> TokenSequence:
    """A new sequence that has evaluated `ids`."""
    begin = time.perf_counter()
    sequence = TokenSequence(network)
    sequence.prefill(ids)
    blocks = -(-len(ids) // BLOCK_ROWS)
    launches = blocks * len(network.trunk(0)) + len(network.head(1, pending=0))
    print(f"prompt of {len(ids)} tokens: {launches} launches, {1e3 * (time.perf_counter() - begin):.1f} ms", flush=True)
    return sequence


def decode(network: Network, sequence: TokenSequence) -> None:
    """Single-token steps, each waiting for its token as plain decoding does."""
    sequence.step()  # makes the launch lists
    begin = time.perf_counter()
    for _ in range(STEPS):
        sequence.step()
    step_us = 1e6 * (time.perf_counter() - begin) / STEPS
    launches = len(network.trunk(1)) + len(network.head(1, pending=1))
    print(
        f"{STEPS} decode steps: {launches} launches per token for {network.config.layers} layers, "
        f"host {step_us:.0f} µs per eager step ({step_us / launches:.1f} µs per launch)",
        flush=True,
    )


def step_of(network: Network, rows: int) -> None:
    """One step of `rows` rows, as verifying drafts will need them, with the logits of each."""
    begin = time.perf_counter()
    network.compile(rows)
    compiled = time.perf_counter()
    network.trunk(rows).submit(network.device.queue)
    network.device.run(network.head(rows))
    run_us = 1e6 * (time.perf_counter() - compiled)
    what = f"{rows} rows" if rows > 1 else "1 row"
    print(f"step of {what}: compiled in {compiled - begin:.1f} s, host {run_us:.0f} µs", flush=True)


if __name__ == "__main__":
    main()
