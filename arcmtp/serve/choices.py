"""Choices of an answer: tokens in, OpenAI's objects out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arcmtp.engine.reasoning import Part, ReasoningSplitter
from arcmtp.engine.results import Chunk
from arcmtp.engine.scores import Scores
from arcmtp.engine.stop_strings import StopStrings
from arcmtp.model.tokenizer import Tokenizer
from arcmtp.serve.jobs import FinishReason
from arcmtp.serve.responses import AnswerMessage, ChatLogprobs, Delta, TokenLogprob, ToolCall, TopLogprob
from arcmtp.serve.text_logprobs import TextLogprobsLists
from arcmtp.serve.tools import ToolCallParser

Payload = dict[str, Any]  # a choice of a response or of a chunk, without its index


@dataclass(frozen=True)
class Logprobs:
    """How log-probabilities are shown: the likeliest tokens of each position beside the chosen one."""

    tokenizer: Tokenizer

    def token(self, token_id: int, chunk: Chunk) -> TokenLogprob:
        """The chosen token `token_id` of a chunk."""
        chosen = self._one(token_id, chunk.logprob or 0.0)
        return {**chosen, "top_logprobs": [self._one(*item) for item in chunk.logprobs or ()]}

    def _one(self, token_id: int, logprob: float) -> TopLogprob:
        raw = self.tokenizer.token_bytes(token_id)
        return {"token": raw.decode(errors="replace"), "logprob": logprob, "bytes": list(raw)}


class Choice:
    """What chat and text choices share: stop strings and the count of tokens."""

    def __init__(self, stop: Sequence[str], logprobs: Logprobs | None) -> None:
        self._stop = StopStrings(stop)
        self._logprobs = logprobs
        self.tokens = 0
        self.reasoning_tokens = 0
        self.finish_reason: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether the choice is complete although the model could go on."""
        return self._stop.found

    @property
    def stop_string(self) -> str | None:
        """The one that ended the choice."""
        return self._stop.string

    def end(self, chunk: Chunk | None) -> None:
        """The token that ended the text, if one did."""


class ChatChoice(Choice):
    """A message with its reasoning and tool calls.

    forced: text that the prompt ends with and that belongs to the answer.
    """

    def __init__(
        self, stop: Sequence[str], splitter: ReasoningSplitter, tools: Sequence[Mapping[str, Any]], forced: str,
        parallel: bool, logprobs: Logprobs | None,
    ) -> None:  # fmt: skip
        super().__init__(stop, logprobs)
        self._unsent: list[TokenLogprob] = []
        self._all: list[TokenLogprob] = []
        self._splitter = splitter
        self._parser = ToolCallParser(tools, parallel) if tools else None
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[ToolCall] = []
        self._forced = forced

    @property
    def stopped(self) -> bool:
        return self._stop.found or (self._parser is not None and self._parser.ended)

    def begin(self) -> list[Payload]:
        """The first payloads of a stream."""
        first: Delta = {"role": "assistant", "content": ""}
        return self._payloads([first, *self._deltas(self._splitter.push(self._forced))])

    def push(self, chunk: Chunk) -> list[Payload]:
        """The payloads that a chunk makes certain."""
        self._count(chunk)
        self.reasoning_tokens += self._splitter.reasoning and chunk.id is not None
        return self._payloads(self._deltas(self._splitter.push(self._stop.push(chunk.text))))

    def finish(self, reason: FinishReason) -> list[Payload]:
        """What was held back, and the payload that ends the choice."""
        complete = self.stopped or reason == "stop"
        deltas = self._deltas([*self._splitter.push(self._stop.flush()), *self._splitter.flush()])
        if self._parser:
            deltas += self._collect(self._parser.flush(complete))
        self.finish_reason = "stop" if complete else reason
        if complete and self._calls:
            self.finish_reason = "tool_calls"
        return [*self._payloads(deltas), self._payload({}) | {"finish_reason": self.finish_reason}]

    def whole(self) -> Payload:
        """The choice of a response."""
        content = "".join(self._content)
        message: AnswerMessage = {"role": "assistant", "content": content if content or not self._calls else None}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._calls:
            message["tool_calls"] = self._calls
        return {"message": message, "logprobs": self._shown(self._all), "finish_reason": self.finish_reason}

    def _count(self, chunk: Chunk) -> None:
        if chunk.id is None:
            return
        self.tokens += 1
        if self._logprobs:
            entry = self._logprobs.token(chunk.id, chunk)
            self._unsent.append(entry)
            self._all.append(entry)

    def _take_unsent(self) -> list[TokenLogprob]:
        unsent, self._unsent = self._unsent, []
        return unsent

    def _deltas(self, parts: Sequence[Part]) -> list[Delta]:
        deltas: list[Delta] = []
        for kind, text in parts:
            if kind == "content" and self._parser:
                deltas += self._collect(self._parser.push(text))
            else:
                deltas += self._collect([{"content": text} if kind == "content" else {"reasoning_content": text}])
        return deltas

    def _collect(self, deltas: list[Delta]) -> list[Delta]:
        for delta in deltas:
            self._content.append(delta.get("content", ""))
            if reasoning := delta.get("reasoning_content"):
                self._reasoning.append(reasoning)
            for call in delta.get("tool_calls", ()):
                function = call["function"]
                if "id" in call:
                    self._calls.append(
                        {"id": call["id"], "type": "function", "function": {"name": function["name"], "arguments": ""}}
                    )
                self._calls[call["index"]]["function"]["arguments"] += function["arguments"]
        return deltas

    def _payloads(self, deltas: Sequence[Delta]) -> list[Payload]:
        return [self._payload(delta) for delta in deltas]

    def _payload(self, delta: Delta) -> Payload:
        return {"delta": delta, "logprobs": self._shown(self._take_unsent()), "finish_reason": None}

    def _shown(self, entries: list[TokenLogprob]) -> ChatLogprobs | None:
        return {"content": entries} if self._logprobs and entries else None


