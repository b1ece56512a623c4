"""OpenAI's requests for responses, as requests for a chat."""

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from arcmtp.serve.conversation import Conversation, chat_request
from arcmtp.serve.protocol import MAX_TOOLS, ChatRequest, MaxTokens, ToolName
from arcmtp.serve.strict import Strict
from arcmtp.serve.unsupported import RESPONSES_FIELDS, refuse

_TEXTS = ("input_text", "output_text", "text", "reasoning_text", "summary_text", "refusal")
_SEAL = "arcmtp:"  # how the reasoning begins that this server has put into encrypted_content


class TextPart(Strict):
    type: Any = "text"
    text: str = Field(validation_alias=AliasChoices("text", "refusal"))

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("type", "text") not in _TEXTS:
            raise ValueError(f"this model takes text only (input_text, output_text), not {data['type']!r}")
        return data


Content = str | Annotated[list[TextPart], Field(fail_fast=True)] | None


class MessageItem(Strict):
    type: Literal["message"] | None = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content = None


class CallItem(Strict):
    type: Literal["function_call"]
    call_id: str
    name: str
    namespace: str | None = None
    arguments: Any = Field(None, description="a JSON object, as text or as it is; what was cut off is taken too")


class OutputItem(Strict):
    type: Literal["function_call_output"]
    call_id: str
    output: Content = None


class ReasoningItem(Strict):
    """Its text is the content, else what `encrypted_content` holds if that is this server's, else the summary."""

    type: Literal["reasoning"]
    summary: Content = None
    content: Content = None
    encrypted_content: str | None = None

    @property
    def text(self) -> str:
        return joined(self.content) or unsealed(self.encrypted_content) or joined(self.summary)


# Tags are in brackets, since they are no part of the path that an error names.
class Reference(Strict):
    """An item of a stored response."""

    type: Literal["item_reference"]
    id: str


def _item_tag(item: Any) -> str:
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    return f"[{kind or 'message'}]"


Item = Annotated[
    Annotated[MessageItem, Tag("[message]")]
    | Annotated[CallItem, Tag("[function_call]")]
    | Annotated[OutputItem, Tag("[function_call_output]")]
    | Annotated[ReasoningItem, Tag("[reasoning]")]
    | Annotated[Reference, Tag("[item_reference]")],
    Discriminator(
        _item_tag, custom_error_type="item_type",
        custom_error_message="the types of items are message, function_call, function_call_output, reasoning and "
        "item_reference",
    ),
]  # fmt: skip
Items: TypeAdapter[list[Item]] = TypeAdapter(list[Item])


class FunctionTool(Strict):
    type: Literal["function"]
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class OtherTool(Strict):
    """A tool that OpenAI's servers run, or whose calls are no JSON: the model is not told of it."""

    model_config = ConfigDict(extra="allow")
    type: str


def _tool_tag(tool: Any) -> str:
    kind = tool.get("type") if isinstance(tool, dict) else getattr(tool, "type", None)
    return f"[{kind}]" if kind in ("function", "namespace") else "[other]"


class Namespace(Strict):
    """Functions of one origin, such as an MCP server; the model knows each as NAMESPACE.NAME."""

    type: Literal["namespace"]
    name: str
    description: str | None = None
    tools: list[
        Annotated[
            Annotated[FunctionTool, Tag("[function]")]
            | Annotated[OtherTool, Tag("[namespace]")]
            | Annotated[OtherTool, Tag("[other]")],
            Discriminator(_tool_tag),
        ]
    ]


Tool = Annotated[
    Annotated[FunctionTool, Tag("[function]")]
    | Annotated[Namespace, Tag("[namespace]")]
    | Annotated[OtherTool, Tag("[other]")],
    Discriminator(_tool_tag),
]


class NamedToolChoice(Strict):
    type: Literal["function"]
    name: str


class Reasoning(Strict):
    effort: str | None = None
    summary: str | None = Field(None, description="the model writes no summaries")


class TextFormat(Strict):
    model_config = ConfigDict(extra="allow")
    type: str


class TextOptions(Strict):
    format: TextFormat | None = None
    verbosity: str | None = None


