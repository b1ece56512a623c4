"""One profile of a real MTP run of the bundled model, in every form; `python tests/profile/test_profile.py` writes the
schema anew."""

import json
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from gguf import GGMLQuantizationType as Type
from pydantic import TypeAdapter

from arcmtp.cli import main
from arcmtp.profile import report
from arcmtp.profile.charts import WIDTH, Bar, bars
from scripts.make_random_model import write_model
from tests.engine.test_qwen35 import SIZE

SCHEMA = Path(report.__file__).with_name("schema.json")
TOKENS, DRAFT = 40, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds p.json, p.trace and p.html, and nothing else."""
    folder = tmp_path_factory.mktemp("profile")
    arguments = ["--raw", "-p", "def read_lines(path):", "-n", str(TOKENS), "--draft", str(DRAFT), "--device", "cpu"]
    for option, name in (("--json", "p.json"), ("--trace", "p.trace"), ("--html", "p.html")):
        arguments += [option, str(folder / name)]
    assert main(["profile", "--ctx", "256", *arguments]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["p.html", "p.json", "p.trace"]
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> Any:
    return json.loads((folder / "p.json").read_text())


@pytest.fixture(scope="module")
def events(folder: Path) -> Any:
    return json.loads((folder / "p.trace").read_text())["traceEvents"]


def schema() -> Any:
    """Of the report's dataclasses; titles, which repeat names, left out."""

    def without_titles(value: Any) -> Any:
        if isinstance(value, list):
            return [without_titles(item) for item in value]
        if not isinstance(value, dict):
            return value
        kept = {key: without_titles(item) for key, item in value.items() if key != "title" or isinstance(item, dict)}
        return kept | {"additionalProperties": False} if "properties" in kept else kept

    return without_titles(TypeAdapter(report.Report).json_schema())


def test_the_schema_is_that_of_the_report() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == schema()


def test_the_json_file_is_as_the_schema_says(found: Any) -> None:
    validator = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text(encoding="utf-8")))
    validator.validate(found)
    assert not validator.is_valid({**found, "another": 1})


def test_operators_explain_the_eager_time_and_never_exceed_it(found: Any) -> None:
    assert found["phases"].keys() == {"prompt", "decode", "draft", "verify"}
    for phase in found["phases"].values():
        assert 0 < phase["explained"] <= 1
        assert phase["unexplained_us"] == pytest.approx((1 - phase["explained"]) * phase["eager_us"])
        shares = [operator["share"] for operator in phase["operators"]]
        assert sum(shares) + phase["unexplained_share"] == pytest.approx(1)
        times = [operator["total_us"] / phase["units"] for operator in phase["operators"]]
        assert sum(times) + phase["unexplained_us"] == pytest.approx(phase["eager_us"])


def test_launches_that_take_less_than_a_time_mark_have_no_rates(found: Any) -> None:
    operators = [operator for phase in found["phases"].values() for operator in phase["operators"]]
    rates = ("gigabytes_per_second", "of_read_bandwidth", "operations_per_second")
    told = [all(operator[rate] is not None for rate in rates) for operator in operators]
    assert told == [operator["mean_us"] > found["mark_us"] for operator in operators]
    assert {True, False} == set(told)


def test_each_phase_has_the_operators_of_its_layers(found: Any) -> None:
    kinds = {name: {o["layer_kind"] for o in phase["operators"]} for name, phase in found["phases"].items()}
    assert kinds["decode"] == kinds["verify"] == {"", "gdn", "attention"}
    assert kinds["draft"] == {"mtp"}
    decode, layers = found["phases"]["decode"], found["model"]["layers"]
    norms = [o["calls"] for o in decode["operators"] if o["operator"] == "norm"]
    assert sum(norms) == decode["units"] * (layers + 1)
    assert sum(o["calls"] for o in decode["operators"]) == decode["units"] * decode["launches"]


def test_a_verify_moves_more_than_a_plain_step_but_less_than_one_for_each_row(found: Any) -> None:
    moved = {
        name: sum(o["bytes"] for o in found["phases"][name]["operators"]) / found["phases"][name]["units"]
        for name in ("decode", "verify")
    }
    assert moved["decode"] < moved["verify"] < (DRAFT + 1) * moved["decode"]


