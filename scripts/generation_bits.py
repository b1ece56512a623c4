#!/usr/bin/env python3
"""Write every bit that generations of the test models have, or compare with those that another tree has written.

The prompts are those of arcmtp/data/golden.json, on the CPU device: greedy with 0, 1 and 3 drafts, with the three
likeliest tokens of each position, and sampled with filters and penalties. Only the public interface is used, so that
the environment of an older tree can run this too. Exit status 1: a generation differs.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arcmtp import LLM, Generation, SamplingOptions
from arcmtp.runtime.paths import data_dir

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
MODELS = (None, "tiny-qwen36moe-f16.gguf", "tiny-qwen36moe-q4_k_m.gguf")  # None: the bundled one, Q4_0
SAMPLING = SamplingOptions(temperature=0.9, top_p=0.9, top_k=40, repetition_penalty=1.1, seed=7)
TOKENS = 48

Bits = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--write", metavar="FILE", type=Path, help="write the bits as JSON")
    way.add_argument("--compare", metavar="FILE", type=Path, help="say which generations differ from those in FILE")
    options = parser.parse_args()
    found = {name: bits for model in MODELS for name, bits in generations(model)}
    if options.write:
        options.write.write_text(json.dumps(found), encoding="utf-8")
        print(f"{len(found)} generations written")
        return 0
    expected: dict[str, Bits] = json.loads(options.compare.read_text(encoding="utf-8"))
    different = [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]
    print("\n".join(f"{name} differs" for name in different) or f"all {len(found)} generations are equal")
    return 1 if different else 0


def generations(model: str | None) -> Iterator[tuple[str, Bits]]:
    """What each is called, and its bits."""
    prompts = json.loads((data_dir() / "golden.json").read_text(encoding="utf-8"))["prompts"]
    with LLM(model and DATA / model, device="cpu", ctx=1024, draft=3) as llm:
        for number, prompt in enumerate(prompts):
            name = f"{model or 'bundled'}, prompt {number}"
            for draft in (0, 1, 3):
                result = llm.generate(prompt["tokens"], max_tokens=TOKENS, draft=draft, logprobs=3)
                yield f"{name}, {draft} drafts", bits_of(result)
            yield f"{name}, sampled", bits_of(llm.generate(prompt["tokens"], max_tokens=TOKENS, sampling=SAMPLING))


def bits_of(result: Generation) -> Bits:
    """Tokens, log-probabilities as hexadecimal floats, and the fate of each draft."""
    likeliest = [[(token, value.hex()) for token, value in place] for place in result.logprobs or []]
    return {
        "ids": result.ids,
        "logprobs": [value.hex() for value in result.token_logprobs],
        "likeliest": json.loads(json.dumps(likeliest)),  # tuples are lists in a file
        "accepted": [call.accepted for call in result.draft_calls],
    }


if __name__ == "__main__":
    sys.exit(main())
