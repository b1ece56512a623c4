"""Loads a server with clients of all kinds at once, a third of whom leave, and says what it cost.

Chats share beginnings and go on; texts are completed, scored and constrained; draft lengths are mixed. What is greedy
must say what it says alone. Prints figures; exit status 1 for an error, another text, or more than 20 MB of memory that
has not come back. Without --url a server of the bundled model is started.

    python scripts/load_test.py [--requests 200] [--clients 8] [--seed 1] [--url http://127.0.0.1:8080 --pid PID]
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

LEAVING = 1 / 3  # of the requests
LONGEST = 96  # tokens of an answer
KEPT_BYTES = 20_000_000
SYSTEM = [" ".join(f"Rule {rule} of {place}: write in short words." for rule in range(40)) for place in ("one", "two")]
TEXTS = ["import os", "def __len__(self):\n        return", "class", "The list", "x = [", "for i in", "#"]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"enum": [1, 2, 3]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Task:
    """A request, and after how many events its client leaves; None: it reads all."""

    kind: str
    path: str
    body: dict[str, Any]
    leave_after: int | None

    @property
    def alone(self) -> str:
        """What its text depends on."""
        return json.dumps([self.path, {name: value for name, value in self.body.items() if name != "draft"}])


def tasks(count: int, draw: random.Random) -> list[Task]:
    """Requests of all kinds."""
    return [_task(draw) for _ in range(count)]


def _task(draw: random.Random) -> Task:
    kind = draw.choice(["chat", "chat", "longer chat", "text", "scored", "constrained", "sampled"])
    leave_after = draw.randint(0, LONGEST) if draw.random() < LEAVING else None
    body: dict[str, Any] = {"stream": True, "temperature": 0, "draft": draw.choice([0, 1, 3, "auto"])}
    if kind in ("chat", "longer chat", "constrained"):
        messages = [{"role": "system", "content": draw.choice(SYSTEM)}, {"role": "user", "content": draw.choice(TEXTS)}]
        if kind == "longer chat":
            answer = {"role": "assistant", "content": "Good."}
            messages += [answer, {"role": "user", "content": draw.choice(TEXTS)}]
        body |= {"messages": messages, "max_tokens": draw.choice([8, 32, LONGEST]), "reasoning_effort": "none"}
        if kind == "constrained":
            schema = {"name": "place", "strict": True, "schema": SCHEMA}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
            body["max_tokens"] = LONGEST
        return Task(kind, "/v1/chat/completions", body, leave_after)
    body |= {"prompt": draw.choice(TEXTS) * draw.choice([1, 40]), "max_tokens": draw.choice([8, 32, LONGEST])}
    if kind == "scored":
        body |= {"echo": True, "logprobs": 2, "max_tokens": 1}
    elif kind == "sampled":
        body |= {"temperature": 0.9, "seed": draw.randrange(5)}
    return Task(kind, "/v1/completions", body, leave_after)


@dataclass
class Figures:
    """What has been counted, by kind."""

    complete: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    alone: dict[str, str] = field(default_factory=dict)  # texts


def read(http: httpx.Client, task: Task, leave: bool) -> str:
    """The text and log-probabilities of a stream, as far as it was read. RuntimeError for an error."""
    said = ""
    with http.stream("POST", task.path, json=task.body) as answer:
        if answer.status_code != 200:
            answer.read()
            raise RuntimeError(f"{task.kind}: status {answer.status_code}: {answer.text[:300]}")
        for number, line in enumerate(line for line in answer.iter_lines() if line.startswith("data: {")):
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                raise RuntimeError(f"{task.kind}: {event['error']['message']}")
            (choice,) = event["choices"]
            said += choice.get("text") or choice.get("delta", {}).get("content") or ""
            said += str(choice["logprobs"]["token_logprobs"]) if choice.get("logprobs") else ""
            if leave and number == task.leave_after:
                break
    return said


def one(url: str, task: Task, figures: Figures) -> None:
    """Ask, and compare with what was said alone."""
    leaving = task.leave_after is not None
    try:
        with httpx.Client(base_url=url, timeout=600) as http:
            said, alone = read(http, task, leaving), figures.alone[task.alone]
        if not (alone.startswith(said) if leaving else alone == said):
            raise RuntimeError(f"{task.kind}: {said[:80]!r} is not {alone[:80]!r}, as alone")
        if task.kind == "constrained" and not leaving:
            json.loads(said)
    except Exception as error:
        figures.wrong.append(f"{type(error).__name__}: {error}")
    (figures.left if leaving else figures.complete)[task.kind] += 1


def load(url: str, some: list[Task], clients: int, figures: Figures) -> None:
    """All of them, so many at once; then wait until nothing is under way."""
    with ThreadPoolExecutor(clients) as threads:
        for _ in threads.map(lambda task: one(url, task, figures), some):
            pass
    while _metric(url, "arcmtp_requests_running") or _metric(url, "arcmtp_requests_queued"):
        time.sleep(0.05)


def _metric(url: str, name: str) -> float:
    lines = httpx.get(f"{url}/metrics", timeout=60).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))


def own_bytes(pid: int) -> int:
    """Memory of a process that is no file's."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:"))