def test_drafting_accounts_for_every_token_and_cycle(found: Any) -> None:
    drafting = found["drafting"]
    cycles = drafting["cycles"]
    assert sum(cycle["tokens"] for cycle in cycles) + 1 == found["run"]["generated_tokens"] == TOKENS
    assert all(cycle["tokens"] <= cycle["accepted"] + 1 <= DRAFT + 1 == len(cycle["draft_us"]) + 1 for cycle in cycles)
    first = sum(cycle["accepted"] >= 1 for cycle in cycles) / len(cycles)
    assert drafting["acceptance_by_position"][0] == pytest.approx(first)
    shares = [drafting[f"{part}_share"] for part in ("drafting", "verifying", "host")]
    assert sum(shares) == pytest.approx(1)
    assert min(shares[:2]) > 0


def test_graphs_are_captured_once_and_reused(found: Any) -> None:
    graphs = found["graphs"]
    assert graphs["captures"] == len(graphs["nodes"]) == DRAFT + 2  # the first choice, the drafts, the step
    assert graphs["reuse_rate"] == pytest.approx(1 - graphs["captures"] / graphs["replays"])
    assert [times["name"] for times in graphs["launch_lists"]] == ["draft 1 after 3", "draft 2", "step of 3"]


def test_memory_adds_up(found: Any) -> None:
    memory = found["memory"]
    assert sum(memory["weights"].values()) == found["model"]["weights_bytes"]
    assert min(memory["weights"].values()) >= 0
    resident = found["model"]["weights_bytes"] + sum(memory[of] for of in ("kv_cache", "recurrent_states", "scratch"))
    assert memory["device_total"] == resident + memory["checkpoints"]
    assert resident < memory["process_peak"]


def test_spans_of_a_thread_nest(events: Any) -> None:
    threads = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            threads[event["pid"], event["tid"]].append((event["ts"], -event["dur"], event["name"]))
    assert len(threads) == 4
    for spans in threads.values():
        open_ends: list[float] = []
        for began, length, _ in sorted(spans):
            while open_ends and open_ends[-1] <= began + 1e-6:
                open_ends.pop()
            assert not open_ends or began - length <= open_ends[-1] + 1e-6
            open_ends.append(began - length)


def test_the_trace_names_what_runs_and_counts_what_is_accepted(events: Any, found: Any) -> None:
    names = {event["name"] for event in events}
    assert {"prompt", "draft", "draft 2", "verify", "accept", "wait", "submit step of 3", "cycle 1"} <= names
    assert {f"layer {layer} ({kind})" for layer, kind in [(0, "gdn"), (3, "attention")]} <= names
    tokens = [event["args"]["tokens"] for event in events if event["ph"] == "C" and event["name"] == "tokens"]
    assert max(tokens) == found["run"]["generated_tokens"]


def test_the_page_needs_no_network_and_its_charts_are_well_formed(folder: Path) -> None:
    page = (folder / "p.html").read_text(encoding="utf-8")
    assert "http" not in page and "src=" not in page and "@import" not in page
    charts = [part.split("</svg>")[0] for part in page.split('<svg role="img"')[1:]]
    assert len(charts) == 4 + 2 + 3 + 3  # operators, timelines, drafting, rooflines
    for chart in charts:
        ET.fromstring(f"<svg{chart}</svg>")
        assert "nan" not in chart.lower()


def widest(text: ET.Element) -> tuple[float, float]:
    """Where a text begins and ends if each of its characters takes 6.6 units."""
    x, length = float(text.attrib["x"]), 6.6 * len(text.text or "")
    left = x - {"start": 0.0, "middle": length / 2, "end": length}[text.attrib["text-anchor"]]
    return left, left + length


def test_no_text_of_a_chart_is_cut_off(folder: Path) -> None:
    page = (folder / "p.html").read_text(encoding="utf-8")
    texts = [text for chart in re.findall(r"<svg role.*?</svg>", page) for text in ET.fromstring(chart).iter("text")]
    assert len(texts) > 100
    assert min(widest(text)[0] for text in texts) >= -2
    assert max(widest(text)[1] for text in texts) <= WIDTH + 4


