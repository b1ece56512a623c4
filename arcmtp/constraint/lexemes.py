"""Rules of characters as a grammar over terminals, which llguidance wants.

llguidance's lexer takes the longest terminal that it can, and begins the next one only where none goes on. So a part of
a grammar becomes a terminal only if it has no recursion, and if no character that may follow it could also continue it.
What is left are rules of single characters, whose masks take some hundred times as long. Where two terminals begin in
the same way llguidance may not take every text of the grammar; it never takes any other.
"""

from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

from arcmtp.constraint.gbnf import Characters, Choice, Node, Ranges, Reference, Repeat, Sequence
from arcmtp.constraint.positions import TooComplex, continuing
from arcmtp.errors import ArcmtpError, shown

MAX_RULES = 500
STEPS = 300_000  # for finding what can continue the terminals of a grammar; about a second

_SIGNS = {(0, None): "*", (1, None): "+", (0, 1): "?"}


def lark_of(rules: Mapping[str, Node], name: str) -> str:
    """Lark of the rules that a text's rule `root` needs. ArcmtpError, which begins with `name`, for a rule that is not
    defined."""
    if len(rules) > MAX_RULES:
        raise ArcmtpError(f"{name}: it has {len(rules)} rules; it may have {MAX_RULES}")
    for node in rules.values():
        for rule in references(node):
            if rule not in rules:
                raise ArcmtpError(f"{name}: the rule {shown(rule)} is not defined")
    try:
        return _Writer(rules).text()
    except RecursionError:
        raise ArcmtpError(f"{name}: its rules are nested too deeply") from None


def references(node: Node) -> set[str]:
    """The rules that a node refers to itself."""
    match node:
        case Reference():
            return {node.rule}
        case Repeat():
            return references(node.item)
        case _:
            return set[str]().union(*map(references, children(node)))


def children(node: Node) -> tuple[Node, ...]:
    """The parts of a sequence or choice."""
    return node.items if isinstance(node, Sequence) else node.options if isinstance(node, Choice) else ()


class _Facts:
    """What may begin and follow the rules. Sets of characters are bits, one for each interval of code points between
    which the grammar does not distinguish."""

    def __init__(self, rules: Mapping[str, Node]) -> None:
        self.rules = rules
        begins = {begin for node in rules.values() for low, high in _ranges(node) for begin in (low, high + 1)}
        self._begins = sorted(begins)
        self.regular = self._without_recursion()
        self.nullable = set[str]()
        self.first = dict.fromkeys(rules, 0)
        self.follow = dict.fromkeys(rules, 0)
        self._find_first()
        self._find_follow()

    def bits(self, characters: Characters) -> int:
        """The intervals of some characters."""
        found = 0
        for low, high in characters.ranges:
            begin, end = self._index[low], self._index[high + 1]
            found |= (1 << end) - (1 << begin)
        return found

    @cached_property
    def _index(self) -> dict[int, int]:
        return {begin: index for index, begin in enumerate(self._begins)}

    def is_regular(self, node: Node) -> bool:
        return references(node) <= self.regular

    def is_nullable(self, node: Node) -> bool:
        match node:
            case Characters():
                return False
            case Reference():
                return node.rule in self.nullable
            case Repeat():
                return node.low == 0 or self.is_nullable(node.item)
            case Sequence():
                return all(map(self.is_nullable, node.items))
            case Choice():
                return any(map(self.is_nullable, node.options))

    def first_of(self, node: Node) -> int:
        match node:
            case Characters():
                return self.bits(node)
            case Reference():
                return self.first[node.rule]
            case Repeat():
                return self.first_of(node.item)
            case Sequence():
                found = 0
                for item in node.items:
                    found |= self.first_of(item)
                    if not self.is_nullable(item):
                        break
                return found
            case Choice():
                found = 0
                for option in node.options:
                    found |= self.first_of(option)
                return found

    def with_follow(self, node: Node, follow: int) -> list[tuple[Node, int]]:
        """The parts of a node, and what may follow each."""
        match node:
            case Sequence():
                parts = list[tuple[Node, int]]()
                for item in reversed(node.items):
                    parts.append((item, follow))
                    follow = self.first_of(item) | (follow if self.is_nullable(item) else 0)
                return parts[::-1]
            case Choice():
                return [(option, follow) for option in node.options]
            case Repeat():
                once = node.high is not None and node.high <= 1
                return [(node.item, follow if once else follow | self.first_of(node.item))]
            case _:
                return []

    def _without_recursion(self) -> set[str]:
        sorter = TopologicalSorter({rule: references(node) for rule, node in self.rules.items()})
        with suppress(CycleError):  # it still gives the rules that need no rule of a cycle
            sorter.prepare()
        found = set[str]()
        while ready := sorter.get_ready():
            found.update(ready)
            sorter.done(*ready)
        return found

    def _find_first(self) -> None:
        changed = True
        while changed:
            changed = False
            for rule, node in self.rules.items():
                first, nullable = self.first_of(node), self.is_nullable(node)
                if first != self.first[rule] or nullable != (rule in self.nullable):
                    self.first[rule], changed = first, True
                    self.nullable |= {rule} if nullable else set()

    def _find_follow(self) -> None:
        changed = True
        while changed:
            changed = False
            for rule, node in self.rules.items():
                open_parts = [(node, self.follow[rule])]
                while open_parts:
                    part, follow = open_parts.pop()
                    if isinstance(part, Reference) and follow & ~self.follow[part.rule]:
                        self.follow[part.rule] |= follow
                        changed = True
                    open_parts += self.with_follow(part, follow)


