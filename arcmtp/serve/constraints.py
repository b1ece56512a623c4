"""What a request's answer must keep to."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from arcmtp.constraint.constraint import Constraint
from arcmtp.engine.llm import LLM
from arcmtp.errors import ArcmtpError
from arcmtp.serve.constraint_fields import constraint_of
from arcmtp.serve.errors import ApiError
from arcmtp.serve.protocol import ChatRequest, CompletionRequest, NamedToolChoice
from arcmtp.serve.tool_grammar import ToolGrammar


def chat_constraint(llm: LLM, request: ChatRequest, several: bool, inside: bool) -> Constraint | None:
    """The constraint of a chat's answer, behind its reasoning and behind the call that the prompt has begun for it;
    None where it is free. It is compiled, so that no generation waits for it. ApiError 400 names the field that cannot
    be kept.

    several: whether there may be more than one call. inside: whether the answer begins with reasoning, behind which the
    model may write line ends before JSON, as it has learnt to.
    """
    tools = request.raw_tools if request.tools and request.tool_choice != "none" else []
    if not tools:
        return completion_constraint(llm, request, inside)
    choice, asked = request.tool_choice, request.constrained_by
    if isinstance(choice, NamedToolChoice):
        named = [tool for tool in tools if tool["function"]["name"] == choice.function.name][:1]
        return _of_tools(llm, ToolGrammar(named, several=False), ToolGrammar.arguments)
    grammar = ToolGrammar(tools, several)
    if choice == "required":
        return _of_tools(llm, grammar, ToolGrammar.calls)
    if asked is not None:
        field, _, schema = asked
        return _of_tools(llm, grammar, lambda grammar: grammar.json_or_calls(schema, field, inside), field)
    return _of_tools(llm, grammar, ToolGrammar.text_or_calls) if _any_strict(tools) else None


def completion_constraint(
    llm: LLM, request: ChatRequest | CompletionRequest, inside: bool = False
) -> Constraint | None:
    """The constraint of text without tools; otherwise as `chat_constraint`."""
    if (asked := request.constrained_by) is None:
        return None
    return _compiled(llm, asked[0], lambda: constraint_of(*asked, after_reasoning=inside))


def _any_strict(tools: Sequence[Mapping[str, Any]]) -> bool:
    return any(tool["function"].get("strict") for tool in tools)


def _of_tools(
    llm: LLM, grammar: ToolGrammar, make: Callable[[ToolGrammar], Constraint], field: str = "tools"
) -> Constraint:
    try:
        return _compiled(llm, field, lambda: make(grammar))
    except ApiError:
        if _any_strict(grammar.tools):
            raise
        loose = dataclasses.replace(grammar, loose=True)
        return _compiled(llm, field, lambda: make(loose))


def _compiled(llm: LLM, field: str, make: Callable[[], Constraint]) -> Constraint:
    try:
        constraint = make()
    except ArcmtpError as error:  # which begins with the place
        raise ApiError(400, str(error), field) from None
    try:
        llm.grammars.matcher(constraint)
    except ArcmtpError as error:
        raise ApiError(400, f"{field}: {error}", field) from None
    return constraint
