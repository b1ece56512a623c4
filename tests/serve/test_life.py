"""From loading to the last signal: clients that leave, full queues, keys, draining, a stuck device."""

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from arcmtp.cli import main
from arcmtp.serve.options import ServeOptions, bind
from tests.serve.conftest import Server, running

TEXT = "/v1/completions"
ENDS = {"6137": -100, "6139": -100}  # never
ENDLESS = {"prompt": "import", "max_tokens": 4000, "logit_bias": ENDS, "n": 16, "temperature": 0}  # for many seconds
Refused = Callable[..., str]


@contextmanager
def streaming(server: Server, **fields: Any) -> Iterator[Iterator[str]]:
    """The lines of an endless stream that has begun."""
    with server.http() as http, http.stream("POST", TEXT, json={**ENDLESS, "stream": True, **fields}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines).startswith("data: ")
        yield lines


def until(holds: Callable[[], bool]) -> None:
    """Wait for what must come true soon."""
    for _ in range(3000):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come true")


def gauge(server: Server, name: str) -> float:
    return server.metric(f"arcmtp_requests_{name}")


def test_a_client_that_leaves_ends_its_stream(server: Server) -> None:
    with streaming(server):
        assert gauge(server, "running") == 4 and gauge(server, "queued") == 12
    until(lambda: gauge(server, "running") == gauge(server, "queued") == 0)
    assert '"error": "the client has gone"' in server.log()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_while_it_waits_is_forgotten(server: Server, stream: bool) -> None:
    with streaming(server, n=4, max_tokens=4000) as lines, ExitStack() as stack:
        http = stack.enter_context(server.http())
        with pytest.raises(httpx.ReadTimeout):
            http.post(TEXT, json={**ENDLESS, "n": 3, "stream": stream}, timeout=0.1).read()
        until(lambda: gauge(server, "queued") == 0)
        assert next(lines) == ""  # the first request goes on
    until(lambda: gauge(server, "running") == 0)


def test_a_client_that_leaves_without_streaming_ends_its_generation(server: Server) -> None:
    with server.http() as http, pytest.raises(httpx.ReadTimeout):
        http.post(TEXT, json=ENDLESS, timeout=0.2)
    until(lambda: gauge(server, "running") == gauge(server, "queued") == 0)