@contextmanager
def server() -> Iterator[tuple[str, int]]:
    """Address and process id of a server of the bundled model."""
    command = [sys.executable, "-m", "arcmtp", "serve", "--device", "cpu", "--port", "0", "--log-level", "warning"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        listening, ready = process.stdout.readline(), process.stdout.readline()
        try:
            if not ready:
                raise SystemExit("the server has not started")
            yield listening.removeprefix("listening on ").partition(",")[0], process.pid
        finally:
            process.terminate()


def measured(url: str, pid: int, count: int, clients: int, seed: int) -> int:
    """Print the figures of a load; the exit status."""
    draw, figures = random.Random(seed), Figures()
    warm, some = tasks(count // 4, draw), tasks(count, draw)
    with httpx.Client(base_url=url, timeout=600) as http:
        for task in [*warm, *some]:
            if task.alone not in figures.alone:
                figures.alone[task.alone] = read(http, task, leave=False)
    load(url, warm, clients, Figures(alone=figures.alone))  # what is allocated once, is
    names = ("arcmtp_prompt_tokens_total", "arcmtp_cached_tokens_total", "arcmtp_completion_tokens_total")
    before, memory, began = [_metric(url, name) for name in names], own_bytes(pid), time.monotonic()
    load(url, some, clients, figures)
    seconds, kept = time.monotonic() - began, own_bytes(pid) - memory
    prompt, cached, completion = (_metric(url, name) - old for name, old in zip(names, before, strict=True))
    complete, left = figures.complete.total(), figures.left.total()
    print(f"{count} requests, {clients} at once: {complete} read to their end, {left} left, in {seconds:.1f} s")
    for kind in sorted(figures.complete | figures.left):
        print(f"  {kind}: {figures.complete[kind]} and {figures.left[kind]}")
    print(f"tokens: {prompt:.0f} of prompts, {cached:.0f} of these not evaluated again; {completion:.0f} generated")
    print(f"memory: {kept / 1e6:+.1f} MB ({memory / 1e6:.0f} MB before)")
    print(f"errors: {len(figures.wrong)}", *figures.wrong[:10], sep="\n  ")
    return 1 if figures.wrong or kept > KEPT_BYTES else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--url")
    parser.add_argument("--pid", type=int, help="of the server at --url, on this machine")
    options = parser.parse_args()
    if (options.url is None) is not (options.pid is None):
        parser.error("--url and --pid belong together")
    if options.url:
        return measured(options.url, options.pid, options.requests, options.clients, options.seed)
    with server() as (url, pid):
        return measured(url, pid, options.requests, options.clients, options.seed)


if __name__ == "__main__":
    sys.exit(main())
