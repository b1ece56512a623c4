"""Requests of other protocols as requests for a chat."""

from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from arcmtp.serve.protocol import ChatRequest

Message = dict[str, Any]


class Conversation:
    """Messages for a chat, of one part after the other.

    Parts of the assistant that follow each other are one message, as the model wrote them. Templates take one system
    message, at the beginning: what comes for the system later on, as from agents in the middle of their work, is the
    user's.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def system(self, text: str) -> None:
        """Instructions."""
        if not text:
            return
        if not self.messages:
            self.messages.append({"role": "system", "content": text})
        elif self.messages[-1]["role"] == "system":
            self.messages[-1]["content"] += "\n\n" + text
        else:
            self.user(text)

    def user(self, text: str) -> None:
        """What the user says."""
        self.messages.append({"role": "user", "content": text})

    def reasoning(self, text: str) -> None:
        """Reasoning of the assistant, which begins a message unless it follows other reasoning."""
        if text:
            message = self._turn("content", "tool_calls")
            message["reasoning_content"] = message.get("reasoning_content", "") + text

    def text(self, text: str) -> None:
        """A text of the assistant."""
        message = self._turn()
        message["content"] = message.get("content", "") + text

    def call(self, call_id: str | None, name: str, arguments: Any) -> None:
        """A call by the assistant; the arguments are an object, or its text."""
        call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        self._turn().setdefault("tool_calls", []).append(call)

    def result(self, call_id: str, text: str) -> None:
        """What a call has given."""
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": text})

    def _turn(self, *before: str) -> Message:
        """The assistant's message under way, or a new one if that has any of the fields `before`."""
        last = self.messages[-1] if self.messages else {}
        if last.get("role") != "assistant" or any(field in last for field in before):
            self.messages.append({"role": "assistant"})
        return self.messages[-1]


def chat_request(fields: Mapping[str, Any]) -> ChatRequest:
    """The request for a chat. RequestValidationError if the chat route would refuse it."""
    try:
        return ChatRequest.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in error.errors()]) from None
