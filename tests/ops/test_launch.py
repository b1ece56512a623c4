"""What a launch says of itself and refuses, and what tensors know before they have memory."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from arcmtp.errors import ArcmtpError
from arcmtp.formats.matrix import W6_16, Matrix
from arcmtp.ops.embedding import Embedding
from arcmtp.ops.gumbel_sampling import GumbelSampling, History
from arcmtp.ops.launch import Batch, Consumers
from arcmtp.ops.norm import PARAMETERS as NORM_PARAMETERS
from arcmtp.ops.norm import Norm
from arcmtp.ops.sampling import Vocabulary
from arcmtp.runtime.launch import (
    FLOAT,
    INT,
    Argument,
    Cost,
    Kernel,
    Launch,
    Work,
    kernels_of,
    parameters,
    reads,
    writes,
)
from arcmtp.runtime.tensor import F16, F32, I32, U8, U32, Arena, DType, Kind, Tensor
from tests.ops.conftest import cpu_device

DECLARED = parameters(x=reads(F32), ids=reads(I32), factor=FLOAT, rows=INT, out=writes(F32))
SCALE = Kernel("scale", "of_4", "scale.hpp", DECLARED, call="scale<4>")


def tensor(name: str, dtype: DType = F32, kind: Kind = Kind.SCRATCH) -> Tensor:
    return Arena().tensor(name, dtype, 4, kind=kind)


def given(**changed: Argument) -> dict[str, Argument]:
    """Arguments of SCALE in another order than its parameters."""
    right: dict[str, Argument] = {"out": tensor("y"), "rows": 3, "factor": 0.5, "ids": tensor("order", I32)}
    return {**right, "x": tensor("hidden"), **changed}


def scale(arguments: dict[str, Argument], **described: Any) -> Launch:
    return Launch(SCALE, 2, 3, arguments, lambda work: Cost(4 * work.rows, work.context), **described)


@pytest.mark.parametrize("name", [name for name, _ in DECLARED])
def test_a_missing_argument_is_named(name: str) -> None:
    arguments = given()
    del arguments[name]
    with pytest.raises(TypeError, match=f"^scale: argument '{name}' is missing$"):
        scale(arguments)


def test_an_argument_that_is_no_parameter_is_named_beside_those_that_are() -> None:
    with pytest.raises(TypeError, match=r"^scale has no parameter 'bias'; it has x, ids, factor, rows, out$"):
        scale(given(bias=tensor("bias")))


def test_an_argument_of_neither_launch_of_sampling_is_named() -> None:
    ids, values = tensor("ids", I32), tensor("values")
    history = History(ids, ids, values, ids, ids, Batch(1, ids))
    op, rows = GumbelSampling(Vocabulary(16, 16), cpu_device().card.geometry), {"logits": values, "stats": values}
    of_both: dict[str, Argument] = {**rows, "targets": ids, "ids": ids, "scratch": values, "counters": ids}
    score, choose = op.launches(1, history, **of_both)
    assert "ids" not in score.arguments and "positions" not in score.arguments and "ids" in choose.arguments
    with pytest.raises(TypeError, match=r"^score_columns has no parameter 'bias'"):
        op.launches(1, history, **of_both, bias=values)


@pytest.mark.parametrize(
    ("name", "argument", "wrong"),
    [
        ("x", tensor("order", I32), "is order of int, expected float"),
        ("ids", tensor("codes", U8), "is codes of u8, expected int"),
        ("out", tensor("cache", F16), "is cache of half, expected float"),
        ("out", tensor("words", U32), "is words of simd::u32, expected float"),
        ("x", 5, "is 5, expected a tensor of float"),
        ("factor", 1, "is 1, expected one float"),
        ("factor", tensor("y"), "expected one float"),
        ("rows", 3.0, "is 3.0, expected one int"),
        ("rows", True, "is True, expected one int"),
        ("rows", tensor("order", I32), "expected one int"),
        ("out", tensor("norm", kind=Kind.WEIGHTS), "is norm, and weights are never written"),
    ],
)
def test_an_argument_of_another_type_is_named(name: str, argument: Argument, wrong: str) -> None:
    with pytest.raises(TypeError, match=f"^scale: argument '{name}' .*{wrong}$"):
        scale(given(**{name: argument}))


def test_weights_are_read_and_every_other_kind_written() -> None:
    scale(given(x=tensor("norm", kind=Kind.WEIGHTS)))
    for kind in set(Kind) - {Kind.WEIGHTS}:
        scale(given(out=tensor("y", kind=kind)))


def test_arguments_come_in_the_order_of_the_parameters() -> None:
    arguments = given()
    assert scale(arguments).ordered() == [arguments[name] for name in ("x", "ids", "factor", "rows", "out")]


def test_the_entry_point_takes_what_is_declared() -> None:
    assert SCALE.source(packed=False) == (
        "ARCMTP_KERNEL(scale_of_4)(const float * x, const int * ids, float factor, int rows, float * out) {\n"
        "    scale<4>(x, ids, factor, rows, out);\n}\n"
    )


def test_the_packed_entry_point_takes_a_struct_of_what_is_declared() -> None:
    assert SCALE.source(packed=True) == (
        "struct scale_of_4_arguments { const float * x; const int * ids; float factor; int rows; float * out; };\n"
        "ARCMTP_KERNEL(scale_of_4)(scale_of_4_arguments arguments) {\n"
        "    const auto [x, ids, factor, rows, out] = arguments;\n    scale<4>(x, ids, factor, rows, out);\n}\n"
    )


def test_a_kernel_is_told_its_runs_as_one_value() -> None:
    declared = parameters(x=reads(F32), batch_size=INT, slots=reads(I32), out=writes(F32))
    kernel = Kernel("gather", "", "gather.hpp", declared, call="gather<4>")
    assert kernel.knows_sequences and not SCALE.knows_sequences
    assert kernel.name == "gather"
    assert kernel.statements == "gather<4>(x, {batch_size, slots}, out);"


def test_a_guarded_launch_is_the_same_but_for_the_flag_that_it_asks_first() -> None:
    plain, flag = scale(given(), layer=3, part="down"), tensor("flag", I32)
    guarded = plain.only_if(flag)
    assert guarded.arguments == {**plain.arguments, "guard": flag}
    assert replace(guarded, kernel=plain.kernel, arguments=plain.arguments) == plain
    assert guarded.cost_of is plain.cost_of
    assert guarded.kernel.name == "scale_of_4_guarded"
    assert guarded.kernel.source(packed=False) == (
        "ARCMTP_KERNEL(scale_of_4_guarded)"
        "(const float * x, const int * ids, float factor, int rows, float * out, const int * guard) {\n"
        "    if (guard[0] == 0)\n        return;\n    scale<4>(x, ids, factor, rows, out);\n}\n"
    )
    assert "const auto [x, ids, factor, rows, out, guard] = arguments;" in guarded.kernel.source(packed=True)


def test_one_launch_of_two_does_the_seconds_work_where_the_last_work_group_of_the_first_arrives() -> None:
    first, arrivals = scale(given(), layer=3, block="gdn"), tensor("arrivals", I32)
    added = Kernel("add", "of_4", "add.hpp", parameters(x=reads(F32), out=writes(F32)), at_last="add_at_last<4>")
    second = Launch(added, 1, 3, {"x": tensor("y"), "out": tensor("z")}, lambda work: Cost(8), part="head")
    both = first.then(second, arrivals)
    assert (both.operator, both.title, both.layer, both.block) == ("scale", "scale and add head", 3, "gdn")
    assert both.groups == first.groups and both.cost(Work(3, 5, 0)) == Cost(12 + 8, 5)
    assert both.arguments["then_x"] is second.arguments["x"] and both.arguments["x"] is first.arguments["x"]
    assert both.kernel.name == "scale_of_4_of_4"
    work = "scale<4>(x, ids, factor, rows, out);\n    add_at_last<4>(2, arrivals, then_x, then_out);"
    assert both.kernel.statements == work
    assert both.only_if(tensor("flag", I32)).kernel.statements.endswith(work)


def test_a_parameter_that_the_template_takes_otherwise_does_not_compile() -> None:
    """So that the tests of an operator, which compile it, show that its declaration is right."""
    norm = Norm(64, 1e-6, 0, Consumers(quantised=False, plain=True), cpu_device().card.geometry).kernel(1)
    cpu_device().compile([norm])
    for name, parameter in (("weight", reads(I32)), ("plain", reads(F32)), ("eps", writes(F32))):
        changed = tuple({**dict(NORM_PARAMETERS), name: parameter}.items())
        wrong = replace(norm, variant=f"with_another_{name}", parameters=changed)
        with pytest.raises(ArcmtpError, match=r"does not compile the kernels: .*no matching function"):
            cpu_device().compile([wrong])


def test_a_constant_that_python_and_cpp_know_differently_does_not_compile() -> None:
    wide = Embedding(Matrix(W6_16, 32, 256), cpu_device().card.geometry).kernel(1)
    cpu_device().compile([wide])
    for place, (constant, value) in enumerate(wide.agree):
        wrong = replace(wide, variant=f"disagrees_{place}", agree=((constant, value + 1),))
        with pytest.raises(ArcmtpError, match=r"does not compile the kernels: .*static assertion failed"):
            cpu_device().compile([wrong])


def test_a_constant_is_checked_as_the_type_that_it_is() -> None:
    checked = replace(SCALE, agree=(("ROWS", 8), ("EPS", 1e-6)))
    assert checked.statements.splitlines()[:2] == ["static_assert(ROWS == 8);", "    static_assert(EPS == 1e-06f);"]


def test_a_launch_prints_where_it_is_and_what_it_is_given() -> None:
    arguments = "x=hidden, ids=order, factor=0.5, rows=3, out=y"
    assert str(scale(given())) == f"scale: scale_of_4 x 2({arguments})"
    launch = scale(given(), layer=7, block="attention", part="keys")
    assert launch.title == "scale keys"
    assert str(launch) == f"layer 7 attention scale keys: scale_of_4 x 2({arguments})"
    assert str(scale(given(x=cpu_device().zeros(4)))).endswith("(x=*, ids=order, factor=0.5, rows=3, out=y)")


def test_a_launch_costs_what_its_own_rows_do_unless_they_are_counted_when_it_runs() -> None:
    work = Work(rows=8, context=100, experts=2)
    assert scale(given()).cost(work) == Cost(4 * 3, 100)
    counted = Launch(SCALE, 2, 0, given(), lambda work: Cost(4 * work.rows, work.context))
    assert counted.cost(work) == Cost(4 * 8, 100)


def test_kernels_of_launches_are_those_of_each_name_once_in_order() -> None:
    other = Kernel("scale", "of_8", "scale.hpp", DECLARED, call="scale<8>")
    launches = [Launch(kernel, 1, 1, given(), lambda work: Cost(0)) for kernel in (other, SCALE, other)]
    assert kernels_of(launches) == [other, SCALE]


def test_tensors_of_one_name_share_a_region_as_large_as_the_largest() -> None:
    arena = Arena()
    small, large = arena.tensor("rows", F32, 2, 8), arena.tensor("rows", F16, 3, 16)
    assert small.region is large.region
    assert (small.nbytes, large.nbytes, small.region.nbytes) == (64, 96, 96)
    assert arena.tensor("others", F32, 4).region is not small.region


def test_a_region_is_of_one_kind() -> None:
    arena = Arena()
    arena.tensor("rows", F32, 8)
    with pytest.raises(ValueError, match="rows is scratch and state"):
        arena.tensor("rows", F32, 8, kind=Kind.STATE)


def test_sizes_are_known_by_kind_before_there_is_memory() -> None:
    arena = Arena()
    for number, kind in enumerate(Kind):
        arena.tensor(kind.value, U8, 10**number, kind=kind)
        arena.tensor(kind.value, U8, 1, kind=kind)
    assert [arena.nbytes(kind) for kind in Kind] == [10**number for number in range(len(Kind))]
    assert arena.nbytes(Kind.CACHE, Kind.HOST) == 100010
    with pytest.raises(RuntimeError, match="rows is not allocated"):
        arena.tensor("rows", F32, 8).pointer  # noqa: B018


def test_a_part_begins_at_an_element_and_ends_with_the_tensor() -> None:
    ids = Arena().tensor("ids", I32, 2, 8)
    later = ids.part(5).part(3)
    assert (later.shape, later.offset, later.region) == ((8,), 32, ids.region)
    assert ids.part(16).shape == (0,)
    for outside in (17, -1):
        with pytest.raises(ValueError, match=rf"^ids of shape \(2, 8\) has no element {outside}$"):
            ids.part(outside)


def test_memory_begins_as_zeros_or_with_what_it_is_given_and_weights_get_theirs_elsewhere() -> None:
    arena = Arena()
    table = arena.tensor("table", F32, 2, 3, kind=Kind.STATE, initial=lambda: np.arange(6, dtype=np.float32))
    ids, found = arena.tensor("ids", I32, 4), arena.tensor("found", I32, 4, kind=Kind.HOST)
    weights = arena.tensor("norm", F32, 4, kind=Kind.WEIGHTS)
    arena.allocate(cpu_device())
    assert table.read().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert table.part(4).read().tolist() == [4, 5]
    assert table.read(2, offset=4).tolist() == [1, 2]
    ids.part(1).write(np.array([7, 8], np.int32))
    assert ids.read().tolist() == [0, 7, 8, 0]
    ids.part(2).fill(0xFF)
    ids.copy_from(table, 4, source=12)
    assert ids.read().tolist() == [np.float32(3).view(np.int32), 7, -1, -1]
    assert found.view()[:4].tolist() == [0, 0, 0, 0]
    with pytest.raises(RuntimeError, match="norm is not allocated"):
        weights.read()
