#!/usr/bin/env python3
"""Let the bundled model write on the emulated card and on the CPU device in that card's geometry; both must agree.

    ONEAPI_DEVICE_SELECTOR='opencl:cpu;level_zero:gpu' run.sh --execute python demo.py

Exit status 1: an id or a log-probability differs.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence

from arcmtp import LLM, Generation
from arcmtp.runtime.device import Device
from scripts.battlemage.count_launches import Emulator, counts_of

Token = tuple[int, float]  # and its log-probability

PROMPT = "def read_lines(path):"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--max-tokens", type=int, default=48, metavar="N", help="default: %(default)s")
    tokens = parser.parse_args().max_tokens
    emulator, card = Emulator(), Device("level_zero:gpu")
    with LLM(device=card, graphs=False, draft=2) as llm:
        print(f"{card.sycl_device.name}: loaded and compiled in {llm.load_seconds:.1f} s\n{PROMPT}", end="", flush=True)
        stream = llm.stream(PROMPT, tokens)

        def write() -> None:
            for chunk in stream:
                print(chunk.text, end="", flush=True)
            print()

        began = time.perf_counter()
        reports = emulator.reports(write)
        seconds, written = time.perf_counter() - began, stream.result
    counts = sum(map(counts_of, reports), Counter())
    print(summary(counts, sum(report["launches"] for report in reports), len(written.ids), seconds))
    with LLM(device=Device("cpu", card=card.card), graphs=False, draft=2) as llm:
        expected = llm.generate(PROMPT, tokens)
    if difference := first_difference(said(written), said(expected)):
        sys.exit(difference)
    print(f"ids and log-probabilities are the CPU device's in the geometry of {card.card.profile}")


def summary(counts: Counter[str], launches: int, tokens: int, seconds: float) -> str:
    """A line on what the card did for the prompt and so many tokens."""
    instructions, dpas = counts["instructions"], counts["pipes.dpas"]
    return (
        f"{tokens} tokens in {seconds:.1f} s: {launches} launches, {instructions:,} instructions, of them {dpas:,} "
        f"dpas; {instructions // tokens:,} instructions a token"
    )


def said(written: Generation) -> list[Token]:
    return list(zip(written.ids, written.token_logprobs, strict=True))


def first_difference(ours: Sequence[Token], theirs: Sequence[Token]) -> str | None:
    """A line on what the card wrote otherwise than the CPU device; None if nothing."""
    for index, (token, other) in enumerate(zip(ours, theirs, strict=False)):
        if token != other:
            return f"token {index} is {token[0]} of log-probability {token[1]!r}, the CPU's {other[0]} of {other[1]!r}"
    if len(ours) != len(theirs):
        return f"the card wrote {len(ours)} tokens, the CPU {len(theirs)}"
    return None


if __name__ == "__main__":
    main()