def test_a_body_that_breaks_off_is_no_request(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    head = "POST /breaks-off HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f'{head}{{"tokens": [1]}}'.encode())
    until(lambda: '"path": "/breaks-off"' in server.log())
    (line,) = [line for line in server.log().splitlines() if '"path": "/breaks-off"' in line]
    assert '"status": 499' in line


def test_a_request_is_answered_beside_others_and_does_not_end_them(server: Server) -> None:
    with streaming(server, n=3, max_tokens=2000) as lines, server.http() as http:
        assert http.post(TEXT, json={"prompt": "import", "max_tokens": 1}).status_code == 200
        assert gauge(server, "running") == 3
        assert list(lines)[-2:] == ["data: [DONE]", ""]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with keys, a short queue and a web page that may call, all from a configuration file."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "keys").write_text("first\nsecond\n")
    (folder / "serve.toml").write_text(
        f'api-key-file = "{folder / "keys"}"\nqueue = 1\nalias = "file"\nctx = 2048\ndraft = 0\ncors-origin = ["http://page.test"]\n'
        "body-limit = 0.001\ninsecure-no-key = false\n"
    )
    with running(folder / "log", "--config", str(folder / "serve.toml"), "--alias", "line") as server:
        yield server


def test_options_come_from_the_file_unless_the_command_line_has_them(guarded: Server) -> None:
    with guarded.http(headers={"Authorization": "Bearer first"}) as http:
        props = http.get("/props").json()
        assert (props["model"], props["queue"], props["context"]) == ("line", 1, 2048)
        assert http.post(TEXT, json={"prompt": "x" * 2000}).status_code == 413
        refused = http.post(TEXT, json={"prompt": "x", "draft": 1}).json()["error"]["message"]
        assert refused == "draft is 1; this server was started without drafts (--draft 0)"


def test_every_route_but_health_needs_a_key(guarded: Server) -> None:
    with guarded.http() as http:
        assert http.get("/health").json() == {"status": "ready"}
        for path in ("/v1/models", "/metrics", "/props", "/docs", "/docs/assets/favicon.png", "/openapi.json", "/none"):
            answer = http.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
            assert http.get(path, headers={"Authorization": "Bearer third"}).status_code == 401
            assert http.get(path, headers={b"Authorization": "Bearer sécond".encode()}).status_code == 401
        assert http.get("/v1/models", headers={"x-api-key": "third"}).status_code == 401
        assert http.get("/v1/models", headers={"x-api-key": "second"}).status_code == 200
        assert http.post("/v1/messages").json()["error"]["type"] == "authentication_error"
    with guarded.openai(api_key="second") as client:
        assert client.completions.create(model="line", prompt="import", max_tokens=1).choices
    with guarded.openai(api_key="third") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_only_pages_that_are_named_may_call(guarded: Server, server: Server) -> None:
    asked = {"Origin": "http://page.test", "Access-Control-Request-Method": "POST"}
    with guarded.http() as http, server.http() as without:
        assert http.options(TEXT, headers=asked).headers["access-control-allow-origin"] == "http://page.test"
        assert http.options(TEXT, headers={**asked, "Origin": "http://other.test"}).status_code == 400
        assert "access-control-allow-origin" not in without.get("/v1/models", headers=asked).headers


def test_a_full_queue_says_when_to_come_back(guarded: Server) -> None:
    key = {"Authorization": "Bearer first"}
    body = {**ENDLESS, "n": 6, "stream": True}
    with guarded.http(headers=key) as http, http.stream("POST", TEXT, json=body) as answer:
        lines = answer.iter_lines()  # which closes the connection when it goes
        next(lines)
        refused = http.post(TEXT, json={"prompt": "import"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1


def events(lines: Iterator[str]) -> list[Any]:
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


@pytest.mark.parametrize(("number", "level"), [(signal.SIGTERM, "debug"), (signal.SIGHUP, "warning")])
def test_a_signal_lets_requests_end_and_takes_no_new_ones(tmp_path: Path, number: int, level: str) -> None:
    with running(tmp_path / "log", "--log-level", level) as server, server.http() as http:
        with streaming(server, n=2, max_tokens=1000) as lines:
            server.process.send_signal(number)
            until(lambda: http.get("/health").json() == {"status": "draining"})
            assert http.get("/health").status_code == 503
            answer = http.post(TEXT, json={"prompt": "import"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
            reasons = [event["choices"][0]["finish_reason"] for event in events(lines)]
        assert [reason for reason in reasons if reason] == ["length"] * 2
        assert server.wait() == 0
        logged = [f'"path": "{path}"' in server.log() for path in ("/health", TEXT)]
        assert logged == [level == "debug"] * 2


@pytest.mark.parametrize(("limit", "signals"), [("60", 2), ("0.2", 1)])
def test_a_second_signal_or_the_limit_ends_requests(tmp_path: Path, limit: str, signals: int) -> None:
    with running(tmp_path / "log", "--drain-limit", limit) as server, server.http() as http:
        with streaming(server) as lines:
            for _ in range(signals):
                server.process.send_signal(signal.SIGTERM)
                until(lambda: http.get("/health").json() == {"status": "draining"})
            assert events(lines)[-1]["error"]["message"] == "the server is shutting down"
        assert server.wait() == 0


def test_health_answers_while_the_model_loads(tmp_path: Path) -> None:
    server = Server(tmp_path / "log")
    try:
        with server.http() as http:
            health = http.get("/health")
            assert (health.status_code, health.json()) == (503, {"status": "loading"})
            answer = http.post(TEXT, json={"prompt": "import"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "loading")
        server.wait_ready()
    finally:
        server.close()


def test_a_step_that_takes_too_long_ends_the_process(tmp_path: Path) -> None:
    with running(tmp_path / "log", "--step-limit", "0.01") as server, server.http() as http:
        with pytest.raises(httpx.HTTPError):
            http.post(TEXT, json={"prompt": "import " * 3500, "max_tokens": 1})
        assert server.wait() == 70
        assert "the device is stuck" in server.log()


def test_an_address_in_use_and_a_bad_model_are_one_line(server: Server, refused: Refused) -> None:
    port = server.url.rpartition(":")[2]
    where = f"--host 127.0.0.1 --port {port}"
    assert refused("--port", port) == f"arcmtp: {where}: cannot listen there: Address already in use"
    assert refused("--port", "0", "-m", "none.gguf").startswith("arcmtp: none.gguf")


def test_connections_send_each_event_at_once() -> None:
    with bind(ServeOptions("x", port=0), False) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 is reachable from other machines: give --api-key-file FILE"),
        (["--host", "::"], "--host :: is reachable from other machines"),
        (["--port", "70000"], "--host 127.0.0.1 --port 70000: ports go up to 65535"),
        (["--host", "no such host"], "--host no such host --port 8080: "),
        (["--port", "x"], "argument --port: 'x' is not a whole number from 0 on"),
        (["--parallel", "33"], "parallel is 33; it must be 1 to 32"),
        (["--log-level", "loud"], "argument --log-level: invalid choice: 'loud'"),
        (["--drain-limit", "0"], "argument --drain-limit: '0' is not a number above 0"),
        (["--api-key-file", "none"], "none: No such file or directory"),
        (["--config", "none"], "none: No such file or directory"),
        (["--temp", "-1"], "temperature is -1.0; it must be 0 (greedy) or a number from 0.01 to 100"),
    ],
)
def test_options_that_cannot_be_used_are_refused(refused: Refused, arguments: list[str], message: str) -> None:
    assert refused(*arguments).startswith(f"arcmtp: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port = ", "not TOML: "),
        ("[server]\nport = 1", "server cannot stand there; expected long options such as port = 8080"),
        ("prot = 1", "unrecognized arguments: --prot=1"),
        ("dra = 3", "unrecognized arguments: --dra=3"),
        ("port = true", "argument --port: expected one argument"),
        ('ctx = "x"', "argument -c/--ctx: 'x' is not a whole number from 1 on"),
        ('cors-origin = [["x"]]', "cors-origin cannot stand there; expected long options such as port = 8080"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(
    refused: Refused, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(text)
    assert refused("--config", str(file)).startswith(f"arcmtp: {file}: {message}")


@pytest.mark.parametrize("text", ["\n", "sécret", "key of my laptop"])
def test_a_key_file_without_usable_keys_is_refused(refused: Refused, tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_text(text)
    said = refused("--api-key-file", str(tmp_path / "keys"))
    assert said == f"arcmtp: {tmp_path / 'keys'}: expected one key a line, of ASCII characters without spaces"


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Refused:
    """Runs `arcmtp serve`, which must end with status 2 and one line of error; gives that line."""

    def run(*arguments: str) -> str:
        assert main(["serve", "-m", "none.gguf", *arguments]) == 2  # what is not refused does not serve forever
        (line,) = capfd.readouterr().err.splitlines()
        return line

    return run
