"""counts.json: that it belongs to the kernels, and how it is scaled to a launch."""

from collections.abc import Iterator
from dataclasses import astuple
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from arcmtp import ArcmtpError
from arcmtp.engine.llm import bundled_model
from arcmtp.gguf import GGUF
from arcmtp.model.config import Config
from arcmtp.model.network import Network, NetworkOptions
from arcmtp.predict import card_on_paper, counts
from arcmtp.predict.counts import (
    COUNTED,
    QUANTITIES,
    THREAD,
    CountFile,
    Operator,
    Parts,
    counted_operators,
    counts_of,
    digest,
)
from arcmtp.predict.machine import CASES
from arcmtp.runtime.device import Device
from arcmtp.runtime.launch import Launch, Work
from arcmtp.runtime.paths import kernel_dir
from scripts.battlemage.count_launches import Emulator, Phase, Unloaded, only, prepare
from scripts.battlemage.count_operators import sample, silent_device
from scripts.battlemage.fit_counts import Sample, fitted

# By how much counts of the bundled model differ, whose matrices are an eighth of those that were counted, or less.
# Heads have other dimensions there than those counted, so attention and the gated delta net are left out, and
# norms, whose variants units do not tell apart.
TOLERANCE = {
    "embedding": {"instructions": 0.1, "messages": 0.02, "moved_bytes": 0.02},
    "mul_mat": {"instructions": 0.2, "dpas": 0.01, "messages": 0.01, "moved_bytes": 0.01},
    "router": {"instructions": 0.2, "messages": 0.3, "moved_bytes": 0.25},
}


def test_the_counts_are_of_the_kernels_as_they_are() -> None:
    """Otherwise: scripts/battlemage/count_operators.py, which counts them anew."""
    assert {name: digest(name) for name in COUNTED} == CountFile.read().digests


def test_a_comment_does_not_change_a_digest_and_code_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in kernel_dir().glob("*.hpp"):
        (tmp_path / path.name).write_text(path.read_text())
    before = {name: digest(name) for name in ("norm", "experts_down", "mul_mat")}
    monkeypatch.setattr(counts, "kernel_dir", lambda: tmp_path)
    header = tmp_path / "mul_mat.hpp"
    header.write_text(header.read_text() + "// a comment\n")
    assert {name: digest(name) for name in before} == before
    header.write_text(header.read_text() + "int more;\n")
    changed = {name for name in before if digest(name) != before[name]}
    assert changed == {"experts_down", "mul_mat"}  # which include it


def sampled(threads: int, units: dict[str, float], instructions: float, rows: int = 1) -> Sample:
    return Sample("norm", rows, "norm", threads, units, 128, counts.Counts(instructions=instructions))


def test_parts_are_found_from_launches_that_they_explain() -> None:
    made = [sampled(t, {"W4": u, "W8": v}, 100 * t + 7 * u + 3 * v) for t, u, v in ((8, 50, 0), (9, 10, 70), (2, 5, 5))]
    parts = fitted(made)["norm"].parts[1]
    assert [parts[form][0] for form in (THREAD, "W4", "W8")] == pytest.approx([100, 7, 3])


def test_no_part_is_negative() -> None:
    parts = fitted([sampled(1, {"": 10}, 100), sampled(1, {"": 20}, 210)])["norm"].parts[1]
    assert parts[THREAD][0] == 0 and parts[""][0] == pytest.approx(10.25, rel=0.03)


def test_rows_between_counted_ones_lie_between_them() -> None:
    operator = Operator({}, {1: {"W4": (10.0,)}, 4: {"W4": (40.0,), "W8": (7.0,)}, 0: {"W4": (3.0,)}})
    assert [operator.at("W4", rows) for rows in (0, 1, 2, 4, 8)] == [(3,), (10,), (20,), (40,), (40,)]
    assert operator.at("W8", 1) == (7.0,) and operator.at("W8", 0) is None and operator.at("F32", 1) is None


