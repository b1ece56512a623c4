"""Chat and text completions of the bundled model, through OpenAI's client."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from arcmtp import LLM
from tests.serve.conftest import Server

PROMPT = "def __len__(self):\n        return"
MESSAGES: Any = [{"role": "user", "content": "How do I reverse a list?"}]


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(device="cpu") as llm:
        yield llm


def test_the_readmes_client_prints_an_answer(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (example,) = re.findall(r"```python\n(from openai .*?)```", readme, re.DOTALL)
    assert "http://127.0.0.1:8080" in example
    exec(example.replace("http://127.0.0.1:8080", server.url).replace("stream=True", "stream=True, max_tokens=400"), {})
    assert capsys.readouterr().out


def texts(stream: Any) -> list[str]:
    return [choice.text for chunk in stream for choice in chunk.choices]


def test_a_completion_is_the_text_of_the_engine(client: openai.OpenAI, llm: LLM) -> None:
    answer = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=24)
    expected = llm.generate(PROMPT, max_tokens=24)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (expected.text, expected.finish_reason)
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(expected.prompt_ids), 24)
    by_ids = client.completions.create(model="tiny", prompt=llm.tokenize(PROMPT), max_tokens=24)
    assert by_ids.choices[0].text == expected.text


def test_a_streamed_completion_joins_to_the_same_text(client: openai.OpenAI, llm: LLM) -> None:
    stream = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=24, stream=True)
    assert "".join(texts(stream)) == llm.generate(PROMPT, max_tokens=24).text


def test_a_chat_goes_through_the_template(client: openai.OpenAI, llm: LLM) -> None:
    choice = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=40).choices[0]
    reasoning, _, content = llm.generate(MESSAGES, max_tokens=40).text.partition("</think>")
    message: Any = choice.message
    assert (message.reasoning_content, message.content) == (reasoning.strip(), content.lstrip())
    assert message.content and choice.finish_reason == "length"


def test_earlier_turns_and_text_parts_are_taken(client: openai.OpenAI) -> None:
    messages: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "How do I "}, {"type": "text", "text": "sort?"}]},
        {"role": "assistant", "content": "With sort.", "reasoning_content": "Sorting."},
        *MESSAGES,
    ]
    assert client.chat.completions.create(model="tiny", messages=messages, max_tokens=4).usage


def test_usage_and_timings_come_with_the_answer_and_with_the_last_chunks(client: openai.OpenAI) -> None:
    answer: Any = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=8)
    chunks: list[Any] = list(
        client.completions.create(
            model="tiny", prompt=PROMPT, max_tokens=8, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (
        chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens
    )  # fmt: skip
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    for timings in (answer.timings, chunks[-1].timings, chunks[-2].timings):
        assert (timings["prompt_n"] + timings["cache_n"], timings["predicted_n"]) == (answer.usage.prompt_tokens, 7)
        assert timings["prompt_per_second"] > 0 and timings["predicted_per_second"] > 0


@pytest.mark.parametrize("draft", [0, 3])
def test_a_turn_evaluates_only_what_is_new_and_says_what_a_cold_start_says(client: openai.OpenAI, draft: int) -> None:
    def ask(messages: list[Any]) -> tuple[str, int, int]:
        answer = client.chat.completions.create(
            model="tiny", messages=messages, max_tokens=30, temperature=0, extra_body={"draft": draft}
        )
        assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
        cached = answer.usage.prompt_tokens_details.cached_tokens or 0
        return answer.choices[0].message.content or "", cached, answer.usage.prompt_tokens

    question = {"role": "user", "content": f"With {draft} drafts: " + "How do I read a file line by line? " * 40}
    turns = [question, {"role": "assistant", "content": "So."}, {"role": "user", "content": "Why?"}]
    ask([{"role": "user", "content": "Something else."}])
    cold, cached, _ = ask(turns)
    assert cached < 10
    ask([question])
    warm, cached, prompt = ask(turns)
    assert warm == cold
    assert 0.8 * prompt < cached < prompt


def test_log_probabilities_of_a_chat_are_those_of_the_engine(client: openai.OpenAI, llm: LLM) -> None:
    expected = llm.generate(MESSAGES, max_tokens=6, logprobs=3)
    options: Any = {"model": "tiny", "messages": MESSAGES, "max_tokens": 6, "logprobs": True, "top_logprobs": 3}
    whole = client.chat.completions.create(**options).choices[0].logprobs
    streamed = [
        entry
        for chunk in client.chat.completions.create(**options, stream=True)
        for entry in (chunk.choices[0].logprobs.content or [] if chunk.choices[0].logprobs else [])
    ]
    assert whole and whole.content and expected.logprobs
    assert streamed == whole.content
    for entry, token, top in zip(whole.content, expected.ids, expected.logprobs, strict=True):
        assert entry.bytes == list(llm.tokenizer.token_bytes(token))
        assert [other.logprob for other in entry.top_logprobs] == [logprob for _, logprob in top]
        assert entry.logprob == top[0][1]


def test_log_probabilities_of_a_completion_say_where_each_token_is(client: openai.OpenAI) -> None:
    choice = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=6, logprobs=2).choices[0]
    shown = choice.logprobs
    assert shown and shown.tokens and shown.token_logprobs and shown.top_logprobs
    assert "".join(shown.tokens) == choice.text
    assert shown.text_offset == [len("".join(shown.tokens[:i])) for i in range(6)]
    assert [len(top) for top in shown.top_logprobs] == [2] * 6
    assert [top[token] for top, token in zip(shown.top_logprobs, shown.tokens, strict=True)] == shown.token_logprobs


def test_a_drawn_token_has_its_own_log_probability(client: openai.OpenAI) -> None:
    options: Any = {"temperature": 1.5, "seed": 3, "extra_body": {"top_k": 20}}
    answer = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=30, logprobs=1, **options)
    shown = answer.choices[0].logprobs
    assert shown and shown.token_logprobs and shown.top_logprobs
    likeliest = [max(top.values()) for top in shown.top_logprobs]
    assert all(-100 < chosen <= best for chosen, best in zip(shown.token_logprobs, likeliest, strict=True))
    assert shown.token_logprobs != likeliest


def test_drafts_change_the_timings_and_not_the_answer(http: httpx.Client) -> None:
    asked = {"prompt": PROMPT, "max_tokens": 40, "temperature": 0.8, "seed": 2, "logprobs": 2}
    answers = [http.post("/v1/completions", json={**asked, "draft": draft}).json() for draft in (0, 3)]
    assert answers[0]["choices"] == answers[1]["choices"]
    plain, drafted = (answer["timings"] for answer in answers)
    assert "draft_n" not in plain
    assert drafted["draft_n"] >= drafted["draft_n_accepted"] > 0
    assert len(drafted["draft_acceptance_by_position"]) == 3
    assert plain.keys() < drafted.keys()


@pytest.mark.parametrize("draft", [3, "auto"])
def test_drafts_are_counted_by_length(http: httpx.Client, draft: int | str) -> None:
    def counted() -> dict[str, float]:
        lines = http.get("/metrics").text.splitlines()
        values = (line.rsplit(" ", 1) for line in lines if line.startswith(("arcmtp_draft", "arcmtp_accepted")))
        return {name: float(value) for name, value in values if "created" not in name}

    asked, before = {"prompt": PROMPT, "max_tokens": 60, "temperature": 0.8, "seed": 2}, counted()
    answers = [http.post("/v1/completions", json={**asked, "draft": each}).json() for each in (0, draft)]
    assert answers[0]["choices"] == answers[1]["choices"]
    timings, counts = answers[1]["timings"], counted()
    lengths, more = timings["draft_lengths"], {name: counts[name] - before[name] for name in counts}
    assert sum(lengths) > 0 and (draft == "auto" or lengths[:3] == [0, 0, 0])
    assert sum(length * cycles for length, cycles in enumerate(lengths)) == timings["draft_n"]
    assert more["arcmtp_drafted_tokens_total"] == timings["draft_n"]
    assert more["arcmtp_accepted_tokens_total"] == timings["draft_n_accepted"]
    seconds = timings["draft_n"] * (timings["draft_us_mean"] or 0) / 1e6
    assert more["arcmtp_draft_seconds_total"] == pytest.approx(seconds)
    assert more["arcmtp_draft_length_count"] == sum(lengths)
    assert more['arcmtp_draft_length_bucket{le="0.0"}'] == lengths[0]


def test_timings_of_several_choices_are_those_of_each_together(http: httpx.Client) -> None:
    body = {"prompt": PROMPT, "max_tokens": 30, "temperature": 0.8, "seed": 2, "n": 2, "draft": 3}
    together = http.post("/v1/completions", json=body).json()["timings"]
    lines = http.post("/v1/completions", json={**body, "stream": True}).text.splitlines()
    first, second = (json.loads(line.removeprefix("data: "))["timings"] for line in lines if '"timings"' in line)
    for name in ("draft_n", "draft_n_accepted", "graph_captures", "graph_replays"):
        assert together[name] == first[name] + second[name]
    by_position = zip(*(t["draft_acceptance_by_position"] for t in (together, first, second)), strict=True)
    assert all(min(one, other) <= both <= max(one, other) for both, one, other in by_position)
    assert len(together["draft_acceptance_by_position"]) == 3
    assert together["draft_us_mean"] > 0 and together["draft_us_p95"] > 0


def test_n_choices_are_drawn_apart_and_again_by_the_seed(client: openai.OpenAI) -> None:
    options: Any = {"model": "tiny", "prompt": PROMPT, "max_tokens": 12, "temperature": 1.2, "n": 3, "seed": 5}
    answer = client.completions.create(**options)
    first = [choice.text for choice in answer.choices]
    assert len(set(first)) == 3 and [choice.index for choice in answer.choices] == [0, 1, 2]
    streamed = ["", "", ""]
    for chunk in client.completions.create(**options, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == first
    second = client.completions.create(**{**options, "n": 1, "seed": 6}).choices[0].text
    assert second == first[1]
    assert answer.usage and answer.usage.completion_tokens == 36


def test_several_prompts_are_choices_of_one_answer(client: openai.OpenAI) -> None:
    prompts = ["import os", PROMPT]
    together = client.completions.create(model="tiny", prompt=prompts, max_tokens=8)
    alone = [client.completions.create(model="tiny", prompt=prompt, max_tokens=8).choices[0].text for prompt in prompts]
    assert [choice.text for choice in together.choices] == alone


def test_the_prompt_is_echoed_before_the_text(client: openai.OpenAI, llm: LLM) -> None:
    expected = PROMPT + llm.generate(PROMPT, max_tokens=6).text
    options: Any = {"model": "tiny", "prompt": PROMPT, "max_tokens": 6, "echo": True}
    assert client.completions.create(**options).choices[0].text == expected
    assert "".join(texts(client.completions.create(**options, stream=True))) == expected


def test_generation_ends_before_a_stop_string(client: openai.OpenAI, llm: LLM) -> None:
    whole = llm.generate(PROMPT, max_tokens=40).text
    at = len(whole) // 2
    stop = whole[at : at + 7]
    options: Any = {"model": "tiny", "prompt": PROMPT, "max_tokens": 40, "stop": [stop, "never"]}
    choice = client.completions.create(**options).choices[0]
    assert (choice.text, choice.finish_reason) == (whole[: whole.index(stop)], "stop")
    assert "".join(texts(client.completions.create(**options, stream=True))) == choice.text


def test_sampling_fields_reach_the_engine(http: httpx.Client, llm: LLM) -> None:
    def text(**fields: Any) -> str:
        body = {"prompt": PROMPT, "max_tokens": 60, **fields}
        return str(http.post("/v1/completions", json=body).json()["choices"][0]["text"])

    greedy = text()
    first = llm.tokenize(greedy)[0]
    for only_the_likeliest in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1}, {"top_p": 0}, {"top_p": 0, "top_k": 40}):
        assert text(temperature=1.0, **only_the_likeliest) == greedy
    assert text(temperature=None, top_k=-1, seed=-1) == text(temperature=1e-6) == greedy
    assert text(temperature=1.5, seed=-1) != text(temperature=1.5, seed=-1)
    assert text(temperature=1.5, seed=-2) == text(temperature=1.5, seed=-2)
    assert text(logit_bias={str(first): -100}) != greedy
    assert len({greedy, text(presence_penalty=2.0), text(frequency_penalty=2.0)}) == 3
    assert text(repetition_penalty=1.8) == text(repeat_penalty=1.8) != greedy


def test_without_max_tokens_a_chat_may_fill_the_context(http: httpx.Client) -> None:
    body = {"messages": MESSAGES, "stop": "reversed", "logit_bias": {}}
    usage = http.post("/v1/chat/completions", json=body).json()["usage"]
    assert usage["completion_tokens"] > 16


def test_models_props_and_tokens(client: openai.OpenAI, http: httpx.Client, llm: LLM) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "arcmtp"
    props = http.get("/props").json()
    assert (props["model"], props["context"], props["slots"]) == ("tiny", llm.context, 4)
    tokens = http.post("/tokenize", json={"content": "naïve <|im_end|>"}).json()
    assert tokens == {"tokens": llm.tokenize("naïve <|im_end|>"), "count": len(llm.tokenize("naïve <|im_end|>"))}
    assert http.post("/tokenize", json={"messages": MESSAGES}).json()["tokens"] == llm.prompt_ids(MESSAGES)
    assert http.post("/detokenize", json={"tokens": tokens["tokens"]}).json()["content"] == "naïve <|im_end|>"


def test_metrics_and_the_log_tell_of_each_request(server: Server, http: httpx.Client) -> None:
    before = server.metric("arcmtp_completion_tokens_total")
    answer = http.post("/v1/completions", json={"prompt": "import", "max_tokens": 5})
    assert server.metric("arcmtp_completion_tokens_total") == before + 5
    assert server.metric("arcmtp_ready") == 1 and server.metric("arcmtp_requests_running") == 0
    (line,) = [line for line in server.log().splitlines() if answer.headers["x-request-id"] in line]
    assert '"path": "/v1/completions"' in line and '"completion_tokens": 5' in line and '"status": 200' in line


def test_there_is_an_openapi_page_that_refers_to_nothing_outside(http: httpx.Client) -> None:
    page = http.get("/docs").text
    references = re.findall(r"""(?:src|href|url)(?:=|: )["']([^"']+)""", page)
    assert {"/openapi.json", "/docs/assets/swagger-ui-bundle.js", "/docs/assets/swagger-ui.css"} <= set(references)
    for reference in references:
        assert http.get(reference).status_code == 200
    assert "//" not in page
    assert not re.search(r"@import|url\([\"']?(?!data:)[^)\"']", http.get("/docs/assets/swagger-ui.css").text)
    paths = http.get("/openapi.json").json()["paths"]
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics", "/props"} <= paths.keys()
