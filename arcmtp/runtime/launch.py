"""Launches as data: a kernel with its parameters declared by name and type, and the arguments it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from arcmtp.runtime.memory import Buffer, Pointer
from arcmtp.runtime.tensor import I32, U8, DType, Kind, Tensor

Argument = Tensor | Buffer | Pointer | int | float


@dataclass(frozen=True)
class Parameter:
    """A kernel's parameter: a pointer to elements of `dtype` that it reads or writes, or, without one, a number."""

    cpp: str
    dtype: DType | None = None
    written: bool = False

    def wrong(self, argument: Argument) -> str:
        """What is wrong about an argument, or ""."""
        if self.dtype is None:
            number: type = int if self.cpp == "int" else float
            return "" if type(argument) is number else f"is {argument!r}, expected one {self.cpp}"
        if isinstance(argument, Tensor):
            if argument.dtype is not self.dtype:
                return f"is {argument.name} of {argument.dtype}, expected {self.dtype}"
            if self.written and argument.region.kind is Kind.WEIGHTS:
                return f"is {argument.name}, and weights are never written"
            return ""
        return "" if isinstance(argument, Buffer | Pointer) else f"is {argument!r}, expected a tensor of {self.dtype}"


INT, FLOAT = Parameter("int"), Parameter("float")
ASK_BYTES = 256  # of a message that asks memory for something
Parameters = tuple[tuple[str, Parameter], ...]
Agreement = tuple[tuple[str, int | float], ...]  # C++ constants, by expression, and their values


def reads(dtype: DType) -> Parameter:
    """Elements that a kernel reads."""
    return Parameter(f"const {dtype} *", dtype)


def writes(dtype: DType) -> Parameter:
    """Elements that a kernel writes, and may have read."""
    return Parameter(f"{dtype} *", dtype, written=True)


def parameters(**by_name: Parameter) -> Parameters:
    """A kernel's parameters in order."""
    return tuple(by_name.items())


@dataclass(frozen=True)
class Kernel:
    """One kernel: an entry point around a template of `header`, compiled for one set of shapes.

    `call` is a C++ expression with the template's arguments; the kernel's own parameters follow it in order, unless
    `body` holds the statements. `team` is the work-items of a work-group (a work-item is one hardware thread holding
    vectors), `team_memory` the bytes of shared local memory that the body reserves, `registers` those of a thread: 128
    or 256. `agree`: C++ constants and the values that Python takes for them; the kernel does not compile where they
    differ. `includes`: headers besides `header`. `at_last`: as `call`, but the work is done by the last work-group of
    another kernel of the same team, whose number of work-groups and counter of arrivals come first; its header includes
    this one's.
    """

    operator: str
    variant: str  # tells it from the operator's other kernels
    header: str
    parameters: Parameters
    call: str = ""
    body: str = ""
    team: int = 1
    team_memory: int = 0
    registers: int = 128
    agree: Agreement = ()
    includes: tuple[str, ...] = ()
    at_last: str = ""

    @property
    def name(self) -> str:
        """The entry point's name."""
        return f"{self.operator}_{self.variant}".rstrip("_")

    @property
    def knows_sequences(self) -> bool:
        """Whether it is told which sequences its rows belong to."""
        return any(name == "slots" for name, _ in self.parameters)

    @property
    def guarded(self) -> Kernel:
        """The kernel that does the same if `guard[0]` is not 0, and otherwise nothing: no work-item of it comes to a
        barrier or a counter."""
        guard, body = parameters(guard=reads(I32)), f"if (guard[0] == 0)\n        return;\n    {self._work}"
        return replace(
            self, variant=f"{self.variant}_guarded".lstrip("_"), parameters=(*self.parameters, *guard), body=body
        )

    def then(self, following: Kernel, groups: int) -> Kernel:
        """The kernel, of which the last of `groups` work-groups then does the work of `following`. Parameters of this
        are called `then_…`; `arrivals`: an i32 that is zero between launches."""
        names = [f"then_{name}" for name, _ in following.parameters]
        renamed = zip(names, (parameter for _, parameter in following.parameters), strict=True)
        return replace(
            self,
            variant=f"{self.variant}_{following.variant}",
            parameters=(*self.parameters, *renamed, *parameters(arrivals=writes(I32))),
            body=f"{self._work}\n    {following.at_last}({groups}, arrivals, {', '.join(names)});",
            agree=tuple(dict.fromkeys((*self.agree, *following.agree))),
        )

    @property
    def asking(self) -> Kernel:
        """The kernel, whose threads then ask memory for the first `ahead_bytes` of `ahead`, whole messages."""
        return replace(
            self,
            variant=f"{self.variant}_asks".lstrip("_"),
            parameters=(*self.parameters, *parameters(ahead=reads(U8), ahead_bytes=INT)),
            body=f"{self._work}\n    ask_ahead<{self.team}>(ahead, ahead_bytes);",
            agree=(*self.agree, ("ASK_BYTES", ASK_BYTES)),
            includes=(*self.includes, "ahead.hpp"),
        )

    @property
    def statements(self) -> str:
        """The body of its entry point."""
        checks = (f"static_assert({constant} == {_literal(value)});" for constant, value in self.agree)
        return "\n    ".join((*checks, self._work))

    @property
    def _work(self) -> str:
        names = ", ".join(name for name, _ in self.parameters)
        return self.body or f"{self.call}({names.replace('batch_size, slots', '{batch_size, slots}')});"

    def source(self, packed: bool) -> str:
        """Its entry point; `packed` makes the parameters members of a struct, the only parameter then."""
        declared = [f"{parameter.cpp} {name}" for name, parameter in self.parameters]
        entry = "ARCMTP_KERNEL" if self.registers == 128 else f"ARCMTP_KERNEL_{self.registers}"
        if not packed:
            return f"{entry}({self.name})({', '.join(declared)}) {{\n    {self.statements}\n}}\n"
        arguments, names = f"{self.name}_arguments", ", ".join(name for name, _ in self.parameters)
        return (
            f"struct {arguments} {{ {'; '.join(declared)}; }};\n"
            f"{entry}({self.name})({arguments} arguments) {{\n"
            f"    const auto [{names}] = arguments;\n    {self.statements}\n}}\n"
        )


