"""OpenAI's Responses, through its own client and types, on a model whose words are known."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from arcmtp.serve.errors import ApiError
from arcmtp.serve.protocol import ChatRequest
from arcmtp.serve.responses_api import request as requests
from arcmtp.serve.responses_api.request import MessageItem, ResponsesRequest, sealed, unsealed
from arcmtp.serve.responses_api.store import Store
from tests.serve.conftest import Server, named_events
from tests.serve.test_scripted import CALLS, PARAMETERS, TIME

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TOOLS: Any = [
    {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": False},
    {"type": "web_search"},  # which the model is not told of
    {"type": "function", "name": "time", "parameters": TIME},
]
ASKED: Any = {"model": "scripted", "input": "How is the weather?"}
NO_THINKING: Any = {"reasoning": {"effort": "none"}}


@pytest.fixture
def client(scripted: Server) -> Iterator[openai.OpenAI]:
    with scripted.openai() as client:
        yield client


@pytest.fixture
def http(scripted: Server) -> Iterator[httpx.Client]:
    with scripted.http() as http:
        yield http


def events(http: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    """The events of a stream, each of OpenAI's types."""
    return named_events(http.post("/v1/responses", json={**ASKED, "stream": True, **fields}), EVENTS)


def comparable(response: dict[str, Any]) -> Any:
    """A response without what differs from one to the next."""
    items = [{k: v for k, v in item.items() if k not in ("id", "call_id")} for item in response["output"]]
    usage = {**response["usage"], "input_tokens_details": None}
    return {**response, "output": items, "usage": usage, "id": None, "created_at": None}


def chat(body: Any) -> ChatRequest:
    """The request for a chat that a body stands for."""
    request = ResponsesRequest.model_validate(body)
    return request.chat(request.items)


def test_items_are_reasoning_text_and_calls(client: openai.OpenAI) -> None:
    response = client.responses.create(**ASKED, tools=TOOLS)
    Response.model_validate(response.model_dump(warnings=False))
    thoughts, message, *calls = response.output
    assert thoughts.type == "reasoning" and thoughts.content and thoughts.content[0].text == "I should look."
    assert thoughts.encrypted_content is None  # nobody has asked
    assert (message.type, response.output_text) == ("message", "Let me look.")
    assert [(call.name, json.loads(call.arguments)) for call in calls if call.type == "function_call"] == CALLS
    assert (response.status, response.error, response.incomplete_details) == ("completed", None, None)
    assert [tool.name for tool in response.tools if tool.type == "function"] == ["weather", "time"]


@pytest.mark.parametrize("fields", [{"tools": TOOLS}, {"tools": TOOLS, "max_output_tokens": 8}, {}, NO_THINKING])
def test_streamed_events_are_of_openais_types_and_end_with_the_whole_response(http: httpx.Client, fields: Any) -> None:
    whole = http.post("/v1/responses", json={**ASKED, **fields}).json()
    found = events(http, **fields)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert [event["type"] for event in found[:2]] == ["response.created", "response.in_progress"]
    assert found[-1]["type"] == f"response.{whole['status']}"
    assert comparable(found[-1]["response"]) == comparable(whole)


def test_parts_of_a_stream_join_to_its_items(http: httpx.Client) -> None:
    found = events(http, tools=TOOLS)
    items = found[-1]["response"]["output"]
    assert [event["item"] for event in found if event["type"] == "response.output_item.done"] == items
    for index, item in enumerate(items):
        own = [event for event in found if event.get("output_index") == index]
        assert own[0]["type"] == "response.output_item.added" and own[-1]["type"] == "response.output_item.done"
        assert {event["item_id"] for event in own[1:-1]} == {item["id"]} == {own[0]["item"]["id"]}
        assert not own[0]["item"].get("content") and not own[0]["item"].get("arguments")  # it has only begun
        text = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
        assert "".join(event["delta"] for event in own if event["type"].endswith(".delta")) == text
        (done,) = (event for event in own if event["type"].endswith((".text.done", "_text.done", "arguments.done")))
        assert text == done.get("text", done.get("arguments"))


