"""OpenAI's Agents."""

from typing import Any

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

from scripts.clients.checks import MODEL, URL, Verdict, expect, run

set_tracing_disabled(True)
client = AsyncOpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
called: list[int] = []


def weather(days: int) -> str:
    """The weather of so many days."""
    called.append(days)
    return "rain"


def ask(kind: Any, output: Any = None, tool: bool = False) -> Any:
    settings = ModelSettings(max_tokens=600, tool_choice="required" if tool else None)
    agent: Any = Agent(
        name="agent", model=kind(MODEL, client), output_type=output, model_settings=settings,
        tools=[function_tool(weather)] if tool else [],
    )  # fmt: skip
    return Runner.run_sync(agent, "Tell me", max_turns=3).final_output


def responses() -> None:
    """responses."""
    expect(ask(OpenAIResponsesModel), "no text")


def responses_tool() -> None:
    """responses with a tool that is called."""
    expect(ask(OpenAIResponsesModel, tool=True) and called, called)


def responses_output() -> None:
    """responses with an output type."""
    expect(isinstance(ask(OpenAIResponsesModel, Verdict), Verdict), "other")


def chat() -> None:
    """chat completions with an output type."""
    expect(isinstance(ask(OpenAIChatCompletionsModel, Verdict), Verdict), "other")


run(responses, responses_tool, responses_output, chat)
