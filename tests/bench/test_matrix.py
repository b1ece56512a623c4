"""`arcmtp bench mtp --matrix`: what it counts, not how fast it is."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from arcmtp import LLM, ArcmtpError
from arcmtp.bench import matrix as module
from arcmtp.bench.baseline import read_baseline
from arcmtp.bench.matrix import REQUEST, Cell, Matrix, Speed, bench_matrix, prompt_ids, prompt_lengths
from arcmtp.bench.matrix_text import Setup, as_csv, as_json, as_markdown
from arcmtp.bench.mtp import Request, prompts
from arcmtp.cli import main
from tests.engine.conftest import CONTEXT

SETUP = Setup("m.gguf", 1_000_000, "a card", "1.2", "generic", False, {"max_tokens": 8, "requant": None})
TINY = ["bench", "mtp", "--matrix", "--max-prompt", "40", "-n", "6", "-r", "2", "--draft", "off,2", "--device", "cpu"]


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(device="cpu", ctx=CONTEXT, draft=3)


def cell(draft: int = 2, outputs: tuple[float, ...] = (50.0, 60.0), accepted: int = 6, prompt: int = 1024) -> Cell:
    return Cell(prompt, draft, 8, 10 * (draft > 0), accepted, Speed(90.0, 9.0), [Speed(100.0, o) for o in outputs])


def written(path: Path, *cells: Cell, setup: Setup = SETUP) -> Path:
    path.write_text(as_json(Matrix([*cells], []), setup))
    return path


@pytest.mark.parametrize(
    ("most", "longest", "lengths"),
    [
        (4096, None, [1024, 2048, 4096]),
        (4000, None, [1024, 2048]),
        (262_000, 196_608, [1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 196608]),
        (4000, 2048, [1024, 2048]),
        (4000, 40, [40]),
        (4000, 9000, [1024, 2048]),
    ],
)
def test_prompts_double_as_far_as_they_fit(most: int, longest: int | None, lengths: list[int]) -> None:
    assert prompt_lengths(most, longest) == lengths


def test_a_context_without_room_for_the_shortest_prompt_is_refused() -> None:
    with pytest.raises(ArcmtpError, match="the shortest prompt has 1024 tokens, 1000 fit: name a --max-prompt"):
        prompt_lengths(1000)


def test_a_prompt_is_as_long_as_asked_and_ends_with_the_request(llm: LLM) -> None:
    request = llm.prompt_ids([{"role": "user", "content": prompts()[REQUEST]}])
    for length in (10, 900):
        ids = prompt_ids(llm, length)
        end = request[-length:]
        assert len(ids) == length and ids[-len(end) :] == end
    assert llm.detokenize(prompt_ids(llm, 900)).startswith("Write a Python class `RateLimiter`")


def test_a_cell_counts_one_answer_and_keeps_the_first_time_apart(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def answer(llm: LLM, name: str, prompt: list[int], tokens: int, draft: int) -> Request:
        asked.append((len(prompt), draft))
        seconds = 10.0 if len(asked) <= 4 else 2.0  # the first four are cold
        return Request(name, [1, 2, 3], 4 * draft, draft - (len(asked) <= 4), seconds + 1, 1.0)

    monkeypatch.setattr(module, "answer", answer)
    found = bench_matrix(llm, [20, 40], 3, [0, 2], repetitions=2)
    forward, backward = [(20, 0), (20, 2), (40, 0), (40, 2)], [(20, 2), (20, 0), (40, 2), (40, 0)]
    assert asked == [*forward, *backward, *forward]
    assert found.cells[1] == Cell(20, 2, 3, 8, 2, Speed(2.0, 2.0), [Speed(10.0, 2.0)] * 2)
    assert [(c.prompt, c.draft, c.acceptance) for c in found.cells] == [
        (20, 0, None), (20, 2, 0.25), (40, 0, None), (40, 2, 0.25)
    ]  # fmt: skip
    assert (found.lengths, found.drafts, found.differences) == ([20, 40], [0, 2], [])


def test_a_text_that_depends_on_the_draft_setting_is_named(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(llm: LLM, name: str, prompt: list[int], tokens: int, draft: int) -> Request:
        wrong = draft == 3 and len(prompt) == 40
        return Request(name, [1, 2, 4 if wrong else 3], 0, 0, 2.0, 1.0)

    monkeypatch.setattr(module, "answer", answer)
    found = bench_matrix(llm, [20, 40], 3, [0, 3], repetitions=1)
    assert found.differences == ["the text after 40 tokens differs with draft 3"]
    assert as_markdown(found, SETUP).endswith("\n\nthe text after 40 tokens differs with draft 3")


@pytest.mark.parametrize(
    ("lengths", "tokens", "repetitions", "message"),
    [
        ([20], 0, 1, "n is 0; it must be at least 1"),
        ([20], 1, 0, "r is 0; it must be at least 1"),
        ([], 1, 1, "a prompt's length is 0; it must be at least 1"),
        ([20], CONTEXT, 1, f"the requests take {CONTEXT + 20} tokens, the context holds {CONTEXT}: raise ctx"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    llm: LLM, lengths: list[int], tokens: int, repetitions: int, message: str
) -> None:
    with pytest.raises(ArcmtpError, match=message):
        bench_matrix(llm, lengths, tokens, [0], repetitions)


def test_every_form_holds_every_cell(tmp_path: Path) -> None:
    cells = [cell(0, accepted=0), cell(2, (110.0, 110.0))]
    found = Matrix(cells, [])
    head, _, *lines = as_markdown(found, SETUP).split("\n\n")[1].splitlines()
    assert {line.count("|") for line in lines} == {head.count("|")}
    assert lines[1] == "| 1024 | 2 | 100.0 | 110.0 | 110.0 – 110.0 | 2.00 | 90.0 | 9.0 | 8 | 10 | 6 | 0.600 |"
    assert lines[0].startswith("| 1024 | off |") and lines[0].endswith("| 0 | 0 | n/a |")
    rows = list(csv.DictReader(io.StringIO(as_csv(found, SETUP))))
    assert [(row["device"], row["draft"], row["× off"]) for row in rows] == [
        ("a card", "off", "1.00"), ("a card", "2", "2.00")
    ]  # fmt: skip
    assert read_baseline(written(tmp_path / "m.json", *cells)).matrix == found


def test_the_command_measures_the_bundled_model_and_its_own_result_is_a_baseline(
    llm: LLM, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "m.json"
    assert main([*TINY, "-o", "json"]) == 0
    path.write_text(capsys.readouterr().out)
    content = json.loads(path.read_text())
    assert (content["format"], content["setup"]["options"]["max_tokens"], content["differences"]) == (1, 6, [])
    expected = llm.generate(prompt_ids(llm, 40), max_tokens=6, draft=2)
    summary = expected.statistics.draft
    assert summary is not None
    assert [(c["prompt"], c["draft"], c["tokens"], len(c["warm"])) for c in content["cells"]] == [
        (40, 0, len(expected.ids), 2), (40, 2, len(expected.ids), 2)
    ]  # fmt: skip
    assert (content["cells"][1]["drafted"], content["cells"][1]["accepted"]) == (summary.calls, summary.accepted)
    assert main([*TINY, "--baseline", str(path), "--tolerance", "99.9"]) == 0
    assert "identical with every draft setting" in capsys.readouterr().out

    faster = json.loads(path.read_text())
    for speeds in faster["cells"][1]["warm"]:
        speeds["output"] *= 1e6
    path.write_text(json.dumps(faster))
    assert main([*TINY, "--baseline", str(path), "--tolerance", "99.9"]) == 1
    output = capsys.readouterr()
    assert "40 tokens, draft 2: output has 0.00 times the baseline's speed" in output.err
    assert "draft off" not in output.err


def test_memory_for_a_smaller_context_gives_fewer_prompts(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from arcmtp.cli import matrix as command
    from arcmtp.errors import MemoryExceeded

    opened: list[int] = []

    def load(options: object, ctx: int, draft: int) -> LLM:
        opened.append(ctx)
        if ctx > 1500:
            raise MemoryExceeded("too little", 1500)
        raise ArcmtpError("opened")

    monkeypatch.setattr(command, "load", load)
    assert main(["bench", "mtp", "--matrix", "-n", "100"]) == 2
    assert opened == [2048 + 100, 1024 + 100]
    assert capsys.readouterr().err.splitlines()[-1] == "arcmtp: opened"
    monkeypatch.setattr(command, "load", lambda options, ctx, draft: load(options, 2000, draft))
    assert main(["bench", "mtp", "--matrix", "-n", "100"]) == 2  # it does not fit, and says no smaller one that would


Regressions = Callable[..., list[str]]


@pytest.fixture
def regressions(tmp_path: Path) -> Regressions:
    def found(before: Cell, now: Cell) -> list[str]:
        return read_baseline(written(tmp_path / "before.json", before)).regressions(Matrix([now], []))

    return found


def test_a_speed_is_worse_only_beyond_the_spread_and_five_percent(regressions: Regressions) -> None:
    before = cell(outputs=(100.0, 110.0, 120.0))
    assert regressions(before, cell(outputs=(60.0, 70.0, 95.1))) == []
    assert regressions(before, cell(outputs=(200.0, 210.0, 220.0))) == []
    assert regressions(before, cell(outputs=(60.0, 70.0, 94.9))) == [
        "1024 tokens, draft 2: output has 0.64 times the baseline's speed, 70.0 instead of 110.0 tokens/s; its fastest "
        "is 94.9, the baseline's slowest 100.0"
    ]
    slow = replace(before, warm=[Speed(80.0, s.output) for s in before.warm])
    (line,) = regressions(before, slow)
    assert line.startswith("1024 tokens, draft 2: input has 0.80 times the baseline's speed")


def test_fewer_accepted_drafts_are_worse(regressions: Regressions) -> None:
    assert regressions(cell(accepted=6), cell(accepted=5)) == [
        "1024 tokens, draft 2: acceptance is 0.500, the baseline's is 0.600"
    ]
    assert regressions(cell(accepted=5), cell(accepted=6)) == []
    assert regressions(cell(0, accepted=0), cell(0, accepted=0)) == []
    auto = replace(cell(accepted=6), draft="auto")
    assert regressions(auto, replace(auto, accepted=1)) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "n.gguf"}, "has other model (n.gguf) than this run (m.gguf); expected the same"),
        ({"weights_bytes": 7}, "has other bytes of weights (7) than this run (1000000)"),
        ({"device": "another"}, "has other device (another) than this run (a card)"),
        ({"profile": "cpu"}, "has other card profile (cpu) than this run (generic)"),
        ({"options": {"max_tokens": 9, "requant": None}}, "has other options ({'max_tokens': 9, 'requant': None})"),
    ],
)
def test_a_baseline_of_something_else_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = written(tmp_path / "m.json", cell(), setup=replace(SETUP, **change))  # type: ignore[arg-type]
    with pytest.raises(ArcmtpError) as refusal:
        read_baseline(path).check(SETUP, [1024], [2])
    assert str(refusal.value).startswith(f"{path}: {message}")


def test_a_baseline_of_other_cells_is_refused_and_another_driver_is_not(tmp_path: Path) -> None:
    baseline = read_baseline(written(tmp_path / "m.json", cell(0), cell(2), setup=replace(SETUP, driver="0.9")))
    baseline.check(SETUP, [1024], [2, 0])
    with pytest.raises(ArcmtpError, match=r"other prompt lengths \(\[1024\]\) than this run \(\[1024, 2048\]\)"):
        baseline.check(SETUP, [1024, 2048], [0, 2])
    with pytest.raises(ArcmtpError, match=r"other draft settings \(\{0, 2\}\) than this run \(\{0\}\)"):
        baseline.check(SETUP, [1024], [0])


def test_a_baseline_of_another_model_ends_the_command_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "m.json", cell())
    assert main([*TINY, "--baseline", str(path)]) == 2
    output = capsys.readouterr()
    (line,) = [line for line in output.err.splitlines() if not line.endswith(" …")]
    assert (output.out, line.startswith(f"arcmtp: {path}: has other model (m.gguf) than this run (tiny-")) == ("", True)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "3", '{"benchmark": "arcmtp bench mtp --matrix", "format": 2}', '{"lengths": []}', b"\xff"],
)
def test_a_file_that_is_no_matrix_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | bytes
) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main([*TINY, "--baseline", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"arcmtp: {path}: is not what `arcmtp bench mtp --matrix -o json` writes in format 1: ")


def test_a_baseline_that_is_not_there_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--baseline", "/none"]) == 2
    expected = "arcmtp: /none: No such file or directory; expected a file of `arcmtp bench mtp --matrix -o json`\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-prompt", "9"], "--max-prompt needs --matrix"),
        (["--baseline", "x"], "--baseline needs --matrix"),
        (["--tolerance", "5"], "--tolerance needs --matrix"),
        (["--plot", "x"], "--plot needs --matrix"),
        (["-o", "csv"], "-o csv needs --matrix"),
        (["--matrix", "--draft", "on"], "argument --draft: 'on' is n"),
        (["--matrix", "--draft", "0,8"], "draft is 8; it must be 0 to 7"),
        (["--matrix", "--max-prompt", "0"], "argument --max-prompt: '0' is not a whole number from 1 on"),
        (["--matrix", "-n", "4000"], "the shortest prompt has 1024 tokens, 96 fit: name a --max-prompt that fits"),
        (["--matrix", "--plot", "/none/x"], "/none/x: there is no folder /none; expected one for the plot"),
    ],
)
def test_wrong_usage_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["bench", "mtp", *arguments]) == 2
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert (output.out, line.startswith(f"arcmtp: {message}")) == ("", True), line