def test_the_page_and_the_report_have_the_same_times(folder: Path, found: Any) -> None:
    page = (folder / "p.html").read_text(encoding="utf-8")
    for phase in found["phases"].values():
        assert f"µs of {phase['eager_us']:.0f}, on average, without graphs" in page
        assert f"{phase['eager_us']:.0f} µs on average without graphs, " in page


def test_bars_leave_room_for_their_longest_name_and_text() -> None:
    rows = [Bar("a_name_of_thirty_two_characters__", 1.0, "123456789 (100%)"), Bar("x", 0.5, "1")]
    texts = list(ET.fromstring(bars("title", rows)).iter("text"))
    assert all(widest(text)[0] >= -2 and widest(text)[1] <= WIDTH + 4 for text in texts)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["profile", "--device", "cpu", *arguments]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.endswith("…")]
    return line


def test_what_cannot_be_used_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none" / "p.json")
    assert f"{nowhere}: No such file or directory" in refused(capsys, "--json", nowhere)
    assert "is not a file" in refused(capsys, "--html", str(tmp_path))
    kept = tmp_path / "p.json"
    kept.write_text("before")
    small = ["--json", str(kept), "--ctx", "64"]
    line = refused(capsys, *small, "--prompt-tokens", "60", "-n", "8")
    assert "60 tokens of prompt and 8 to generate are 68, the context holds 64: raise ctx" in line
    assert "the prompt is empty" in refused(capsys, *small, "--raw", "-p", "", "-n", "8")
    assert "draft is 9" in refused(capsys, "--draft", "9", "-n", "8")
    assert "is not a whole number from 8 on" in refused(capsys, "-n", "1")
    assert kept.read_text() == "before" and list(tmp_path.iterdir()) == [kept]


def test_without_drafts_there_are_two_phases(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    arguments = ["--draft", "0", "--prompt-tokens", "20", "-n", "8", "--ctx", "64", "--device", "cpu"]
    assert main(["profile", *arguments, "--json", str(path), "--html", str(tmp_path / "p.html")]) == 0
    found = json.loads(path.read_text())
    assert found["phases"].keys() == {"prompt", "decode"} and found["drafting"] is None


def test_calls_whose_work_was_skipped_take_time_and_are_none(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    arguments = ["--draft", "3", "--draft-p-min", "1", "-n", "24", "--ctx", "256", "--device", "cpu"]
    assert main(["profile", *arguments, "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    cycles = found["drafting"]["cycles"]
    assert all(cycle["drafted"] == 1 and len(cycle["draft_us"]) == 3 for cycle in cycles)
    assert found["drafting"]["acceptance"] == sum(cycle["accepted"] for cycle in cycles) / len(cycles)
    drafts = found["phases"]["draft"]
    (logits,) = (row for row in drafts["operators"] if (row["operator"], row["part"]) == ("mul_mat", "head"))
    assert logits["calls"] == drafts["units"]


def test_a_dense_network_has_no_experts_and_its_feed_forward_is_named(tmp_path: Path) -> None:
    model, path = tmp_path / "dense.gguf", tmp_path / "p.json"
    write_model(model, SIZE, Type.Q4_0, Type.Q6_K, seed=3)
    arguments = ["--prompt-tokens", "20", "-n", "16", "--ctx", "64", "--device", "cpu", "--json", str(path)]
    assert main(["profile", "-m", str(model), *arguments, "--html", str(tmp_path / "p.html")]) == 0
    found = json.loads(path.read_text())
    jsonschema_rs.validate(json.loads(SCHEMA.read_text()), found)
    assert found["model"]["experts"] == 0
    for phase, kind in (("decode", "gdn"), ("verify", "attention"), ("draft", "mtp")):
        operators = {each["operator"] for each in found["phases"][phase]["operators"] if each["layer_kind"] == kind}
        assert "feed_forward_gate_up" in operators and "router" not in operators


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