def test_openais_stream_collects_the_response(client: openai.OpenAI) -> None:
    with client.responses.stream(**ASKED, tools=TOOLS) as stream:
        for _ in stream:
            pass
        response = stream.get_final_response()
    calls = [(item.name, json.loads(item.arguments)) for item in response.output if item.type == "function_call"]
    assert (response.output_text, calls, response.status) == ("Let me look.", CALLS, "completed")


def test_an_answer_that_is_cut_off_is_incomplete(client: openai.OpenAI) -> None:
    response = client.responses.create(**ASKED, tools=TOOLS, max_output_tokens=8)
    assert response.incomplete_details and response.incomplete_details.reason == "max_output_tokens"
    assert [getattr(item, "status", None) for item in response.output] == ["completed", "completed", "incomplete"]
    assert response.usage and response.usage.output_tokens == 8


def test_usage_counts_prompt_cache_reasoning_and_answer(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(
        model="scripted", messages=[{"role": "user", "content": ASKED["input"]}], max_tokens=6
    ).usage
    usage = client.responses.create(**ASKED, max_output_tokens=6).usage
    assert chat and usage and chat.completion_tokens_details
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (
        chat.prompt_tokens, 6, chat.prompt_tokens + 6
    )  # fmt: skip
    assert usage.output_tokens_details.reasoning_tokens == chat.completion_tokens_details.reasoning_tokens == 3
    assert 0 < usage.input_tokens_details.cached_tokens < usage.input_tokens
    assert client.responses.input_tokens.count(**ASKED).input_tokens == usage.input_tokens


def test_a_stored_response_is_followed_as_if_all_had_been_sent_again(client: openai.OpenAI) -> None:
    first = client.responses.create(**ASKED, tools=TOOLS, include=["reasoning.encrypted_content"], instructions="Hm.")
    assert [getattr(item, "encrypted_content", None) for item in first.output[:2]] == [sealed("I should look."), None]
    outputs: Any = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "rain"}
        for item in first.output
        if item.type == "function_call"
    ]
    sent: list[Any] = [{"role": "user", "content": ASKED["input"]}]
    for item in first.output:
        sent.append({key: value for key, value in item.model_dump(warnings=False).items() if key != "content"})
        if item.type == "message":
            sent[-1]["content"] = [{"type": "output_text", "text": "Let me look."}]
    followed = client.responses.create(
        model="scripted", input=outputs, previous_response_id=first.id, **NO_THINKING
    )  # fmt: skip
    again = client.responses.create(model="scripted", input=[*sent, *outputs], store=False, **NO_THINKING)
    assert (followed.output_text, followed.previous_response_id) == ("The answer is 42.", first.id)
    assert followed.usage and again.usage and followed.usage.input_tokens == again.usage.input_tokens
    count = client.responses.input_tokens.count(input=outputs, previous_response_id=first.id, **NO_THINKING)
    assert count.input_tokens == followed.usage.input_tokens
    assert client.responses.retrieve(followed.id).output == followed.output


def test_responses_are_kept_until_they_are_deleted_unless_they_should_not_be(client: openai.OpenAI) -> None:
    kept, not_kept = (client.responses.create(**ASKED, store=store, max_output_tokens=1) for store in (True, False))
    assert client.responses.retrieve(kept.id).id == kept.id
    client.responses.delete(kept.id)
    for gone in (kept, not_kept):
        with pytest.raises(openai.NotFoundError, match=f"there is no response '{gone.id}' here"):
            client.responses.retrieve(gone.id)
        with pytest.raises(openai.BadRequestError) as error:
            client.responses.create(**ASKED, previous_response_id=gone.id)
        assert (error.value.code, error.value.param) == ("previous_response_not_found", "previous_response_id")
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(kept.id)