def network(device: Device) -> Network:
    gguf = GGUF(bundled_model())
    config = Config.from_gguf(gguf)
    return Network(gguf, config, NetworkOptions(512, config.vocab, mtp=gguf), device)


def test_counts_grow_with_threads_and_units() -> None:
    launches = network(card_on_paper("arc-pro-b70")).plain_step()
    for launch in launches:
        one, _ = counts_of(launch, Work(1, 64, 2))
        more, _ = counts_of(launch, Work(1, 512, 2))
        assert all(a <= b for a, b in zip(astuple(one), astuple(more), strict=True))
        for case in CASES:
            assert one.longest(case) >= 0.9 * one.alone(case) > 0, launch


def test_half_a_chunk_takes_the_delta_rule_half_as_long() -> None:
    """Its threads go from row to row."""
    model = network(card_on_paper("arc-pro-b70"))
    (launch, *_) = [one for one in model.plain_chunk() if one.operator == "gated_delta_net"]
    half, whole = (counts_of(launch, Work(rows, rows, 2))[0].alone("expected") for rows in (1024, 2048))
    assert 0.45 * whole < half < 0.55 * whole


def part(value: float) -> tuple[float, ...]:
    return (value,) * len(QUANTITIES)


def test_a_format_that_was_not_counted_is_taken_as_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    of: dict[int, Parts] = {1: {THREAD: part(1.0), "W4": part(2.0), "W8": part(3.0), "F32": part(4.0)}}
    operators = {"mul_mat": Operator({1: 128}, of), "router": Operator({1: 128}, {1: {"F32": part(5.0)}})}
    nearest = (("mul_mat", "IQ4_NL", 2), ("mul_mat", "BF16", 4), ("router", "BF16", 5), ("router", "W8", 3))
    for name, form, value in nearest:
        found = counts._of_product(operators, operators[name], form, 1)
        assert found and found[0] == value, (name, form)
    assert counts._of_product(operators, operators["mul_mat"], "q8_0", 1) is None


def test_an_operator_that_was_not_counted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = network(card_on_paper("arc-pro-b70")).plain_step()[0]
    few = {name: operator for name, operator in counted_operators().items() if name != "embedding"}
    monkeypatch.setattr(counts, "counted_operators", lambda: few)
    with pytest.raises(ArcmtpError, match="embedding was not counted on the emulated card; counted are accept, "):
        counts_of(launch, Work(1, 1, 2))


def launches_of(model: Network, rows: int) -> Iterator[Launch]:
    """One of each kernel that is compared."""
    seen = set()
    for launch in model.plain_step(rows) if rows else model.plain_chunk():
        if launch.kernel not in seen and launch.operator in TOLERANCE:
            seen.add(launch.kernel)
            yield launch


@pytest.mark.emulated
@pytest.mark.parametrize("rows", [1, 4])
def test_scaled_counts_are_those_of_other_shapes(emulated_card: Device, rows: int) -> None:
    """The bundled model was not counted for the file."""
    device, context = silent_device(), 64
    model = network(device)
    model.load(loader=Unloaded)
    launches = list(launches_of(model, rows))
    phase = Phase("", launches, np.arange(context, dtype=np.int32)[-rows:])
    prepare(model, phase)
    emulator = Emulator()
    for launch in launches:
        report = only(emulator.reports(partial(device.run, device.bind([launch]))))
        work = Work(rows, context, min(model.config.experts, rows * model.config.experts_used))
        counted, (scaled, _) = sample(launch, report, work).counts, counts_of(launch, work)
        for name, tolerance in TOLERANCE[launch.operator].items():
            was = pytest.approx(getattr(counted, name), rel=tolerance)
            assert getattr(scaled, name) == was, (launch.title, name)


def test_row_counts_between_the_counted_ones_have_the_registers_of_the_next_larger() -> None:
    operator = Operator(registers={0: 256, 1: 128, 4: 128, 8: 256})
    assert [operator.registers_at(rows) for rows in (0, 1, 2, 3, 4, 5, 8)] == [256, 128, 128, 128, 128, 256, 256]
