"""`arcmtp bench serve` against the real server, and against servers whose answers a test must choose."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from arcmtp.bench.serve import Level, Load, Percentiles, Report, as_text, bench_serve
from arcmtp.cli import main
from tests.serve.conftest import Server, running

ONE = Load(concurrency=[1], requests=1, prompt_tokens=10, max_tokens=4)
Reply = tuple[int, str, str]  # status, type, body
Replies = Callable[[int], Reply]  # by the number of the chat


def text(content: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": content}}]}


END = {"choices": [{"delta": {}, "finish_reason": "length"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 5}}


def stream(*events: Any) -> Reply:
    lines = [f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events]
    return 200, "text/event-stream", "".join([*lines, "data: [DONE]\n\n"])


class Scripted(ThreadingHTTPServer):
    """Lists two models and answers chats as a function says; `chats` are those that came, `most` so many at once."""

    daemon_threads = True

    def __init__(self, reply: Replies) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.chats: list[dict[str, Any]] = []
        self.under_way = self.most = 0
        self.lock = threading.Lock()

    def prompts(self) -> list[str]:
        return [chat["messages"][0]["content"] for chat in self.chats]


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        self._send(200, "application/json", '{"data": [{"id": "first"}, {"id": "second"}]}')

    def do_POST(self) -> None:
        s = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with s.lock:
            number = len(s.chats)
            s.chats.append(body)
            s.under_way += 1
            s.most = max(s.most, s.under_way)
        reply = s.reply(number)
        with s.lock:
            s.under_way -= 1
        self._send(*reply)

    def _send(self, status: int, media_type: str, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def scripted_as() -> Iterator[Callable[[Replies], Scripted]]:
    servers = []

    def start(reply: Replies) -> Scripted:
        servers.append(Scripted(reply))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_numbers_are_those_of_the_server(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    answered, prompts = "arcmtp_first_token_seconds_count", "arcmtp_prompt_tokens_total"
    before = {name: server.metric(name) for name in (answered, prompts)}
    load = ["--concurrency", "1,3", "--requests", "4", "-p", "30", "-n", "6"]
    assert main(["bench", "serve", server.url, *load, "-o", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["url"], report["model"]) == (f"{server.url}/v1/", "tiny")
    for level, concurrency in zip(report["levels"], (1, 3), strict=True):
        assert (level["concurrency"], level["requests"], level["errors"]) == (concurrency, 4, {})
        assert 20 < level["prompt_tokens"] < 60
        assert 4 <= level["tokens"] <= 24
        assert 0 < level["first_token_ms"]["p50"] <= level["first_token_ms"]["p99"] <= level["seconds"] * 1e3
        assert level["tokens_per_second"] == level["tokens"] / level["seconds"]
    assert server.metric(answered) - before[answered] == 1 + (1 + 4) + (3 + 4)
    assert server.metric(prompts) - before[prompts] > sum(4 * level["prompt_tokens"] for level in report["levels"])


def test_so_many_requests_are_under_way_at_once(scripted_as: Callable[[Replies], Scripted]) -> None:
    together = threading.Barrier(3)

    def reply(number: int) -> Reply:
        if number:  # the first one comes alone
            together.wait(timeout=60)
        return stream(text("a"), text("b"), END, USAGE)

    server = scripted_as(reply)
    report = bench_serve(server.url, Load([3], requests=6, prompt_tokens=10, max_tokens=5))
    assert (report.levels[0].errors, report.levels[0].tokens, report.levels[0].prompt_tokens) == ({}, 30, 20)
    assert (len(server.chats), server.most) == (1 + 3 + 6, 3)


def test_prompts_follow_from_the_seed_and_are_as_long_as_asked(scripted_as: Callable[[Replies], Scripted]) -> None:
    def asked(seed: int) -> list[str]:
        server = scripted_as(lambda number: stream(text("a"), END, USAGE))
        bench_serve(server.url, Load([1], requests=5, prompt_tokens=10, max_tokens=5, seed=seed))
        assert {(chat["model"], chat["max_tokens"]) for chat in server.chats} == {("first", 5)}
        return server.prompts()

    prompts = asked(1)
    assert prompts == asked(1)
    assert not {*prompts} & {*asked(2)}
    assert len({*prompts}) == 7
    words = [len(prompt.partition(".")[0].split()) for prompt in prompts]
    assert words == [10, *[5] * 6]  # the server says that 10 words are 20 tokens


def test_a_server_that_does_not_count_has_its_chunks_counted(scripted_as: Callable[[Replies], Scripted]) -> None:
    thought = {"choices": [{"delta": {"reasoning_content": "hm"}}]}
    server = scripted_as(lambda number: stream(text(""), thought, text("two\u2028lines"), END))
    (level,) = bench_serve(server.url, ONE).levels
    assert (level.errors, level.tokens, level.prompt_tokens) == ({}, 2, None)


def test_requests_that_fail_are_counted_by_what_was_wrong(
    scripted_as: Callable[[Replies], Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [
        (429, "application/json", '{"error": {"message": "the queue\\nis full"}}'),
        stream(text("a"), {"error": {"message": "the device failed"}}),
        stream(text("a")),
        stream(END),
        (200, "text/event-stream", "data: {\n\n"),
    ]
    server = scripted_as(lambda number: broken[number - 2] if number > 1 else stream(text("a"), END, USAGE))
    assert main(["bench", "serve", server.url, "--concurrency", "1", "--requests", "5"]) == 1
    table, _, wrong = capsys.readouterr().out.partition("\n\n")
    assert table.splitlines()[2] == "| 1 | 5 | 5 | – | 0 | – | – | – | – | – | – | 0.0 |"
    assert wrong.splitlines() == [
        f"1 of 1 at once: {server.url}/v1/chat/completions: {what}"
        for what in (
            "status 429: the queue is full",
            "the device failed",
            "the stream ends without a finish_reason",
            "the answer has no text",
            "not OpenAI's API: Invalid JSON: EOF while parsing an object at line 1 column 1",
        )
    ]


def test_a_server_with_keys_wants_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = tmp_path / "keys"
    keys.write_text("secret\n")
    with running(tmp_path / "log", "--api-key-file", str(keys)) as server:
        command = ["bench", "serve", server.url, "--concurrency", "1", "--requests", "1", "-p", "5", "-n", "4"]
        assert main(command) == 2
        assert capsys.readouterr().err.startswith(f"arcmtp: {server.url}/v1/models: status 401: ")
        assert main([*command, "--api-key-file", str(keys)]) == 0


def test_what_cannot_be_measured_gets_one_line(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    chat = f"{server.url}/v1/chat/completions"
    for arguments, message in (
        (["http://127.0.0.1:1"], "http://127.0.0.1:1/v1/models: All connection attempts failed"),
        (["127.0.0.1:8080"], "URL '127.0.0.1:8080' should be an address such as http://127.0.0.1:8080"),
        (["http://127.0.0.1:99999"], "URL 'http://127.0.0.1:99999' should be an address such as"),
        (["http://[::1"], "URL 'http://[::1': "),
        ([f"{server.url}/api"], f"{server.url}/api/models: status 404: there is no route '/api/models' here; "),
        ([server.url, "--model", "x"], f"{chat}: status 404: there is no model 'x' here, only 'tiny'; check URL, "),
        ([server.url, "-p", "9000"], f"{chat}: status 400: the prompt has "),
        ([server.url, "--concurrency", "1,0"], "concurrency is 0; it must be at least 1"),
        ([server.url, "--requests", "3"], "requests is 3; 4 at once need at least 4"),
        ([server.url, "--api-key-file", "/none"], "/none: No such file or directory"),
    ):
        assert main(["bench", "serve", *arguments]) == 2, arguments
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith(f"arcmtp: {message}"), err


def test_an_answer_that_is_not_openais_gets_one_line(
    scripted_as: Callable[[Replies], Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    page = scripted_as(lambda number: (200, "text/html", "<html>"))
    assert main(["bench", "serve", page.url]) == 2
    message = f"{page.url}/v1/chat/completions: not OpenAI's API: text/html came, not text/event-stream"
    assert capsys.readouterr().err == f"arcmtp: {message}\n"


def test_the_table_has_a_line_for_each_level() -> None:
    level = Level(2, 8, {}, 100.4, 64, 4.0, Percentiles(10, 20, 30), Percentiles(1, 2, 3.04), 16.0)
    table = as_text(Report("http://x/v1/", "m", ONE, [level]), "md").splitlines()
    assert len({line.count("|") for line in table}) == 1
    assert table[2:] == ["| 2 | 8 | 0 | 100 | 64 | 10 | 20 | 30 | 1.0 | 2.0 | 3.0 | 16.0 |"]
