"""A reply's only choice as parts: reasoning, text and calls, one after the other."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Literal

from arcmtp.serve.reply import Reply
from arcmtp.serve.responses import Delta

Kind = Literal["reasoning", "text", "call"]


@dataclass
class Part:
    """text: so far; of a call the text of its arguments."""

    kind: Kind
    text: str = ""
    call_id: str = ""
    name: str = ""


@dataclass(frozen=True)
class Step:
    """What happens to the part number `index`: it begins, gets `text`, or ends."""

    kind: Literal["begin", "text", "end"]
    index: int
    part: Part
    text: str = ""


class Parts:
    """Collects the parts of a reply in `parts`, and tells of each `steps`, once."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.parts: list[Part] = []

    @property
    def finish_reason(self) -> str | None:
        """The choice's, by OpenAI's names, None before its end."""
        return self._reply.finish_reasons[0]

    async def steps(self) -> AsyncIterator[Step]:
        """Every part begins, gets text and ends before the next one begins. ApiError if the choice failed."""
        async for _, payload, _ in self._reply.payloads():
            for step in self._steps(payload["delta"]):
                yield step
        if self.parts:
            yield self._step("end")

    def _steps(self, delta: Delta) -> Iterator[Step]:
        if reasoning := delta.get("reasoning_content"):
            yield from self._more("reasoning", reasoning)
        if content := delta.get("content"):
            yield from self._more("text", content)
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                yield from self._begin(Part("call", call_id=call["id"], name=call["function"]["name"]))
            yield self._text(call["function"]["arguments"])

    def _more(self, kind: Kind, text: str) -> Iterator[Step]:
        if not self.parts or self.parts[-1].kind != kind:
            yield from self._begin(Part(kind))
        yield self._text(text)

    def _begin(self, part: Part) -> Iterator[Step]:
        if self.parts:
            yield self._step("end")
        self.parts.append(part)
        yield self._step("begin")

    def _text(self, text: str) -> Step:
        self.parts[-1].text += text
        return self._step("text", text)

    def _step(self, kind: Literal["begin", "text", "end"], text: str = "") -> Step:
        return Step(kind, len(self.parts) - 1, self.parts[-1], text)
