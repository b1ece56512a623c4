"""One instruction in every way the kernels execute it, over random lanes, against its description of a lane."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np

from tests.emulator.forms import LANES
from tests.emulator.machine import FLAGS, REGISTER, REGISTERS, State, run
from tests.emulator.values import DTYPES, held, immediate, is_float, same, size, values

GROUPS = 64
MOST_LANES = 32
MOST_BYTES = 128  # an operand lies in at most two registers
SOURCES = (10, 14, 18)  # registers
FIRST_TARGET, TARGET_STRIDE = 24, 4
# As every kernel begins: rounding to nearest, denormals are kept.
KEEP_DENORMALS = (
    "and (1|M0) cr0.0<1>:ud cr0.0<0;1,0>:ud -1073743089:d",
    "or (1|M0) cr0.0<1>:ud cr0.0<0;1,0>:ud 1073743040:d",
)
Lane = Callable[..., Any]


@dataclass(frozen=True)
class Way:
    """How an instruction is executed: on how many channels, under which predicate, which sources are not registers."""

    lanes: int
    predicate: str = ""
    scalar: int | None = None  # this source is one element for all channels
    immediate: int | None = None  # this source is a number

    def prefix(self) -> str:
        return f"({self.predicate}) " if self.predicate else ""

    def enabled(self, flags: np.ndarray) -> np.ndarray:
        """[groups, lanes] of flags [groups, 4], f0 to f3: the channels that write."""
        name = self.predicate.lstrip("~")
        if not name:
            return np.ones((len(flags), self.lanes), bool)
        bits = flags[:, int(name[1]), None] >> np.arange(self.lanes) + 16 * int(name[3])
        return (bits & 1 == 1) != self.predicate.startswith("~")


PLAIN = tuple(map(Way, LANES))
PREDICATED = (
    Way(1, "f0.0"), Way(4, "~f1.1"), Way(8, "f2.1"), Way(16, "f0.1"), Way(16, "~f3.0"), Way(16, "f3.1"),
    Way(32, "f1.0"), Way(32, "~f2.0"),
)  # fmt: skip


def ways_of(kinds: list[str]) -> list[Way]:
    """All that these types allow: immediates have 16 bits in instructions of three sources, where not the second."""
    sources = kinds[1:]
    positions = (0, 2) if len(sources) == 3 else (len(sources) - 1,)
    most = 2 if len(sources) == 3 else 4
    numbers = [i for i in positions if 1 < size(sources[i]) <= most]
    ways = (
        *PLAIN, *PREDICATED, *(Way(16, scalar=i) for i in range(len(sources))),
        *(Way(lanes, immediate=i) for i in numbers for lanes in (1, 16)),
    )  # fmt: skip
    return [way for way in ways if way.lanes * max(map(size, kinds)) <= MOST_BYTES]


@dataclass
class Inputs:
    """A state whose source registers hold random lanes, whose other registers hold noise and flags any bits."""

    kinds: list[str]  # of the sources
    seed: str
    state: State = field(default_factory=lambda: State(GROUPS))
    lanes: list[np.ndarray] = field(init=False)  # of each source: [groups, most lanes]
    flags: np.ndarray = field(init=False)  # [groups, 4], as they were

    def __post_init__(self) -> None:
        rng = np.random.default_rng(crc32(self.seed.encode()))
        registers, special = self.state.registers, self.state.special
        registers[:] = rng.integers(256, size=registers.shape, dtype=np.uint8)
        self.flags = rng.integers(2**32, size=(GROUPS, 4), dtype=np.uint32)
        special[:, 0, FLAGS : FLAGS + 16] = self.flags.view(np.uint8)
        self.lanes = [values(rng, kind, (GROUPS, MOST_LANES)) for kind in self.kinds]
        self.put()

    def put(self) -> None:
        for register, lanes in zip(SOURCES, self.lanes, strict=False):
            self.state.put(REGISTER * register, lanes[:, None])

    def operands(self, way: Way, modifiers: tuple[str, ...] = ()) -> tuple[str, list[np.ndarray]]:
        """The sources' text, and their values, [groups, lanes] each."""
        texts, arguments = [], []
        of_three = len(self.kinds) == 3
        for index, (register, kind, lanes) in enumerate(zip(SOURCES, self.kinds, self.lanes, strict=False)):
            if index == way.immediate:
                texts.append(immediate(lanes[0, 0], kind))
                arguments.append(np.full((GROUPS, way.lanes), lanes[0, 0]))
                continue
            step = 0 if way.lanes == 1 or way.scalar == index else 1
            region = f"<{step};1,0>" if not of_three else f"<{step};0>" if index < 2 else f"<{step}>"
            sign = modifiers[index] if modifiers else ""
            texts.append(f"{sign}r{register}.0{region}:{kind}")
            read = lanes[:, [0] * way.lanes] if way.scalar == index else lanes[:, : way.lanes]
            arguments.append(modified(read, sign))
        return " ".join(texts), arguments


