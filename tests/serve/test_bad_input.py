"""What cannot be answered: an error object of the right status, and the server goes on."""

import json
import re
import socket
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel, ValidationError

from arcmtp.serve.protocol import ChatRequest, DetokenizeRequest
from tests.serve.conftest import Server

MESSAGES = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "f"}}]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def chat(**fields: Any) -> tuple[str, dict[str, Any]]:
    return CHAT, {"messages": MESSAGES, "max_tokens": 1, **fields}


def text(**fields: Any) -> tuple[str, dict[str, Any]]:
    return TEXT, {"prompt": "import", "max_tokens": 1, **fields}


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error object of an answer that must be one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    return error


@pytest.fixture(autouse=True)
def still_serving(http: httpx.Client) -> Any:
    yield
    assert http.post(TEXT, json=text()[1]).status_code == 200


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (chat(messages=[]), "messages: List should have at least 1 item after validation, not 0"),
        ((CHAT, {}), "messages: Field required"),
        (chat(messages="hi"), "messages: Input should be a valid list"),
        (chat(messages=[{"role": "user"}]), "messages.0.content is missing"),
        (chat(messages=[{"role": "robot", "content": "hi"}]), "messages.0.role: Input should be 'system', "),
        (chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]), "messages.0.content."),
        (chat(messages=[{"role": "user", "content": "\ud800"}]), "the text is not valid Unicode: lone surrogate U+D8"),
        (chat(messages=[{"role": "user", "content": 5}]), "messages.0.content: Input should be a valid string"),
        (chat(temperature="hot"), "temperature: Input should be a valid number"),
        (chat(temperature=-1), "temperature is -1.0; it must be 0 (greedy) or a number from 0.01 to 100"),
        (chat(max_tokens=0), "max_tokens: must be at least 1, or -1: to the end of the context"),
        (chat(max_tokens=True), "max_tokens: Input should be a valid integer"),
        (chat(draft=8), "draft: a number from 0 to 7, or auto"),
        (chat(draft="most"), "draft: a number from 0 to 7, or auto"),
        (chat(draft=True), "draft: a number from 0 to 7, or auto"),
        (chat(n=17), "n: Input should be less than or equal to 16"),
        (chat(stop=["x"] * 10_000), "stop: List should have at most 64 items after validation, not 10000"),
        (chat(stop="x" * 1025), "stop.0: String should have at most 1024 characters"),
        (chat(logprobs=True, top_logprobs=21), "top_logprobs: Input should be less than or equal to 20"),
        (chat(top_logprobs=2), "the body: top_logprobs needs logprobs: true"),
        (chat(logit_bias={"6144": 1}), "logit_bias has token 6144; the vocabulary has ids 0 to 6143"),
        (chat(logit_bias={"x": 1}), "logit_bias: 'x' is not a token id"),
        (chat(logit_bias={str(i): "x" for i in range(1024)}), "logit_bias: at most 1023 tokens"),
        (chat(logit_bias={"1": 101}), "logit_bias of token 1 is 101.0; it must be a number from -100 to 100, or -inf"),
        (chat(tools=[{"type": "function"}]), "tools.0.function: Field required"),
        (chat(tool_choice="required"), "the body: tool_choice is required, but there are no tools"),
        (chat(tool_choice={"type": "function", "function": {"name": "f"}}), "the body: tool_choice names 'f', which"),
        (chat(tool_choice={"type": "function", "name": "f"}), "tool_choice.function: Field required"),
        (chat(functions=[{"name": "f"}]), "functions is not available: use tools"),
        (text(grammar="root ::= x"), "grammar: the rule 'x' is not defined"),
        (text(grammar="start: x"), "grammar: the constraint cannot be compiled: "),
        (text(regex="(a"), "regex: the constraint cannot be compiled: a regular expression: unclosed group"),
        (text(guided_choice=[]), "guided_choice: List should have at least 1 item"),
        (chat(response_format={"type": "xml"}), "response_format.type: Input should be 'text', 'json_object' or "),
        (chat(response_format={"type": "json_schema"}), "response_format: type json_schema needs json_schema.schema"),
        (chat(response_format={"type": "json_object"}, grammar="root ::= [a]"),
         "the body: response_format and grammar both constrain the answer: give one"),
        (chat(regex="a", tools=TOOLS), "the body: regex and tools both constrain the answer: give one, or tool_choice"),
        (chat(json_schema={"properties": {"x": {"uniqueItems": True}}}),
         "json_schema.properties.x: the keyword 'uniqueItems' is not supported"),
        (chat(response_format={"type": "json_schema", "json_schema": {"schema": {"properties": {"x": {"if": {}}}}}}),
         "response_format.json_schema.schema.properties.x: the keyword 'if' is not supported"),
        (chat(json_schema={"type": "object", "properties": {"x": False}, "required": ["x"]}),
         "json_schema: the constraint cannot be compiled: Unsatisfiable schema: required property 'x' is unsat"),
        (chat(tools=[{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"not": {}}}}]),
         "tools.0.function.parameters: the keyword 'not' is not supported for a call"),
        (chat(structural_tag={'a': 1}), "structural_tag is not available: use tools"),
        (chat(chat_template_kwargs={"messages": []}), "chat_template_kwargs: add_generation_prompt, continue_"),
        (text(prompt=""), "the prompt is empty; it needs at least one token"),
        (text(prompt=[]), "prompt: expected text, token ids, or a list of at most 16 of either"),
        (text(prompt=["a", 5]), "prompt: expected text, token ids, or a list of at most 16 of either"),
        (text(prompt=[6144]), "token id 6144 is not in the vocabulary, which has ids 0 to 6143"),
        (text(prompt="import " * 5000), "the prompt has "),
        (
            text(prompt=[[65] * 1000] * 16, echo=True, logprobs=20),
            "echo with logprobs: 336000 numbers, (1 + logprobs) for each token of a prompt, are more than 262144, "
            "the limit: send fewer prompts or a smaller logprobs",
        ),
        (text(best_of=2), "best_of: not available; use n"),
        (text(suffix="x"), "suffix: this model's vocabulary has no token for filling in (fim_pre_token_id or <|fim_"),
        (("/tokenize", {}), "the body: give either content or messages"),
        (("/detokenize", {"tokens": [-1]}), "token id -1 is outside the vocabulary of 6144 tokens"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(http: httpx.Client, request_: tuple[str, dict[str, Any]], message: str) -> None:
    path, body = request_
    error = refused(http.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"}), 400)
    assert error["message"].startswith(message), error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"prompt": "x"} y', "the body is not valid JSON: Extra data, at character 16"),
        (b"", "the body must be a JSON object, with Content-Type: application/json"),
        (b'{"prompt": "\xff"}', "the body is not valid UTF-8: byte 12"),
        (b'{"prompt": ' + b"[" * 100_000, "the body is nested too deeply"),
        (b'{"prompt": "x", "temperature": NaN}', "temperature: Input should be a finite number"),
        (b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}", "the body has a number with too many digits"),
        (b'["prompt"]', "the body must be a JSON object, with Content-Type: application/json"),
    ],
)
def test_bodies_that_are_no_json_object_are_refused(http: httpx.Client, body: bytes, message: str) -> None:
    answer = http.post(TEXT, content=body, headers={"Content-Type": "application/json"})
    assert refused(answer, 400)["message"] == message


