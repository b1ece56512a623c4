#!/usr/bin/env python3
"""Whether answers keep to JSON schemas: each schema of tests/data/schemas.json is answered at temperature 1 as often as
`--answers` says, without drafts, with 3 drafts and with as many as the engine chooses.

An answer that the model has ended is checked by the package jsonschema, formats included. One that `--tokens` has cut
off is counted apart, and must be the beginning of JSON. The schemas bound lengths and numbers, so that few answers are
cut. Prints a line for each schema, and the speed with a schema beside the speed without, taken in alternating pairs.
Exit status 1: an answer is not valid, or depends on the drafts.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

import jsonschema
import pydantic_core

from arcmtp import LLM, SamplingOptions
from arcmtp.constraint.constraint import Constraint
from arcmtp.engine.loading import Draft
from arcmtp.errors import ArcmtpError

SCHEMAS = Path(__file__).parents[1] / "tests/data/schemas.json"
DRAFTS: Sequence[Draft] = (0, 3, "auto")
PROMPT = "import json\n\nanswer = "
LONG = Constraint.json_schema({"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 1000})
Validator = jsonschema.Draft202012Validator


@dataclass(frozen=True)
class Answers:
    """To one schema. wrong: what is not valid, and texts of one seed that differ."""

    name: str
    count: int
    cut: int
    tokens: int
    wrong: Sequence[str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", help="a GGUF file (default: the bundled model)")
    parser.add_argument("--answers", type=int, default=20, help="to each schema (default %(default)s)")
    parser.add_argument("--tokens", type=int, default=300, help="of an answer at most (default %(default)s)")
    parser.add_argument("--pairs", type=int, default=10, help="of speeds (default %(default)s)")
    parser.add_argument("--device", help="as for arcmtp generate")
    options = parser.parse_args()
    try:
        with LLM(options.model, device=options.device, ctx=2048) as llm:
            found = []
            for answers in check(llm, json.loads(SCHEMAS.read_text()), options.answers, options.tokens):
                found.append(answers)
                print(f"{answers.name:38} {answers.cut} of {answers.count} cut, {answers.tokens} tokens", flush=True)
                for wrong in answers.wrong:
                    print(f"  WRONG: {wrong}")
            ratios = speeds(llm, options.pairs)
    except ArcmtpError as error:
        print(f"check_schemas.py: {error}", file=sys.stderr)
        return 2
    count, cut, wrong = (sum(numbers) for numbers in zip(*((a.count, a.cut, len(a.wrong)) for a in found), strict=True))
    print(f"{count} answers to {len(found)} schemas, the same with drafts {', '.join(map(str, DRAFTS))}: "
          f"{count - cut} whole, {cut} cut, {wrong} wrong")  # fmt: skip
    low, high = min(ratios), max(ratios)
    print(f"decoding without drafts: {median(ratios):.2f} of the speed without a schema ({low:.2f} – {high:.2f})")
    return int(wrong > 0)


def check(llm: LLM, schemas: Mapping[str, Any], count: int, tokens: int) -> Iterator[Answers]:
    """The answers to each schema."""
    for name, schema in schemas.items():
        exact = json.loads(json.dumps(schema), parse_float=Decimal)  # 16.08 / 0.01 is no whole number of floats
        validator = Validator(exact, format_checker=Validator.FORMAT_CHECKER)
        constraint = Constraint.json_schema(schema)
        cut, total, wrong = 0, 0, list[str]()
        for seed in range(count):
            sampling = SamplingOptions(temperature=1, seed=seed)
            first, *others = (
                llm.generate(PROMPT, tokens, sampling=sampling, draft=draft, constraint=constraint) for draft in DRAFTS
            )
            total += len(first.ids)
            cut += first.finish_reason == "length"
            wrong += [f"seed {seed}: {one}" for one in _problems(validator, first.text, first.finish_reason == "stop")]
            if any(other.ids != first.ids for other in others):
                wrong.append(f"seed {seed}: the text depends on the drafts")
        yield Answers(name, count, cut, total, wrong)


def speeds(llm: LLM, pairs: int) -> list[float]:
    """Decoded tokens per second with a schema, over those without, in each pair; without drafts, of which the two texts
    would accept other numbers."""
    on_and_on = dict.fromkeys(llm.tokenizer.eos_ids, -math.inf)
    sampling, ratios = SamplingOptions(temperature=1, seed=1, logit_bias=on_and_on), list[float]()
    for number in range(pairs + 1):  # the first one compiles
        rates = {}
        for constraint in (LONG, None) if number % 2 else (None, LONG):
            answer = llm.generate(PROMPT, 256, sampling=sampling, draft=0, constraint=constraint)
            rates[constraint] = answer.statistics.decode_tokens_per_second
        ratios.append(rates[LONG] / rates[None])
    return ratios[1:]


def _problems(validator: Any, text: str, whole: bool) -> Iterator[str]:
    """What is wrong with an answer, one that is not `whole` as far as it goes."""
    try:
        if whole:
            value = json.loads(text, parse_float=Decimal)
        else:
            pydantic_core.from_json(text, allow_partial="trailing-strings")
    except ValueError as error:
        yield f"{text!r} is no JSON: {error}"
        return
    if whole:
        yield from (f"{text!r}: {error.message}" for error in validator.iter_errors(value))


if __name__ == "__main__":
    sys.exit(main())
