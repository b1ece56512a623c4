"""The command line: what goes where, and how commands end."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from arcmtp import LLM
from arcmtp.bench.mtp import Report
from arcmtp.cli import main
from tests.engine.conftest import scripted

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
COMMAND = [sys.executable, "-c", "import sys; from arcmtp.cli import main; sys.exit(main())"]
ENDLESS = "def __len__(self):\n        return"  # the tiny model goes on about this until it is stopped


def start(*arguments: str) -> "subprocess.Popen[bytes]":
    """An `arcmtp generate` process whose prompt is taken as it is."""
    return subprocess.Popen(
        [*COMMAND, "generate", "--device", "cpu", "--raw", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        pipesize=4096,  # 4,000 tokens do not fit: they wait for their reader, and so for what the test does
        env=ENVIRONMENT,
    )  # fmt: skip


@dataclass(frozen=True)
class Finished:
    """A process that has ended; `peak_bytes` of its memory were its own, not a file's."""

    output: str
    errors: str
    peak_bytes: int


def anonymous_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))  # none once it has ended


@pytest.fixture(scope="module")
def finished() -> Finished:
    """Eight tokens after a prompt from standard input."""
    with start("-f", "-", "-n", "8") as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(ENDLESS.encode())
        process.stdin.close()
        peak = 0
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(0.01)
        assert process.returncode == 0
        return Finished(process.stdout.read().decode(), process.stderr.read().decode(), peak)


def test_standard_output_holds_the_text_and_nothing_else(finished: Finished, llm: LLM) -> None:
    assert finished.output == llm.generate(ENDLESS, max_tokens=8).text + "\n"
    assert "decode 8 tokens" in finished.errors


def test_memory_stays_within_weights_caches_and_400_megabytes(finished: Finished, llm: LLM) -> None:
    own = llm.network.weights.nbytes + llm.network.nbytes
    assert own < finished.peak_bytes <= own + 400_000_000


def test_an_interrupted_generation_shows_its_text_and_statistics() -> None:
    with start("-p", ENDLESS, "-n", "4000") as process:
        assert process.stdout
        begin = os.read(process.stdout.fileno(), 1)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert begin and output.endswith(b"\n")
    assert b"Traceback" not in errors and b"tokens/s" in errors


def test_a_reader_that_goes_away_ends_the_generation_quietly() -> None:
    with start("-p", ENDLESS, "-n", "4000") as process:
        assert process.stdout and process.stderr
        os.read(process.stdout.fileno(), 1)
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 141
    assert errors.decode().splitlines() == ["loading weights …", "compiling kernels …"]


def test_a_full_disk_behind_standard_output_is_reported_in_one_line() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*COMMAND, "devices"], stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (2, b"arcmtp: standard output: No space left on device\n")