def test_json_must_be_declared_since_any_web_page_can_send_the_rest(http: httpx.Client) -> None:
    answer = http.post(TEXT, content=json.dumps(text()[1]), headers={"Content-Type": "text/plain"})
    assert "Content-Type: application/json" in refused(answer, 400)["message"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_60_megabytes_is_refused(http: httpx.Client, chunked: bool) -> None:
    body = b'{"prompt": "' + b"x" * 60_000_000 + b'"}'
    answer = http.post(TEXT, content=iter([body]) if chunked else body, headers={"Content-Type": "application/json"})
    assert refused(answer, 413)["message"] == "the body is larger than 8 MiB, the limit"


def test_unknown_models_routes_and_methods_are_refused(http: httpx.Client) -> None:
    error = refused(http.post(TEXT, json=text(model="gpt-4")[1]), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert error["message"] == "there is no model 'gpt-4' here, only 'tiny'"
    refused(http.get("/v1/models/gpt-4"), 404)
    assert refused(http.get("/engines"), 404)["message"] == "there is no route '/engines' here; /docs lists them"
    answer = http.get(TEXT)
    assert refused(answer, 405)["message"] == "'/v1/completions' takes POST, not GET"
    assert answer.headers["allow"] == "POST"


def test_openai_s_client_raises_its_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="gpt-4", prompt="x")
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", prompt="import " * 5000)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (TEXT, {"prompt": "=" * 1_000_000}),
        (CHAT, {"messages": [{"role": "user", "content": "=" * 1_000_000}]}),
        ("/tokenize", {"content": "=" * 1_000_000}),
        ("/tokenize", {"messages": [{"role": "user", "content": "=" * 1_000_000}]}),
    ],
)
def test_what_cannot_fit_the_context_is_not_even_tokenized(http: httpx.Client, path: str, body: dict[str, Any]) -> None:
    error = refused(http.post(path, json=body), 400)
    message = r"the prompt has 10000\d\d bytes, at least 2083\d tokens; the context holds 4096"
    assert error["code"] == "context_length_exceeded" and re.fullmatch(message, error["message"])


def test_what_is_not_http_is_refused(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        chat(user="me", store=False, metadata={"a": "b"}, service_tier="auto"),
        chat(response_format={"type": "text"}, functions=None, grammar="", tool_choice="auto"),
        chat(stream=True, stream_options={"include_usage": None}),
        text(best_of=1, suffix=""),
    ],
)
def test_what_means_nothing_here_is_ignored(http: httpx.Client, path: str, body: dict[str, Any]) -> None:
    assert http.post(path, json=body).status_code == 200


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (ChatRequest, {"messages": [5] * 1000}),
        (ChatRequest, {"messages": [{"role": "user", "content": [5] * 1000}]}),
        (ChatRequest, {"messages": [{"role": "assistant", "tool_calls": [5] * 1000}]}),
        (DetokenizeRequest, {"tokens": ["x"] * 1000}),
    ],
)
def test_of_many_wrong_items_only_the_first_takes_time(kind: type[BaseModel], body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(body)
    assert caught.value.error_count() <= 2  # of a union's alternatives each has one
