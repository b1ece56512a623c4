"""Prompt and decoding speed as llama-bench measures it, with bytes and bandwidth beside tokens."""

import csv
import io
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import fmean, median, stdev

import numpy as np

from arcmtp.bench.compare import Model
from arcmtp.engine.llm import LLM
from arcmtp.errors import ArcmtpError
from arcmtp.model.tokenizer import Tokenizer
from arcmtp.ops.bandwidth import READ_BYTES, ReadBandwidth
from arcmtp.progress import Progress


@dataclass(frozen=True)
class Result:
    """One test: `pp512` is a prompt of 512 tokens, `tg128` are 128 decoding steps, after `depth` tokens of context."""

    test: str
    depth: int
    tokens_per_second: float  # mean of the repetitions
    deviation: float  # their standard deviation
    gigabytes_per_second: float | None  # of decoding: what a step must move
    of_read_bandwidth: float | None  # that, of what the device reads: median of ratios to reads before and after


def needed_context(prompt: int, generated: int, depths: list[int]) -> int:
    """Tokens of context that the tests take; ArcmtpError for counts that make no test."""
    for name, values in (("p", [prompt]), ("n", [generated]), ("depth", depths)):
        if min(values, default=0) < 0:
            raise ArcmtpError(f"{name} is {min(values)}; it must be 0 or more")
    if not depths or not prompt + generated:
        raise ArcmtpError("nothing to measure: p and n are 0, or there is no depth")
    return max(depths) + max(prompt, generated + 1)


def bench(
    llm: LLM, prompt: int, generated: int, repetitions: int, depths: list[int],
    progress: Progress | None = None,
) -> list[Result]:  # fmt: skip
    """Measure prompts of `prompt` tokens and `generated` decoding steps (0: neither) at each depth.

    Raises ArcmtpError for fewer than one repetition or a context that is too small.
    """
    if repetitions < 1:
        raise ArcmtpError(f"r is {repetitions}; it must be at least 1")
    if llm.context < (need := needed_context(prompt, generated, depths)):
        raise ArcmtpError(f"the tests take {need} tokens, the context holds {llm.context}: raise ctx")
    tests = [(kind, count, depth) for depth in depths for kind, count in (("pp", prompt), ("tg", generated)) if count]
    read = ReadBandwidth(llm.device, llm.device.zeros(READ_BYTES))
    results = []
    for done, (kind, count, depth) in enumerate(tests):
        rates, reads = [], [_read_gbs(read)]
        for _ in _warm(repetitions):
            seconds = _prompt_seconds(llm, count, depth) if kind == "pp" else _decode_seconds(llm, count, depth)
            rates.append(count / seconds)
            reads.append(_read_gbs(read))
        around = [(before + after) / 2 for before, after in itertools.pairwise(reads)]
        results.append(_result(llm, f"{kind}{count}", count, depth, rates[1:], around[1:]))
        if progress:
            progress("benchmarks", done + 1, len(tests))
    return results


def _read_gbs(read: ReadBandwidth) -> float:
    """What the device reads now: memory that is shared with other machines changes its speed from second to second."""
    return median(read.measure() for _ in range(3))


def _warm(repetitions: int) -> Iterator[int]:
    """One repetition more, whose time is not counted."""
    return iter(range(repetitions + 1))


def random_ids(tokenizer: Tokenizer, count: int) -> list[int]:
    """Tokens that a text could have; which ones does not matter."""
    return np.random.default_rng(count).integers(0, tokenizer.vocab_used, count).tolist()


def _prompt_seconds(llm: LLM, count: int, depth: int) -> float:
    sequence = llm.new_sequence()
    sequence.extend(random_ids(llm.tokenizer, depth))
    began = time.perf_counter()
    sequence.extend(random_ids(llm.tokenizer, count))
    return time.perf_counter() - began


def _decode_seconds(llm: LLM, count: int, depth: int) -> float:
    sequence = llm.new_sequence()
    sequence.prefill(random_ids(llm.tokenizer, max(depth, 1)), limit=count + 1)
    began = time.perf_counter()
    for _ in llm.cycles(sequence):
        pass
    return time.perf_counter() - began


def _result(llm: LLM, test: str, count: int, depth: int, rates: list[float], reads: list[float]) -> Result:
    mean, deviation = fmean(rates), stdev(rates) if len(rates) > 1 else 0.0
    if test.startswith("pp"):
        return Result(test, depth, mean, deviation, None, None)
    step_gb = llm.network.step_bytes(depth + count // 2) / 1e9
    shares = [step_gb * rate / read for rate, read in zip(rates, reads, strict=True)]
    return Result(test, depth, mean, deviation, step_gb * mean, median(shares))


def as_text(results: list[Result], form: str, model: Model) -> str:
    """The results as a Markdown table (`md`), or with the model in each row as `json` or `csv`."""
    rows = [{**model._asdict(), **asdict(result)} for result in results]
    if form == "json":
        return json.dumps(rows, indent=1)
    if form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().rstrip("\n")
    lines = ["| test | depth | tokens/s | GB/s | of read bandwidth |", "|---|---:|---:|---:|---:|"]
    for r in results:
        moved = "" if r.gigabytes_per_second is None else f"{r.gigabytes_per_second:.2f}"
        share = "" if r.of_read_bandwidth is None else f"{r.of_read_bandwidth:.2f}"
        lines.append(
            f"| {r.test} | {r.depth} | {r.tokens_per_second:.2f} ± {r.deviation:.2f} | {moved} | {share} |"
        )
    return "\n".join(lines)
