"""What the comparison of draft settings computes."""

import math
import sys
from pathlib import Path

import pytest

from arcmtp.bench.mtp import Request
from arcmtp.engine.loading import Draft
from arcmtp.errors import ArcmtpError
from arcmtp.runtime.paths import data_dir
from scripts import bench_auto
from scripts.bench_auto import Measured, interval, measure, student, table

ASKED = {"code": [1], "prose": [2]}


def request(seconds: float, ids: tuple[int, ...] = (1, 2, 3)) -> Request:
    return Request("a", [*ids], 0, 0, seconds + 1, seconds)


def test_students_quantiles_are_those_of_tables() -> None:
    for freedom, quantile in ((1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (19, 2.093), (99, 1.984)):
        assert student(freedom) == pytest.approx(quantile, rel=0.01)


def test_an_interval_is_around_the_geometric_mean() -> None:
    mean, low, high = interval([0.5, 2.0])
    assert mean == pytest.approx(1)
    assert low == pytest.approx(1 / high) == pytest.approx(math.exp(-12.706 * math.log(2)), rel=1e-3)
    assert interval([1.5, 1.5, 1.5]) == pytest.approx((1.5, 1.5, 1.5))


def test_settings_alternate_and_the_first_round_does_not_count() -> None:
    order: list[tuple[int, str]] = []

    def answers(draft: int) -> bench_auto.Answer:
        def answer(name: str, prompt: list[int], tokens: int) -> Request:
            order.append((draft, name))
            return request(float(len(order)))

        return answer

    measured = Measured("ours", {draft: answers(draft) for draft in (0, 2)})
    measure([measured], ASKED, 8, rounds=2)
    there = [(0, "code"), (2, "code"), (0, "prose"), (2, "prose")]
    back = [(2, "code"), (0, "code"), (2, "prose"), (0, "prose")]
    assert order == [*there, *back, *there]
    assert measured.seconds(0, [0]) == [6, 9] and measured.seconds(2, [0, 1]) == [5 + 7, 10 + 12]


def test_an_answer_without_decoding_is_refused() -> None:
    measured = Measured("ours", {0: lambda name, prompt, tokens: request(0.0, (1,))})
    with pytest.raises(ArcmtpError, match="the answer to code has one token"):
        measure([measured], ASKED, 8, rounds=2)


def test_the_best_length_is_found_for_each_request_and_for_all() -> None:
    rounds: dict[Draft, list[list[Request]]] = {
        0: [[request(4.0), request(1.0)], [request(8.0), request(2.0)]],
        2: [[request(1.0), request(2.0)], [request(2.0), request(4.0)]],
    }
    measured = Measured("ours", {}, rounds)
    assert table(measured, list(ASKED)).splitlines() == [
        "| ours | off | 2 | best | best / off |",
        "|---|---:|---:|---:|---:|",
        "| code | 0 | 1 | 2 | 4.000 (4.000 – 4.000) |",
        "| prose | 1 | 1 | off | 1.000 (1.000 – 1.000) |",
        "| all | 1 | 1 | 2 | 1.667 (1.667 – 1.667) |",
    ]
    assert measured.differences(list(ASKED)) == []
    kind = Measured("ours", {}, {0: [[request(2.0)], [request(2.0)]], 1: [[request(1.0)], [request(3.5)]]})
    assert kind.best([0]) == 0  # 4 against 4.5 seconds
    assert kind.best_seconds([0]) == [2.0, 3.5]  # each of the rounds would choose the other length for itself
    rounds[2][1][1] = request(4.0, (1, 2, 4))
    assert measured.differences(list(ASKED)) == ["ours: the text of prose differs with draft 2"]


def test_the_bundled_model_is_measured_and_its_texts_are_identical(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(data_dir() / "tiny-qwen36moe-q4_0.gguf")
    options = ["--tokens", "4", "--rounds", "2", "--draft", "off,2", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["bench_auto.py", file, *options, "--only", "qa_factual,creative_short"])
    assert bench_auto.main() == 0
    output = capsys.readouterr().out
    assert output.endswith("\nThe texts are identical with every draft setting.\n")
    requests = [line.split("|")[1].strip() for line in output.splitlines() if line.startswith("| ")][1:]
    assert requests == ["qa_factual", "creative_short", "all"]


def test_a_request_that_there_is_not_is_refused_with_those_that_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_auto.py", "none.gguf", "--only", "creative_short,poetry"])
    with pytest.raises(SystemExit, match="2"):
        bench_auto.main()
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("bench_auto.py: error: --only poetry: there is no such request; there are code_python, ")


def test_a_file_that_is_not_there_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_auto.py", str(tmp_path / "none.gguf")])
    assert bench_auto.main() == 2
    assert capsys.readouterr().err == f"bench_auto: {tmp_path / 'none.gguf'}: no such file\n"
