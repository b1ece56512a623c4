"""Anthropic's requests for messages, as requests for a chat."""

import re
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from arcmtp.serve.conversation import Conversation, chat_request
from arcmtp.serve.protocol import MAX_TOOLS, ChatRequest, MaxTokens, Stop, ToolName, Whole
from arcmtp.serve.strict import Strict
from arcmtp.serve.unsupported import MESSAGES_FIELDS, refuse

# The line that Claude Code puts before its system prompt, and that differs from request to request.
_BILLING = re.compile(r"x-anthropic-billing-header:(?:[ \t]*[\w.-]+=[^;\n]*;)*[^\S\n]*\n?")
_TEXT_ONLY = "this model takes text only: no images, documents or results of searches"


def _type(block: Any) -> str:
    return str(block.get("type") if isinstance(block, dict) else getattr(block, "type", None))


class TextBlock(Strict):
    type: Literal["text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("type", "text") != "text":
            raise ValueError(_TEXT_ONLY)
        return data


Texts = str | Annotated[list[TextBlock], Field(fail_fast=True)]


class ThinkingBlock(Strict):
    type: Literal["thinking"]
    thinking: str


class RedactedBlock(Strict):
    """Thoughts that only the server which made them can read; they are left out."""

    type: Literal["redacted_thinking"]


class ToolUseBlock(Strict):
    type: Literal["tool_use"]
    id: str
    name: str
    input: Any = Field(None, description="a JSON object")


class ToolResultBlock(Strict):
    type: Literal["tool_result"]
    tool_use_id: str
    content: Texts | None = None


def _tag(block: Any) -> str:
    return f"[{_type(block)}]"  # in brackets: it is no part of the path that an error names


Block = Annotated[
    Annotated[TextBlock, Tag("[text]")]
    | Annotated[ThinkingBlock, Tag("[thinking]")]
    | Annotated[RedactedBlock, Tag("[redacted_thinking]")]
    | Annotated[ToolUseBlock, Tag("[tool_use]")]
    | Annotated[ToolResultBlock, Tag("[tool_result]")],
    Discriminator(_tag, custom_error_type="block_type", custom_error_message=_TEXT_ONLY),
]


class MessageParam(Strict):
    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Field(fail_fast=True)]


class ToolParam(Strict):
    type: Literal["custom"] | None = "custom"
    name: ToolName
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_custom(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("type") not in (None, "custom"):
            raise ValueError(f"this server has no tools of its own, such as {data['type']!r}: describe them")
        return data


class ToolChoice(Strict):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _named(self) -> "ToolChoice":
        if (self.type == "tool") != (self.name is not None):
            raise ValueError("type tool needs a name, the other types have none")
        return self


class Thinking(Strict):
    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: Annotated[Whole, Field(ge=0)] | None = None


class JsonFormat(Strict):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Strict):
    format: JsonFormat | None = None
    effort: str | None = Field(None, description="the model knows no degrees")


class PromptRequest(Strict):
    """What the model reads, which is also what can be counted; other fields are those of a chat."""

    model_config = ConfigDict(extra="allow")
    model: str | None = None
    messages: Annotated[list[MessageParam], Field(min_length=1, fail_fast=True)]
    system: Texts | None = None
    tools: Annotated[list[ToolParam], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = Field(None, description="absent: no thinking")
    output_config: OutputConfig | None = None
    output_format: JsonFormat | None = Field(None, description="output_config.format, by an earlier name")
    context_management: dict[str, Any] | None = Field(None, description="clear_thinking only: the template does that")

    @model_validator(mode="before")
    @classmethod
    def _available(cls, data: Any) -> Any:
        return refuse(data, MESSAGES_FIELDS)

    @field_validator("context_management")
    @classmethod
    def _clears_thinking_only(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        edits = (value or {}).get("edits") or []
        if not isinstance(edits, list) or not all(_type(edit).startswith("clear_thinking_") for edit in edits):
            raise ValueError("a prompt is taken whole; the only edit is clear_thinking")
        return value

    def chat(self) -> ChatRequest:
        """The request for a chat. Raises as `chat_request`."""
        chat = Conversation()
        system = _joined(self.system)
        billing = _BILLING.match(system)
        chat.system(system[billing.end() :] if billing else system)
        for message in self.messages:
            _add(chat, message)
        thinks = self.thinking is not None and self.thinking.type != "disabled"
        fields: dict[str, Any] = {
            "messages": chat.messages,
            "tools": [_function(tool) for tool in self.tools] if self.tools else None,
            "enable_thinking": thinks,
            "reasoning_budget": self.thinking.budget_tokens if thinks and self.thinking else None,
            **self._limits(),
        }
        if choice := self.tool_choice:
            named = {"type": "function", "function": {"name": choice.name}}
            fields["tool_choice"] = {"any": "required", "tool": named}.get(choice.type, choice.type)
            fields["parallel_tool_calls"] = not choice.disable_parallel_tool_use
        if wanted := (self.output_config and self.output_config.format) or self.output_format:
            schema = {"name": "output", "schema": wanted.schema_, "strict": True}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
        return chat_request(fields | (self.model_extra or {}))

    def _limits(self) -> dict[str, Any]:
        return {}


class MessagesRequest(PromptRequest):
    """Anthropic's request for a message."""

    max_tokens: MaxTokens
    stream: bool | None = False
    stop_sequences: Stop | None = None

    def _limits(self) -> dict[str, Any]:
        return {"max_tokens": self.max_tokens, "stop": self.stop_sequences}


def _add(chat: Conversation, message: MessageParam) -> None:
    blocks = [TextBlock(type="text", text=message.content)] if isinstance(message.content, str) else message.content
    texts: list[TextBlock] = []  # of the user, which follow each other
    for block in blocks:
        match block:
            case TextBlock() if message.role == "assistant":
                chat.text(block.text)
            case TextBlock():
                texts.append(block)
            case ThinkingBlock():
                chat.reasoning(block.thinking)
            case ToolUseBlock():
                chat.call(block.id, block.name, block.input)
            case ToolResultBlock():
                _say(chat, message.role, texts)
                texts = []
                chat.result(block.tool_use_id, _joined(block.content))
    _say(chat, message.role, texts)


def _say(chat: Conversation, role: str, texts: list[TextBlock]) -> None:
    if texts:
        (chat.system if role == "system" else chat.user)(_joined(texts))


def _joined(texts: Texts | None) -> str:
    """Blocks as lines: their authors take them for separate."""
    return texts if isinstance(texts, str) else "\n".join(text.text for text in texts or ())


def _function(tool: ToolParam) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": {key: value for key, value in function.items() if value is not None}}
