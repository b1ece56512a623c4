"""`arcmtp selftest` in a process of its own: what it prints, writes, remembers and refuses."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from arcmtp.cli import main
from arcmtp.selftest.findings import Difference, Figure
from arcmtp.selftest.registry import NAMES, PARTS
from arcmtp.selftest.report import Report, as_json, file_name, line, summary
from arcmtp.selftest.run import Result
from arcmtp.selftest.subject import Described

ROOT = Path(__file__).parents[2]
BROKEN = "from arcmtp.selftest.operators import draft_chain; draft_chain.reference = lambda *of_chain: 1;"


def run(folder: Path, *arguments: str, before: str = "") -> "subprocess.CompletedProcess[str]":
    """A command in `folder`, whose verdicts lie there too."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder)}
    program = f"import sys; {before} from arcmtp.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def only(folder: Path, suffix: str = "*.json") -> dict[str, Any]:
    """The JSON file in a folder."""
    (path,) = folder.glob(suffix)
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_parts_that_pass_give_a_file_and_status_0(tmp_path: Path) -> None:
    done = run(tmp_path, "selftest", "--device", "cpu", "--only", "draft_chain,launches")
    assert (done.returncode, done.stderr) == (0, "")
    device, first, second, below, also_below, last, written = done.stdout.splitlines()
    assert re.match(r"ok +draft_chain +\d+\.\d s  108 values, all equal$", first)
    assert second.startswith("ok      launches")
    assert re.match(r" +launch: \d+(\.\d+)? µs, no prediction$", below) and "node of a graph" in also_below
    assert re.match(r".+ \(opencl:cpu:0\), driver .+, profile cpu, arcmtp 0", device)
    assert last == "all 2 parts passed"
    pattern = r"written to (arcmtp-selftest-[a-z0-9-]+-\d{4}-\d\d-\d\dT\d{6}\.json): please attach .*"
    name = re.fullmatch(pattern, written)
    assert name and [name[1]] == [path.name for path in tmp_path.glob("*.json")]
    content = only(tmp_path)
    assert content["passed"] and content["failed"] == content["without"] == []
    assert [part["name"] for part in content["parts"]] == ["draft_chain", "launches"]
    assert content["profile"] == "cpu" and content["driver"] and content["kernels"] and not content["emulated"]
    assert content["packages"]["arcmtp"] and content["packages"]["intel-sycl-rt"]
    comparison, figure = content["parts"][0]["comparisons"][0], content["parts"][1]["figures"][0]
    assert comparison.keys() == {"what", "count", "largest", "allowed", "where", "got", "want", "ok"}
    assert figure["unit"] == "µs" and figure["value"] > 0 and figure["predicted"] is None