def check(
    opcode: str,
    form: str,
    lane: Lane,
    ways: Iterable[Way] | None = None,
    modifiers: tuple[str, ...] = (),
    prologue: Iterable[str] = (),
    epilogue: Iterable[str] = (),
    beside: str = "",
) -> None:
    """`lane` maps the values of a lane's sources to the target's; integers are wrapped to the target's type.

    Of the targets, channels that are not enabled and bytes behind the last one must stay as they were. `modifiers` are
    written in front of the sources, `beside` in front of the target. No instruction may write flags.
    """
    target, *kinds = form.split(",")
    chosen = list(ways_of([target, *kinds]) if ways is None else ways)
    inputs = Inputs(kinds, f"{opcode} {form} {modifiers} {beside}")
    state, dtype = inputs.state, DTYPES[target]
    before = state.registers.copy()
    places = [FIRST_TARGET + TARGET_STRIDE * number for number in range(len(chosen))]
    assert places[-1] + TARGET_STRIDE <= REGISTERS
    lines, seen = [], []
    for place, way in zip(places, chosen, strict=True):
        operands, arguments = inputs.operands(way, modifiers)
        lines.append(f"{way.prefix()}{opcode} ({way.lanes}|M0) {beside}r{place}.0<1>:{target} {operands}")
        seen.append(arguments)
    run([*prologue, *lines, *epilogue], state)

    assert (state.special[:, 0, FLAGS : FLAGS + 16] == inputs.flags.view(np.uint8)).all(), "flags are written"
    of_registers = of_lanes(lane, inputs.operands(Way(MOST_LANES), modifiers)[1], target)
    for line, place, way, arguments in zip(lines, places, chosen, seen, strict=True):
        area = slice(place, place + TARGET_STRIDE)
        expected = before[:, 0, area].reshape(GROUPS, -1).view(dtype)
        enabled = way.enabled(inputs.flags)
        from_registers = way.scalar is None and way.immediate is None
        results = of_registers[:, : way.lanes] if from_registers else of_lanes(lane, arguments, target)
        expected[:, : way.lanes][enabled] = results[enabled]
        expect(line, state.registers[:, 0, area].reshape(GROUPS, -1).view(dtype), expected, arguments)


def modified(data: np.ndarray, sign: str) -> np.ndarray:
    """As Python numbers, so that the negative of the least integer is itself no such integer."""
    wide = data.astype(object) if data.dtype.kind in "iu" else data
    if "(abs)" in sign:
        wide = abs(wide)
    return -wide if "-" in sign else ~wide if "~" in sign else wide


def of_lanes(lane: Lane, arguments: list[np.ndarray], kind: str) -> np.ndarray:
    """The lanes' values, [groups, lanes]."""
    with np.errstate(all="ignore"):
        if is_float(kind):
            results = [lane(*each) for each in zip(*(a.flat for a in arguments), strict=True)]
        else:
            integers = (
                tuple(v if isinstance(v, np.floating) else int(v) for v in each)
                for each in zip(*(a.flat for a in arguments), strict=True)
            )
            results = [held(int(lane(*each)), kind) for each in integers]
        return np.array(results, DTYPES[kind]).reshape(arguments[0].shape)


def expect(what: str, got: np.ndarray, expected: np.ndarray, arguments: list[np.ndarray]) -> None:
    wrong = np.argwhere(~same(got, expected))
    if len(wrong):
        at = tuple(wrong[0])
        inputs = [a[at] for a in arguments] if at[1] < arguments[0].shape[1] else "nothing"
        raise AssertionError(f"{what}: {len(wrong)} differ; lane {at[1]} of {inputs} is {got[at]}, not {expected[at]}")
