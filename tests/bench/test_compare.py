"""Two results of a benchmark beside each other."""

import json
from pathlib import Path
from typing import Any

import pytest

from arcmtp import ArcmtpError
from arcmtp.bench.compare import Model, compare
from arcmtp.bench.mtp import Report, Request
from arcmtp.bench.mtp_text import as_json
from arcmtp.bench.serve import Level, Load
from arcmtp.bench.serve import Report as ServeReport
from arcmtp.bench.serve import as_text as serve_text
from arcmtp.bench.speed import Result, as_text
from arcmtp.cli import main
from arcmtp.engine.loading import Draft

MODEL = Model("m.gguf", 1_000_000)


def llama(path: Path, speed: float, model: Model = MODEL, test: str = "tg128") -> Path:
    results = [Result("pp512", 0, 300.0, 1.0, None, None), Result(test, 0, speed, 1.0, 9.0, 0.5)]
    path.write_text(as_text(results, "json", model))
    return path


def ops(path: Path, us: float) -> Path:
    result = {"operator": "norm", "shape": "2048", "rows": 1, "us": us}
    path.write_text(json.dumps({"device": "d", "results": [result]}))
    return path


def test_more_tokens_a_second_are_faster(tmp_path: Path) -> None:
    before, after = llama(tmp_path / "before.json", 50.0), llama(tmp_path / "after.json", 60.0)
    assert compare("llama", before, after).splitlines() == [
        "| | before, tokens/s | after, tokens/s | times as fast |",
        "|---|---:|---:|---:|",
        "| pp512 at depth 0 | 300.00 | 300.00 | 1.00 |",
        "| tg128 at depth 0 | 50.00 | 60.00 | 1.20 |",
    ]


def test_fewer_microseconds_are_faster(tmp_path: Path) -> None:
    table = compare("ops", ops(tmp_path / "a.json", 30.0), ops(tmp_path / "b.json", 20.0))
    assert table.splitlines()[2:] == ["| norm 2048, 1 rows | 30.00 | 20.00 | 1.50 |"]


def test_draft_lengths_are_compared_by_the_median_of_their_passes(tmp_path: Path) -> None:
    def written(name: str, seconds: list[float]) -> Path:
        one = [[Request("code", [1, 2, 3], 2, 1, 1.0, each)] for each in seconds]
        passes: dict[Draft, list[list[Request]]] = {2: one}
        (tmp_path / name).write_text(as_json(Report(passes, []), MODEL))
        return tmp_path / name

    table = compare("mtp", written("a.json", [1.0, 2.0, 9.0]), written("b.json", [1.0, 1.0, 1.0]))
    assert table.splitlines()[2] == "| 2 drafts | 1.00 | 2.00 | 2.00 |"


def test_servers_are_compared_at_each_concurrency(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, speed in (("a", 50.0), ("b", 75.0)):
        level = Level(2, 16, {}, 64.0, 100, 2.0, None, None, speed)
        report = ServeReport("http://127.0.0.1:1/v1", name, Load([2], 16, 64, 48, 0), [level])
        (tmp_path / name).write_text(serve_text(report, "json"))
    assert main(["bench", "serve", "--compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert capsys.readouterr().out.splitlines()[2] == "| 2 at once | 50.00 | 75.00 | 1.50 |"


def test_a_server_to_measure_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "serve"]) == 2
    assert capsys.readouterr().err.startswith("arcmtp: URL is missing, such as http://127.0.0.1:8080")


def test_only_what_both_measured_is_compared(tmp_path: Path) -> None:
    before, after = llama(tmp_path / "a.json", 50.0), llama(tmp_path / "b.json", 60.0, test="tg64")
    assert len(compare("llama", before, after).splitlines()) == 3


@pytest.mark.parametrize("content", ["", "[]", "{}", "3", '[{"test": "tg1"}]', '{"results": [{}]}', '{"results": []}'])
@pytest.mark.parametrize("kind", ["llama", "mtp", "ops"])
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, kind: str, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(ArcmtpError, match=r"a\.json: (is not what|holds no times)"):
        compare(kind, path, path)


def test_times_of_nothing_are_refused(tmp_path: Path) -> None:
    path = ops(tmp_path / "a.json", 0.0)
    with pytest.raises(ArcmtpError, match="holds no times"):
        compare("ops", path, path)


@pytest.mark.parametrize("other", [Model("n.gguf", 1_000_000), Model("m.gguf", 2_000_000)])
def test_a_baseline_of_another_model_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: Model
) -> None:
    files = [str(llama(tmp_path / "a.json", 50.0)), str(llama(tmp_path / "b.json", 60.0, other))]
    assert main(["bench", "--compare", *files]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"arcmtp: {files[1]}: is of {other} and {files[0]} of {MODEL}")


def test_a_file_that_is_not_there_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing: Any = str(tmp_path / "none.json")
    for name in ([], ["mtp"], ["ops"]):
        assert main(["bench", *name, "--compare", missing, missing]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"arcmtp: {missing}: No such file or directory; expected a file of `arcmtp bench")