def test_a_function_can_be_forced(client: openai.OpenAI) -> None:
    choice: Any = {"type": "function", "name": "weather"}
    (call,) = client.responses.create(**ASKED, tools=TOOLS, tool_choice=choice).output
    assert call.type == "function_call" and json.loads(call.arguments) == CALLS[0][1]


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"input": []}, "input", ""),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input.0", "the types of items are message, "),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input", "there is no item 'x'"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input.0.content.0",
         "this model takes text only (input_text, output_text), not 'input_image'"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": [{"type": "input_file"}]}]},
         "input.0.output.0", "this model takes text only"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools.0.name", "String should match pattern"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice.type", "Input should be 'function'"),
        ({"tool_choice": {"type": "function", "name": "x"}}, None, "tool_choice names 'x'"),
        ({"background": True}, "background", "use stream"),
        ({"truncation": "auto"}, "truncation", "an input is taken whole"),
        ({"conversation": "x"}, "conversation", "use previous_response_id"),
        ({"n": 2}, "n", "an answer has one choice"),
        ({"top_logprobs": 3}, "top_logprobs", "/v1/chat/completions has log-probabilities"),
        ({"include": ["message.output_text.logprobs"]}, "include", "/v1/chat/completions has log-probabilities"),
        ({"mirostat": 2}, "mirostat", "the options of sampling are"),
        ({"max_output_tokens": 0}, "max_output_tokens", "must be at least 1"),
        ({"reasoning": {"effort": "much"}}, "reasoning_effort", "Input should be 'none'"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused(http: httpx.Client, fields: Any, param: str | None, message: str) -> None:
    answer = http.post("/v1/responses", json={**ASKED, **fields})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param and message in error["message"]


def test_what_clients_send_beside_it_is_taken(http: httpx.Client) -> None:
    harmless = {
        "prompt_cache_key": "x", "client_metadata": {"x": "y"}, "service_tier": "auto", "user": "x", "metadata": None,
        "text": {"format": {"type": "text"}, "verbosity": "medium"}, "max_tool_calls": 3, "top_logprobs": 0, "n": 1,
        "parallel_tool_calls": False, "truncation": "disabled", "stream_options": {"include_obfuscation": False},
        "reasoning": {"summary": "auto", "effort": None}, "include": ["file_search_call.results"], "min_p": 0.1,
        "tool_choice": "auto",
        "tools": [{"type": "custom", "name": "x"}, {"type": "namespace", "name": "y", "tools": []}],
    }  # fmt: skip
    answer = http.post("/v1/responses", json={**ASKED, "max_output_tokens": 1, **harmless})
    assert answer.status_code == 200, answer.text


def test_lone_surrogates_come_back_as_they_were_sent(http: httpx.Client) -> None:
    call = {"type": "function_call", "call_id": "\ud800", "name": "f", "arguments": "{}"}
    body = {**ASKED, "input": [call], "metadata": {"a": "\ud800"}, "max_output_tokens": 1}
    answer = http.post("/v1/responses", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 200 and answer.json()["metadata"] == {"a": "\ud800"}
    follow = {**ASKED, "previous_response_id": answer.json()["id"], "max_output_tokens": 1}
    assert http.post("/v1/responses", json=follow).status_code == 200


def test_formats_and_choices_are_the_chats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "chat_request", lambda fields: fields)
    wanted = {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True, "description": None}
    fields: Any = chat(
        {"input": "x", "text": {"format": wanted}, "tool_choice": "required", "temperature": 0.5,
         "tools": [{"type": "function", "name": "f", "description": "d", "strict": True}]}
    )  # fmt: skip
    schema = {"name": "x", "schema": {"type": "object"}, "strict": True}
    assert fields["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert fields["tools"] == [{"type": "function", "function": {"name": "f", "description": "d", "strict": True}}]
    assert (fields["tool_choice"], fields["temperature"]) == ("required", 0.5)
    fields = chat({"input": "x", "text": {"format": {"type": "json_object"}}})
    assert fields["response_format"] == {"type": "json_object"}


def test_what_an_agent_sends_is_a_conversation_that_templates_take() -> None:
    items: Any = [
        {"role": "developer", "content": "Rules."},
        {"role": "system", "content": [{"type": "input_text", "text": "More."}]},
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAA of another server"},
        {"type": "reasoning", "summary": [], "encrypted_content": sealed("Hm.")},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Look."}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{"},
        {"type": "function_call_output", "call_id": "1", "output": "one"},
        {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "two"}]},
        {"role": "developer", "content": "Be brief."},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "In short."}]},
        {"role": "assistant", "content": "Done."},
    ]
    asked = chat({"input": items, "instructions": "Codex."})
    assert [message.model_dump(exclude_none=True, exclude_defaults=True) for message in asked.messages] == [
        {"role": "system", "content": "Codex.\n\nRules.\n\nMore."},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "Look.", "reasoning_content": "Hm.", "tool_calls": [
            {"id": "1", "function": {"name": "f", "arguments": "{}"}},
            {"id": "2", "function": {"name": "g", "arguments": "{"}}]},
        {"role": "tool", "content": "one", "tool_call_id": "1"},
        {"role": "tool", "content": "two", "tool_call_id": "2"},
        {"role": "user", "content": "Be brief."},
        {"role": "assistant", "content": "Done.", "reasoning_content": "In short."},
    ]  # fmt: skip
    assert not asked.continues  # a response is a new message


