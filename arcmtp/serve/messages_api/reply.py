"""A reply as Anthropic's message."""

import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pydantic_core

from arcmtp.serve.errors import ApiError
from arcmtp.serve.parts import Part, Parts, Step
from arcmtp.serve.reply import Reply

Event = dict[str, Any]
_SIGNATURE = "arcmtp"  # clients send back only thoughts that have one; nobody checks it
_STOP_REASONS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}


class MessageReply:
    """A message, whole or as events."""

    last_line = ""

    def __init__(self, reply: Reply) -> None:
        self._reply, self._parts = reply, Parts(reply)
        self.id = f"msg_{secrets.token_hex(12)}"

    async def whole(self) -> dict[str, Any]:
        """The message."""
        async for _ in self._parts.steps():
            pass
        blocks = [_block(part) for part in self._parts.parts]
        return self._message(blocks) | self._end() | {"usage": self._usage()}

    async def events(self) -> AsyncIterator[Event]:
        """Content block by content block."""
        yield {"type": "message_start", "message": self._message([]) | {"usage": self._usage()}}
        async for step in self._parts.steps():
            for event in _of_step(step):
                yield event
        yield {"type": "message_delta", "delta": self._end(), "usage": self._usage()}
        yield {"type": "message_stop"}

    def failed(self, error: ApiError) -> Event:
        """The error object."""
        return error.anthropic_body()

    def _message(self, content: list[dict[str, Any]]) -> dict[str, Any]:
        head = {"id": self.id, "type": "message", "role": "assistant", "model": self._reply.model}
        return {**head, "content": content, "stop_reason": None, "stop_sequence": None}

    def _end(self) -> dict[str, Any]:
        reason, stop = self._parts.finish_reason, self._reply.prepared.choices[0].stop_string
        if reason == "stop" and stop:
            return {"stop_reason": "stop_sequence", "stop_sequence": stop}
        return {"stop_reason": _STOP_REASONS[reason or "stop"], "stop_sequence": None}

    def _usage(self) -> dict[str, Any]:
        """Tokens so far. Those of the prompt that were not evaluated again are known at the end."""
        usage = self._reply.usage()
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        return {
            "input_tokens": usage["prompt_tokens"] - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"thinking_tokens": usage["completion_tokens_details"]["reasoning_tokens"]},
        }


def _of_step(step: Step) -> Iterator[Event]:
    part = step.part
    match step.kind:
        case "begin":
            yield {"type": "content_block_start", "index": step.index, "content_block": _begun(part)}
        case "text":
            yield _delta(step.index, _text_delta(part, step.text))
        case "end":
            if part.kind == "reasoning":
                yield _delta(step.index, {"type": "signature_delta", "signature": _SIGNATURE})
            yield {"type": "content_block_stop", "index": step.index}


def _delta(index: int, delta: dict[str, Any]) -> Event:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def _text_delta(part: Part, text: str) -> dict[str, Any]:
    match part.kind:
        case "reasoning":
            return {"type": "thinking_delta", "thinking": text}
        case "text":
            return {"type": "text_delta", "text": text}
        case "call":
            return {"type": "input_json_delta", "partial_json": text}


def _begun(part: Part) -> dict[str, Any]:
    """A block without its content."""
    match part.kind:
        case "reasoning":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case "text":
            return {"type": "text", "text": ""}
        case "call":
            return {"type": "tool_use", "id": part.call_id, "name": part.name, "input": {}}


def _block(part: Part) -> dict[str, Any]:
    match part.kind:
        case "reasoning":
            return {"type": "thinking", "thinking": part.text, "signature": _SIGNATURE}
        case "text":
            return {"type": "text", "text": part.text}
        case "call":  # of arguments that were cut off, what there is
            return _begun(part) | {"input": pydantic_core.from_json(part.text, allow_partial=True)}