class TextChoice(Choice):
    """A continuation as it is, after the prompt if that is to be echoed.

    scored: token ids of a prompt whose log-probabilities come first, and its text with them.
    """

    def __init__(
        self, stop: Sequence[str], echo: str, logprobs: Logprobs | None, scored: Sequence[int] = ()
    ) -> None:
        super().__init__(stop, logprobs)
        self.ids: list[int] = []  # generated
        self._texts: list[str] = []
        self._echo, self._scored = echo, scored
        self._lists = TextLogprobsLists(logprobs.tokenizer) if logprobs else None

    def begin(self) -> list[Payload]:
        """The first payloads of a stream."""
        return [] if self._scored else self._payloads(self._echo)

    def score(self, scores: Scores) -> Payload:
        """The payload of a prompt that was scored."""
        assert self._lists is not None
        self._lists.add_prompt(self._scored, scores)
        self._texts.append(self._echo)
        return self._payload(self._echo)

    def push(self, chunk: Chunk) -> list[Payload]:
        """The payloads that a chunk makes certain."""
        if chunk.id is not None:
            self.tokens += 1
            self.ids.append(chunk.id)
            if self._lists:
                self._lists.add(chunk)
        return self._payloads(self._stop.push(chunk.text))

    def end(self, chunk: Chunk | None) -> None:
        """Beside a prompt that was scored, the token that ended the text has its log-probability too, since clients
        count on one for each token of the prompt and one more."""
        if chunk and self._lists and self._scored and not self._stop.found:
            self._lists.add(chunk)

    def finish(self, reason: FinishReason) -> list[Payload]:
        """What was held back, and the payload that ends the choice."""
        self.finish_reason = "stop" if self.stopped else reason
        return [*self._payloads(self._stop.flush()), self._payload("") | {"finish_reason": self.finish_reason}]

    def whole(self) -> Payload:
        """The choice of a response."""
        logprobs = self._lists.all() if self._lists else None
        return {"text": "".join(self._texts), "logprobs": logprobs, "finish_reason": self.finish_reason}

    def _payloads(self, text: str) -> list[Payload]:
        self._texts.append(text)
        return [self._payload(text)] if text else []

    def _payload(self, text: str) -> Payload:
        logprobs = self._lists.unsent() if self._lists else None
        return {"text": text, "logprobs": logprobs, "finish_reason": None}
