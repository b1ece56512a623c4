"""Stop strings: generated text is cut before them, whatever pieces it arrives in."""

from collections.abc import Sequence


def held_back(text: str, marks: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the beginning of one of `marks`."""
    longest = max(map(len, marks), default=1) - 1
    begins = {mark[0] for mark in marks}
    for count in range(min(longest, len(text)), 0, -1):
        if text[-count] in begins and any(mark.startswith(text[-count:]) for mark in marks):
            return count
    return 0


class StopStrings:
    """Cuts text before the stop string that is complete first; no part of a stop string ever leaks.

    >>> stop = StopStrings(["END"])
    >>> stop.push("one E"), stop.push("N"), stop.push("D two"), stop.found
    ('one ', '', '', True)
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = list(strings)
        self._rest = ""
        self.string: str | None = None  # that was found

    @property
    def found(self) -> bool:
        """Whether a stop string was complete."""
        return self.string is not None

    def push(self, text: str) -> str:
        """What of the text so far is certain to come before any stop string."""
        if self.found:
            return ""
        text = self._rest + text
        ends = [(text.index(s) + len(s), text.index(s), s) for s in self._strings if s in text]
        if ends:
            self._rest = ""
            _, start, self.string = min(ends)
            return text[:start]
        return self._keep(text, held_back(text, self._strings))

    def flush(self) -> str:
        """What was held back, when the text has ended."""
        rest, self._rest = self._rest, ""
        return rest

    def _keep(self, text: str, count: int) -> str:
        self._rest = text[len(text) - count :]
        return text[: len(text) - count]