def test_thoughts_begin_a_message_and_those_that_nobody_can_read_are_none() -> None:
    foreign = {"type": "reasoning", "summary": [], "encrypted_content": "gAAA of another server"}
    items = [
        {"role": "user", "content": "a"}, foreign, {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}], "summary": "not this"},
        {"role": "assistant", "content": "d"},
    ]  # fmt: skip
    found = [(m.role, m.content, m.reasoning_content) for m in chat({"input": items}).messages]
    assert found == [
        ("user", "a", None), ("user", "b", None), ("assistant", "c", None), ("assistant", "d", "Hm.")
    ]  # fmt: skip


def test_functions_of_a_namespace_are_named_with_it() -> None:
    search = {"type": "function", "name": "search", "parameters": PARAMETERS}
    tools = [{"type": "namespace", "name": "mcp", "description": "d", "tools": [search, {"type": "custom"}]}, TOOLS[0]]
    item = {"type": "function_call", "call_id": "1", "namespace": "mcp", "name": "search", "arguments": "{}"}
    asked = chat({"input": [item], "tools": tools})
    assert [tool.function.name for tool in asked.tools or ()] == ["mcp.search", "weather"]
    assert asked.messages[0].tool_calls and asked.messages[0].tool_calls[0].function.name == "mcp.search"


def test_reasoning_can_be_sealed_and_only_what_is_sealed_here_can_be_read() -> None:
    assert unsealed(sealed("Zürich\n")) == "Zürich\n"
    for other in (None, "", "x", "eA==", "/w==", "Zürich"):
        assert unsealed(other) == ""


def test_the_store_forgets_the_response_that_was_used_least_recently() -> None:
    items = [MessageItem(role="user", content="x" * 300)]

    def response(name: str) -> dict[str, Any]:
        message = {"type": "message", "role": "assistant", "content": "y" * 100, "id": f"msg_{name}"}
        return {"id": name, "output": [message]}

    def refers(name: str) -> list[Any]:
        asked = {"input": [{"type": "item_reference", "id": f"msg_{name}"}, {"role": "user", "content": "z"}]}
        return store.conversation(ResponsesRequest.model_validate(asked))

    store = Store(1500)
    for name in ("a", "b"):
        store.add(response(name), items)
    followed = store.conversation(ResponsesRequest.model_validate({"input": "z", "previous_response_id": "a"}))
    assert [item.content for item in followed if isinstance(item, MessageItem)] == ["x" * 300, "y" * 100, "z"]
    store.add(response("c"), items)  # b's was used least recently
    with pytest.raises(ApiError, match="there is no response 'b' here"):
        store.get("b")
    with pytest.raises(ApiError, match="there is no item 'msg_b' of a response here"):
        refers("b")
    assert [item.content for item in refers("a")] == ["y" * 100, "z"]
    assert json.loads(store.get("a").response) == response("a") and store.get("c")
    store.delete("a")
    store.add(response("d"), items)  # a's room is free again
    assert store.get("c") and store.get("d")
    store.add(response("e"), items * 5)  # is larger than all there may be
    assert store.get("c") and store.get("d")
    with pytest.raises(ApiError):
        store.get("e")
