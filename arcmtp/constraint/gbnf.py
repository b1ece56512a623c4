"""llama.cpp's GBNF, read as its grammar parser reads it.

Source: grammars/README.md and src/llama-grammar.cpp of llama.cpp.
"""

from dataclasses import dataclass
from typing import NoReturn

from arcmtp.errors import ArcmtpError, shown

LAST = 0x10FFFF
MAX_DEPTH = 64  # of parentheses
MAX_REPEATS = 2000  # llama.cpp's
Ranges = tuple[tuple[int, int], ...]  # of code points, ends included
_ESCAPES = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]"}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}


@dataclass(frozen=True)
class Characters:
    """One character of some."""

    ranges: Ranges


@dataclass(frozen=True)
class Sequence:
    items: tuple["Node", ...]


@dataclass(frozen=True)
class Choice:
    options: tuple["Node", ...]


@dataclass(frozen=True)
class Repeat:
    """high: None for any number."""

    item: "Node"
    low: int
    high: int | None


@dataclass(frozen=True)
class Reference:
    rule: str


Node = Characters | Sequence | Choice | Repeat | Reference


def parse(text: str, name: str) -> dict[str, Node]:
    """The rules of a grammar by their names. ArcmtpError, which begins with `name` and names the line."""
    return _Parser(text, name).rules()


def complement(ranges: Ranges) -> Ranges:
    """All other characters; surrogates are none."""
    others, begin = list[tuple[int, int]](), 0
    for low, high in sorted([*ranges, (0xD800, 0xDFFF), (LAST + 1, LAST + 1)]):
        if low > begin:
            others.append((begin, low - 1))
        begin = max(begin, high + 1)
    return tuple(others)


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self._text, self._name, self._at = text, name, 0

    def rules(self) -> dict[str, Node]:
        found = dict[str, Node]()
        self._space(lines=True)
        while self._next:
            rule = self._word("the name of a rule")
            self._space()
            if not self._take("::="):
                self._fail("'::='")
            self._space(lines=True)
            found[rule] = self._choice(0)
            if self._next not in ("\n", "\r", ""):
                self._fail("the end of the line")
            self._space(lines=True)
        if "root" not in found:
            raise ArcmtpError(f"{self._name}: there is no rule root")
        return found

    @property
    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, text: str) -> bool:
        taken = self._text.startswith(text, self._at)
        self._at += len(text) * taken
        return taken

    def _fail(self, expected: str) -> NoReturn:
        line = self._text.count("\n", 0, self._at) + 1
        found = shown(self._text[self._at : self._at + 10]) if self._next else "the end"
        raise ArcmtpError(f"{self._name}: line {line}: expected {expected}, found {found}")

    def _space(self, lines: bool = False) -> None:
        """White space and comments; ends of lines only with `lines`."""
        while self._next and self._next in (" \t\r\n#" if lines else " \t#"):
            if self._next == "#":
                while self._next not in ("\n", "\r", ""):
                    self._at += 1
            else:
                self._at += 1

    def _word(self, expected: str) -> str:
        begin = self._at
        while self._next.isascii() and (self._next.isalnum() or self._next in ("-", "_")):
            self._at += 1
        if begin == self._at:
            self._fail(expected)
        return self._text[begin : self._at]

    def _choice(self, depth: int) -> Node:
        """Alternatives, within `depth` parentheses."""
        if depth > MAX_DEPTH:
            self._fail(f"at most {MAX_DEPTH} parentheses within each other")
        options = [self._sequence(depth)]
        while self._take("|"):
            self._space(lines=True)
            options.append(self._sequence(depth))
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _sequence(self, depth: int) -> Node:
        items = list[Node]()
        while self._next not in ("|", ")", "\n", "\r", ""):
            item = self._item(depth)
            self._space(lines=depth > 0)
            if self._next and self._next in "*+?{":
                item = self._repeated(item)
                self._space(lines=depth > 0)
            items.append(item)
        return items[0] if len(items) == 1 else Sequence(tuple(items))

    def _item(self, depth: int) -> Node:
        if self._take('"'):
            return self._literal()
        if self._take("["):
            return self._class()
        if self._take("."):
            return Characters(complement(()))
        if self._take("("):
            self._space(lines=True)
            group = self._choice(depth + 1)
            if not self._take(")"):
                self._fail("')'")
            return group
        return Reference(self._word("a literal, a class, a rule, '.' or '('"))

    def _repeated(self, item: Node) -> Node:
        for sign, low, high in (("*", 0, None), ("+", 1, None), ("?", 0, 1)):
            if self._take(sign):
                return Repeat(item, low, high)
        self._take("{")
        low, high = self._number(), None
        if self._take(","):
            self._space()
            high = self._number() if self._next.isdecimal() else None
        else:
            high = low
        if not self._take("}"):
            self._fail("'}'")
        if high is not None and high < low:
            self._fail(f"a second number of at least {low}")
        return Repeat(item, low, high)

    def _number(self) -> int:
        self._space()
        begin = self._at
        while self._next.isascii() and self._next.isdecimal() and self._at < begin + 9:
            self._at += 1
        digits = self._text[begin : self._at]
        if not digits or int(digits) > MAX_REPEATS:
            self._fail(f"a number up to {MAX_REPEATS}")
        self._space()
        return int(digits)

    def _literal(self) -> Node:
        items = list[Node]()
        while not self._take('"'):
            code = self._character()
            items.append(Characters(((code, code),)))
        return Sequence(tuple(items))

    def _class(self) -> Node:
        negated, ranges = self._take("^"), list[tuple[int, int]]()
        while not self._take("]"):
            low = high = self._character()
            if self._next == "-" and self._text[self._at + 1 : self._at + 2] != "]":
                self._at += 1
                high = self._character()
            if high < low:
                self._fail("a range that ends behind its begin")
            ranges.append((low, high))
        if not ranges:
            self._fail("a character in '[]'")
        return Characters(complement(tuple(ranges)) if negated else complement(complement(tuple(ranges))))

    def _character(self) -> int:
        if self._next in ("", "\n"):
            self._fail("a character")
        if not self._take("\\"):
            self._at += 1
            return ord(self._text[self._at - 1])
        kind = self._next
        self._at += 1
        if kind in _ESCAPES:
            return ord(_ESCAPES[kind])
        digits = self._text[self._at : self._at + _HEX_DIGITS.get(kind, 0)]
        if len(digits) != _HEX_DIGITS.get(kind) or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
            self._at -= 1
            self._fail("an escape: one of \\x \\u \\U with 2, 4 or 8 digits, \\t \\r \\n \\\\ \\\" \\[ \\]")
        self._at += len(digits)
        if (code := int(digits, 16)) > LAST:
            self._fail("a code point of Unicode")
        return code
