"""`arcmtp bench mtp`: what it counts, not how fast it is."""

import json
from dataclasses import replace

import numpy as np
import pytest

from arcmtp import LLM, ArcmtpError
from arcmtp.bench.compare import Model
from arcmtp.bench.mtp import Report, Request, bench_mtp, prompts, step_costs
from arcmtp.bench.mtp_text import aggregate, as_json, as_markdown
from tests.engine.conftest import CONTEXT

KEYS = [
    "n_requests", "total_predicted", "total_draft", "total_draft_accepted", "aggregate_accept_rate", "wall_s_total"
]  # fmt: skip
TEXTS = {"two": "Add two numbers.", "list": "Reverse a list."}


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(device="cpu", ctx=CONTEXT, draft=3)


@pytest.fixture(scope="module")
def report(llm: LLM) -> Report:
    return bench_mtp(llm, TEXTS, max_tokens=24, drafts=[0, 3], repetitions=2)


def request(name: str, ids: list[int], drafted: int = 0, accepted: int = 0) -> Request:
    return Request(name, ids, drafted, accepted, seconds=2.0, decode_seconds=1.0)


def test_there_is_a_request_of_each_class(tiny: LLM) -> None:
    texts = prompts()
    assert list(texts) == [
        "code_python", "code_cpp", "explain_concept", "summarize", "qa_factual", "translation", "creative_short",
        "stepwise_math", "long_code_review",
    ]  # fmt: skip
    code = texts["long_code_review"].split("```")[1]
    assert 500 < len(tiny.tokenize(code)) < 800


def test_every_draft_length_is_asked_everything_as_often_as_said(report: Report) -> None:
    assert list(report.passes) == [0, 3]
    for passes in report.passes.values():
        assert [[r.name for r in requests] for requests in passes] == [list(TEXTS)] * 2


def test_ids_and_acceptance_are_those_of_generate(llm: LLM, report: Report) -> None:
    for requests in report.passes[3]:
        for r in requests:
            prompt = [{"role": "user", "content": TEXTS[r.name]}]
            expected = llm.generate(prompt, max_tokens=24, draft=3)
            assert expected.finish_reason == "length" and r.ids == expected.ids
            summary = expected.statistics.draft
            assert summary is not None
            assert (r.drafted, r.accepted) == (summary.calls, summary.accepted)


def test_tokens_that_depend_on_the_draft_length_are_named() -> None:
    plain, drafted = [request("a", [1, 2]), request("b", [1, 2, 3])], [request("a", [1, 2]), request("b", [1, 9, 3])]
    assert Report({0: [plain], 2: [plain, plain]}, []).differences() == []
    report = Report({0: [plain], 2: [plain, drafted]}, [])
    assert report.differences() == ["b differs at k = 2 from token 1 on"]
    assert "b differs at k = 2 from token 1 on" in as_markdown(report)
    assert "identical" not in as_markdown(report)


def test_a_text_that_ends_early_differs() -> None:
    short = Report({0: [[request("a", [1, 2, 3])]], 1: [[request("a", [1, 2])]]}, [])
    assert short.differences() == ["a differs at k = 1 from token 2 on"]


def test_the_aggregate_has_llama_cpps_keys_and_counts_one_pass() -> None:
    requests = [request("a", [1, 2, 3], 4, 3), request("b", [1], 6, 1)]
    slower = [replace(r, seconds=5.0) for r in requests]
    total = aggregate([requests, slower, slower])
    assert list(total) == KEYS
    assert list(total.values()) == [2, 4, 10, 4, 0.4, 10.0]
    assert aggregate([[request("a", [1])]])["aggregate_accept_rate"] is None


def test_markdown_has_a_row_per_class_and_an_aggregate_per_length(report: Report) -> None:
    lines = as_markdown(report).splitlines()
    assert sum(line.startswith("| two | 24 |") for line in lines) == 2
    assert [list(json.loads(line)) for line in lines if line.startswith("{")] == [KEYS, KEYS]
    assert "The tokens are identical at every k." in lines
    assert [line.split("|")[1].strip() for line in lines if "row" in line] == ["step of", "1 row", "4 rows"]


def test_json_holds_the_same(report: Report) -> None:
    document = json.loads(as_json(report, Model("m.gguf", 1000)))
    assert [length["draft"] for length in document["lengths"]] == [0, 3]
    drafted = document["lengths"][1]
    assert list(drafted["aggregate"]) == KEYS
    assert [list(row) for row in drafted["requests"]] == [["class", "pred", "draft", "acc", "rate", "tok/s"]] * 2
    assert sum(row["acc"] for row in drafted["requests"]) == drafted["aggregate"]["total_draft_accepted"]
    assert len(drafted["tokens_per_second"]) == 2
    assert [step["rows"] for step in document["steps"]] == [1, 4]


def test_more_rows_move_the_bytes_of_more_experts_up_to_all_of_them(llm: LLM) -> None:
    costs = {cost.rows: cost for cost in step_costs(llm, [1, 2, 8])}
    all_experts = llm.network.step_bytes(0, llm.config.experts) / llm.network.step_bytes(0)
    assert costs[1].of_one_row == costs[1].of_its_bytes == 1
    assert 1 < costs[2].of_its_bytes < costs[8].of_its_bytes <= all_experts


def test_measuring_steps_leaves_nothing_behind(llm: LLM) -> None:
    expected = llm.generate("import os", max_tokens=6, draft=2).ids
    step_costs(llm, [1, 3])
    assert not np.any(llm.network.controls.pending_count.read(1))
    assert llm.generate("import os", max_tokens=6, draft=2).ids == expected


@pytest.mark.parametrize(
    ("max_tokens", "repetitions", "message"),
    [
        (0, 1, "n is 0; it must be at least 1"),
        (1, 0, "r is 0; it must be at least 1"),
        (CONTEXT, 1, f"the context holds {CONTEXT}: raise ctx"),
    ],
)
def test_requests_that_cannot_be_made_are_refused(
    llm: LLM, max_tokens: int, repetitions: int, message: str
) -> None:
    with pytest.raises(ArcmtpError, match=message):
        bench_mtp(llm, TEXTS, max_tokens, [0], repetitions)