def test_a_part_that_fails_is_named_remembered_and_forgotten(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    arguments = ("selftest", "--device", "cpu", "--only", "draft_chain,accept", "--output", str(output))
    done = run(tmp_path, *arguments, before=BROKEN)
    assert (done.returncode, done.stderr) == (1, "")
    _, passed, failed, last, _ = done.stdout.splitlines()
    assert passed.startswith("ok      accept") and failed.startswith("FAILED  draft_chain") and ", expected " in failed
    assert last == (
        "1 of 2 parts failed: draft_chain; from now on nothing is drafted (arcmtp selftest --clear forgets it)"
    )
    content = json.loads(output.read_text())
    assert (content["passed"], content["failed"], content["without"]) == (False, ["draft_chain"], ["drafts"])
    assert "allowed at [0]" in content["parts"][1]["problem"]
    generate = ("generate", "--device", "cpu", "--raw", "-p", "x", "-n", "1")
    refused = run(tmp_path, *generate, "--draft", "1")
    assert refused.returncode == 2 and "no drafts can be asked for: draft_chain failed" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert run(tmp_path, "selftest", "--clear").returncode == 0
    assert not list((tmp_path / "arcmtp").glob("selftest*"))


def test_the_list_names_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--list"]) == 0
    assert [listed.split()[0] for listed in capsys.readouterr().out.splitlines()] == list(NAMES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "norms"], "--only: there is no part 'norms'; there are dpas, mul_mat"),
        (["--only", "norm,"], "--only: there is no part ''; there are dpas, mul_mat"),
        (["--output", "/nonexistent/x.json"], "/nonexistent/x.json: No such file or directory; expected a file"),
        (["--output", "."], ": is not a file; expected one that can be written"),
        (["--device", "gpu:99"], "no device 'gpu:99'; there are: "),
        (["norm"], "unrecognized arguments: norm"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_any_part_runs(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    began = time.perf_counter()
    refused = run(tmp_path, "selftest", *arguments)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert refused.stderr.startswith("arcmtp: ") and message in refused.stderr
    assert list(tmp_path.iterdir()) == [] and time.perf_counter() > began


SUBJECT = Described(
    device="Intel(R) Arc(TM) Pro B70 Graphics", filter_string="level_zero:gpu:0", backend="level_zero", driver="1.6",
    profile="arc-pro-b70", memory_mib=31_000, graph_support="full", emulated=False, kernels="abc", python="3.11",
    linux="6.14", packages={"arcmtp": "0.1.0"}, key="the key",
)  # fmt: skip


def report(*results: Result) -> Report:
    return Report(SUBJECT, "2026-11-29T01:02:03Z", 1.25, results)


def test_the_file_is_json_without_homes_and_with_words_for_what_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/data/people/jane")
    problem = "/home/joe/x.cpp and /data/people/jane/.cache/x: no"
    difference = Difference("sum", 3, float("inf"), 0.0, (1,), float("nan"), 1.0)
    text = as_json(report(Result(PARTS[0], 1.0, (difference,), problem)))
    assert "jane" not in text and "joe" not in text and "the key" not in text

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    part = json.loads(text, parse_constant=refuse)["parts"][0]
    assert part["problem"] == "~/x.cpp and ~/.cache/x: no"
    assert (part["comparisons"][0]["largest"], part["comparisons"][0]["got"]) == ("inf", "nan")


def test_figures_stand_beside_their_predictions() -> None:
    figures = Figure("launch", 3.25, "µs", (2, 3, 6)), Figure("node", None, "µs", (1, 1.5, 3))
    _, launch, node = line(Result(PARTS[0], 1.0, figures)).splitlines()
    assert launch.strip() == "launch: 3.25 µs, predicted 3 µs (2 to 6)"
    assert node.strip() == "node: an emulator ran it, predicted 1.5 µs (1 to 3)"
    predicted = json.loads(as_json(report(Result(PARTS[0], 1.0, figures))))["parts"][0]["figures"][0]["predicted"]
    assert predicted == {"best": 2, "expected": 3, "worst": 6}


def test_the_summary_says_what_arcmtp_does_without() -> None:
    by_name = {part.name: Result(part, 1.0, (), "wrong") for part in PARTS}
    failed = report(by_name["norm"], by_name["mtp"], by_name["graph"], by_name["steps"])
    assert summary(failed).startswith(
        "4 of 4 parts failed: norm, mtp, graph, steps; from now on the device is not used and nothing is drafted and no"
    )
    assert summary(report(by_name["steps"])) == "1 of 1 parts failed: steps"


def test_the_file_is_named_after_device_and_date() -> None:
    name = file_name(SUBJECT, "2026-11-29T01:02:03Z")
    assert name == "arcmtp-selftest-intel-arc-pro-b70-graphics-2026-11-29T010203.json"


def test_the_command_can_fork_since_sycl_is_not_loaded_before() -> None:
    modules = "arcmtp.cli.main, arcmtp.cli.loading, arcmtp.selftest.session, arcmtp.selftest.report"
    program = f"import sys, {modules}; sys.exit('dpctl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == 0
