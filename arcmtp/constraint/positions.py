"""Which characters can continue a text that is complete already: by the position automaton of a regular expression
(V. M. Glushkov, The abstract theory of automata, 1961), made deterministic."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from arcmtp.constraint.gbnf import Characters, Choice, Node, Reference, Repeat, Sequence

MAX_POSITIONS = 400
MAX_PARTS = 4000
_COPIES = 8  # a part that is repeated so often, and no other number of times, is written out


class TooComplex(Exception):
    """An expression of more positions, or an automaton of more steps, than there may be."""


@dataclass
class _Part:
    """nullable; the positions that may begin and end it."""

    nullable: bool
    first: frozenset[int]
    last: frozenset[int]


_EMPTY = _Part(True, frozenset(), frozenset())


@dataclass
class _Positions:
    """Places of characters in an expression: the characters of each, and the places that may come next."""

    rules: Mapping[str, Node]
    bits: Callable[[Characters], int]
    characters: list[int] = field(default_factory=list)
    follow: list[set[int]] = field(default_factory=list)
    parts: int = 0

    def of(self, node: Node) -> _Part:
        self.parts += 1
        if self.parts > MAX_PARTS or len(self.characters) > MAX_POSITIONS:
            raise TooComplex
        match node:
            case Characters():
                self.characters.append(self.bits(node))
                self.follow.append(set())
                place = frozenset({len(self.characters) - 1})
                return _Part(False, place, place)
            case Reference():
                return self.of(self.rules[node.rule])
            case Sequence():
                return self._sequence(node.items)
            case Choice():
                parts = [self.of(option) for option in node.options]
                return _Part(
                    any(part.nullable for part in parts),
                    frozenset().union(*(part.first for part in parts)),
                    frozenset().union(*(part.last for part in parts)),
                )
            case Repeat():
                return self._repeat(node)

    def _sequence(self, items: tuple[Node, ...]) -> _Part:
        whole = _EMPTY
        for item in items:
            part = self.of(item)
            for place in whole.last:
                self.follow[place] |= part.first
            whole = _Part(
                whole.nullable and part.nullable,
                whole.first | part.first if whole.nullable else whole.first,
                whole.last | part.last if part.nullable else part.last,
            )
        return whole

    def _repeat(self, node: Repeat) -> _Part:
        if node.high == 0:
            return _EMPTY
        if node.low == node.high and node.low <= _COPIES:
            return self._sequence((node.item,) * node.low)
        part = self.of(node.item)
        if node.high != 1:  # as often as one likes: more can continue it then, never less
            for place in part.last:
                self.follow[place] |= part.first
        return _Part(part.nullable or node.low == 0, part.first, part.last)


def continuing(
    node: Node, rules: Mapping[str, Node], bits: Callable[[Characters], int], steps: int
) -> tuple[int, int]:
    """The characters, as `bits`, that may come after a whole text of a node within a longer one, or more than these;
    and the steps that finding them has taken. Raises TooComplex for more than `steps`."""
    positions = _Positions(rules, bits)
    whole = positions.of(node)
    begin = frozenset({-1})
    known, open_states, found, taken = {begin}, [begin], 0, 0
    while open_states:
        state = open_states.pop()
        places = set[int]().union(*(whole.first if place < 0 else positions.follow[place] for place in state))
        union = 0
        for place in places:
            union |= positions.characters[place]
        if (whole.nullable and state == begin) or state & whole.last:
            found |= union
        rest = union
        while rest:
            bit = rest & -rest
            reached = frozenset(place for place in places if positions.characters[place] & bit)
            alike = union
            for place in places:  # the characters that lead to the same places
                one = positions.characters[place]
                alike &= one if place in reached else ~one
            rest &= ~alike
            taken += len(places)
            if reached not in known:
                known.add(reached)
                open_states.append(reached)
        if taken > steps:
            raise TooComplex
    return found, taken
