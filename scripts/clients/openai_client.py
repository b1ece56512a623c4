"""OpenAI's package."""

from typing import Any

from openai import OpenAI

from scripts.clients.checks import MODEL, QUESTION, TOOL, URL, Verdict, expect, expect_weather, run

client = OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
RESPONSES_TOOL: Any = {"type": "function", **TOOL["function"]}


def chat() -> None:
    """chat."""
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=200)
    expect(answer.choices[0].message.content and answer.usage, answer)


def stream() -> None:
    """chat, streamed."""
    options: Any = {"stream_options": {"include_usage": True}, "max_tokens": 200}
    chunks = list(client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True, **options))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    expect(text and chunks[-1].usage, text)


def tools() -> None:
    """tools, required."""
    options: Any = {"tools": [TOOL], "tool_choice": "required", "max_tokens": 200}
    answer: Any = client.chat.completions.create(model=MODEL, messages=QUESTION, **options)
    call = answer.choices[0].message.tool_calls[0].function
    expect_weather(call.name, call.arguments)


def json_schema() -> None:
    """response_format: json_schema."""
    answer = client.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=Verdict, max_tokens=600)
    expect(answer.choices[0].message.parsed, answer)


def json_object() -> None:
    """response_format: json_object."""
    options: Any = {"response_format": {"type": "json_object"}, "max_tokens": 600}
    answer: Any = client.chat.completions.create(model=MODEL, messages=QUESTION, **options)
    expect((answer.choices[0].message.content or "").lstrip().startswith("{"), answer)


def responses() -> None:
    """responses."""
    answer = client.responses.create(model=MODEL, input="What is a list?", max_output_tokens=200)
    further = client.responses.create(
        model=MODEL, input="And a set?", previous_response_id=answer.id, max_output_tokens=200
    )
    expect(answer.output_text and further.output_text, further)


def responses_stream() -> None:
    """responses, streamed."""
    options: Any = {"max_output_tokens": 600, "reasoning": {"effort": "none"}}  # which might take all tokens
    with client.responses.stream(model=MODEL, input="What is a list?", **options) as events:
        kinds = [event.type for event in events]
    expect({"response.created", "response.output_text.delta", "response.completed"} <= {*kinds}, kinds)


def responses_tools() -> None:
    """responses with a tool, required."""
    answer: Any = client.responses.create(
        model=MODEL, input="Weather?", tools=[RESPONSES_TOOL], tool_choice="required", max_output_tokens=200
    )
    call = next(item for item in answer.output if item.type == "function_call")
    expect_weather(call.name, call.arguments)


def responses_json_schema() -> None:
    """responses with text.format: json_schema."""
    answer = client.responses.parse(model=MODEL, input="A verdict", text_format=Verdict, max_output_tokens=600)
    expect(answer.output_parsed, answer)


def completions() -> None:
    """completions with echo and logprobs."""
    answer = client.completions.create(model=MODEL, prompt="import os", echo=True, logprobs=1, max_tokens=1)
    logprobs = answer.choices[0].logprobs
    expect(logprobs and logprobs.token_logprobs and len(logprobs.token_logprobs) == 3, answer)


run(
    chat, stream, tools, json_schema, json_object, responses, responses_stream, responses_tools, responses_json_schema,
    completions,
)  # fmt: skip
