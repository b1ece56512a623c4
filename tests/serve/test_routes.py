"""Routes besides those that generate: HEAD, paths without /v1, what they tell of text, template and slots."""

from typing import Any

import httpx
import openai
import pytest

from arcmtp.model.infill import File, Gap, infill_ids
from arcmtp.model.tokenizer import Tokenizer
from tests.serve.conftest import Server

MESSAGES = [{"role": "user", "content": "How do I reverse a list?"}]


def test_head_is_answered_as_get_without_a_body(http: httpx.Client) -> None:
    paths = [path for path, item in http.get("/openapi.json").json()["paths"].items() if "get" in item]
    paths = [path.replace("{model}", "tiny") for path in paths if "response" not in path] + ["/docs", "/openapi.json"]
    assert {"/v1/models", "/v1/models/tiny", "/health", "/metrics", "/props", "/slots", "/tokenizer_info"} <= {*paths}
    for path in paths:
        got, head = http.get(path), http.head(path)
        assert (head.status_code, head.headers["content-type"]) == (200, got.headers["content-type"]), path
        assert head.content == b"" and int(head.headers["content-length"]) > 0
    assert http.head("/nowhere").status_code == 404


def test_a_method_that_a_route_does_not_take_is_told_which_it_takes(http: httpx.Client) -> None:
    for method, path, allow in (
        ("HEAD", "/v1/completions", "POST"),
        ("PUT", "/responses/x", "DELETE, GET, HEAD"),
        ("DELETE", "/v1/models", "GET, HEAD"),
    ):
        answer = http.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    assert answer.json()["error"]["message"] == "'/v1/models' takes GET, HEAD, not DELETE"


def test_openai_s_routes_are_there_without_v1(server: Server, http: httpx.Client) -> None:
    with openai.OpenAI(base_url=server.url, api_key="none") as client:
        chat: Any = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=3)  # type: ignore[arg-type]
    assert chat.usage.completion_tokens == 3
    assert http.get("/models").json() == http.get("/v1/models").json()
    assert http.get("/models/tiny").json()["id"] == "tiny"


def test_the_template_is_applied_as_for_a_chat(http: httpx.Client) -> None:
    for options in ({}, {"enable_thinking": False}, {"tools": [{"type": "function", "function": {"name": "f"}}]}):
        prompt = http.post("/apply-template", json={"messages": MESSAGES, **options}).json()["prompt"]
        assert prompt.startswith("<|im_start|>") and MESSAGES[0]["content"] in prompt
        count = http.post("/tokenize", json={"content": prompt}).json()["count"]
        body = {"messages": MESSAGES, "max_tokens": 1, **options}
        assert http.post("/v1/chat/completions", json=body).json()["usage"]["prompt_tokens"] == count


def test_text_is_tokenized_as_vllm_s_clients_ask(http: httpx.Client) -> None:
    info = http.get("/tokenizer_info").json()
    assert (info["bos_token"], info["eos_token"]) == ("<|endoftext|>", "<|im_end|>")
    assert info["chat_template"] and info["model_max_length"] == http.get("/props").json()["context"]
    tokens = http.post("/tokenize", json={"prompt": "naïve", "add_special_tokens": False}).json()["tokens"]
    assert tokens == http.post("/tokenize", json={"content": "naïve", "add_special": True}).json()["tokens"]
    assert http.post("/detokenize", json={"tokens": tokens}).json() == {"content": "naïve", "prompt": "naïve"}


def test_slots_tell_what_they_do_and_no_text_unless_asked(http: httpx.Client) -> None:
    body = {"prompt": "import os", "max_tokens": 400, "ignore_eos": True, "stream": True}
    with http.stream("POST", "/v1/completions", json=body) as answer:
        lines = (line for line in answer.iter_lines() if line)
        next(lines)
        slots = http.get("/slots").json()
        next(lines)
    (busy,) = [slot for slot in slots if slot["is_processing"]]
    assert [slot["id"] for slot in slots] == [0, 1, 2, 3]
    assert (busy["state"], busy["prompt_tokens"]) == ("decoding", 2)
    assert busy["tokens"] >= 2 and busy["n_ctx"] == http.get("/props").json()["context"]
    assert not any("prompt" in slot for slot in slots)
    text = http.get("/slots?prompt=true").json()[busy["id"]]["prompt"]
    assert text.startswith("import os")


@pytest.fixture(scope="module")
def infill(scripted: Server) -> Any:
    with scripted.http() as http:
        yield http


def test_a_suffix_asks_for_what_stands_before_it(infill: httpx.Client) -> None:
    body = {"prompt": ["a", "b"], "suffix": "z", "max_tokens": 9}
    answer = infill.post("/v1/completions", json=body).json()
    assert [choice["text"] for choice in answer["choices"]] == ["in between"] * 2
    assert answer["usage"]["prompt_tokens"] == 2 * 5
    refused = infill.post("/v1/completions", json={**body, "echo": True})
    assert refused.json()["error"]["message"] == "suffix: echo is not available with it"


def test_the_prompt_of_a_gap() -> None:
    class Words(Tokenizer):
        """A token for each of the five, and one for each character."""

        def __init__(self) -> None: ...

        def named_id(self, key: str, text: str | None = None) -> int | None:
            return {"fim_pre": -1, "fim_suf": -2, "fim_mid": -3, "fim_rep": -4, "fim_sep": -5}[key[:7]]

        def encode(self, text: str, special: bool = True, context: int | None = None) -> list[int]:
            assert not special
            return list(text.encode())

    gap = Gap([1, 2], [3], [4])
    assert infill_ids(Words(), gap) == [-1, 1, 2, -2, 3, -3, 4]
    with_files = infill_ids(Words(), Gap([1, 2], [3], [4], [File("a.py", "x")]))
    assert with_files[-7:] == infill_ids(Words(), gap)
    assert with_files[:-7] == [-4, *b"project\n", -5, *b"a.py\nx\n", -5, *b"file\n"]