@dataclass(frozen=True)
class Cost:
    """What a launch must do at least: bytes to move and operations to do (ops/cost.py).

    units: what the instructions of its kernel grow with, by the format of weights or of keys, or by what they are:
    passes of products over tiles of weights, operations of attention. None: operations.
    """

    nbytes: int
    operations: int = 0
    units: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: Cost) -> Cost:
        units = dict(self.units)
        for form, count in other.units.items():
            units[form] = units.get(form, 0) + count
        return Cost(self.nbytes + other.nbytes, self.operations + other.operations, units)


@dataclass(frozen=True)
class Work:
    """What a launch runs on: its rows, how many keys the last row sees, how many routed experts a layer uses."""

    rows: int
    context: int
    experts: float


@dataclass(frozen=True)
class Launch:
    """One launch of a step: a kernel, the arguments that it is given by name, what it costs, and what it serves for.

    rows: of all sequences, or 0: counted when it runs. streams: the argument that it reads whole, weights, whatever the
    rows are. asks: bytes that it asks memory for, which a later launch reads; asked: of its own those that earlier
    launches have asked for. Raises TypeError, naming kernel and argument, for an argument that is missing, not among
    the parameters, or of another type.
    """

    kernel: Kernel
    groups: int
    rows: int
    arguments: Mapping[str, Argument] = field(compare=False)
    cost_of: Callable[[Work], Cost] = field(compare=False, repr=False)
    layer: int | None = None  # of the trunk
    block: str = ""  # "delta_net", "attention", …; "" outside layers
    part: str = ""  # what of several launches of an operator it is
    streams: str = ""
    asks: int = 0
    asked: int = 0

    def __post_init__(self) -> None:
        declared = dict(self.kernel.parameters)
        if missing := [name for name in declared if name not in self.arguments]:
            raise TypeError(f"{self.kernel.operator}: argument '{missing[0]}' is missing")
        for name, argument in self.arguments.items():
            if name not in declared:
                raise TypeError(f"{self.kernel.operator} has no parameter '{name}'; it has {', '.join(declared)}")
            if wrong := declared[name].wrong(argument):
                raise TypeError(f"{self.kernel.operator}: argument '{name}' {wrong}")

    def only_if(self, flag: Argument) -> Launch:
        """The same launch, which does nothing where i32 `flag` [1] is 0 when it begins."""
        return replace(self, kernel=self.kernel.guarded, arguments={**self.arguments, "guard": flag})

    def then(self, following: Launch, arrivals: Argument) -> Launch:
        """Both launches in one, as `Kernel.then` does it. arrivals: i32 [1], zero between launches."""
        renamed = {f"then_{name}": argument for name, argument in following.arguments.items()}
        return replace(
            self,
            kernel=self.kernel.then(following.kernel, self.groups),
            arguments={**self.arguments, **renamed, "arrivals": arrivals},
            cost_of=lambda work: self.cost_of(work) + following.cost_of(work),
            part=f"{self.part} and {following.title}".lstrip(),
        )

    def asking(self, ahead: Tensor, nbytes: int) -> Launch:
        """The same launch, which then asks memory for the first `nbytes` bytes, whole messages, of u8 `ahead`."""
        arguments = {**self.arguments, "ahead": ahead, "ahead_bytes": nbytes}
        return replace(self, kernel=self.kernel.asking, arguments=arguments, asks=nbytes)

    @property
    def operator(self) -> str:
        """The operator's name, with which the kernel's name begins."""
        return self.kernel.operator

    @property
    def threads(self) -> int:
        """Hardware threads that it starts."""
        return self.groups * self.kernel.team

    @property
    def title(self) -> str:
        """Operator and part."""
        return f"{self.operator} {self.part}".rstrip()

    def cost(self, work: Work) -> Cost:
        """What it must do at least; `work.rows` counts where the launch itself does not tell its rows."""
        return self.cost_of(Work(self.rows or work.rows, work.context, work.experts))

    def ordered(self) -> list[Argument]:
        """The arguments in the order of the kernel's parameters."""
        return [self.arguments[name] for name, _ in self.kernel.parameters]

    def __str__(self) -> str:
        given = (f"{name}={_shown(self.arguments[name])}" for name, _ in self.kernel.parameters)
        where = "" if self.layer is None else f"layer {self.layer} "
        return f"{where}{self.block} {self.title}: {self.kernel.name} x {self.groups}({', '.join(given)})".lstrip()


def kernels_of(launches: Iterable[Launch]) -> list[Kernel]:
    """The different kernels of launches, in the order of their first one."""
    return list(dict.fromkeys(launch.kernel for launch in launches))


def _literal(value: int | float) -> str:
    return f"{value}f" if isinstance(value, float) else str(value)


def _shown(argument: Argument) -> str:
    if isinstance(argument, Tensor):
        return argument.name
    return str(argument) if isinstance(argument, int | float) else "*"