class _Writer:
    def __init__(self, rules: Mapping[str, Node]) -> None:
        self._facts = _Facts(rules)
        self._names = {rule: f"r{index}" for index, rule in enumerate(rules)}
        self._lines = dict[str, str]()
        self._wanted = list[str]()  # rules of characters that are not written yet
        self._steps = STEPS

    def text(self) -> str:
        root = Reference("root")
        self._lines["start"] = self._rule_text(root, 0)
        while self._wanted:
            rule = self._wanted.pop()
            if self._names[rule] not in self._lines:
                self._lines[self._names[rule]] = ""  # it may refer to itself
                self._lines[self._names[rule]] = self._rule_text(self._facts.rules[rule], self._facts.follow[rule])
        return "%llguidance {}\n" + "".join(f"{name}: {text}\n" for name, text in self._lines.items())

    def _rule_text(self, node: Node, follow: int) -> str:
        """A node as an expression of rules: a terminal if it may be one."""
        if isinstance(node, Characters):
            return _class(node.ranges)
        if self._facts.is_regular(node) and not follow & self._continuing(node):
            return self._terminal(node)
        if isinstance(node, Reference):
            self._wanted.append(node.rule)
            return self._names[node.rule]
        parts = [self._rule_text(part, after) for part, after in self._facts.with_follow(node, follow)]
        return _joined(node, parts)

    def _continuing(self, node: Node) -> int:
        try:
            found, steps = continuing(node, self._facts.rules, self._facts.bits, self._steps)
        except TooComplex:
            return -1
        self._steps -= steps
        return found

    def _terminal(self, node: Node) -> str:
        """The name of a terminal for a node."""
        if isinstance(node, Reference):
            name = self._names[node.rule].upper()
            if name not in self._lines:
                self._lines[name] = self._terminal_text(self._facts.rules[node.rule])
            return name
        text = self._terminal_text(node)
        name = next((name for name, line in self._lines.items() if line == text and name.startswith("L")), "")
        if not name:
            name = f"L{len(self._lines)}"
            self._lines[name] = text
        return name

    def _terminal_text(self, node: Node) -> str:
        match node:
            case Characters():
                return _class(node.ranges)
            case Reference():
                return self._terminal(node)
            case Repeat():
                return _joined(node, [self._terminal_text(node.item)])
            case _:
                return _joined(node, [self._terminal_text(part) for part in children(node)])


def _joined(node: Node, parts: list[str]) -> str:
    match node:
        case Repeat(high=0):
            return '""'
        case Repeat():
            return f"({parts[0]}){_SIGNS.get((node.low, node.high)) or _bounds(node)}"
        case Choice():
            return f"({' | '.join(parts)})"
        case _:
            return " ".join(parts) or '""'


def _bounds(node: Repeat) -> str:
    return f"{{{node.low},{'' if node.high is None else node.high}}}"


def _class(ranges: Ranges) -> str:
    return f"/[{''.join(f'{_code(low)}-{_code(high)}' for low, high in ranges)}]/"


def _code(point: int) -> str:
    return f"\\u{{{point:x}}}"


def _ranges(node: Node) -> Ranges:
    match node:
        case Characters():
            return node.ranges
        case Repeat():
            return _ranges(node.item)
        case _:
            return tuple(one for part in children(node) for one in _ranges(part))
