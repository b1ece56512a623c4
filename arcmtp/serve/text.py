"""Generated text cut at stop strings and split into reasoning and content, whatever pieces it arrives in."""

from collections.abc import Sequence
from typing import Literal

_OPEN, _CLOSE = "<think>", "</think>"

Part = tuple[Literal["reasoning_content", "content"], str]


def held_back(text: str, marks: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the beginning of one of `marks`."""
    longest = max(map(len, marks), default=1) - 1
    for count in range(min(longest, len(text)), 0, -1):
        if any(mark.startswith(text[-count:]) for mark in marks):
            return count
    return 0


class StopStrings:
    """Cuts text before the stop string that is complete first; nothing of it ever leaks.

    >>> stop = StopStrings(["END"])
    >>> stop.push("one E"), stop.push("N"), stop.push("D two"), stop.found
    ('one ', '', '', True)
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = list(strings)
        self._rest = ""
        self.found = False

    def push(self, text: str) -> str:
        """What of the text so far is certain to come before any stop string."""
        if self.found:
            return ""
        text = self._rest + text
        ends = [(text.index(s) + len(s), text.index(s)) for s in self._strings if s in text]
        if ends:
            self.found, self._rest = True, ""
            return text[: min(ends)[1]]
        return self._keep(text, held_back(text, self._strings))

    def flush(self) -> str:
        """What was held back, when the text has ended."""
        rest, self._rest = self._rest, ""
        return rest

    def _keep(self, text: str, count: int) -> str:
        self._rest = text[len(text) - count :]
        return text[: len(text) - count]


class ReasoningSplitter:
    """Splits a text that may start inside `<think>` at `</think>`, without the white space around the tags.

    >>> splitter = ReasoningSplitter(inside=True)
    >>> splitter.push("Hm.\\n</think>\\n\\nYes.")
    [('reasoning_content', 'Hm.'), ('content', 'Yes.')]
    """

    def __init__(self, inside: bool) -> None:
        """inside: the prompt has opened the reasoning; otherwise the text may begin with `<think>` itself."""
        self.reasoning = inside
        self._rest = ""
        self._at_start = True  # of the text or of the part: white space goes
        self._may_open = not inside

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
        before, tag, after = text.partition(_CLOSE)
        if tag:
            parts = self._part(before.rstrip())
            self.reasoning, self._at_start = False, True
            return parts + self._split(after)
        certain = text[: len(text) - held_back(text, [_CLOSE])].rstrip()
        self._rest = text[len(certain) :]
        return self._part(certain)

    def _part(self, text: str) -> list[Part]:
        return [("reasoning_content" if self.reasoning else "content", text)] if text else []
