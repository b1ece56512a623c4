"""A reply in llama-server's own shape."""

import secrets
from collections.abc import AsyncIterator
from typing import Any

from arcmtp.serve.choices import TextChoice
from arcmtp.serve.errors import ApiError
from arcmtp.serve.jobs import Finished
from arcmtp.serve.native_api.request import NativeRequest
from arcmtp.serve.reply import Reply, timings_object


class NativeReply:
    """An object, or a list of them, or events of which each choice's last one says that it has stopped."""

    last_line = ""

    def __init__(self, reply: Reply, request: NativeRequest) -> None:
        self._reply, self._several, self._with_tokens = reply, request.several, bool(request.return_tokens)
        self.id = f"cmpl-{secrets.token_hex(12)}"

    async def whole(self) -> dict[str, Any] | list[dict[str, Any]]:
        """The answer."""
        ends = {index: end async for index, _, end in self._reply.payloads() if end is not None}
        answers = [self._end(index, ends[index]) for index in sorted(ends)]
        for answer, choice in zip(answers, self._choices, strict=True):
            answer["content"] = choice.whole()["text"]
            answer["tokens"] = choice.ids if self._with_tokens else []
        return answers if self._several else answers[0]

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """The events."""
        sent = [0] * len(self._choices)
        async for index, payload, end in self._reply.payloads():
            ids = self._choices[index].ids
            new = {"index": index, "content": payload["text"], "tokens": ids[sent[index] :], "stop": False}
            sent[index] = len(ids)
            yield new | self._counts(index) if end is None else self._end(index, end) | {"tokens": new["tokens"]}

    def failed(self, error: ApiError) -> dict[str, Any]:
        """The error object."""
        return dict(error.body())

    @property
    def _choices(self) -> list[TextChoice]:
        return [choice for choice in self._reply.prepared.choices if isinstance(choice, TextChoice)]

    def _counts(self, index: int) -> dict[str, int]:
        prompt = self._reply.prepared.jobs[index].prompt_ids
        return {"tokens_predicted": self._choices[index].tokens, "tokens_evaluated": len(prompt)}

    def _end(self, index: int, end: Finished) -> dict[str, Any]:
        choice = self._choices[index]
        by_string = "word" if choice.stop_string else "eos"
        return {
            "index": index,
            "content": "",
            "tokens": [],
            "stop": True,
            "model": self._reply.model,
            **self._counts(index),
            "tokens_cached": end.timings.cached_tokens,
            "truncated": False,
            "stop_type": "limit" if choice.finish_reason == "length" else by_string,
            "stopping_word": choice.stop_string or "",
            "timings": timings_object(end.timings, end.statistics),
        }
