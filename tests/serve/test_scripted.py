"""Reasoning and tool calls, through OpenAI's client and a model whose words are known."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.serve.conftest import Server

QUESTION: Any = [{"role": "user", "content": "How is the weather?"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TIME = {"type": "object", "properties": {"utc": {"type": "boolean"}}}
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "time", "parameters": TIME}},
]
CALLS = [("weather", {"city": "Zürich", "days": 2}), ("time", {"utc": True})]


@pytest.fixture
def client(scripted: Server) -> Iterator[openai.OpenAI]:
    with scripted.openai() as client:
        yield client


def ask(client: openai.OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(model="scripted", messages=QUESTION, **options).choices[0]


def calls(message: Any) -> list[tuple[str, Any]]:
    return [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or []]


def test_a_message_has_its_reasoning_content_and_tool_calls_apart(client: openai.OpenAI) -> None:
    choice = ask(client, tools=TOOLS)
    assert choice.finish_reason == "tool_calls"
    assert (choice.message.reasoning_content, choice.message.content) == ("I should look.", "Let me look.")
    assert calls(choice.message) == CALLS


def test_streamed_deltas_join_to_the_same_message(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="scripted", messages=QUESTION, tools=TOOLS, stream=True)
    content, reasoning, finish = "", "", None
    arguments: dict[int, str] = {}
    names, ids = [], []
    for chunk in stream:
        (choice,) = chunk.choices
        finish = choice.finish_reason or finish
        content += choice.delta.content or ""
        reasoning += getattr(choice.delta, "reasoning_content", "")
        for call in choice.delta.tool_calls or []:
            assert call.function
            if call.function.name:
                names.append(call.function.name)
                ids.append(call.id)
            arguments[call.index] = arguments.get(call.index, "") + (call.function.arguments or "")
    assert (content, reasoning, finish) == ("Let me look.", "I should look.", "tool_calls")
    assert list(zip(names, map(json.loads, arguments.values()), strict=True)) == CALLS
    assert len(set(ids)) == 2


def test_without_tools_or_with_tool_choice_none_calls_are_text(client: openai.OpenAI) -> None:
    for options in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        choice = ask(client, **options)
        assert (choice.finish_reason, choice.message.tool_calls) == ("stop", None)
        assert choice.message.content.startswith("Let me look.\n\n<tool_call>\n<function=weather>")


def test_one_call_only_when_calls_must_not_be_parallel(client: openai.OpenAI) -> None:
    choice = ask(client, tools=TOOLS, parallel_tool_calls=False)
    assert (choice.finish_reason, calls(choice.message)) == ("tool_calls", CALLS[:1])


@pytest.mark.parametrize(
    ("tool_choice", "arguments"),
    [
        ({"type": "function", "function": {"name": "weather"}}, {"city": "Zürich", "days": 2}),
        ("required", {"city": "Paris"}),
    ],
)
def test_a_call_can_be_forced(client: openai.OpenAI, tool_choice: Any, arguments: Any) -> None:
    choice = ask(client, tools=TOOLS, tool_choice=tool_choice, parallel_tool_calls=False)
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert calls(choice.message) == [("weather", arguments)]


def test_a_named_function_is_called_once_and_nothing_else(client: openai.OpenAI) -> None:
    choice = ask(client, tools=TOOLS, tool_choice={"type": "function", "function": {"name": "weather"}})
    assert (choice.finish_reason, calls(choice.message)) == ("tool_calls", CALLS[:1])


def test_a_call_without_arguments_may_come_back_with_an_empty_text(scripted: Server) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "time", "arguments": ""}}
    messages = [*QUESTION, {"role": "assistant", "content": None, "tool_calls": [call]}]
    with scripted.http() as http:
        assert http.post("/tokenize", json={"messages": messages}).status_code == 200


def test_tools_and_earlier_calls_reach_the_template_as_they_were_sent(scripted: Server) -> None:
    function = {"name": "weather", "arguments": '{"city": "Zürich", "days": 2}'}
    call = {"id": "c", "type": "function", "function": function}
    messages = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "rain"}]},
    ]
    with scripted.http() as http:
        tokens = http.post("/tokenize", json={"messages": messages[:2]}).json()["tokens"]
        text = http.post("/detokenize", json={"tokens": tokens}).json()["content"]
        assert '(city="Zürich")(days=2)' in text
        asked: list[Any] = [
            {"messages": QUESTION, "max_tokens": 1, "tools": [tool]} for tool in (TOOLS[0], {"x": 1, **TOOLS[0]})
        ]
        used = [http.post("/v1/chat/completions", json=body).json()["usage"]["prompt_tokens"] for body in asked]
    assert used[1] > used[0]  # what OpenAI does not know is shown to the model too


def test_thinking_can_be_switched_off(client: openai.OpenAI) -> None:
    choice = ask(client, extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    assert (choice.finish_reason, choice.message.content) == ("stop", "The answer is 42.")
    assert not hasattr(choice.message, "reasoning_content")


@pytest.mark.parametrize(("budget", "reasoning"), [(0, None), (3, "hm hm hm")])
def test_a_reasoning_budget_ends_the_thinking_and_the_answer_follows(
    client: openai.OpenAI, budget: int, reasoning: str | None
) -> None:
    body = {"chat_template_kwargs": {"forever": True}, "reasoning_budget": budget}
    answer = client.chat.completions.create(model="scripted", messages=QUESTION, max_tokens=50, extra_body=body)
    (choice,) = answer.choices
    assert (choice.finish_reason, choice.message.content) == ("stop", "The answer is 42.")
    assert getattr(choice.message, "reasoning_content", None) == reasoning
    assert answer.usage and answer.usage.completion_tokens == budget + 2


def test_a_budget_that_suffices_changes_nothing(client: openai.OpenAI) -> None:
    assert ask(client, extra_body={"reasoning_budget": 10}).message == ask(client).message


def test_max_tokens_count_across_the_end_of_the_budget(client: openai.OpenAI) -> None:
    body = {"chat_template_kwargs": {"forever": True}, "reasoning_budget": 3}
    choice = ask(client, max_completion_tokens=4, extra_body=body)
    assert (choice.finish_reason, choice.message.content) == ("length", "The answer")
    choice = ask(client, max_completion_tokens=3, extra_body=body)
    assert (choice.finish_reason, choice.message.content) == ("length", "")


def test_a_stop_string_across_tokens_cuts_exactly(client: openai.OpenAI) -> None:
    choice = ask(client, stop=["me look"])
    assert (choice.finish_reason, choice.message.content) == ("stop", "Let ")