class InputRequest(Strict):
    """What the model reads, which is also what can be counted; other fields are those of a chat."""

    model_config = ConfigDict(extra="allow")
    model: str | None = None
    input: str | Annotated[list[Item], Field(fail_fast=True)] = Field([], description="text, or items")
    instructions: str | None = Field(None, description="for this response only")
    previous_response_id: str | None = Field(None, description="a stored response that the input follows")
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = True
    reasoning: Reasoning | None = None
    text: TextOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _available(cls, data: Any) -> Any:
        return refuse(data, RESPONSES_FIELDS)

    @property
    def items(self) -> list[Item]:
        """The input."""
        return [MessageItem(role="user", content=self.input)] if isinstance(self.input, str) else self.input

    @property
    def functions(self) -> dict[str, tuple[str | None, FunctionTool]]:
        """By the name that the model knows: namespace, if any, and function."""
        found: dict[str, tuple[str | None, FunctionTool]] = {}
        for tool in self.tools or ():
            namespace = tool.name if isinstance(tool, Namespace) else None
            for one in tool.tools if isinstance(tool, Namespace) else [tool]:
                if isinstance(one, FunctionTool):
                    found[_full_name(namespace, one.name)] = namespace, one
        return found

    def chat(self, items: Sequence[Item]) -> ChatRequest:
        """The request for a chat of all `items`, the input being the last of them. Raises as `chat_request`."""
        choice = self.tool_choice
        fields = {
            **(self.model_extra or {}),
            "messages": _messages(self.instructions, items),
            "tools": [_function(name, tool) for name, (_, tool) in self.functions.items()] or None,
            "tool_choice": _named(choice) if isinstance(choice, NamedToolChoice) else choice,
            "parallel_tool_calls": self.parallel_tool_calls,
            "continue_final_message": False,
            **self._limits(),
        }
        if self.reasoning and self.reasoning.effort:
            fields["reasoning_effort"] = self.reasoning.effort
        if self.text and self.text.verbosity:
            fields["verbosity"] = self.text.verbosity
        if self.text and self.text.format:
            fields["response_format"] = _format(self.text.format)
        return chat_request(fields)

    def _limits(self) -> dict[str, Any]:
        return {}


class ResponsesRequest(InputRequest):
    """OpenAI's request for a response."""

    input: str | Annotated[list[Item], Field(min_length=1, fail_fast=True)]
    stream: bool | None = False
    store: bool | None = Field(True, description="keep the response for previous_response_id")
    max_output_tokens: MaxTokens | None = None
    include: list[str] | None = Field(None, description="reasoning.encrypted_content: reasoning to be sent back")
    metadata: dict[str, str] | None = None

    @field_validator("include")
    @classmethod
    def _can_include(cls, value: list[str] | None) -> list[str] | None:
        if "message.output_text.logprobs" in (value or ()):
            raise PydanticCustomError("include", "/v1/chat/completions has log-probabilities, this route has none")
        return value

    @property
    def seals(self) -> bool:
        """Whether reasoning is asked for in a form to be sent back."""
        return "reasoning.encrypted_content" in (self.include or ())

    def _limits(self) -> dict[str, Any]:
        return {"max_tokens": self.max_output_tokens}


def joined(content: Content) -> str:
    """Text, whether it came in parts or not."""
    return content if isinstance(content, str) else "".join(part.text for part in content or ())


def sealed(reasoning: str) -> str:
    """Reasoning as clients send it back unread. It is not encrypted."""
    return base64.b64encode(f"{_SEAL}{reasoning}".encode()).decode()


def unsealed(content: str | None) -> str:
    """The reasoning in `encrypted_content`, empty if another server made that."""
    try:
        text = base64.b64decode(content or "", validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    return text.removeprefix(_SEAL) if text.startswith(_SEAL) else ""


def _messages(instructions: str | None, items: Sequence[Item]) -> list[dict[str, Any]]:
    chat = Conversation()
    chat.system(instructions or "")
    for item in items:
        match item:
            case MessageItem(role="user"):
                chat.user(joined(item.content))
            case MessageItem(role="assistant"):
                chat.text(joined(item.content))
            case MessageItem():
                chat.system(joined(item.content))
            case ReasoningItem():
                chat.reasoning(item.text)
            case CallItem():
                chat.call(item.call_id, _full_name(item.namespace, item.name), item.arguments)
            case OutputItem():
                chat.result(item.call_id, joined(item.output))
    return chat.messages


def _full_name(namespace: str | None, name: str) -> str:
    return f"{namespace}.{name}" if namespace else name


def _function(name: str, tool: FunctionTool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": name, "description": tool.description, "parameters": tool.parameters}
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": {key: value for key, value in function.items() if value is not None}}


def _named(choice: NamedToolChoice) -> dict[str, Any]:
    return {"type": "function", "function": {"name": choice.name}}


def _format(wanted: TextFormat) -> dict[str, Any]:
    """A text format as a chat has it: the schema is in an object of its own."""
    rest = {name: value for name, value in (wanted.model_extra or {}).items() if value is not None}
    return {"type": wanted.type, **({wanted.type: rest} if rest else {})}
