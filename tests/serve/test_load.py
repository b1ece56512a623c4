"""Many clients at once, with drafts and without, a third of whom leave: the same text as alone, and no memory kept."""

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.serve.conftest import Server

PROMPTS = ["import os", "def __len__(self):\n        return", "class", "The list", "x = [", '"""', "for i in", "#"]
REQUESTS, CLIENTS, LONGEST = 200, 8, 96


def own_bytes(server: Server) -> int:
    """Memory of the process that is no file's."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:"))


def streamed(http: httpx.Client, prompt: str, tokens: int, draft: int, leave_after: int | None = None) -> str:
    """The text of a stream, as far as it was read."""
    text = ""
    body = {"prompt": prompt, "max_tokens": tokens, "stream": True, "draft": draft}
    with http.stream("POST", "/v1/completions", json=body) as answer:
        assert answer.status_code == 200
        for number, line in enumerate(line for line in answer.iter_lines() if line.startswith("data: {")):
            event = json.loads(line.removeprefix("data: "))
            assert "error" not in event
            text += event["choices"][0]["text"]
            if number == leave_after:
                break
    return text


def run(server: Server, count: int, alone: dict[str, str]) -> int:
    """Send requests of random lengths; how many were read to their end."""
    draw = random.Random(1)

    def one(_: int) -> bool:
        prompt, tokens = draw.choice(PROMPTS), draw.randint(1, LONGEST)
        draft, leave_after = draw.choice([0, 3]), draw.randint(0, tokens) if draw.random() < 1 / 3 else None
        with server.http() as http:
            text = streamed(http, prompt, tokens, draft, leave_after)
        assert alone[prompt].startswith(text)
        return leave_after is None

    with ThreadPoolExecutor(CLIENTS) as clients:
        return sum(clients.map(one, range(count)))


@pytest.fixture(scope="module")
def alone(server: Server) -> dict[str, str]:
    with server.http() as http:
        return {prompt: streamed(http, prompt, LONGEST, 0) for prompt in PROMPTS}


def test_text_together_is_text_alone_and_memory_comes_back(server: Server, alone: dict[str, str]) -> None:
    run(server, 40, alone)  # what is allocated once, is
    before = own_bytes(server)
    complete = run(server, REQUESTS, alone)
    assert REQUESTS / 2 < complete < REQUESTS
    while server.metric("arcmtp_requests_running") or server.metric("arcmtp_requests_queued"):
        time.sleep(0.05)
    assert own_bytes(server) - before < 20_000_000
    assert all(server.metric(f"arcmtp_checkpoints_{name}_total") > 0 for name in ("hits", "saved", "moved", "evicted"))
    assert 0 < server.metric('arcmtp_checkpoint_bytes{memory="device"}') <= 8 << 20
    assert 0 < server.metric('arcmtp_checkpoint_bytes{memory="host"}') <= 4 << 20
