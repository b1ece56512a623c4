"""Counts of launches: what the emulator reports, added up and scaled."""

from collections import Counter

import numpy as np
import pytest

from arcmtp.formats import matrix as formats
from arcmtp.formats.matrix import Format, Matrix, unpack
from arcmtp.runtime.device import Device
from arcmtp.runtime.launch import Cost, Kernel, Launch, parameters, reads, writes
from arcmtp.runtime.tensor import I32
from scripts.battlemage.count_launches import Emulator, Report, Row, counts_of, random_spans, table, total

REPORT: Report = {
    "kernel": "mul_mat",
    "launches": 1,
    "threads": 8,
    "registers": 128,
    "team_memory_bytes": 512,
    "instructions": 3000,
    "pipes": {"dpas": 200, "send": 40},
    "messages": {"global_load": 30, "global_store": 10},
    "bytes": {"global_load": 7000, "global_store": 1000, "team_load": 60, "team_store": 40},
    "emulation_us": 5,
}
LINES = {"lines_read": 100, "lines_written": 25}


def row(report: Report, executed: int = 1, launches: int = 1) -> Row:
    """Of launches that must move 4000 bytes each, of which the first ones are executed."""
    made = Row("gdn", "mul_mat output", "mul_mat")
    for index in range(launches):
        made.add(4000, report if index < executed else None)
    return made.scaled()


def cells(text: str) -> dict[str, list[str]]:
    """The figures of each line by what it is of; headings without the spaces in them."""
    heading, *lines = text.replace("team kB", "team").replace(" MB", "").splitlines()
    count = len(heading.split())
    return {"": heading.split()} | {" ".join(line.split()[:-count]): line.split()[-count:] for line in lines}


def test_numbers_of_a_report_are_found_by_name() -> None:
    counts = counts_of(REPORT | LINES)
    assert counts["instructions"] == 3000
    assert counts["pipes.dpas"] == 200
    assert counts["bytes.team_store"] == 40
    assert counts["lines_read"] == 100
    assert not {"kernel", "registers", "launches", "emulation_us"} & counts.keys()


def test_executed_launches_are_added_up() -> None:
    twice = row(REPORT, executed=2, launches=2)
    assert (twice.launches, twice.executed, twice.needed_bytes, twice.registers) == (2, 2, 8000, 128)
    assert twice.counts == Counter({name: 2 * value for name, value in counts_of(REPORT).items()})


def test_launches_that_are_not_executed_count_as_those_that_are() -> None:
    scaled = row(REPORT, executed=1, launches=30)
    assert (scaled.launches, scaled.executed, scaled.needed_bytes) == (30, 1, 120_000)
    assert scaled.counts["instructions"] == 90_000
    assert (scaled.moved_bytes, scaled.team_bytes) == (240_000, 3000)


def test_a_phase_is_the_sum_of_its_rows() -> None:
    of_all = total([row(REPORT | LINES), row(REPORT | LINES, executed=1, launches=3)])
    assert (of_all.launches, of_all.executed, of_all.needed_bytes) == (4, 2, 16_000)
    assert of_all.counts["pipes.dpas"] == 800
    assert of_all.line_bytes == 4 * 125 * 64


def test_the_table_shows_bytes_beside_what_is_needed() -> None:
    found = cells(table([row(REPORT), row(REPORT, launches=3)]))
    heading, line, sum_of_all = found[""], found["gdn mul_mat output"], found["total"]
    at = {name: index for index, name in enumerate(heading)}
    assert "lines" not in at
    assert [line[at[name]] for name in ("launches", "kinstr", "dpas", "needed", "moved", "x")] == [
        "3", "9.0", "0.6", "0.012", "0.024", "2.00",
    ]  # fmt: skip
    assert [sum_of_all[at[name]] for name in ("launches", "threads", "needed")] == ["4", "32", "0.016"]


def test_cache_lines_have_columns_where_they_were_counted() -> None:
    found = cells(table([row(REPORT | LINES)]))
    assert found[""][-2:] == ["lines", "x"]
    assert found["gdn mul_mat output"][-2:] == ["0.008", "2.00"]


@pytest.mark.parametrize("form", formats.FORMATS, ids=lambda form: form.name)
def test_random_weights_are_finite_and_rows_of_their_own(form: Format) -> None:
    matrix = Matrix(form, 32, 256)
    tiles = random_spans(form, matrix.nbytes, [1, 2]).view(np.uint8)
    values = unpack(form, tiles, matrix.n, matrix.k)
    assert tiles.nbytes == matrix.nbytes
    assert np.isfinite(values).all()
    assert abs(np.corrcoef(values) - np.eye(matrix.n)).max() < 0.5


@pytest.fixture
def twice() -> Kernel:
    """Each of its groups loads 64 bytes and stores twice as much."""
    body = (
        "const auto values = simd::load<int, 16>(in + 16 * simd::group_index());\n    "
        "simd::store<int, 16>(out + 32 * simd::group_index(), values);\n    "
        "simd::store<int, 16>(out + 32 * simd::group_index() + 16, values);"
    )
    declared = parameters(**{"in": reads(I32)}, out=writes(I32))
    return Kernel("count_twice", "", "formats.hpp", declared, body=body)


@pytest.mark.emulated
def test_messages_and_bytes_of_a_launch_are_those_of_its_source(emulated_card: Device, twice: Kernel) -> None:
    groups = 5
    source, out = emulated_card.zeros(64 * groups), emulated_card.zeros(128 * groups)
    launch = Launch(twice, groups, groups, {"in": source, "out": out}, lambda work: Cost(0))
    launches = emulated_card.bind([launch])
    emulator = Emulator()
    for _ in range(2):  # of which the second counts anew
        (report,) = emulator.reports(lambda: emulated_card.run(launches))
    counts = counts_of(report)
    assert (report["kernel"], report["launches"]) == (f"__sycl_kernel_{twice.name}", 1)
    assert (counts["groups"], counts["threads"], counts["messages.end"]) == (groups, groups, groups)
    assert counts["bytes.global_load"] == 64 * groups
    assert counts["bytes.global_store"] == 128 * groups
    assert counts["instructions"] == sum(count for name, count in counts.items() if name.startswith("pipes."))
