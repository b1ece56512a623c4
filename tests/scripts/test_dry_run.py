"""What the dry run makes of kernels that are not those expected."""

import pytest

from scripts.battlemage.dry_run import Kernels, compare

GRAPHS: Kernels = {"head 2": ["norm", "mul_mat", "sample"], "step 1": ["embedding", "norm"]}


def test_the_same_kernels_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    compare(GRAPHS, dict(GRAPHS), "the CPU's")
    assert capsys.readouterr().out == "5 kernels in 2 graphs are the CPU's, name by name\n"


@pytest.mark.parametrize(
    ("expected", "difference"),
    [
        ({"head 2": ["norm", "sample", "mul_mat"]}, "graph 'head 2': kernel 1 is mul_mat, the CPU's is sample"),
        ({"step 1": ["embedding"]}, "graph 'step 1': kernel 1 is norm, the CPU's is None"),
        ({"head 3": []}, "graphs ['head 2', 'step 1'] are not the CPU's: ['head 2', 'head 3', 'step 1']"),
    ],
)
def test_the_first_difference_ends_the_run_with_a_line(expected: Kernels, difference: str) -> None:
    with pytest.raises(SystemExit) as ended:
        compare(GRAPHS, GRAPHS | expected, "the CPU's")
    assert ended.value.code == difference  # a text: Python prints it and ends with status 1
