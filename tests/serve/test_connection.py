"""Connections of clients that send too little, too much or nothing, and of those that do not read."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from arcmtp.serve import connection, http
from arcmtp.serve.connection import AcceptErrors, Connection
from arcmtp.serve.http import Gate

READY = b"GET /0 HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
Work = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]]


class NoMetrics:
    def request(self, route: str, status: int, seconds: float) -> None: ...


class App:
    """Answers with as many megabytes as the path says; `left` becomes true when a client has gone before the end."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()
        gone = asyncio.create_task(receive())
        for _ in range(int(scope["path"][1:])):
            await send({"type": "http.response.body", "body": b"x" * 2**20, "more_body": True})
            await asyncio.sleep(0)
            if gone.done():
                self.left.set()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        gone.cancel()


@asynccontextmanager
async def serving(app: App, keys: Sequence[str] = ()) -> AsyncIterator[int]:
    """The port of a server of the app behind the gate."""
    gate = Gate(app, keys, 2**20, NoMetrics())  # type: ignore[arg-type]
    config = uvicorn.Config(gate, http=Connection, lifespan="off", log_config=None, timeout_keep_alive=600)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await server.startup([listener])
        yield listener.getsockname()[1]
        server.force_exit = True
        await server.shutdown([listener])


def talk(sent: bytes) -> tuple[int, Any]:
    """Status and error object of the answer, after which the server must close the connection."""

    async def run() -> bytes:
        async with serving(App()) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            answer = await asyncio.wait_for(reader.read(), 60)
            writer.close()
            return answer

    head, _, body = asyncio.run(run()).partition(b"\r\n\r\n")
    assert b"onnection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        (b"", 408, "no request has come within 0.2 s"),
        (b"GET /health HTTP/1.1\r\nHost", 408, "no request has come within 0.2 s"),
        (POST + b"x", 408, "the body has not come within 0.2 s"),
        (b"GET /health HTTP/1.1\r\nX: " + b"x" * 70_000, 431, "the request's line and headers are larger than 64 KiB"),
        (b"GET /" + b"x" * 70_000, 431, "the request's line and headers are larger than 64 KiB"),
        (b"\x16\x03\x01 no HTTP\r\n\r\n", 400, "Invalid HTTP request received."),
    ],
)
def test_what_is_no_request_is_told_so(
    monkeypatch: pytest.MonkeyPatch, sent: bytes, status: int, message: str
) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.2)
    monkeypatch.setattr(http, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(http, "LINGER_SECONDS", 0.0)
    found, error = talk(sent)
    assert (found, error["message"][: len(message)]) == (status, message)


CHUNKED = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"100000\r\n" + b"x" * 2**20 + b"\r\n"


def test_a_body_that_is_said_to_be_too_large_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LINGER_SECONDS", 0.0)
    head = b"POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1048577\r\n\r\n"
    found, error = talk(head)
    assert (found, error["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("keys", "head", "body", "status", "most"),
    [
        ((), POST.replace(b": 9", b": 67108864"), CHUNK * 64, 413, 2**18),
        ((), CHUNKED, CHUNK * 64, 413, 2**20 + 2**18),
        (("secret",), CHUNKED, CHUNK * 64, 401, 2**18),
    ],
)
def test_the_rest_of_a_body_is_not_read(
    monkeypatch: pytest.MonkeyPatch, keys: Sequence[str], head: bytes, body: bytes, status: int, most: int
) -> None:
    """The client gets its answer although it goes on to send, and has time to read it."""
    read: list[int] = []
    received = Connection.data_received

    def count(self: Connection, data: bytes) -> None:
        read.append(len(data))
        received(self, data)

    monkeypatch.setattr(Connection, "data_received", count)
    monkeypatch.setattr(http, "LINGER_SECONDS", 600)

    async def run() -> None:
        async with serving(App(), keys) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.split()[1] == str(status).encode() and b"onnection: close" in answer
            assert (await reader.readuntil(b"}}")).startswith(b'{"error"')
            await asyncio.sleep(0.1)
            assert not writer.transport.is_closing()
            writer.transport.abort()
        assert sum(read) <= most

    asyncio.run(run())


def test_one_connection_too_many_is_refused_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 2)

    async def run() -> None:
        async with serving(App()) as port:
            first, second, third = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            assert (await third[0].read()).startswith(b"HTTP/1.1 503")
            for reader, writer in (first, second):
                writer.write(READY)
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
                writer.close()
            third[1].close()

    asyncio.run(run())


def test_a_client_that_does_not_read_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "WRITE_SECONDS", 0.2)

    async def run() -> None:
        app = App()
        async with serving(app) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
            writer.write(READY.replace(b"/0", b"/64"))
            await asyncio.wait_for(app.left.wait(), 60)
            writer.close()

    asyncio.run(run())


def test_a_connection_that_is_kept_has_time_for_each_request_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.4)

    async def run() -> None:
        async with serving(App()) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(3):
                writer.write(READY)
                assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")
                await asyncio.sleep(0.3)
            writer.write(READY[:10])
            assert (await reader.read()).startswith(b"HTTP/1.1 408")
            writer.close()

    asyncio.run(run())


class Slow(App):
    """Answers only when it is told to, or when the client has gone."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        gone, answers = asyncio.create_task(receive()), asyncio.create_task(self.answers.wait())
        await asyncio.wait({gone, answers}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            self.left.set()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok", "more_body": False})


@pytest.mark.parametrize("closed", [False, True])
def test_a_client_that_sends_no_more_is_answered_unless_it_has_gone(
    monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    monkeypatch.setattr(connection, "PROBE_SECONDS", 0.05)

    async def run() -> None:
        app = Slow()
        async with serving(app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(READY)
            if closed:
                writer.close()
                await asyncio.wait_for(app.left.wait(), 60)
                return
            writer.write_eof()
            await asyncio.sleep(0.2)
            app.answers.set()
            *probes, head, body = (await asyncio.wait_for(reader.read(), 60)).split(b"\r\n\r\n")
            assert set(probes) == {b"HTTP/1.1 102 Processing"}
            assert head.startswith(b"HTTP/1.1 200") and body == b"ok"
            assert not app.left.is_set()
            writer.close()

    asyncio.run(run())


def test_connections_that_cannot_be_accepted_are_told_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    handler, loop = AcceptErrors(), asyncio.new_event_loop()
    with caplog.at_level(logging.ERROR, "arcmtp.serve"):
        for _ in range(1000):
            handler(loop, {"message": "socket.accept() out of system resource", "exception": OSError(24, "Too many")})
    assert caplog.messages == ["no connection can be accepted: [Errno 24] Too many"]
    with caplog.at_level(logging.ERROR, "asyncio"):
        handler(loop, {"message": "something else"})
    assert "something else" in caplog.messages
    loop.close()
