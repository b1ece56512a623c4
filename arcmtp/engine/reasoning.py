"""Generated text split into reasoning and content, whatever pieces it arrives in."""

from collections.abc import Sequence
from typing import Literal

from arcmtp.engine.stop_strings import held_back
from arcmtp.model.tokenizer import Tokenizer

_OPEN, CLOSE = "<think>", "</think>"

_TAIL_TOKENS = 16  # of a prompt, which show whether it ends inside <think>

Part = tuple[Literal["reasoning_content", "content"], str]


def opens_reasoning(tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> bool:
    """Whether a prompt ends inside `<think>`, so that what follows it is reasoning."""
    return tokenizer.decode(list(prompt_ids[-_TAIL_TOKENS:])).rstrip().endswith(_OPEN)


class ReasoningSplitter:
    """Splits a text that may start inside `<think>` at `</think>`, without the white space around the tags.

    >>> splitter = ReasoningSplitter(inside=True)
    >>> splitter.push("Hm.\\n</think>\\n\\nYes.")
    [('reasoning_content', 'Hm.'), ('content', 'Yes.')]
    """

    def __init__(self, inside: bool, begun: bool = False, apart: bool = True) -> None:
        """inside: the prompt has opened the reasoning; otherwise the text may begin with `<think>` itself.
        begun: the prompt ends with the beginning of the part.
        apart: reasoning is a part of its own; otherwise it is content, in tags of its own lines."""
        self.reasoning = inside
        self._rest = ""
        self._at_start = not begun  # of the text or of the part: white space goes
        self._may_open = not inside and not begun
        self._apart = apart
        self._tagged = begun and inside  # the last part was reasoning that is content

    def push(self, text: str) -> list[Part]:
        """The parts that are certain."""
        text = self._rest + text
        self._rest = ""
        if self._may_open:
            begin = text.lstrip()
            if _OPEN.startswith(begin):
                self._rest = text
                if begin != _OPEN:
                    return []
            self._may_open = False
            if begin.startswith(_OPEN):
                self.reasoning, text, self._rest = True, begin.removeprefix(_OPEN), ""
            else:
                self._at_start = False  # a plain answer stays as it is
        return self._split(text)

    def flush(self) -> list[Part]:
        """The last part, when the text has ended."""
        rest, self._rest = self._rest, ""
        if self.reasoning:
            rest = rest.rstrip()
        return self._part(rest)

    def _split(self, text: str) -> list[Part]:
        if self._at_start:
            text = text.lstrip()
            self._at_start = not text
        if not self.reasoning:
            return self._part(text)
        before, tag, after = text.partition(CLOSE)
        if tag:
            parts = self._part(before.rstrip())
            self.reasoning, self._at_start = False, True
            return parts + self._split(after)
        certain = text[: len(text) - held_back(text, [CLOSE])].rstrip()
        self._rest = text[len(certain) :]
        return self._part(certain)

    def _part(self, text: str) -> list[Part]:
        if not text:
            return []
        if self._apart:
            return [("reasoning_content" if self.reasoning else "content", text)]
        tag = ""
        if self.reasoning != self._tagged:
            tag = f"{_OPEN}\n" if self.reasoning else f"\n{CLOSE}\n\n"
        self._tagged = self.reasoning
        return [("content", tag + text)]
