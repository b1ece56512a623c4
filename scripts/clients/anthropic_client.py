"""Anthropic's package."""

from typing import Any

from anthropic import Anthropic

from scripts.clients.checks import MODEL, QUESTION, TOOL, URL, WEATHER, expect, expect_weather, run

client = Anthropic(base_url=URL, api_key="none", max_retries=0)
ANTHROPIC_TOOL: Any = {"name": "weather", "description": TOOL["function"]["description"], "input_schema": WEATHER}


def messages() -> None:
    """messages."""
    answer: Any = client.messages.create(model=MODEL, messages=QUESTION, max_tokens=200, system="Be short.")
    expect(answer.content[0].text and answer.usage.output_tokens, answer)


def stream() -> None:
    """messages, streamed."""
    with client.messages.stream(model=MODEL, messages=QUESTION, max_tokens=200) as events:
        text = "".join(events.text_stream)
        expect(text and events.get_final_message().stop_reason, text)


def thinking() -> None:
    """thinking blocks."""
    options: Any = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    answer: Any = client.messages.create(model=MODEL, messages=QUESTION, max_tokens=1500, **options)
    expect(answer.content[0].type == "thinking", answer)


def tools() -> None:
    """tools: any, and the result."""
    options: Any = {"tools": [ANTHROPIC_TOOL], "max_tokens": 300}
    asked: Any = client.messages.create(model=MODEL, messages=QUESTION, tool_choice={"type": "any"}, **options)
    call = next(block for block in asked.content if block.type == "tool_use")
    expect_weather(call.name, call.input)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    history = [*QUESTION, {"role": "assistant", "content": asked.content}, {"role": "user", "content": [result]}]
    expect(client.messages.create(model=MODEL, messages=history, **options).content, "nothing")


def count_tokens() -> None:
    """count_tokens."""
    expect(client.messages.count_tokens(model=MODEL, messages=QUESTION).input_tokens > 0, 0)


run(messages, stream, thinking, tools, count_tokens)
