"""LiteLLM, as OpenAI's and as Anthropic's client."""

from typing import Any

import litellm

from scripts.clients.checks import MODEL, QUESTION, TOOL, URL, Verdict, expect, expect_weather, run

OPENAI: Any = {"model": f"openai/{MODEL}", "api_base": f"{URL}/v1", "api_key": "none", "messages": QUESTION}
ANTHROPIC = OPENAI | {"model": f"anthropic/{MODEL}", "api_base": URL}


def chat() -> None:
    """chat."""
    answer = litellm.completion(**OPENAI, max_tokens=200)
    expect(answer.choices[0].message.content, answer)


def stream() -> None:
    """chat, streamed."""
    chunks = litellm.completion(**OPENAI, max_tokens=200, stream=True)
    expect("".join(chunk.choices[0].delta.content or "" for chunk in chunks), "no text")


def tools() -> None:
    """tools, required."""
    answer = litellm.completion(**OPENAI, max_tokens=200, tools=[TOOL], tool_choice="required")
    call = answer.choices[0].message.tool_calls[0].function
    expect_weather(call.name, call.arguments)


def json_schema() -> None:
    """response_format: json_schema."""
    answer = litellm.completion(**OPENAI, max_tokens=600, response_format=Verdict)
    Verdict.model_validate_json(answer.choices[0].message.content)


def messages() -> None:
    """Anthropic's messages."""
    answer = litellm.completion(**ANTHROPIC, max_tokens=200)
    expect(answer.choices[0].message.content, answer)


run(chat, stream, tools, json_schema, messages)
