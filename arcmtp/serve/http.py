"""What lies between uvicorn and the routes: keys, limits, the request log, clients that leave, streams of events."""

import asyncio
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from arcmtp.serve.errors import ApiError, as_api_error
from arcmtp.serve.metrics import Metrics
from arcmtp.serve.page import is_page
from arcmtp.serve.rendering import Rendering

KEEP_ALIVE_SECONDS = 10.0
BODY_SECONDS = 120.0
CLIENT_GONE = 499  # nginx's, in logs only
_QUIET_PATHS = frozenset({"/health", "/metrics"})  # asked every few seconds, and no news: lines of the level debug
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_OPEN_PATHS = frozenset({"/health"})
LINGER_SECONDS = 1.0  # between an answer to a body that is not read and the end of its connection
_log = logging.getLogger("arcmtp.serve.requests")
Result = TypeVar("Result")


class Gate:
    """ASGI middleware: each request gets an id, unless it brings one as X-Request-Id, must show a key, has its body
    read within a limit, and is logged.

    Routes add fields to the log line through `request.state.record`.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], body_bytes: int, metrics: Metrics) -> None:
        self._app, self._keys, self._body_bytes, self._metrics = app, keys, body_bytes, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        method = scope["method"]
        if method == "HEAD":  # as GET; uvicorn sends headers only
            scope = {**scope, "method": "GET"}
        record: dict[str, Any] = {"method": method, "id": _request_id(scope), "status": CLIENT_GONE}
        scope.setdefault("state", {})["record"] = record

        async def noted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                record["status"] = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = headers["Request-Id"] = record["id"]  # OpenAI's and Anthropic's name
            await send(message)

        began = time.monotonic()
        try:
            self._check_length(scope)
            self._check_key(scope)
            body = await self._timely_body(receive)
        except ApiError as error:
            record["error"] = error.message
            unread = error.headers.get("Connection") == "close"
            await error.response(scope["path"])(scope, receive, _lingering(noted_send) if unread else noted_send)
        except ClientGone:
            record["error"] = "the client has gone"
        else:
            await self._answer(scope, _replaying(body, receive), noted_send)
        finally:
            self._note(scope, record, time.monotonic() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            _log.exception("a request failed")
            if scope["state"]["record"]["status"] != CLIENT_GONE:
                raise  # too late for an answer: uvicorn cuts the connection
            await as_api_error(error).response(scope["path"])(scope, receive, send)

    def _check_key(self, scope: Scope) -> None:
        if not self._keys or scope["path"] in _OPEN_PATHS or is_page(scope["path"]):
            return
        sent = Headers(scope=scope)
        scheme, _, bearer = sent.get("authorization", "").partition(" ")
        keys = [sent.get("x-api-key", ""), bearer if scheme.lower() == "bearer" else ""]
        found = [hmac.compare_digest(key.strip().encode(), known.encode()) for known in self._keys for key in keys]
        if not any(found):
            headers = {"WWW-Authenticate": "Bearer"}
            if "transfer-encoding" in sent:  # uvicorn would read on, to the end of a body that may have none
                headers["Connection"] = "close"
            message = "an API key is needed: Authorization: Bearer KEY, or x-api-key: KEY"
            raise ApiError(401, message, code="invalid_api_key", headers=headers)

    async def _timely_body(self, receive: Receive) -> bytes:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await self._body(receive)
        except TimeoutError:
            message = f"the body has not come within {BODY_SECONDS:g} s"
            raise ApiError(408, message, code="timeout", headers={"Connection": "close"}) from None

    async def _body(self, receive: Receive) -> bytes:
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            self._check_bytes(len(body))
            more = message.get("more_body", False)
        return bytes(body)

    def _check_length(self, scope: Scope) -> None:
        self._check_bytes(int(Headers(scope=scope).get("content-length", 0)))

    def _check_bytes(self, size: int) -> None:
        if size > self._body_bytes:
            raise ApiError(
                413, f"the body is larger than {self._body_bytes / 2**20:g} MiB, the limit", code="body_too_large",
                headers={"Connection": "close"},
            )  # fmt: skip

    def _note(self, scope: Scope, record: dict[str, Any], seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.request(route, record["status"], seconds)
        client = (scope.get("client") or [None])[0]
        fields = {"path": scope["path"], "client": client, **record}
        level = logging.DEBUG if scope["path"] in _QUIET_PATHS else logging.INFO
        _log.log(level, "request", extra={"fields": {**fields, "seconds": round(seconds, 4)}})


def _request_id(scope: Scope) -> str:
    """The client's, if it is one that a log and a header can have."""
    sent = Headers(scope=scope).get("x-request-id", "")
    return sent if _REQUEST_ID.fullmatch(sent) else f"req-{secrets.token_hex(8)}"


def _lingering(send: Send) -> Send:
    """A send after which the connection stays open for a while, read no further: a connection that is closed with bytes
    unread is reset, and the client might lose the answer."""

    async def linger(message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            await send({**message, "more_body": True})
            await asyncio.sleep(LINGER_SECONDS)
            message = {**message, "body": b""}
        await send(message)

    return linger


def _replaying(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body first, and then waits for the client to leave."""
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class ClientGone(Exception):
    """The client has closed the connection: there is nobody to answer."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Await `work`; when the client leaves, cancel it and raise ClientGone."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


class EventStream(Response):
    """Server-sent events: each object as a line of JSON; a comment when nothing was to say for 10 s.

    An error becomes the last event. `close` is called with the error, of status 499 for a client that has gone, or
    None, however the stream ends.
    """

    media_type = "text/event-stream"

    def __init__(self, rendering: Rendering, close: Callable[[ApiError | None], None]) -> None:
        self.status_code, self.background = 200, None
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._error: ApiError | None = None
        self._close = close
        self._lines = self._written(rendering)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        gone = asyncio.create_task(_disconnected(receive))
        following: asyncio.Task[str] | None = None
        try:
            while True:
                following = following or asyncio.create_task(anext(self._lines, ""))
                await asyncio.wait(
                    {following, gone}, timeout=KEEP_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )  # fmt: skip
                if gone.done():
                    self._error = ApiError(CLIENT_GONE, "the client has gone")
                    return
                text = ": keep-alive\n\n"
                if following.done():
                    text, following = following.result(), None
                await send({"type": "http.response.body", "body": text.encode(), "more_body": bool(text)})
                if not text:
                    return
        finally:
            gone.cancel()
            if following:
                following.cancel()
            self._close(self._error)

    async def _written(self, rendering: Rendering) -> AsyncGenerator[str, None]:
        try:
            async for event in rendering.events():
                yield _event(event)
        except Exception as error:
            self._error = as_api_error(error)
            yield _event(rendering.failed(self._error))
        if rendering.last_line:
            yield rendering.last_line


def _event(event: Mapping[str, Any]) -> str:
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {json.dumps(event)}\n\n"
