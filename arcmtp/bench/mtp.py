"""Speed by draft length over nine classes of requests, and what a step costs as its rows grow."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import cast

import numpy as np

from arcmtp.engine.llm import LLM
from arcmtp.engine.loading import AUTO, Draft
from arcmtp.engine.prompts import Prompting
from arcmtp.errors import ArcmtpError
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.network import Network
from arcmtp.progress import Progress
from arcmtp.runtime.paths import data_dir
from arcmtp.runtime.tensor import Tensor

PROMPTS = "bench_prompts.toml"
DRAFTS: tuple[Draft, ...] = (0, 1, 2, 3, AUTO)
STEP_ROUNDS = 15


@dataclass(frozen=True)
class Request:
    """A request at one draft length; `ids` leaves the end-of-generation token out."""

    name: str
    ids: list[int]
    drafted: int  # tokens
    accepted: int  # drafts
    seconds: float  # from the prompt's first token to the last
    decode_seconds: float  # without the prompt and the token after it

    @property
    def decoded(self) -> int:
        """Tokens that `decode_seconds` gave."""
        return max(len(self.ids) - 1, 0)

    @property
    def tokens_per_second(self) -> float:
        """Of decoding; 0 if there was nothing but the token after the prompt."""
        return self.decoded / self.decode_seconds if self.decoded else 0.0


@dataclass(frozen=True)
class StepCost:
    """What a step of several rows takes beside one row. Ratios of time and of bytes."""

    rows: int
    milliseconds: float  # median
    of_one_row: float
    of_its_bytes: float  # bytes that it must move, of those of one row


@dataclass(frozen=True)
class Report:
    """`passes[k]`: the requests at draft length k, or "auto", as often as they were repeated, in the same order."""

    passes: dict[Draft, list[list[Request]]]
    steps: list[StepCost]

    def differences(self) -> list[str]:
        """Where tokens depend on the draft length, a line per class and length; empty if nowhere."""
        first = next(iter(self.passes.values()))[0]
        return [
            f"{request.name} differs at k = {k} from token {_common(request.ids, expected.ids)} on"
            for k, passes in self.passes.items()
            for requests in passes
            for request, expected in zip(requests, first, strict=True)
            if request.ids != expected.ids
        ]


def prompts() -> dict[str, str]:
    """The text of each request by the name of its class."""
    return tomllib.loads((data_dir() / PROMPTS).read_text(encoding="utf-8"))


def bench_mtp(
    llm: LLM, texts: dict[str, str], max_tokens: int, drafts: Sequence[Draft], repetitions: int,
    progress: Progress | None = None,
) -> Report:  # fmt: skip
    """Answer `texts` greedily, at most `max_tokens` each and ending where the model ends them, at each draft length.

    The draft lengths alternate, so that a machine that grows slower does so for all of them. One pass before is not
    counted. A text goes through the file's chat template if there is one. Raises ArcmtpError for numbers below 1 and
    for a context that is too small.
    """
    for name, value in (("n", max_tokens), ("r", repetitions)):
        if value < 1:
            raise ArcmtpError(f"{name} is {value}; it must be at least 1")
    asked = questions(llm.prompting, llm.context, texts, max_tokens)
    passes: dict[Draft, list[list[Request]]] = {k: [] for k in drafts}
    total = (repetitions + 1) * len(passes)
    for turn in range(repetitions + 1):
        for place, (k, done) in enumerate(passes.items(), start=1):
            done.append([answer(llm, name, ids, max_tokens, k) for name, ids in asked.items()])
            if progress:
                progress("benchmarks", turn * len(passes) + place, total)
    counted = {k: done[1:] for k, done in passes.items()}
    lengths = {length for draft in drafts for length in llm.policy(draft).lengths}
    return Report(counted, step_costs(llm, sorted({1, *(length + 1 for length in lengths)})))


def most_drafts(drafts: Sequence[Draft]) -> Draft:
    """What an LLM is opened with that is to draft in each of these ways."""
    return AUTO if AUTO in drafts else max(draft for draft in drafts if isinstance(draft, int))


def questions(prompting: Prompting, context: int, texts: dict[str, str], max_tokens: int) -> dict[str, list[int]]:
    """The prompts as token ids; ArcmtpError if the context is too small for the longest and `max_tokens`."""
    asked = {
        name: prompting.ids([{"role": "user", "content": text}] if prompting.has_chat_template else text)
        for name, text in texts.items()
    }
    if context < (need := max(map(len, asked.values())) + max_tokens):
        raise ArcmtpError(f"the requests take {need} tokens, the context holds {context}: raise ctx")
    return asked


def answer(llm: LLM, name: str, prompt: Sequence[int], max_tokens: int, draft: Draft) -> Request:
    """One greedy generation after token ids, with `draft` tokens drafted before each step, or "auto"."""
    sequence = llm.new_sequence(draft=draft)
    began = time.perf_counter()
    first = sequence.prefill(prompt, max_tokens, llm.tokenizer.eos_ids)
    prompt_end = time.perf_counter()
    cycles = [] if first.done else list(llm.cycles(sequence))
    end = time.perf_counter()
    ids = [token for cycle in (first, *cycles) for token in cycle.tokens]
    if ids[-1] in llm.tokenizer.eos_ids:
        ids.pop()
    accepted = sum(cycle.accepted for cycle in cycles)
    drafted = sum(cycle.drafted for cycle in cycles)
    return Request(name, ids, drafted, accepted, end - began, end - prompt_end)


def step_costs(llm: LLM, row_counts: Sequence[int]) -> list[StepCost]:
    """Time and bytes of a step of so many rows with random tokens at the begin of a sequence; the first count is 1.

    Of the routed experts a step must read those that any of its rows chose. How many these are is seen in the last
    layer, on average over the steps, and taken for all layers.
    """
    llm.new_sequence()  # no generation is under way: a step runs in full and changes nothing
    network, device = llm.network, llm.device
    selected = _last_choice_of_experts(network)
    random, used = np.random.default_rng(0), llm.config.experts_used
    seconds: dict[int, list[float]] = {rows: [] for rows in row_counts}
    experts: dict[int, list[int]] = {rows: [] for rows in row_counts}
    for _ in range(STEP_ROUNDS + 1):
        for rows in row_counts:
            network.controls.ids.write(random.integers(0, llm.tokenizer.vocab_used, rows, np.int32))
            began = time.perf_counter()
            network.stage.submit(network.step(rows, SamplingMode()))
            device.wait()
            seconds[rows].append(time.perf_counter() - began)
            experts[rows].append(len(np.unique(selected.read(rows * used))) if selected else 0)
    times = {rows: median(all_of[1:]) for rows, all_of in seconds.items()}  # the first one compiles and captures
    moved = {rows: network.step_bytes(0, fmean(counts)) for rows, counts in experts.items()}
    return [StepCost(r, times[r] * 1e3, times[r] / times[1], moved[r] / moved[1]) for r in row_counts]


def _last_choice_of_experts(network: Network) -> Tensor | None:
    """i32 [rows, experts used]: those that the rows of a step choose in the last layer; None in a dense network."""
    routers = [launch for launch in network.step(1, SamplingMode()) if launch.operator == "router"]
    return cast(Tensor, routers[-1].arguments["selected"]) if routers else None


def _common(ids: Sequence[int], others: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    equal = [a == b for a, b in zip(ids, others, strict=False)]
    return equal.index(False) if False in equal else len(equal)
