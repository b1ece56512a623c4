"""Errors as OpenAI's and Anthropic's clients expect them."""

import json
import re
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from arcmtp.errors import ArcmtpError, ContextExceeded
from arcmtp.serve.protocol import NamedToolChoice
from arcmtp.serve.responses import ErrorResponse

_ALTERNATIVES = ("str", NamedToolChoice.__name__)  # of unions, besides lists
_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
_ANTHROPIC_TYPES = {**_TYPES, 408: "timeout_error", 413: "request_too_large", 500: "api_error", 503: "overloaded_error"}
_ANTHROPIC_PATH = re.compile(r"(/v1)?/messages(/.*)?")


class ApiError(Exception):
    """An answer other than success: HTTP status, one line, the field that it is about, and a code for programs."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    def body(self) -> ErrorResponse:
        """The error object."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def anthropic_body(self) -> dict[str, Any]:
        """The error object of Anthropic's protocol."""
        kind = _ANTHROPIC_TYPES.get(self.status, "invalid_request_error")
        too_long = "prompt is too long: " if self.code == "context_length_exceeded" else ""  # clients look for that
        return {"type": "error", "error": {"type": kind, "message": too_long + self.message}}

    def response(self, path: str) -> Response:
        """The error object of the route at `path`."""
        body = self.anthropic_body() if _ANTHROPIC_PATH.fullmatch(path) else self.body()
        return as_json(body, self.status, self.headers)


def as_json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response of JSON. Escaped, since it may quote lone surrogates."""
    return Response(json.dumps(body), status, headers, "application/json")


def as_api_error(error: Exception) -> ApiError:
    """What a client is told of an exception."""
    match error:
        case ApiError():
            return error
        case ContextExceeded():
            return ApiError(400, str(error), code="context_length_exceeded")
        case ArcmtpError():
            return ApiError(400, str(error))
        case RequestValidationError():
            return _validation_error(error)
        case HTTPException():
            message = _unreadable(error.__cause__) or str(error.detail)
            return ApiError(error.status_code, message, headers=error.headers)
        case _:
            return ApiError(500, "internal error: see the server's log", code="internal_error")


async def handle(request: Request, error: Exception) -> Response:
    """The exception handler of the application, which also tells the request log."""
    answer = as_api_error(error)
    if isinstance(error, HTTPException) and error.status_code == 404:
        answer.message = f"there is no route {request.url.path!r} here; /docs lists them"
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = answer.headers["Allow"] = ", ".join(_methods(request))
        method = request.state.record["method"]
        answer.message = f"{request.url.path!r} takes {allowed}, not {method}"
    request.state.record["error"] = answer.message
    return answer.response(request.url.path)


def _methods(request: Request) -> list[str]:
    """Those that any route takes at the request's path."""
    routes = (route for route in request.app.routes if route.matches(request.scope)[0] is Match.PARTIAL)
    methods = {method for route in routes for method in route.methods}
    return sorted({*methods, "HEAD"} if "GET" in methods else methods)


def _validation_error(error: RequestValidationError) -> ApiError:
    # Of a union's alternatives the one that came furthest says most about what was meant.
    first = max(error.errors(), key=lambda e: len(e["loc"]))
    if first["loc"] == ("body",) and first["type"] in ("model_attributes_type", "model_type", "missing"):
        return ApiError(400, "the body must be a JSON object, with Content-Type: application/json")
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not valid JSON: {first['ctx']['error']}, at character {first['loc'][1]}")
    if first["type"] == "unsupported":
        return ApiError(400, str(first["msg"]), param=first["ctx"]["field"])
    # Alternatives of unions are no part of the request.
    parts = [str(part) for part in first["loc"][1:] if part not in _ALTERNATIVES]
    where = ".".join(part for part in parts if "[" not in part) or None
    message = str(first["msg"]).removeprefix("Value error, ")
    return ApiError(400, f"{where}: {message}" if where else f"the body: {message}", param=where)


def _unreadable(cause: BaseException | None) -> str | None:
    """What is wrong with a body that cannot be parsed for another reason than its grammar."""
    match cause:
        case UnicodeDecodeError():
            return f"the body is not valid UTF-8: byte {cause.start}"
        case RecursionError():
            return "the body is nested too deeply"
        case ValueError():  # Python's limit for text to int
            return "the body has a number with too many digits"
    return None
