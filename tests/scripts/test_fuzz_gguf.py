"""Damaged model files end in one line, and the fuzzer sees what does not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from arcmtp.errors import ArcmtpError
from arcmtp.gguf import GGUF
from arcmtp.model.config import Config
from scripts.fuzz_gguf import Fuzzer, Outcome, run_cases
from scripts.fuzzing.mutations import ALL


def found(outcomes: list[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.is_finding]


def test_a_few_hundred_damaged_files_end_in_one_line_or_run() -> None:
    outcomes = list(run_cases(7, range(150)))
    assert found(outcomes) == []
    assert [outcome.case for outcome in outcomes] == list(range(150))
    stages = Counter((outcome.kind, outcome.where) for outcome in outcomes)
    assert stages["refused", "open"] > 30 and stages["ran", "loaded"]
    assert stages["refused", "plan"] and stages["refused", "load"]
    assert {outcome.mutation for outcome in outcomes} == {mutation.__name__ for mutation in ALL}


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Fuzzer:
    return Fuzzer(7, tmp_path_factory.mktemp("fuzz"))


def test_cases_are_the_same_again_and_leave_the_files_as_they_were(fuzzer: Fuzzer, tmp_path: Path) -> None:
    first = [fuzzer.run(case) for case in range(12)]
    assert [fuzzer.run(case) for case in range(12)] == first
    parts = [part for parts in fuzzer._files.values() for part in parts]
    assert all(part.path.read_bytes() == part.content for part in parts)
    assert all(mutation(Random(3), parts[0]) != parts[0].content for mutation in ALL)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("no"), "exception"),
        (MemoryError(), "memory"),
        (ArcmtpError("which file?"), "bad message"),
        (ArcmtpError("whole/model.gguf mtp/block.gguf split/model: two\nlines"), "bad message"),
    ],
)
def test_what_is_no_line_that_names_the_file_is_a_finding(
    fuzzer: Fuzzer, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str
) -> None:
    def fail(file: GGUF) -> Any:
        raise error

    monkeypatch.setattr(Config, "from_gguf", fail)
    outcomes = found([fuzzer.run(case) for case in range(12)])
    assert {outcome.kind for outcome in outcomes} == {kind} and len(outcomes) > 2
