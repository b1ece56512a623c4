"""Pydantic AI."""

from typing import Any

from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from scripts.clients.checks import MODEL, URL, Verdict, expect, run

provider = OpenAIProvider(base_url=f"{URL}/v1", api_key="none")
SETTINGS: Any = {"max_tokens": 600}


def answer(model: Any, output: Any) -> Any:
    return Agent(model, output_type=output, model_settings=SETTINGS).run_sync("A verdict").output


def text() -> None:
    """text."""
    expect(answer(OpenAIChatModel(MODEL, provider=provider), str), "no text")


def tool_output() -> None:
    """output by a tool."""
    expect(isinstance(answer(OpenAIChatModel(MODEL, provider=provider), ToolOutput(Verdict)), Verdict), "other")


def native_output() -> None:
    """output by json_schema."""
    expect(isinstance(answer(OpenAIChatModel(MODEL, provider=provider), NativeOutput(Verdict)), Verdict), "other")


def responses() -> None:
    """responses, output by json_schema."""
    expect(isinstance(answer(OpenAIResponsesModel(MODEL, provider=provider), NativeOutput(Verdict)), Verdict), "other")


run(text, tool_output, native_output, responses)
