"""Anthropic's Messages, through its own client and types, on a model whose words are known."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from arcmtp.serve.errors import ApiError
from arcmtp.serve.messages_api import request as requests
from arcmtp.serve.messages_api.request import MessagesRequest, PromptRequest
from tests.serve.conftest import Server, named_events
from tests.serve.test_scripted import CALLS, PARAMETERS, TIME

EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
TOOLS: Any = [{"name": "weather", "input_schema": PARAMETERS}, {"name": "time", "input_schema": TIME}]
QUESTION: Any = {"role": "user", "content": "How is the weather?"}
ASKED: Any = {"model": "scripted", "messages": [QUESTION], "max_tokens": 100}
THINKING: Any = {"thinking": {"type": "enabled", "budget_tokens": 50}}
BILLING = "x-anthropic-billing-header: cc_version=2.1.101.e51; cc_entrypoint=cli; cch={};"


@pytest.fixture
def client(scripted: Server) -> Iterator[anthropic.Anthropic]:
    with scripted.anthropic() as client:
        yield client


@pytest.fixture
def http(scripted: Server) -> Iterator[httpx.Client]:
    with scripted.http() as http:
        yield http


def events(http: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    """The events of a stream, each of Anthropic's types."""
    return named_events(http.post("/v1/messages?beta=true", json={**ASKED, "stream": True, **fields}), EVENTS)


def comparable(message: Message) -> dict[str, Any]:
    """A message without what differs from one to the next."""
    fields = message.model_dump(exclude_none=True)
    for block in fields["content"]:
        block.pop("id", None)
        block.pop("parsed_output", None)
    usage = fields.pop("usage")
    prompt = usage["input_tokens"] + usage["cache_read_input_tokens"]
    return {**fields, "id": None, "tokens": (prompt, usage["output_tokens"], usage["output_tokens_details"])}


def test_blocks_are_thinking_text_and_tool_use(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**ASKED, **THINKING, tools=TOOLS)
    Message.model_validate(message.model_dump())
    thoughts, text, *calls = message.content
    assert thoughts.type == "thinking" and thoughts.thinking == "I should look." and thoughts.signature
    assert text.type == "text" and text.text == "Let me look."
    assert [(call.name, call.input) for call in calls if call.type == "tool_use"] == CALLS
    assert (message.stop_reason, message.role, message.model) == ("tool_use", "assistant", "scripted")
    assert message._request_id and message._request_id.startswith("req-")


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": TOOLS, **THINKING},
        {"tools": TOOLS, **THINKING, "max_tokens": 8},
        {},
        {"stop_sequences": ["42"]},
        {"tools": TOOLS, "tool_choice": {"type": "tool", "name": "weather"}},
    ],
)
def test_the_clients_stream_collects_the_whole_message(client: anthropic.Anthropic, fields: Any) -> None:
    asked = {**ASKED, **fields}
    with client.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    assert comparable(streamed) == comparable(client.messages.create(**asked))


def test_streamed_events_are_of_anthropics_types(http: httpx.Client) -> None:
    found = events(http, tools=TOOLS, **THINKING)
    kinds = [event["type"] for event in found]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    assert [event["index"] for event in found if event["type"] == "content_block_start"] == [0, 1, 2, 3]
    for index, joined in enumerate(["I should look.", "Let me look."]):
        own = [event for event in found if event.get("index") == index]
        assert (own[0]["type"], own[-1]["type"]) == ("content_block_start", "content_block_stop")
        deltas = [event["delta"] for event in own[1:-1]]
        assert "".join(delta.get("text", delta.get("thinking", "")) for delta in deltas) == joined
        assert len(deltas) > 2 or index  # not all at once


@pytest.mark.parametrize(
    ("fields", "reason", "stop"),
    [
        ({}, "end_turn", None),
        ({"tools": TOOLS, **THINKING}, "tool_use", None),
        ({"max_tokens": 2}, "max_tokens", None),
        ({"stop_sequences": ["nowhere", "is 4"]}, "stop_sequence", "is 4"),
    ],
)
def test_the_reason_of_the_end(client: anthropic.Anthropic, fields: Any, reason: str, stop: str | None) -> None:
    message = client.messages.create(**{**ASKED, **fields})
    assert (message.stop_reason, message.stop_sequence) == (reason, stop)


def test_a_call_that_is_cut_off_has_the_arguments_that_there_are(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**{**ASKED, "max_tokens": 9}, **THINKING, tools=TOOLS)
    call = message.content[-1]
    assert call.type == "tool_use" and message.stop_reason == "max_tokens"
    assert call.input == {}  # "city": "Zür


