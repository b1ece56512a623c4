"""Answers that keep to what a request asks, through OpenAI's client."""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from tests.serve.conftest import Server

MESSAGES: Any = [{"role": "user", "content": "What is the weather?"}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA, "strict": True}}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA, "strict": True}}
TIME: Any = {
    "type": "function",
    "function": {"name": "time", "parameters": {"type": "object", "properties": {"utc": {"type": "boolean"}}}},
}
WARM: Any = {"temperature": 1, "seed": 3, "max_tokens": 200, "extra_body": {"enable_thinking": False}}


class Unit(BaseModel):
    name: Literal["C", "F"]


class Weather(BaseModel):
    degrees: int = Field(ge=-50, le=60)
    unit: Unit
    words: list[Literal["sun", "rain"]] = Field(max_length=2)


def ask(client: openai.OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(**{"model": "tiny", "messages": MESSAGES, **WARM, **options}).choices[0]


def keeps(client: openai.OpenAI, **fields: Any) -> str:
    """A whole answer to fields that OpenAI does not have."""
    choice = ask(client, extra_body={"enable_thinking": False, **fields})
    assert choice.finish_reason == "stop"
    return str(choice.message.content)


def test_response_format(client: openai.OpenAI) -> None:
    choice = ask(client, response_format=FORMAT, n=3)
    assert choice.finish_reason == "stop"
    jsonschema.validate(json.loads(choice.message.content), SCHEMA)


def test_parse_gives_an_object_of_a_class(client: openai.OpenAI) -> None:
    completion = client.chat.completions.parse(model="tiny", messages=MESSAGES, response_format=Weather, **WARM)
    assert isinstance(completion.choices[0].message.parsed, Weather)


def test_json_object(client: openai.OpenAI) -> None:
    choice = ask(client, response_format={"type": "json_object"}, max_tokens=30)
    assert choice.message.content.startswith("{")


@pytest.mark.parametrize(
    "fields",
    [
        {"json_schema": SCHEMA},
        {"guided_json": json.dumps(SCHEMA)},
        {"structured_outputs": {"json": SCHEMA}},
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
    ],
)
def test_other_servers_fields_of_schemas(client: openai.OpenAI, fields: Any) -> None:
    jsonschema.validate(json.loads(keeps(client, **fields)), SCHEMA)


@pytest.mark.parametrize(
    "fields",
    [
        {"grammar": 'root ::= "yes" | "no" [!]{1,3}'},
        {"grammar": '%llguidance {}\nstart: "yes" | "no" /!{1,3}/'},
        {"ebnf": 'root ::= "yes" | "no" "!"'},
        {"guided_grammar": 'start: "yes" | "no" "!"'},
        {"regex": "yes|no!{1,3}"},
        {"guided_regex": "yes|no!{1,3}"},
        {"guided_choice": ["yes", "no!"]},
        {"structured_outputs": {"choice": ["yes", "no!!"]}},
        {"structured_outputs": {"regex": "yes|no!"}},
        {"structured_outputs": {"grammar": 'root ::= "yes"'}},
    ],
)
def test_grammars_and_expressions(client: openai.OpenAI, fields: Any) -> None:
    assert re.fullmatch("yes|no!{1,3}", keeps(client, **fields))


def test_completions_keep_to_constraints_too(http: httpx.Client) -> None:
    body = {"prompt": "x = ", "regex": "[0-9]{3}", "max_tokens": 9, "temperature": 1}
    assert re.fullmatch("[0-9]{3}", http.post("/v1/completions", json=body).json()["choices"][0]["text"])


@pytest.mark.parametrize("draft", [0, 3, "auto"])
def test_streams_join_to_the_same_answer_with_any_drafts(client: openai.OpenAI, draft: Any) -> None:
    body = {"enable_thinking": False, "draft": draft}
    stream = client.chat.completions.create(
        **{**WARM, "extra_body": body}, model="tiny", messages=MESSAGES, response_format=FORMAT, stream=True
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == ask(client, response_format=FORMAT).message.content


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
@pytest.mark.parametrize("strict", [True, False])
def test_a_call_that_is_asked_for_is_valid(client: openai.OpenAI, choice: Any, strict: bool) -> None:
    weather = {"type": "function", "function": WEATHER["function"] | {"strict": strict}}
    for seed in range(4):
        answer = ask(client, tools=[weather], tool_choice=choice, parallel_tool_calls=False, seed=seed)
        assert answer.finish_reason == "tool_calls" and not answer.message.content
        (call,) = answer.message.tool_calls
        assert call.function.name == "weather"
        jsonschema.validate(json.loads(call.function.arguments), SCHEMA)


def test_required_calls_are_of_the_tools(client: openai.OpenAI) -> None:
    for seed in range(4):
        answer = ask(client, tools=[WEATHER, TIME], tool_choice="required", parallel_tool_calls=False, seed=seed)
        (call,) = answer.message.tool_calls
        arguments = json.loads(call.function.arguments)
        if call.function.name == "weather":
            jsonschema.validate(arguments, SCHEMA)
        else:
            assert call.function.name == "time" and arguments in ({}, {"utc": True}, {"utc": False})


def test_a_schema_beside_tools_is_for_answers_without_calls(client: openai.OpenAI) -> None:
    for seed in range(4):
        answer = ask(client, tools=[WEATHER], response_format=FORMAT, parallel_tool_calls=False, seed=seed)
        calls = answer.message.tool_calls
        jsonschema.validate(json.loads(calls[0].function.arguments if calls else answer.message.content), SCHEMA)


def test_strict_tools_leave_text_free(client: openai.OpenAI) -> None:
    greedy = {"temperature": 0, "max_tokens": 24, "tools": [WEATHER]}
    free = [{"type": "function", "function": WEATHER["function"] | {"strict": False}}]
    assert ask(client, **greedy).message.content == ask(client, **{**greedy, "tools": free}).message.content


def test_a_pattern_that_cannot_be_kept_is_left_out_without_strict(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "string", "pattern": "(?=a)"}}}
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": schema}}
    assert ask(client, tools=[tool], tool_choice="required", max_tokens=4).finish_reason in ("length", "tool_calls")
    tool["function"]["strict"] = True
    with pytest.raises(openai.BadRequestError, match=r"tools: the constraint cannot be compiled: .*look-around"):
        ask(client, tools=[tool], tool_choice="required", max_tokens=4)


