"""A reply as OpenAI's response."""

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from arcmtp.serve.errors import ApiError
from arcmtp.serve.parts import Part, Parts, Step
from arcmtp.serve.reply import Reply
from arcmtp.serve.responses_api.request import OtherTool, ResponsesRequest, sealed

Event = dict[str, Any]
_PREFIXES = {"reasoning": "rs", "text": "msg", "call": "fc"}
_TEXTS = {
    "reasoning": "response.reasoning_text",
    "text": "response.output_text",
    "call": "response.function_call_arguments",
}


class ResponseReply:
    """A response, whole or as events. `keep` gets it when it is complete."""

    last_line = ""

    def __init__(self, reply: Reply, request: ResponsesRequest, keep: Callable[[dict[str, Any]], None]) -> None:
        self._reply, self._request, self._keep = reply, request, keep
        self._parts, self._functions = Parts(reply), request.functions
        self._ids: list[str] = []  # of the items
        self.id = f"resp_{secrets.token_hex(16)}"
        self._number = 0  # of events

    async def whole(self) -> dict[str, Any]:
        """The response."""
        async for event in self.events():
            last = event
        return last["response"]

    async def events(self) -> AsyncIterator[Event]:
        """The last one has the response."""
        for kind in ("response.created", "response.in_progress"):
            yield self._event(kind, response=self._response("in_progress"))
        async for step in self._parts.steps():
            for event in self._of_step(step):
                yield event
        status = "incomplete" if self._cut_off else "completed"
        response = self._response(status)
        self._keep(response)
        yield self._event(f"response.{status}", response=response)

    def failed(self, error: ApiError) -> Event:
        """The response so far, with the error."""
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"
        response = self._response("failed") | {"error": {"code": code, "message": error.message}}
        return self._event("response.failed", response=response)

    @property
    def _cut_off(self) -> bool:
        return self._parts.finish_reason == "length"

    def _of_step(self, step: Step) -> Iterator[Event]:
        part = step.part
        where: Event = {"output_index": step.index}
        if step.kind == "begin":
            self._ids.append(f"{_PREFIXES[part.kind]}_{secrets.token_hex(16)}")
            begun = self._item(step.index, part, "in_progress")
            yield self._event("response.output_item.added", **where, item=begun | _nothing(part))
        where = {"item_id": self._ids[step.index], **where}
        if part.kind != "call":
            where["content_index"] = 0
        logprobs: Event = {"logprobs": []} if part.kind == "text" else {}
        if step.kind == "begin" and part.kind != "call":
            yield self._event("response.content_part.added", **where, part=_content(part))
        elif step.kind == "text":
            yield self._event(f"{_TEXTS[part.kind]}.delta", **where, delta=step.text, **logprobs)
        elif step.kind == "end":
            text = {"arguments": part.text, **self._function(part)} if part.kind == "call" else {"text": part.text}
            yield self._event(f"{_TEXTS[part.kind]}.done", **where, **text, **logprobs)
            if part.kind != "call":
                yield self._event("response.content_part.done", **where, part=_content(part))
            item = self._item(step.index, part, self._item_status(step.index))
            yield self._event("response.output_item.done", output_index=step.index, item=item)

    def _event(self, kind: str, **fields: Any) -> Event:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **fields}

    def _item_status(self, index: int) -> str:
        return "incomplete" if self._cut_off and index == len(self._parts.parts) - 1 else "completed"

    def _item(self, index: int, part: Part, status: str) -> dict[str, Any]:
        head = {"id": self._ids[index], "status": status}
        if part.kind == "call":
            call = {"type": "function_call", "call_id": part.call_id, "arguments": part.text}
            return {**head, **call, **self._function(part)}
        if part.kind == "text":
            return {**head, "type": "message", "role": "assistant", "content": [_content(part)]}
        item = {**head, "type": "reasoning", "summary": [], "content": [_content(part)]}
        return item | ({"encrypted_content": sealed(part.text)} if self._request.seals else {})

    def _function(self, part: Part) -> dict[str, Any]:
        """What a call's function is named; the model may have made it up."""
        namespace, tool = self._functions.get(part.name, (None, None))
        name = tool.name if tool else part.name
        return {"name": name, "namespace": namespace} if namespace else {"name": name}

    def _response(self, status: str) -> dict[str, Any]:
        request, sampling, choice = self._request, self._reply.prepared.jobs[0].sampling, self._request.tool_choice
        ended = status in ("completed", "incomplete")
        items = [self._item(i, part, self._item_status(i)) for i, part in enumerate(self._parts.parts)]
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._reply.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "metadata": request.metadata or {},
            "model": self._reply.model,
            "output": items,
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": request.previous_response_id,
            "reasoning": request.reasoning.model_dump() if request.reasoning else {"effort": None, "summary": None},
            "store": request.store is not False,
            "temperature": sampling.temperature,
            "text": _text_options(request),
            "tool_choice": choice.model_dump() if choice and not isinstance(choice, str) else choice or "auto",
            "tools": [tool.model_dump() for tool in request.tools or () if not isinstance(tool, OtherTool)],
            "top_p": sampling.top_p,
            "truncation": "disabled",
            "usage": self._usage() if ended else None,
        }

    def _usage(self) -> dict[str, Any]:
        usage = self._reply.usage()
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        return {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": usage["completion_tokens_details"],
            "total_tokens": usage["total_tokens"],
        }


def _content(part: Part) -> dict[str, Any]:
    if part.kind == "reasoning":
        return {"type": "reasoning_text", "text": part.text}
    return {"type": "output_text", "text": part.text, "annotations": [], "logprobs": []}


def _nothing(part: Part) -> dict[str, Any]:
    """What an item has when it begins: no content yet."""
    return {} if part.kind == "call" else {"content": []}


def _text_options(request: ResponsesRequest) -> dict[str, Any]:
    wanted = request.text.model_dump(exclude_none=True) if request.text else {}
    return {"format": {"type": "text"}, **wanted}
