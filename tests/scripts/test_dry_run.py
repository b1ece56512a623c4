"""The dense model of the dry run, and what the dry run makes of kernels that are not those expected."""

from dataclasses import replace
from pathlib import Path

import pytest

from arcmtp.gguf import GGUF
from arcmtp.model.config import Config
from scripts.battlemage.dry_run import Kernels, compare, write_dense

GRAPHS: Kernels = {"head 2": ["norm", "mul_mat", "sample"], "step 1": ["embedding", "norm"]}


def test_the_same_kernels_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    compare(GRAPHS, dict(GRAPHS))
    assert capsys.readouterr().out == "5 kernels in 2 graphs are their launch lists', name by name\n"


@pytest.mark.parametrize(
    ("expected", "difference"),
    [
        ({"head 2": ["norm", "sample", "mul_mat"]}, "graph 'head 2': kernel 1 is mul_mat, the launch list's is sample"),
        ({"step 1": ["embedding"]}, "graph 'step 1': kernel 1 is norm, the launch list's is None"),
    ],
)
def test_the_first_difference_ends_the_run_with_a_line(expected: Kernels, difference: str) -> None:
    with pytest.raises(SystemExit) as ended:
        compare(GRAPHS, GRAPHS | expected)
    assert ended.value.code == difference  # a text: Python prints it and ends with status 1


def test_the_dense_model_has_the_bundled_models_sizes(tmp_path: Path) -> None:
    """But for the feed-forward, the number of layers and the context."""
    write_dense(tmp_path / "dense.gguf")
    bundled = Config.from_gguf(GGUF(Path(__file__).parents[2] / "arcmtp/data/tiny-qwen36moe-q4_0.gguf"))
    dense = Config.from_gguf(GGUF(tmp_path / "dense.gguf"))
    assert dense == replace(
        bundled, architecture="qwen35", layers=4, layer_kinds=bundled.layer_kinds[:4], context_length=262_144,
        ffn=dense.ffn, experts=0, experts_used=0, expert_ffn=0, shared_ffn=0,
    )  # fmt: skip