def test_a_continued_answer_keeps_to_the_constraint_from_where_it_goes_on(client: openai.OpenAI) -> None:
    messages = [*MESSAGES, {"role": "assistant", "content": "The code is "}]
    assert re.fullmatch("[0-9]{3}", keeps_on(client, messages))


def keeps_on(client: openai.OpenAI, messages: Any) -> str:
    return str(ask(client, messages=messages, extra_body={"regex": "[0-9]{3}"}).message.content)


HOSTILE: list[dict[str, Any]] = [
    {"json_schema": {"type": "integer", "multipleOf": 10000019}},
    {"json_schema": {"allOf": [{"anyOf": [{"properties": {f"{i}{j}": {}}} for i in range(4)]} for j in range(12)]}},
    {"json_schema": {"$ref": "#"}},
    {"regex": "(" * 5000 + "a" + ")" * 5000},
    {"grammar": "start: A0\n" + "".join(f"A{i}: A{i + 1}\n" for i in range(9000))},
    {"grammar": "root ::= " + "(" * 5000},
    {"grammar": 'start: a{1,1000}\na: b b b\nb: a a | "x" | '},
    {"guided_choice": ["x" * 300_000]},
]


@pytest.fixture
def still_serving(http: httpx.Client) -> Iterator[None]:
    yield
    assert http.post("/v1/completions", json={"prompt": "import", "max_tokens": 1}).status_code == 200


@pytest.mark.usefixtures("still_serving")
@pytest.mark.parametrize("fields", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_constraints_are_one_line(http: httpx.Client, fields: dict[str, Any]) -> None:
    answer = http.post("/v1/completions", json={"prompt": "import", "max_tokens": 4, **fields})
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        (field,) = fields
        assert answer.json()["error"]["message"].startswith(field) and "\n" not in answer.json()["error"]["message"]


def test_reasoning_that_is_continued_takes_no_constraint(scripted: Server) -> None:
    messages = [*MESSAGES, {"role": "assistant", "content": "", "reasoning_content": "I should"}]
    with scripted.http() as http:
        answer = http.post("/v1/chat/completions", json={"messages": messages, "regex": "a", "max_tokens": 2})
    assert answer.status_code == 400, answer.text
    said = answer.json()["error"]["message"]
    assert said == "the last message has reasoning alone, which no constraint can go on with"


@pytest.mark.usefixtures("still_serving")
@pytest.mark.parametrize("stream", [False, True])
def test_a_grammar_that_becomes_too_large_on_the_way_ends_its_answer_alone(http: httpx.Client, stream: bool) -> None:
    grammar = "start: a0\n" + "".join(f"a{i}: a{i + 1} a{i + 1}\n" for i in range(40)) + 'a40: "a"\n'
    body = {"prompt": "import", "max_tokens": 20, "grammar": grammar, "stream": stream}
    answer = http.post("/v1/completions", json=body)
    said = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if "{" in line][-1]["error"]
    assert answer.status_code == (200 if stream else 400)
    assert said["code"] == "constraint_failed"
    assert said["message"].startswith("the text cannot keep to its constraint any further: ")
    assert "\n" not in said["message"]


def test_reasoning_comes_before_what_is_constrained(scripted: Server) -> None:
    with scripted.openai() as client:
        choice = client.chat.completions.create(
            model="scripted", messages=MESSAGES, extra_body={"regex": "[0-9]{3}"}, max_tokens=60
        ).choices[0]
    assert choice.message.reasoning_content == "I should look."  # type: ignore[attr-defined]
    assert re.fullmatch("[0-9]{3}", choice.message.content or "")
