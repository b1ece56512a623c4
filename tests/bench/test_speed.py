"""The benchmark command: what it measures, not how fast it is."""

import csv
import io
import json

import pytest

from arcmtp import LLM, ArcmtpError
from arcmtp.bench.compare import Model
from arcmtp.bench.speed import Result, as_text, bench, needed_context

MODEL = Model("m.gguf", 1000)


def test_each_depth_gets_a_prompt_and_a_decoding_test(tiny: LLM) -> None:
    results = bench(tiny, prompt=20, generated=3, repetitions=2, depths=[0, 30])
    assert [(r.test, r.depth) for r in results] == [("pp20", 0), ("tg3", 0), ("pp20", 30), ("tg3", 30)]
    assert all(r.tokens_per_second > 0 for r in results)
    for r in results:
        if r.test == "pp20":
            assert r.gigabytes_per_second is None and r.of_read_bandwidth is None
        else:
            step_bytes = tiny.network.step_bytes(r.depth + 1)
            assert r.gigabytes_per_second == pytest.approx(step_bytes * r.tokens_per_second / 1e9)
            assert r.of_read_bandwidth is not None and r.of_read_bandwidth > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, [0]), "nothing to measure: p and n are 0, or there is no depth"),
        ((1, 1, []), "nothing to measure: p and n are 0, or there is no depth"),
        ((-1, 1, [0]), "p is -1; it must be 0 or more"),
        ((1, 1, [0, -5]), "depth is -5; it must be 0 or more"),
    ],
)
def test_counts_that_make_no_test_are_refused(arguments: tuple[int, int, list[int]], message: str) -> None:
    with pytest.raises(ArcmtpError, match=message):
        needed_context(*arguments)


def test_tests_longer_than_the_context_are_refused(tiny: LLM) -> None:
    with pytest.raises(ArcmtpError, match="raise ctx"):
        bench(tiny, prompt=10, generated=0, repetitions=1, depths=[tiny.context])


def test_every_form_holds_every_result() -> None:
    results = [Result("pp512", 0, 400.0, 5.0, None, None), Result("tg128", 8192, 60.0, 1.0, 24.0, 0.8)]
    assert [row["test"] for row in json.loads(as_text(results, "json", MODEL))] == ["pp512", "tg128"]
    assert [row["depth"] for row in csv.DictReader(io.StringIO(as_text(results, "csv", MODEL)))] == ["0", "8192"]
    assert as_text(results, "md", MODEL).splitlines()[2:] == [
        "| pp512 | 0 | 400.00 ± 5.00 |  |  |",
        "| tg128 | 8192 | 60.00 ± 1.00 | 24.00 | 0.80 |",
    ]
