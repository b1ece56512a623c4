"""Three models: the bundled one, and random ones of both architectures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType as Type

from arcmtp.cli import main
from scripts.make_random_model import write_model
from tests.mtp.models import DENSE, MOE, TINY, Files, files_of

Refused = Callable[..., str]
ALL = pytest.mark.parametrize("files", ["tiny", "moe", "dense"], indirect=True)


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("moe")
    write_model(folder / "whole.gguf", MOE, Type.Q4_0, Type.Q6_K, seed=3)
    return files_of(folder, folder / "whole.gguf")


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("dense")
    write_model(folder / "whole.gguf", DENSE, Type.Q4_1, Type.Q6_K, seed=4)
    return files_of(folder, folder / "whole.gguf")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return files_of(tmp_path_factory.mktemp("tiny"), TINY)


@pytest.fixture
def files(request: pytest.FixtureRequest) -> Files:
    files: Files = request.getfixturevalue(request.param)
    return files


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Refused:
    """Runs a command, which must end with status 2 and one line and leave the folder as it is; gives that line."""

    def run(*arguments: object) -> str:
        before = sorted(tmp_path.iterdir())
        assert main([*map(str, arguments)]) == 2
        output = capfd.readouterr()
        lines = [line for line in output.err.splitlines() if not line.endswith(" …")]
        assert (output.out, len(lines), sorted(tmp_path.iterdir())) == ("", 1, before), output
        return lines[0].removeprefix("arcmtp: ")

    return run
