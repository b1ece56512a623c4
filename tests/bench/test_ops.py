"""The benchmark of operators: what it measures and writes, not how fast."""

import json

import pytest

from arcmtp.bench import operator_cases
from arcmtp.bench.operator_cases import CASES, Bench
from arcmtp.cli import main
from arcmtp.runtime.device import Device


def test_a_case_is_measured_at_every_row_count(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "ops", "--only", "experts_down", "-r", "1", "--device", "cpu", "-o", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    results = report["results"]
    assert [(r["operator"], r["rows"]) for r in results] == [("experts_down", rows) for rows in (1, 2, 3, 4, 8)]
    for r in results:
        assert r["gigabytes_per_second"] == pytest.approx(r["bytes"] / r["us"] / 1e3)
        assert r["of_read_bandwidth"] == pytest.approx(r["gigabytes_per_second"] / report["read_gigabytes_per_second"])
    assert results[0]["times_one_row"] == 1
    # Every row chooses other experts, and the shared expert's matrix is read once.
    assert results[4]["bytes"] / results[0]["bytes"] == pytest.approx((8 * 8 + 1) / (8 + 1), rel=0.02)


def test_an_unknown_operator_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "ops", "--only", "gemm", "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("arcmtp: --only gemm is in the name of no operator and shape; there are: mul_mat W4")


def test_every_case_has_a_name_of_its_own() -> None:
    names = [f"{operator} {shape}" for operator, shape, _ in CASES]
    assert len(set(names)) == len(names)


def test_every_case_gives_its_kernel_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch refuses arguments that are missing."""
    monkeypatch.setattr(operator_cases, "WEIGHT_BYTES", 1 << 20)
    bench = Bench(Device("cpu"))
    for _, _, make in CASES:
        for rows in (1, 8):
            assert make(bench, rows)(bench.weights.at(0), 0)
