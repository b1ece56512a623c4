"""Real server processes on loopback, started once per session, and OpenAI's and Anthropic's own clients."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from pydantic import TypeAdapter

from tests.serve import scripted_model

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "import sys; from arcmtp.cli import main; sys.exit(main())", "serve"]


class Server:
    """An `arcmtp serve` process; `url` is where it listens."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [*COMMAND, "--device", "cpu", "--port", "0", *arguments],
                stdout=subprocess.PIPE, stderr=errors, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
            )  # fmt: skip
        self.url = self._next_line().removeprefix("listening on ").partition(",")[0]

    def wait_ready(self) -> None:
        assert self._next_line() == f"ready: {self.url}/v1"

    def http(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120, **options)

    def openai(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", **{"api_key": "none", "max_retries": 0, **options})

    def anthropic(self, **options: Any) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=self.url, **{"api_key": "none", "max_retries": 0, **options})

    def metric(self, name: str) -> float:
        """The value of an unlabelled metric."""
        with self.http() as http:
            lines = http.get("/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))

    def log(self) -> str:
        return self._log.read_text()

    def wait(self) -> int:
        """The exit status, when the process ends by itself."""
        for _ in range(120):  # one after the other, so that a time in which all processes are paused counts once
            with suppress(subprocess.TimeoutExpired):
                return self.process.wait(timeout=1)
        raise AssertionError(f"it runs on: {self.log()[-2000:]}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()

    def _next_line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline().rstrip("\n")
        assert line, self.log()
        return line


def named_events(answer: httpx.Response, kinds: TypeAdapter[Any]) -> list[dict[str, Any]]:
    """The events of a stream, each of which must be of these types and named by its own."""
    blocks = [block.split("\n") for block in answer.text.strip().split("\n\n")]
    found = [json.loads(data.removeprefix("data: ")) for _, data in blocks]
    assert [name for name, _ in blocks] == [f"event: {event['type']}" for event in found]
    for event in found:
        kinds.validate_python(event)
    return found


@contextmanager
def started(log: Path, *arguments: str) -> Iterator[Server]:
    """A server that listens, and may still be loading."""
    server = Server(log, *arguments)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def running(log: Path, *arguments: str) -> Iterator[Server]:
    """A server that is ready."""
    with started(log, *arguments) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The bundled model, by default greedy, with room for few checkpoints. It must end well whatever the tests did."""
    options = ("--temp", "0", "--alias", "tiny", "--cache-mib", "8", "--cache-host-mib", "4")
    with running(tmp_path_factory.mktemp("serve") / "log", *options) as server:
        yield server
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "Traceback" not in server.log()


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model that thinks and calls tools as `scripted_model` says, whatever it is asked."""
    folder = tmp_path_factory.mktemp("scripted")
    with running(folder / "log", "-m", str(scripted_model.write(folder / "scripted.gguf"))) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with server.openai() as client:
        yield client


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with server.http() as http:
        yield http
