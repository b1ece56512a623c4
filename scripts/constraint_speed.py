"""What a constraint costs: cycles of constrained and of free text of the same model, in turns.

    .venv/bin/python scripts/constraint_speed.py [-m FILE] [--pairs N] [--draft N]

Cycles of both kinds compute as many rows: the draft length is fixed, the schema's array is long, and no text may end.
Other programs only take time away, so quantiles are compared: the lowest decile finds the quiet moments of a busy
machine. A ratio below 1 is the share of its speed that constrained text keeps, drafts accepted alike. Tokens/s are of
whole texts, where a constraint that leaves few choices lets more drafts be accepted.
"""

import argparse
import math
import time

import numpy as np

from arcmtp import LLM, Constraint, SamplingOptions
from arcmtp.cli.options import integer
from arcmtp.engine.guide import Guide
from arcmtp.engine.sampling import Sampler

SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 4, "maxLength": 24},
            "size": {"type": "integer", "minimum": 0, "maximum": 99999},
            "kind": {"enum": ["file", "folder", "link"]},
        },
        "required": ["name", "size", "kind"],
        "additionalProperties": False,
    },
    "minItems": 4096,
}
QUANTILES = (10, 25, 50)


def main() -> None:
    """Print quantiles of both kinds of cycles, their ratios, and what masks took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", metavar="FILE")
    parser.add_argument("--pairs", type=integer(1), default=20)
    parser.add_argument("--tokens", type=integer(2), default=64)
    parser.add_argument("--draft", type=integer(0), default=2)
    options = parser.parse_args()
    with LLM(options.model, device="cpu", ctx=512, draft=options.draft) as llm:
        matcher, prompt = llm.grammars.matcher(Constraint.json_schema(SCHEMA)), llm.tokenize("import os\n")
        sampling = SamplingOptions(temperature=1.0, seed=1, logit_bias=dict.fromkeys(llm.tokenizer.eos_ids, -math.inf))

        def run(constrained: bool) -> tuple[list[float], float, float]:
            """Microseconds of each cycle, and of masks for each token; tokens a second."""
            guide = Guide(matcher.deep_copy(), llm.tokenizer, prompt) if constrained else None
            sequence = llm.new_sequence(Sampler(sampling, llm.config.vocab, guide), options.draft)
            sequence.prefill(prompt, options.tokens)
            cycles, times, began = llm.cycles(sequence), [], time.perf_counter()
            for _ in cycles:
                times.append((time.perf_counter() - began) * 1e6)
                began = time.perf_counter()
            masks = guide.seconds * 1e6 / options.tokens if guide else 0.0
            return times, masks, sequence.decoded / sum(times) * 1e6

        run(True), run(False)
        free: list[float] = []
        bound: list[float] = []
        masks, speeds = [], []
        for _ in range(options.pairs):
            times, _, of_free = run(False)
            free += times
            times, of_masks, of_bound = run(True)
            bound += times
            masks.append(of_masks)
            speeds.append((of_free, of_bound))
    for quantile in QUANTILES:
        one, other = np.percentile(free, quantile), np.percentile(bound, quantile)
        print(f"quantile {quantile:2}: free {one:.0f} µs a cycle, constrained {other:.0f}: {one / other:.3f}")
    one, other = np.median(speeds, axis=0)
    print(f"median: free {one:.0f} tokens/s, constrained {other:.0f}: {other / one:.3f}")
    print(f"masks: {np.percentile(masks, QUANTILES[0]):.0f} µs a token, median {np.median(masks):.0f}")


if __name__ == "__main__":
    main()
