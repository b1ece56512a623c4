"""How fast constrained text is beside free text of the same model: alternating pairs, tokens per second of decoding.

    .venv/bin/python scripts/constraint_speed.py [-m FILE] [--pairs N] [--draft N|auto] [--parallel N]

Both texts have the same number of tokens: the schema's array is long, and the free text may not end. Other programs
only take time away, so besides the medians the best tenth of either kind is compared: many short texts find quiet
moments of a busy machine.
"""

import argparse
import math
import statistics

from arcmtp import LLM, Constraint, Generation, SamplingOptions
from arcmtp.cli.options import integer, integer_or_auto

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
PROMPT = "import os\n"


def main() -> None:
    """Print both rates, their ratio, and what masks took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", metavar="FILE")
    parser.add_argument("--pairs", type=integer(1), default=12)
    parser.add_argument("--tokens", type=integer(2), default=160)
    parser.add_argument("--draft", type=integer_or_auto, default="auto")
    parser.add_argument("--parallel", type=integer(1), default=1)
    options = parser.parse_args()
    constraint = Constraint.json_schema(SCHEMA)
    with LLM(options.model, device="cpu", ctx=1024, draft=options.draft, parallel=options.parallel) as llm:
        sampling = SamplingOptions(temperature=1.0, seed=1, logit_bias=dict.fromkeys(llm.tokenizer.eos_ids, -math.inf))

        def run(one: Constraint | None) -> list[Generation]:
            prompts = [PROMPT] * options.parallel
            return llm.generate(prompts, options.tokens, sampling=sampling, constraint=one)

        run(constraint), run(None)
        free, bound = [], []
        for _ in range(options.pairs):
            free += run(None)
            bound += run(constraint)
    for name, of_rates in (("median", statistics.median), ("best tenth", _best_tenth)):
        rates = [of_rates([g.statistics.decode_tokens_per_second for g in of]) for of in (free, bound)]
        print(f"{name}: free {rates[0]:.1f} tokens/s, constrained {rates[1]:.1f}: {rates[1] / rates[0]:.3f}")
    masks = [g.statistics.masks for g in bound if g.statistics.masks]
    cost, share = (statistics.median(values) for values in ([m.us_per_token for m in masks], [m.share for m in masks]))
    print(f"masks, median: {cost:.0f} µs a token, {share:.1%} of decoding")


def _best_tenth(rates: list[float]) -> float:
    return statistics.median(sorted(rates)[-max(len(rates) // 10, 1) :])


if __name__ == "__main__":
    main()
