"""A reply in OpenAI's chat and text completions."""

import secrets
from collections.abc import AsyncIterator
from typing import Any

from arcmtp.serve.choices import ChatChoice
from arcmtp.serve.errors import ApiError
from arcmtp.serve.reply import Reply, timings_object


class Completions:
    """Whole, or as chunks."""

    last_line = "data: [DONE]\n\n"

    def __init__(self, reply: Reply, include_usage: bool) -> None:
        self._reply, self._include_usage = reply, include_usage
        chat = isinstance(reply.prepared.choices[0], ChatChoice)
        self.id = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}"
        self._object = "chat.completion" if chat else "text_completion"
        self._chunk_object = "chat.completion.chunk" if chat else "text_completion"
        self._head: dict[str, Any] = {"id": self.id, "created": reply.created, "model": reply.model}

    async def whole(self) -> dict[str, Any]:
        """The response."""
        reply = self._reply
        async for _ in reply.payloads():
            pass
        choices = [{"index": i, **choice.whole()} for i, choice in enumerate(reply.prepared.choices)]
        return {
            **self._head,
            "object": self._object,
            "choices": choices,
            "usage": reply.usage(),
            "timings": reply.timings_object(),
        }

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """The chunks."""
        reply, head = self._reply, {**self._head, "object": self._chunk_object}
        async for index, payload, end in reply.payloads():
            chunk = {**head, "choices": [{"index": index, **payload}]}
            yield chunk if end is None else {**chunk, "timings": timings_object(end.timings, end.statistics)}
        if self._include_usage:
            yield {**head, "choices": [], "usage": reply.usage(), "timings": reply.timings_object()}

    def failed(self, error: ApiError) -> dict[str, Any]:
        """The error object."""
        return dict(error.body())
