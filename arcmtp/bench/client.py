"""A client of any OpenAI-compatible server that notes when text arrives."""

import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from arcmtp.errors import ArcmtpError

_Parsed = TypeVar("_Parsed", bound=BaseModel)

ANSWER_SECONDS = 600.0  # of silence, after which a request has failed
CONNECT_SECONDS = 10.0
_REMEDIES = {
    401: "; give --api-key-file FILE with a key that it knows",
    404: "; check URL, such as http://127.0.0.1:8080/v1, and --model",
}


@dataclass(frozen=True)
class Answer:
    """A chat that was streamed to its end."""

    prompt_tokens: int | None  # None if the server does not count
    tokens: int  # if it does not count: chunks with text
    first_token_seconds: float  # from connecting to the first chunk with text
    inter_token_seconds: list[float]  # between chunks with text


class _Delta(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(BaseModel):
    delta: _Delta = _Delta()
    finish_reason: str | None = None

    def has_text(self) -> bool:
        return bool(self.delta.content or self.delta.reasoning_content or self.delta.reasoning)


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class _Problem(BaseModel):
    message: str


class _Chunk(BaseModel):
    """An event of a stream, and the body of an error."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: _Problem | None = None


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


def connect(url: str, key: str | None) -> httpx.AsyncClient:
    """A client of the API at `url`; without a path that is `/v1`. ArcmtpError for what is no address of HTTP.

    key: comes with each request.
    """
    try:
        base = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ArcmtpError(f"URL {url!r}: {error}") from None
    if base.scheme not in ("http", "https") or not base.host or (base.port or 0) > 65535:
        raise ArcmtpError(f"URL {url!r} should be an address such as http://127.0.0.1:8080")
    return httpx.AsyncClient(
        base_url=base if base.path.strip("/") else base.copy_with(path="/v1"),
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
        # As many connections as requests, which should wait at the server. None is kept for the next request: on kept
        # ones 4 of 16 requests to llama-server failed, because it had closed them.
        limits=httpx.Limits(max_keepalive_connections=0),
        trust_env=False,  # a proxy would be measured too
    )


async def first_model(client: httpx.AsyncClient) -> str:
    """The name of the first model that the server lists; ArcmtpError if it lists none."""
    async with _open(client, "GET", "models", "application/json") as response:
        models = _parse(_Models, await response.aread(), response).data
    if not models:
        raise ArcmtpError(f"{response.url}: the server has no model")
    return models[0].id


async def chat(client: httpx.AsyncClient, body: dict[str, Any]) -> Answer:
    """Ask for a streamed chat and read it to its end; ArcmtpError if it fails."""
    times: list[float] = []  # of chunks with text
    usage, finished = None, False
    began = time.perf_counter()
    async with _open(client, "POST", "chat/completions", "text/event-stream", json=body) as response:
        async for event in _events(response):
            now = time.perf_counter()
            chunk = _parse(_Chunk, event, response)
            if chunk.error:
                raise ArcmtpError(f"{response.url}: {_one_line(chunk.error.message)}")
            if any(choice.has_text() for choice in chunk.choices):
                times.append(now)
            finished |= any(choice.finish_reason for choice in chunk.choices)
            usage = chunk.usage or usage
        if not finished:
            raise ArcmtpError(f"{response.url}: the stream ends without a finish_reason")
        if not times:
            raise ArcmtpError(f"{response.url}: the answer has no text")
    return Answer(
        usage.prompt_tokens if usage else None,
        usage.completion_tokens if usage else len(times),
        times[0] - began,
        [b - a for a, b in itertools.pairwise(times)],
    )


@asynccontextmanager
async def _open(
    client: httpx.AsyncClient, method: str, path: str, media_type: str, **request: Any
) -> AsyncIterator[httpx.Response]:
    """A response of status 200 and this type; ArcmtpError for another, and for a connection that fails meanwhile."""
    try:
        async with client.stream(method, path, **request) as response:
            if response.status_code != 200:
                raise ArcmtpError(_refusal(response, await response.aread()))
            if (got := response.headers.get("Content-Type", "nothing").partition(";")[0]) != media_type:
                raise ArcmtpError(f"{response.url}: not OpenAI's API: {got} came, not {media_type}")
            yield response
    except httpx.HTTPError as error:
        raise ArcmtpError(f"{client.base_url}{path}: {_one_line(str(error)) or type(error).__name__}") from None


def _refusal(response: httpx.Response, body: bytes) -> str:
    try:
        problem = _Chunk.model_validate_json(body).error
    except ValidationError:
        problem = None
    message = f": {_one_line(problem.message)}" if problem else ""
    return f"{response.url}: status {response.status_code}{message}{_REMEDIES.get(response.status_code, '')}"


async def _events(response: httpx.Response) -> AsyncIterator[bytes]:
    """The data of each server-sent event but [DONE]. httpx's lines also end at U+2028, which JSON may contain."""
    rest = b""
    async for part in response.aiter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and (data := line.removeprefix(b"data:").strip()) != b"[DONE]":
                yield data


def _parse(kind: type[_Parsed], body: bytes, response: httpx.Response) -> _Parsed:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ArcmtpError(f"{response.url}: not OpenAI's API: {f'{where}: ' if where else ''}{first['msg']}") from None


def _one_line(message: str) -> str:
    return " ".join(message.split())[:300]
