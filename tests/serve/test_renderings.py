"""What a stream of each protocol says when it breaks off, and how parts follow each other."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from arcmtp.engine.sampling import CHAT
from arcmtp.serve.completions import Completions
from arcmtp.serve.errors import ApiError
from arcmtp.serve.http import EventStream
from arcmtp.serve.messages_api.reply import MessageReply
from arcmtp.serve.parts import Parts
from arcmtp.serve.responses_api.reply import ResponseReply
from arcmtp.serve.responses_api.request import ResponsesRequest

CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{"}}


class Scripted(SimpleNamespace):
    """A reply of given deltas, after which the device fails if it is `broken`."""

    model, created, finish_reasons = "scripted", 1, [None]
    prepared = SimpleNamespace(jobs=[SimpleNamespace(sampling=CHAT)], choices=[SimpleNamespace(stop_string=None)])
    deltas: Any = ()
    broken = False

    async def payloads(self) -> AsyncIterator[Any]:
        for delta in self.deltas:
            yield 0, {"delta": delta}, None
        if self.broken:
            raise ApiError(500, "the device failed", code="device_error")

    def usage(self) -> Any:
        details = {"prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}}
        return {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6, **details}


ASKED = ResponsesRequest.model_validate({"input": "x"})
RENDERINGS: dict[str, Callable[[Any], Any]] = {
    "chat": lambda reply: Completions(reply, include_usage=True),
    "responses": lambda reply: ResponseReply(reply, ASKED, lambda response: pytest.fail("kept")),
    "messages": MessageReply,
}


def last_events(protocol: str) -> tuple[list[str], ApiError | None]:
    """The last lines of a stream that breaks off, and what its request log is told."""
    sent: list[bytes] = []
    told: list[ApiError | None] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    async def receive() -> Any:
        await asyncio.Event().wait()

    reply = Scripted(deltas=[{"content": "The"}], broken=True)
    asyncio.run(EventStream(RENDERINGS[protocol](reply), told.append)({}, receive, send))
    return b"".join(sent).decode().strip().split("\n\n"), told[0]


@pytest.mark.parametrize("protocol", RENDERINGS)
def test_a_stream_that_breaks_off_ends_with_the_error_of_its_protocol(protocol: str) -> None:
    events, told = last_events(protocol)
    assert told and told.status == 500
    if protocol == "chat":
        assert json.loads(events[-2].removeprefix("data: "))["error"]["code"] == "device_error"
        assert events[-1] == "data: [DONE]"
        return
    name, data = events[-1].split("\n")
    event = json.loads(data.removeprefix("data: "))
    assert name == f"event: {event['type']}"
    if protocol == "messages":
        assert event == {"type": "error", "error": {"type": "api_error", "message": "the device failed"}}
        return
    TypeAdapter(ResponseStreamEvent).validate_python(event)
    response = event["response"]
    assert (event["type"], event["sequence_number"]) == ("response.failed", len(events) - 1)
    assert (response["status"], response["error"]) == (
        "failed", {"code": "server_error", "message": "the device failed"}
    )  # fmt: skip
    assert response["output"][0]["content"][0]["text"] == "The"


def test_a_call_of_a_function_in_a_namespace_tells_both() -> None:
    tools = [{"type": "namespace", "name": "n", "description": "", "tools": [{"type": "function", "name": "f"}]}]
    request = ResponsesRequest.model_validate({"input": "x", "tools": tools})
    calls = [{**CALL, "id": name, "function": {"name": name, "arguments": "{}"}} for name in ("n.f", "f", "n.g")]
    reply: Any = Scripted(deltas=[{"tool_calls": [call]} for call in calls])
    response = asyncio.run(ResponseReply(reply, request, lambda response: None).whole())
    assert [(item["name"], item.get("namespace")) for item in response["output"]] == [
        ("f", "n"), ("f", None), ("n.g", None)
    ]  # fmt: skip
    Response.model_validate(response)


def test_parts_begin_and_end_one_after_the_other() -> None:
    more = {"index": 0, "function": {"arguments": "}"}}
    second = {**CALL, "index": 1, "id": "call_2"}
    deltas = [
        {"role": "assistant", "content": ""}, {"reasoning_content": "a"}, {"reasoning_content": "b"}, {"content": "c"},
        {"tool_calls": [CALL]}, {"tool_calls": [more]}, {"tool_calls": [second]}, {"content": "d"},
        {},
    ]  # fmt: skip

    async def steps() -> list[str]:
        return [f"{step.kind} {step.index}{step.text}" async for step in parts.steps()]

    parts = Parts(Scripted(deltas=deltas))  # type: ignore[arg-type]
    assert asyncio.run(steps()) == [
        "begin 0", "text 0a", "text 0b", "end 0", "begin 1", "text 1c", "end 1", "begin 2", "text 2{", "text 2}",
        "end 2", "begin 3", "text 3{", "end 3", "begin 4", "text 4d", "end 4",
    ]  # fmt: skip
    assert [(part.kind, part.text, part.call_id) for part in parts.parts] == [
        ("reasoning", "ab", ""), ("text", "c", ""), ("call", "{}", "call_1"), ("call", "{", "call_2"), ("text", "d", "")
    ]  # fmt: skip
    empty = Parts(Scripted())  # type: ignore[arg-type]
    assert asyncio.run(_all(empty)) == []


async def _all(parts: Parts) -> list[Any]:
    return [step async for step in parts.steps()]
