"""A conversation: messages so far, and answers to them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from arcmtp.engine import LLM, Generation, SamplingOptions, Stream
from arcmtp.engine.reasoning import Part, ReasoningSplitter, opens_reasoning
from arcmtp.engine.request import Request
from arcmtp.errors import ArcmtpError, ContextExceeded

Message = dict[str, str]  # role, content and of an answer perhaps reasoning_content, as in OpenAI's requests

FULL = "/save FILE keeps the conversation, /reset begins a new one, a larger --ctx holds more"


@dataclass(frozen=True)
class Asking:
    """How answers are generated.

    max_tokens: None for as many as the context holds. template: variables of the chat template.
    """

    sampling: SamplingOptions
    max_tokens: int | None = None
    template: Mapping[str, Any] = field(default_factory=dict)


class Answer:
    """An answer under way: iterate over its parts, (kind, text) each, once.

    SIGINT, if it comes while the main thread iterates, ends the answer after the step, or the prompt chunk,
    that is under way; a second one raises KeyboardInterrupt at once.
    """

    def __init__(self, llm: LLM, stream: Stream) -> None:
        self.reasoning = self.content = ""
        self.reasoning_tokens = 0
        self.first_token_seconds: float | None = None
        self.stopped = False
        self._stream = stream
        self._context = llm.context
        self._splitter = ReasoningSplitter(opens_reasoning(llm.tokenizer, stream.sequence.prompt))

    def __iter__(self) -> Iterator[Part]:
        began, inside = time.perf_counter(), 0
        with self._stopped_by_sigint():
            for chunk in self._stream:
                if self.first_token_seconds is None:
                    self.first_token_seconds = time.perf_counter() - began
                inside += self._splitter.reasoning and chunk.id is not None
                self.reasoning_tokens = inside
                yield from self._kept(self._splitter.push(chunk.text))
        yield from self._kept(self._splitter.flush())

    @property
    def result(self) -> Generation:
        """What has been generated so far."""
        return self._stream.result

    @property
    def context_used(self) -> int:
        """Tokens of the context that prompt and answer take."""
        return len(self.result.prompt_ids) + len(self.result.ids)

    @property
    def ended_by(self) -> str:
        """Why the answer is not complete, and what to do; empty if it is."""
        if self.stopped:
            return "stopped"
        if self.result.finish_reason != "length":
            return ""
        if self.context_used >= self._context:
            return f"the context of {self._context} tokens is full: {FULL}"
        return f"ended after {len(self.result.ids)} tokens (--max-tokens)"

    def _kept(self, parts: list[Part]) -> Iterator[Part]:
        for kind, text in parts:
            if kind == "content":
                self.content += text
            else:
                self.reasoning += text
            yield kind, text

    @contextmanager
    def _stopped_by_sigint(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            self._stream.close()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True
        # Not here: the thread that the signal has stopped may hold the locks that `close` takes.
        threading.Thread(target=self._stream.close).start()


class Conversation:
    """The messages so far, whose prefix the engine keeps on the device from one answer to the next.

    system: the text of a system message before all others; None: there is none. last: the answer that began last.
    """

    def __init__(self, llm: LLM, asking: Asking, system: str | None = None) -> None:
        self.system = system
        self.messages: list[Message] = []  # without the system message
        self.last: Answer | None = None
        self._llm, self._asking = llm, asking

    @property
    def all_messages(self) -> list[Message]:
        """The system message, if there is one, and all others."""
        return [*self._system_message, *self.messages]

    @property
    def _system_message(self) -> list[Message]:
        return [] if self.system is None else [{"role": "system", "content": self.system}]

    @property
    def context(self) -> int:
        """Tokens that all messages may have together."""
        return self._llm.context

    def reset(self) -> None:
        """Begin anew; the system message stays."""
        self.messages, self.last = [], None

    def replace(self, messages: list[Message]) -> None:
        """Go on from other messages, of which the first may be the system's."""
        has_system = bool(messages) and messages[0]["role"] == "system"
        self.system = messages[0]["content"] if has_system else None
        self.messages, self.last = messages[has_system:], None

    def ask(self, text: str) -> Answer:
        """The answer to a message, which joins the conversation.

        Raises ArcmtpError for what the context does not hold; then the conversation stays as it was.
        """
        return self._begin([*self.messages, {"role": "user", "content": text}])

    def ask_again(self) -> Answer:
        """Another answer to the last message, in the place of the one that it has. Raises ArcmtpError if there is no
        message."""
        kept = self.messages[:-1] if self.messages and self.messages[-1]["role"] == "assistant" else self.messages
        if not kept:
            raise ArcmtpError("there is no message to answer yet")
        return self._begin(kept)

    def keep(self, answer: Answer) -> None:
        """Let an answer that is over join the conversation; one without content does not."""
        if answer.content:
            reasoning = {"reasoning_content": answer.reasoning} if answer.reasoning else {}
            self.messages.append({"role": "assistant", "content": answer.content, **reasoning})

    def _begin(self, messages: list[Message]) -> Answer:
        asking, llm = self._asking, self._llm
        try:
            ids = llm.prompt_ids([*self._system_message, *messages], **asking.template)
            request = Request(ids, asking.max_tokens or llm.context, sampling=asking.sampling)
            answer = Answer(llm, llm.stream_request(request))
        except ContextExceeded as error:
            raise ArcmtpError(f"{str(error).removesuffix(': raise ctx')}: {FULL}") from None
        self.messages, self.last = messages, answer
        return answer