def test_usage_counts_prompt_cache_thinking_and_answer(client: anthropic.Anthropic) -> None:
    prompt = client.messages.count_tokens(model="scripted", messages=[QUESTION], **THINKING).input_tokens
    usage = client.messages.create(**{**ASKED, "max_tokens": 6}, **THINKING).usage
    usage = client.messages.create(**{**ASKED, "max_tokens": 6}, **THINKING).usage
    assert usage.cache_read_input_tokens and usage.output_tokens_details
    assert usage.input_tokens + usage.cache_read_input_tokens == prompt
    assert (usage.output_tokens, usage.output_tokens_details.thinking_tokens) == (6, 3)


@pytest.mark.parametrize(
    ("thinking", "thoughts"),
    [
        ({}, []),
        ({"thinking": {"type": "disabled"}}, []),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}, ["I should look."]),
        ({"thinking": {"type": "enabled", "budget_tokens": 1}}, ["I should"]),
    ],
)
def test_the_model_thinks_where_it_is_asked_to(client: anthropic.Anthropic, thinking: Any, thoughts: Any) -> None:
    content = client.messages.create(**ASKED, **thinking).content
    assert [block.thinking for block in content if block.type == "thinking"] == thoughts


def test_results_of_tools_go_back_with_the_message(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(**ASKED, **THINKING, tools=TOOLS)
    results: Any = [
        {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "rain"}]}
        for block in answer.content
        if block.type == "tool_use"
    ]
    messages: Any = [QUESTION, {"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    again = client.messages.create(**{**ASKED, "messages": messages}, tools=TOOLS)
    assert [block.text for block in again.content if block.type == "text"] == ["The answer is 42."]


def test_a_message_of_the_assistant_is_continued(client: anthropic.Anthropic) -> None:
    messages: Any = [QUESTION, {"role": "assistant", "content": "The answer"}]
    (text,) = client.messages.create(**{**ASKED, "messages": messages}).content
    assert text.type == "text" and text.text == " is 42."


def test_the_billing_line_of_claude_code_does_not_spoil_the_cache(http: httpx.Client) -> None:
    prompts = [
        [{"type": "text", "text": BILLING.format(stamp)}, {"type": "text", "text": "Rules.\n" * 40}]
        for stamp in ("a5145", "0bc3f")
    ]
    messages = [QUESTION]
    used = [http.post("/v1/messages", json={**ASKED, "system": system}).json()["usage"] for system in prompts]
    assert used[1]["cache_read_input_tokens"] > 40
    tokens = [
        http.post("/v1/messages/count_tokens", json={"messages": messages, "system": system}).json()["input_tokens"]
        for system in (*prompts, "Rules.\n" * 40, BILLING.format("x") + "Rules.\n" * 40)
    ]
    assert len(set(tokens)) == 1


@pytest.mark.parametrize(
    ("fields", "status", "kind", "message"),
    [
        ({"model": "claude"}, 404, "not_found_error", "there is no model 'claude' here, only 'scripted'"),
        ({"messages": []}, 400, "invalid_request_error", "messages: List should have at least 1 item"),
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens: "),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, 400, "invalid_request_error",
         "messages.0.content.0: this model takes text only: no images"),
        ({"messages": [{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "x", "content": [{"type": "image", "source": {}}]}]}]},
         400, "invalid_request_error", "messages.0.content.0.content.0: this model takes text only"),
        ({"system": [{"type": "image"}]}, 400, "invalid_request_error", "system.0: this model takes text only"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, 400, "invalid_request_error",
         "tools.0: this server has no tools of its own, such as 'web_search_20250305'"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, 400, "invalid_request_error", "tools.0.name: String should"),
        ({"tool_choice": {"type": "tool"}}, 400, "invalid_request_error", "tool_choice: type tool needs a name"),
        ({"tool_choice": {"type": "tool", "name": "x"}}, 400, "invalid_request_error", "tool_choice names 'x'"),
        ({"mirostat": 2}, 400, "invalid_request_error", "mirostat is not available"),
        ({"n": 2}, 400, "invalid_request_error", "n is not available: an answer has one choice"),
        ({"mcp_servers": [{}]}, 400, "invalid_request_error", "mcp_servers is not available"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, 400, "invalid_request_error",
         "context_management: a prompt is taken whole"),
        ({"messages": [{"role": "user", "content": "x " * 5000}]}, 400, "invalid_request_error",
         "prompt is too long: the prompt has"),
    ],
)  # fmt: skip
def test_errors_are_anthropics(http: httpx.Client, fields: Any, status: int, kind: str, message: str) -> None:
    answer = http.post("/v1/messages", json={**ASKED, **fields})
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"type", "error"} and answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == kind
    assert message in answer.json()["error"]["message"]


