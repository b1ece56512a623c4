"""A part that ends its process, hangs or raises is named, and the others run."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from arcmtp.errors import ArcmtpError
from arcmtp.selftest import run, subject
from arcmtp.selftest.findings import Difference, close
from arcmtp.selftest.registry import GROUPS, NAMES, PARTS, Part, chosen

Body = Callable[[], Iterator[Difference]]


def agreeing() -> Iterator[Difference]:
    yield close("sum", np.ones(3), np.ones(3))


def telling() -> Iterator[Difference]:
    yield close(f"{os.getpid()}", np.ones(1), np.ones(1))


def dying() -> Iterator[Difference]:
    yield from agreeing()
    os.write(2, b"first line\nthe engine stopped\n")
    os.kill(os.getpid(), signal.SIGKILL)


def exiting() -> Iterator[Difference]:
    yield from agreeing()
    os.write(2, b"free(): invalid pointer\nPLEASE submit a bug report to X\nStack dump:\n0.\tProgram\n #0 0x00007f\n")
    os._exit(70)


def hanging() -> Iterator[Difference]:
    yield from agreeing()
    time.sleep(1000)


def raising() -> Iterator[Difference]:
    yield from agreeing()
    raise ValueError("of a\nshape")


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Part]]:
    """Parts with these bodies; nothing of SYCL is used, whose threads a forked test lacks."""
    monkeypatch.delitem(sys.modules, "dpctl")
    monkeypatch.setattr(subject, "Subject", lambda filter_string: SimpleNamespace(process=os.getpid()))

    def parts(*bodies: Body) -> list[Part]:
        made = [Part(f"{number}_{body.__name__}", "products", "") for number, body in enumerate(bodies)]
        for part, body in zip(made, bodies, strict=True):
            module = ModuleType(part.module)
            monkeypatch.setattr(module, "run", lambda subject, body=body: body(), raising=False)
            monkeypatch.setitem(sys.modules, part.module, module)
        return made

    return parts


def run_all(parts: list[Part], patience_s: float = 60) -> list[run.Result]:
    started: list[Part] = []
    found = list(run.results(parts, None, started.append, patience_s))
    assert [result.part for result in found] == parts == started
    return found


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (dying, "the process of this part ended: SIGKILL; it said: the engine stopped"),
        (exiting, "the process of this part ended: exit status 70; it said: free(): invalid pointer"),
        (raising, "ValueError: of a shape"),
    ],
)
def test_the_others_run_after_a_part_that_ends_its_process(
    body: Body, problem: str, make: Callable[..., list[Part]]
) -> None:
    found = run_all(make(agreeing, body, agreeing, body, agreeing))
    assert [result.problem for result in found] == ["", problem, "", problem, ""]


def test_the_others_run_after_a_part_that_hangs(make: Callable[..., list[Part]]) -> None:
    hung, fine = run_all(make(hanging, agreeing), patience_s=1)
    assert hung.problem == "the process of this part ended: no answer for 1 seconds"
    assert not fine.problem and fine.differences


def test_parts_that_agree_share_a_process_and_none_follows_one_that_failed(make: Callable[..., list[Part]]) -> None:
    def wrong() -> Iterator[Difference]:
        yield close(f"{os.getpid()}", np.ones(1), np.zeros(1))

    found = run_all(make(telling, telling, wrong, telling))
    first, second, third, fourth = (result.differences[0].what for result in found)
    assert first == second == third != fourth
    assert [bool(result.problem) for result in found] == [False, False, True, False]


def test_the_largest_difference_is_told_with_its_place_and_how_many_are_wrong(make: Callable[..., list[Part]]) -> None:
    def wrong() -> Iterator[Difference]:
        want = np.arange(6.0).reshape(2, 3)
        yield close("near", want + np.array([0, 0, 0.2]), want, atol=0.1)
        yield close("far", want + np.array([[0, 0, 0], [0, 5, 0]]), want, atol=0.1)
        yield close("right", want, want)

    (result,) = run_all(make(wrong))
    assert result.problem == "far: 5 more than the 0.1 allowed at [1, 1]: 9, expected 4 (2 comparisons are wrong)"


def test_not_a_number_is_never_close_and_infinities_are_equal_to_themselves() -> None:
    assert not close("nan", np.array([np.nan]), np.zeros(1), atol=1e9).ok
    assert not close("nan", np.zeros(1), np.array([np.nan]), atol=1e9).ok
    assert not close("inf", np.array([1e30]), np.array([np.inf]), rtol=1e9).ok
    assert close("inf", np.array([np.inf, np.nan]), np.array([np.inf, np.nan])).ok
    with pytest.raises(ValueError, match="shape"):
        close("rows", np.zeros((2, 1)), np.zeros(2))


def test_parts_are_chosen_by_name_and_by_group() -> None:
    assert chosen([]) == list(PARTS)
    assert [part.name for part in chosen(["graph", "norm"])] == ["norm", "graph"]
    assert chosen(["model", "figures"]) == [part for part in PARTS if part.group in ("model", "figures")]
    assert not set(NAMES) & set(GROUPS) and len(set(NAMES)) == len(PARTS)
    with pytest.raises(ArcmtpError, match=r"there is no part 'norms'; there are dpas, .*, and the groups products"):
        chosen(["norm", "norms"])


def test_where_sycl_may_have_begun_parts_run_in_this_process(make: Callable[..., list[Part]]) -> None:
    parts = make(telling, raising, telling)
    sys.modules["dpctl"] = ModuleType("dpctl")  # the fixture brings the right one back
    found = run_all(parts)
    assert [bool(result.problem) for result in found] == [False, True, False]
    assert {found[0].differences[0].what, found[2].differences[0].what} == {str(os.getpid())}
