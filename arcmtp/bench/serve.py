"""What a user of an OpenAI-compatible server waits for, by how many requests are under way at once."""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from statistics import fmean
from typing import Any

import httpx
import numpy as np

from arcmtp.bench.client import Answer, chat, connect, first_model
from arcmtp.errors import ArcmtpError
from arcmtp.progress import Progress

# With a space before it each is one token in the vocabularies of most models.
_WORDS = """
    area body book business car case child city company country day door end face family father force friend game group
    hand head health history home hour house idea issue job kind law level life line man member minute moment money
    month morning mother name night number office party person place point power problem question reason result right
    room school service side state story student study system team thing time war water way week woman word work year
"""


@dataclass(frozen=True)
class Load:
    """What is asked for: at each of the levels `concurrency`, `requests` chats of random words, drawn by `seed`.

    prompt_tokens: of a prompt with its chat template, about. max_tokens: of an answer.
    ArcmtpError for numbers below 1 and for levels of more than `requests`.
    """

    concurrency: Sequence[int]
    requests: int
    prompt_tokens: int
    max_tokens: int
    seed: int = 0

    def __post_init__(self) -> None:
        lowest = {**asdict(self), "concurrency": min(self.concurrency, default=0)}
        for name in ("concurrency", "requests", "prompt_tokens", "max_tokens"):
            if lowest[name] < 1:
                raise ArcmtpError(f"{name} is {lowest[name]}; it must be at least 1")
        if (most := max(self.concurrency)) > self.requests:
            raise ArcmtpError(f"requests is {self.requests}; {most} at once need at least {most}")


@dataclass(frozen=True)
class Percentiles:
    """Of times in milliseconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Level:
    """`requests` chats, `concurrency` at a time: whenever one ends the next one starts."""

    concurrency: int
    requests: int
    errors: dict[str, int]  # how many failed, by what was wrong; all that follows is of the others
    prompt_tokens: float | None  # mean; None if the server does not count
    tokens: int  # of all answers; if the server does not count, chunks with text
    seconds: float  # from the first request to the end of the last
    first_token_ms: Percentiles | None  # from connecting to the first chunk with text; None if all failed
    inter_token_ms: Percentiles | None  # between chunks with text; None if no answer has two
    tokens_per_second: float


@dataclass(frozen=True)
class Report:
    """A measurement of one server."""

    url: str
    model: str
    load: Load
    levels: list[Level]

    def failed(self) -> bool:
        """Whether any request did."""
        return any(level.errors for level in self.levels)


def bench_serve(
    url: str, load: Load, model: str | None = None, key: str | None = None, progress: Progress | None = None
) -> Report:
    """Measure the chat completions, streamed, of the server whose API is at `url`; without a path that is `/v1`.

    model: as the server calls it; None: the first one that it lists. key: comes with each request.
    No text comes twice, so that none is in a cache. Not counted are a first request, which shows how many words make
    `prompt_tokens`, and at the begin of a level as many requests as it has at once. Raises ArcmtpError if the first one
    fails: nothing listens there, the path is wrong, the server wants a key or is no OpenAI-compatible one.
    """
    return asyncio.run(_measure(url, load, model, key, progress))


def as_text(report: Report, form: str) -> str:
    """The report as a Markdown table (`md`), below it what failed; or as `json`."""
    if form == "json":
        return json.dumps(asdict(report), indent=1)
    lines = [
        "| at once | requests | failed | prompt tokens | tokens | first token: p50, ms | p95 | p99 "
        "| between tokens: p50, ms | p95 | p99 | tokens/s |",
        "|" + "---:|" * 12,
    ]
    for level in report.levels:
        prompt = "–" if level.prompt_tokens is None else f"{level.prompt_tokens:.0f}"
        times = [*_cells(level.first_token_ms, 0), *_cells(level.inter_token_ms, 1)]
        cells = [level.concurrency, level.requests, sum(level.errors.values()), prompt, level.tokens, *times]
        lines.append(f"| {' | '.join(map(str, cells))} | {level.tokens_per_second:.1f} |")
    lines += [""] if report.failed() else []
    for level in report.levels:
        lines += [f"{count} of {level.concurrency} at once: {what}" for what, count in level.errors.items()]
    return "\n".join(lines)


def _cells(times: Percentiles | None, digits: int) -> list[str]:
    return ["–"] * 3 if times is None else [f"{ms:.{digits}f}" for ms in astuple(times)]


async def _measure(url: str, load: Load, model: str | None, key: str | None, progress: Progress | None) -> Report:
    async with connect(url, key) as client:
        model = model or await first_model(client)
        choose = random.Random(load.seed)
        first = await chat(client, _body(model, load, choose, load.prompt_tokens))
        words = max(load.prompt_tokens**2 // (first.prompt_tokens or load.prompt_tokens), 1)
        bodies = (_body(model, load, choose, words) for _ in itertools.count())
        levels = [await _level(client, bodies, count, load.requests, progress) for count in load.concurrency]
    return Report(str(client.base_url), model, load, levels)


def _body(model: str, load: Load, choose: random.Random, words: int) -> dict[str, Any]:
    text = f"{' '.join(choose.choices(_WORDS.split(), k=words))}. Write a long story with these words."
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": load.max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def _level(
    client: httpx.AsyncClient, bodies: Iterator[dict[str, Any]], concurrency: int, requests: int,
    progress: Progress | None,
) -> Level:  # fmt: skip
    await _ask_all(client, itertools.islice(bodies, concurrency), concurrency, lambda done: None)
    stage = f"{requests} requests, {concurrency} at once"
    began = time.perf_counter()
    outcomes = await _ask_all(
        client, itertools.islice(bodies, requests), concurrency,
        lambda done: progress(stage, done, requests) if progress else None,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    counts = [answer.prompt_tokens for answer in answers if answer.prompt_tokens is not None]
    tokens = sum(answer.tokens for answer in answers)
    return Level(
        concurrency, requests,
        errors=dict(Counter(outcome for outcome in outcomes if isinstance(outcome, str))),
        prompt_tokens=fmean(counts) if counts else None,
        tokens=tokens,
        seconds=seconds,
        first_token_ms=_percentiles(answer.first_token_seconds for answer in answers),
        inter_token_ms=_percentiles(gap for answer in answers for gap in answer.inter_token_seconds),
        tokens_per_second=tokens / seconds,
    )  # fmt: skip


async def _ask_all(
    client: httpx.AsyncClient, bodies: Iterator[dict[str, Any]], concurrency: int, progress: Callable[[int], None]
) -> list[Answer | str]:
    """An answer for each request, or what was wrong."""
    outcomes: list[Answer | str] = []

    async def ask() -> None:
        for body in bodies:  # the same iterator for all
            try:
                outcomes.append(await chat(client, body))
            except ArcmtpError as error:
                outcomes.append(str(error))
            progress(len(outcomes))

    await asyncio.gather(*(ask() for _ in range(concurrency)))
    return outcomes


def _percentiles(seconds: Iterable[float]) -> Percentiles | None:
    if not (values := list(seconds)):
        return None
    return Percentiles(*(float(value) * 1e3 for value in np.percentile(values, [50, 95, 99])))
