"""What a client may do with a connection: uvicorn's protocol with limits of time and number, and its errors as JSON."""

import asyncio
import json
import logging
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from arcmtp.serve.errors import ApiError

HEADER_SECONDS = 30.0  # for a request's line and headers to arrive
WRITE_SECONDS = 60.0  # for a client to take what fills its buffers
PROBE_SECONDS = 0.25  # between two signs of life to a client that sends no more; the second one after it has gone fails
MAX_CONNECTIONS = 512
_log = logging.getLogger("arcmtp.serve")


class Connection(H11Protocol):
    """A connection with a client. Each part of a request and of its answer has its time; the body's is the Gate's."""

    _headers: asyncio.TimerHandle | None = None
    _write: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(503, f"there are {MAX_CONNECTIONS} connections already", "too_many_connections")
        else:
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers = _stopped(self._headers)
        self._write = _stopped(self._write)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._headers = _stopped(self._headers)
        elif self._headers is None:  # the first bytes of a further request
            self._expect_headers()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A client that sends no more may still read, or may have gone: only a write tells."""
        cycle = self.cycle
        if cycle is None or cycle.more_body or cycle.response_started or cycle.scope["http_version"] != "1.1":
            return None  # and the connection is closed
        cycle.keep_alive = False
        self._probe()
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._write = _stopped(self._write)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Called for what is no HTTP."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if status == 431:
            msg = "the request's line and headers are larger than 64 KiB, the limit"
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._refuse(status, msg, "bad_http")
        else:  # within an answer
            self.transport.close()

    def _expect_headers(self) -> None:
        self._headers = self.loop.call_later(
            HEADER_SECONDS, self._refuse, 408, f"no request has come within {HEADER_SECONDS:g} s", "timeout"
        )

    def _probe(self) -> None:
        if not self.cycle.response_started and not self.transport.is_closing():
            processing = h11.InformationalResponse(status_code=102, headers=[], reason=STATUS_PHRASES[102])
            self.transport.write(self.conn.send(processing) or b"")
            self.loop.call_later(PROBE_SECONDS, self._probe)

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Answer, although there is no request that could be, and close the connection."""
        self._headers = _stopped(self._headers)
        body = json.dumps(ApiError(status, message, code=code).body()).encode()
        headers = [
            ("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")
        ]  # fmt: skip
        response = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """None, in the place of a timer."""
    if timer is not None:
        timer.cancel()
    return None


class AcceptErrors:
    """An exception handler of an event loop: says once a second at most that no connection can be accepted, of which
    asyncio tells thousands of times a second, with tracebacks."""

    def __init__(self) -> None:
        self._said = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "accept" not in context["message"]:
            loop.default_exception_handler(context)
        elif loop.time() - self._said >= 1:
            self._said = loop.time()
            _log.error("no connection can be accepted: %s", context.get("exception"))
