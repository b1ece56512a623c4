"""LangChain."""

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from scripts.clients.checks import MODEL, TOOL, URL, Verdict, expect, expect_weather, run

model = ChatOpenAI(
    model=MODEL, base_url=f"{URL}/v1", api_key=SecretStr("none"), max_retries=0, max_completion_tokens=600
)


def chat() -> None:
    """chat, whole and streamed."""
    expect(model.invoke("What is a list?").content, "no text")
    expect("".join(str(chunk.content) for chunk in model.stream("What is a list?")), "no text")


def tools() -> None:
    """bind_tools, required."""
    answer = model.bind_tools([TOOL], tool_choice="required").invoke("Weather?")
    expect_weather(answer.tool_calls[0]["name"], answer.tool_calls[0]["args"])


def json_schema() -> None:
    """with_structured_output: json_schema."""
    structured = model.with_structured_output(Verdict, method="json_schema")
    expect(isinstance(structured.invoke("A verdict"), Verdict), "other")


def function_calling() -> None:
    """with_structured_output: function_calling."""
    structured = model.with_structured_output(Verdict, method="function_calling")
    expect(isinstance(structured.invoke("A verdict"), Verdict), "other")


run(chat, tools, json_schema, function_calling)