def test_no_standard_output_at_all_is_fine() -> None:
    command = ["sh", "-c", '"$@" >&-', "sh", *COMMAND, "devices"]
    done = subprocess.run(command, stderr=subprocess.PIPE, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (0, b"")


def test_text_keeps_to_the_schema_or_the_grammar_of_a_file(
    llm: LLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema, gbnf, lark = (tmp_path / name for name in ("schema.json", "words.gbnf", "words.lark"))
    schema.write_text('{"enum": ["import", "class"]}')
    gbnf.write_text('root ::= "import" | "class"')
    lark.write_text('start: "import" | "class"')
    for option, file in (("--json-schema", schema), ("--grammar", gbnf), ("--grammar", lark)):
        assert main(["generate", "--raw", "-p", "import os", "--json", option, str(file)]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["text"].strip('"') in ("import", "class") and result["finish_reason"] == "stop"
        assert result["stats"]["masks"]["us_per_token"] > 0
    assert main(["generate", "--raw", "-p", "import os", "--grammar", str(lark)]) == 0
    assert "constraint: " in capsys.readouterr().err


def test_json_is_one_object_of_the_documented_keys(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--raw", "-p", "import os", "-n", "4", "--logprobs", "3", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert list(result) == [
        "prompt_ids", "ids", "text", "finish_reason", "token_logprobs", "logprobs", "seed", "draft_calls",
        "draft_lengths", "stats",
    ]  # fmt: skip
    assert list(result["stats"]) == [
        "prompt_tokens", "cached_tokens", "completion_tokens", "prompt_tokens_per_second", "decode_tokens_per_second",
        "launches_per_cycle", "bytes_per_token", "gigabytes_per_second", "bytes_to_host_per_token", "graph_captures",
        "graph_replays", "host_us_per_replay", "draft", "masks", "load_seconds", "peak_memory_bytes",
    ]  # fmt: skip
    assert list(result["stats"]["draft"]) == [
        "calls", "cycles", "accepted", "mean_us", "p95_us", "acceptance", "acceptance_by_position",
        "accepted_by_position", "mean_accepted_length", "drafting_share", "lengths",
    ]  # fmt: skip
    assert list(result["draft_calls"][0]) == [
        "cycle", "index", "device_us", "host_us", "graph", "head_rows", "accepted"
    ]  # fmt: skip
    assert result["prompt_ids"] == llm.tokenize("import os")
    assert (len(result["ids"]), result["finish_reason"]) == (4, "length")
    assert result["text"] == llm.detokenize(result["ids"])
    assert [len(position) for position in result["logprobs"]] == [3] * 4
    assert [position[0] for position in result["logprobs"]] == [
        [token, logprob] for token, logprob in zip(result["ids"], result["token_logprobs"], strict=True)
    ]  # greedy: the likeliest


def test_a_system_message_and_no_thinking_reach_the_template(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", "-p", "Why?", "-n", "1", "--device", "cpu", "--json"]
    assert main([*arguments, "--system", "Be brief.", "--no-think"]) == 0
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    ids = llm.prompt_ids(messages, enable_thinking=False)
    assert json.loads(capsys.readouterr().out)["prompt_ids"] == ids != llm.prompt_ids(messages)


def test_the_package_runs_as_the_command() -> None:
    command = [sys.executable, "-m", "arcmtp", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.returncode, done.stdout.startswith("arcmtp "), done.stderr) == (0, True, "")


def test_a_stop_string_ends_the_text_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", "--raw", "-p", "import os", "-n", "12", "--device", "cpu"]
    assert main(arguments) == 0
    whole = capsys.readouterr().out
    assert main([*arguments, "--stop", whole[5:8], "--stop", "never"]) == 0
    assert capsys.readouterr().out == whole[: whole.index(whole[5:8])] + "\n"


def test_draft_calls_are_written_a_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "calls.jsonl"
    arguments = ["generate", "--raw", "-p", "import os", "-n", "6", "--device", "cpu"]
    assert main([*arguments, "--draft", "2", "--draft-log", str(log)]) == 0
    drafted, errors = capsys.readouterr()
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    assert [call["index"] for call in calls] == [1, 2] * (len(calls) // 2) and len(calls) >= 4
    assert all(call["device_us"] > 0 for call in calls)
    assert f"drafts: {len(calls)} draft calls, " in errors
    assert main([*arguments, "--draft", "0", "--draft-log", str(log)]) == 0
    assert (log.read_text(), capsys.readouterr().out) == ("", drafted)


def test_a_least_probability_ends_chains_of_drafts_and_changes_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for p_min in ("0", "1"):
        command = ["generate", "--raw", "-p", "import os", "-n", "12", "--draft", "3", "--draft-p-min", p_min, "--json"]
        assert main([*command, "--device", "cpu"]) == 0
        result = json.loads(capsys.readouterr().out)
        texts.append(result["text"])
        assert max(call["index"] for call in result["draft_calls"]) == (1 if p_min == "1" else 3)
    assert texts[0] == texts[1]


def test_perplexity_prints_one_line_on_standard_output(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text"
    text.write_bytes((data_dir / "perplexity.txt").read_bytes()[:2000])
    assert main(["perplexity", "-f", str(text), "-c", "64"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("perplexity ") and line.endswith(" windows)")


def test_the_benchmark_of_drafts_fails_if_they_change_the_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["bench", "mtp", "-n", "2", "-r", "1", "--draft", "0,1", "--device", "cpu", "-o", "json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["differences"] == []
    monkeypatch.setattr(Report, "differences", lambda self: ["code_cpp differs at k = 1 from token 0 on"])
    assert main(command) == 1


def test_bench_without_a_name_measures_as_llama_bench_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "-p", "8", "-n", "2", "-r", "1", "--device", "cpu", "-o", "json"]) == 0
    assert [result["test"] for result in json.loads(capsys.readouterr().out)] == ["pp8", "tg2"]


def test_a_terminal_that_is_not_utf8_gets_what_it_can_show(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arcmtp.engine.sequence.Sequence", scripted(llm.tokenize("naïve")))
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding="ascii"))
    assert main(["generate", "-p", "x", "-n", "20", "--device", "cpu"]) == 0
    assert output.getvalue() == b"na?ve\n"
