"""Rules of the sources that no compiler checks."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from arcmtp.runtime.paths import kernel_dir

ROOT = Path(__file__).parents[1]
CLIENTS = ROOT / "scripts/clients"  # run in an environment that scripts/check_clients.py makes

DEVICE_MACROS = re.compile(
    r"^\s*#\s*(if|ifdef|ifndef|elif|else)\b|ARCMTP_(GPU|VNNI)|\besimd\b|ext_vector_type|\basm\b", re.MULTILINE
)
INCLUDES = re.compile(r"^\s*#\s*include\s*<(.+)>", re.MULTILINE)


def test_only_simd_hpp_and_its_two_bodies_know_which_device_it_is() -> None:
    found = {
        path.name: DEVICE_MACROS.findall(path.read_text())
        for path in kernel_dir().glob("*.hpp")
        if not path.name.startswith("simd")
    }
    assert len(found) > 8
    assert {name for name, hits in found.items() if hits} == set()
    assert DEVICE_MACROS.search((kernel_dir() / "simd.hpp").read_text())


def test_no_kernel_includes_all_of_sycl() -> None:
    """It would compile four times as long on the CPU (docs/log/compiler.md)."""
    included = {header for path in kernel_dir().glob("*.hpp") for header in INCLUDES.findall(path.read_text())}
    assert "sycl/atomic_ref.hpp" in included
    assert "sycl/sycl.hpp" not in included


def imported(folder: Path) -> Iterator[str]:
    """The top-level modules that Python files import, on whatever condition."""
    for path in set(folder.rglob("*.py")) - set(CLIENTS.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]


@pytest.mark.parametrize(("folder", "extras"), [("arcmtp", ["plot"]), ("scripts", ["test"]), ("tests", ["test"])])
def test_every_package_that_is_imported_is_declared(folder: str, extras: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for name in extras for line in project["optional-dependencies"][name])]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    own = {"arcmtp", "scripts", "tests"}
    distributions = packages_distributions()
    found = {
        module: {canonicalize_name(name) for name in distributions.get(module, [module])}
        for module in set(imported(ROOT / folder)) - own - set(sys.stdlib_module_names)
    }
    assert "numpy" in found
    assert {module for module, names in found.items() if not names & declared} == set()