def test_the_client_raises_the_error_of_the_status(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="there is no route '/v1/messages/batches'"):
        client.messages.batches.list()
    with pytest.raises(anthropic.BadRequestError, match="messages: List should have at least 1 item"):
        client.messages.count_tokens(model="scripted", messages=[])


def test_every_status_has_a_type_of_anthropics() -> None:
    for status, kind in (
        (400, "invalid_request_error"), (401, "authentication_error"), (404, "not_found_error"),
        (408, "timeout_error"), (413, "request_too_large"), (429, "rate_limit_error"), (500, "api_error"),
        (503, "overloaded_error"),
    ):  # fmt: skip
        body = ApiError(status, "x").response("/v1/messages").body
        assert json.loads(bytes(body)) == {"type": "error", "error": {"type": kind, "message": "x"}}
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages_of_others"):
        assert json.loads(bytes(ApiError(400, "x").response(path).body))["error"]["code"] is None


def test_what_claude_code_sends_beside_it_is_taken(http: httpx.Client) -> None:
    cached = {"cache_control": {"type": "ephemeral"}}
    harmless: dict[str, Any] = {
        "metadata": {"user_id": "x"}, "service_tier": "auto", "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"}, "tool_choice": {"type": "auto"}, "top_k": 5, "n": 1,
        "system": [{"type": "text", "text": "Rules.", **cached}], "tools": [{**TOOLS[0], **cached, "type": "custom"}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi", **cached}]},
            {"role": "system", "content": "Agents are there."},
        ],
    }  # fmt: skip
    answer = http.post(
        "/v1/messages?beta=true", json={**ASKED, "max_tokens": 1, **harmless}, headers={"anthropic-beta": "x,y"}
    )
    assert answer.status_code == 200, answer.text


def test_a_conversation_becomes_the_chats() -> None:
    blocks: Any = [
        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Look."},
        {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}},
    ]
    results: Any = [
        {"type": "text", "text": "Here:"},
        {"type": "tool_result", "tool_use_id": "1", "content": "one", "is_error": True},
        {"type": "tool_result", "tool_use_id": "2"},
        {"type": "text", "text": "Go"},
        {"type": "text", "text": "on."},
    ]
    chat = PromptRequest.model_validate(
        {
            "system": [{"type": "text", "text": "Rules."}, {"type": "text", "text": "More."}],
            "messages": [
                QUESTION, {"role": "assistant", "content": blocks}, {"role": "user", "content": results},
                {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "Done."},
            ],
        }
    ).chat()  # fmt: skip
    assert [message.model_dump(exclude_none=True, exclude_defaults=True) for message in chat.messages] == [
        {"role": "system", "content": "Rules.\nMore."},
        QUESTION,
        {"role": "assistant", "content": "Look.", "reasoning_content": "Hm.",
         "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": 1}}}]},
        {"role": "user", "content": "Here:"},
        {"role": "tool", "content": "one", "tool_call_id": "1"},
        {"role": "tool", "content": "", "tool_call_id": "2"},
        {"role": "user", "content": "Go\non."},
        {"role": "user", "content": "Be brief."},
        {"role": "assistant", "content": "Done."},
    ]  # fmt: skip
    assert chat.continues


@pytest.mark.parametrize(
    ("choice", "chosen", "parallel"),
    [
        ({"type": "auto"}, "auto", True),
        ({"type": "none"}, "none", True),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "tool", "name": "weather"}, {"type": "function", "function": {"name": "weather"}}, True),
    ],
)
def test_choices_and_formats_are_the_chats(
    monkeypatch: pytest.MonkeyPatch, choice: Any, chosen: Any, parallel: bool
) -> None:
    monkeypatch.setattr(requests, "chat_request", lambda fields: fields)
    schema = {"type": "object"}
    for wanted in (
        {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
        {"output_format": {"type": "json_schema", "schema": schema}},
    ):
        asked: Any = {**ASKED, "tools": [{**TOOLS[0], "strict": True}], "tool_choice": choice, "top_p": 0.5, **wanted}
        fields: Any = MessagesRequest.model_validate(asked).chat()
        assert fields["response_format"]["json_schema"]["schema"] == schema
        assert (fields["tool_choice"], fields["parallel_tool_calls"], fields["top_p"]) == (chosen, parallel, 0.5)
        function = {"name": "weather", "parameters": PARAMETERS, "strict": True}
        assert fields["tools"] == [{"type": "function", "function": function}]
