"""What whoever runs a server sees of it: the request log and metrics."""

import json
import re
from typing import Any

import pytest

from tests.serve.conftest import Server
from tests.serve.test_life import until

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
QUESTION: Any = {"messages": [{"role": "user", "content": "How is the weather?"}], "draft": 2, "temperature": 0}


def logged(server: Server, request_id: str) -> Any:
    """The line of a request."""
    until(lambda: f'"{request_id}"' in server.log())
    (found,) = (line for line in all_lines(server) if line.get("id") == request_id)
    return found


def all_lines(server: Server) -> list[Any]:
    return [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]


def metrics(server: Server) -> dict[str, float]:
    with server.http() as http:
        lines = http.get("/metrics").text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def test_the_log_line_of_a_request_has_its_id_and_what_its_answer_says(scripted: Server) -> None:
    with scripted.http(headers={"X-Request-Id": "trace-7:a/b"}) as http:
        answer = http.post(CHAT, json=QUESTION)
    assert answer.headers["x-request-id"] == "trace-7:a/b"
    line, body = logged(scripted, "trace-7:a/b"), answer.json()
    usage, timings = body["usage"], body["timings"]
    assert (line["answer"], line["model"], line["status"]) == (body["id"], "scripted", 200)
    assert line["prompt_tokens"] == usage["prompt_tokens"]
    assert line["cached_tokens"] == usage["prompt_tokens_details"]["cached_tokens"]
    assert line["draft_acceptance"] == round(timings["draft_n_accepted"] / timings["draft_n"], 4)
    assert timings["queue_ms"] + timings["prompt_ms"] <= line["first_token_ms"] <= line["seconds"] * 1e3 + 1


@pytest.mark.parametrize("sent", ["", "two words", "x" * 129, 'quote"', b"\xc3\xbc"])
def test_an_id_that_a_log_cannot_have_is_replaced(scripted: Server, sent: Any) -> None:
    with scripted.http() as http:
        answer = http.get("/v1/models", headers={b"X-Request-Id": sent if isinstance(sent, bytes) else sent.encode()})
    assert re.fullmatch("req-[0-9a-f]{16}", answer.headers["x-request-id"])


def test_metrics_count_cached_tokens_and_times_between_tokens(scripted: Server) -> None:
    with scripted.http() as http:
        http.post(CHAT, json=QUESTION)
        before = metrics(scripted)
        body = http.post(CHAT, json={**QUESTION, "n": 2, "max_tokens": 5}).json()
    after = metrics(scripted)
    cached = body["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached > 0
    assert after["arcmtp_cached_tokens_total"] - before["arcmtp_cached_tokens_total"] == cached
    assert after["arcmtp_token_gap_seconds_count"] - before["arcmtp_token_gap_seconds_count"] == 2 * (5 - 1)
    assert after["process_resident_memory_bytes"] > 50e6
    assert after["process_cpu_seconds_total"] > before["process_cpu_seconds_total"]
    assert after['arcmtp_build_info{model="scripted",version="0.1.0"}'] == 1


def test_a_stream_whose_client_leaves_counts_as_cancelled(scripted: Server) -> None:
    cancelled = 'arcmtp_requests_total{route="/v1/completions",status="499"}'
    before = metrics(scripted).get(cancelled, 0)
    body = {"prompt": "<think>\n\n", "max_tokens": -1, "stream": True}
    with (
        scripted.http(headers={"X-Request-Id": "leaves"}) as http,
        http.stream("POST", TEXT, json=body) as answer,
    ):
        assert next(answer.iter_lines()).startswith("data: {")
    until(lambda: metrics(scripted).get(cancelled, 0) == before + 1)
    line = logged(scripted, "leaves")
    assert (line["status"], line["error"], line["finish_reasons"]) == (499, "the client has gone", [None])


def test_requests_of_health_and_metrics_are_no_news(scripted: Server) -> None:
    metrics(scripted)
    assert not [line for line in all_lines(scripted) if line.get("path") in ("/health", "/metrics")]
