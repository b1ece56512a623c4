"""The examples of the documentation run and show what they say."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import arcmtp.engine

MODULES = sorted(module.name for module in pkgutil.iter_modules(arcmtp.engine.__path__, "arcmtp.engine."))
README = Path(__file__).parents[2] / "README.md"


def test_the_engines_examples_show_what_they_say() -> None:
    results = [doctest.testmod(importlib.import_module(name)) for name in MODULES]
    assert sum(result.attempted for result in results) > 0
    assert sum(result.failed for result in results) == 0


def test_the_readmes_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(from arcmtp .*?)```", README.read_text(), re.DOTALL)
    exec(compile(example, str(README), "exec"), {})
    assert capsys.readouterr().out
