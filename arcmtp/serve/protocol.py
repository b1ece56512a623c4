"""What clients may send: OpenAI's requests, and the fields of other servers that people use with them.

Wrong types are refused. Unknown fields are ignored, since clients send many that mean nothing here; those that would
change the answer and that this server does not have are refused.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    model_validator,
)

from arcmtp.serve.constraint_fields import ConstraintFields
from arcmtp.serve.strict import Strict
from arcmtp.serve.unsupported import CHAT_FIELDS, refuse

MAX_CHOICES = 16
MAX_STOP_STRINGS = 64
MAX_STOP_CHARACTERS = 1024
MAX_TOP_LOGPROBS = 20
MAX_TOOLS = 128
MAX_PROMPTS = 16
MAX_BIASES = 1023
MAX_DRAFTS = 7
RESERVED_TEMPLATE_NAMES = frozenset(
    {"self", "prompt", "messages", "tools", "add_generation_prompt", "continue_final_message"}
)
Value = TypeVar("Value")


def _listed(value: object) -> object:
    """Stop strings as a list, without the empty ones that some clients send for none."""
    listed = [value] if isinstance(value, str) else value
    return [one for one in listed if one != ""] if isinstance(listed, list) else listed


def _whole(value: object) -> object:
    """Some clients' numbers are all floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_draft(value: Any) -> bool:
    return value in (None, "auto") or (type(value) is int and 0 <= value <= MAX_DRAFTS)


def must(holds: Callable[[Any], bool], message: str) -> BeforeValidator:
    """Refuses, with a message, a value of which something does not hold."""

    def check(value: Value) -> Value:
        if not holds(value):
            raise ValueError(message)
        return value

    return BeforeValidator(check)


def _is_prompt(value: object) -> bool:
    if not isinstance(value, list):
        return isinstance(value, str)
    if all(type(item) is int for item in value):
        return bool(value)
    several = all(isinstance(item, str) for item in value) or all(
        isinstance(item, list) and item and all(type(token) is int for token in item) for item in value
    )
    return several and len(value) <= MAX_PROMPTS


StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
Stop = Annotated[
    list[StopString],
    Field(max_length=MAX_STOP_STRINGS),
    BeforeValidator(_listed, json_schema_input_type=StopString | list[StopString]),
]
ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
Whole = Annotated[int, BeforeValidator(_whole, json_schema_input_type=int)]
TokensOrNone = Annotated[Whole, Field(ge=-1, le=2**31 - 1, description="-1: to the end of the context")]
MaxTokens = Annotated[
    TokensOrNone,
    must(lambda value: value != 0, "must be at least 1, or -1: to the end of the context"),
]


class StreamOptions(Strict):
    include_usage: bool | None = False


class GenerationRequest(ConstraintFields):
    """What both ways to generate have in common. Sampling fields that are null or absent take the server's defaults."""

    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Annotated[Whole, Field(ge=1, le=MAX_CHOICES)] | None = 1
    stop: Stop | None = None
    max_tokens: MaxTokens | None = None
    n_predict: MaxTokens | None = Field(None, description="max_tokens, by llama.cpp's name")
    ignore_eos: bool | None = Field(False, description="never choose a token that ends the answer")
    temperature: float | None = Field(None, description="below 0.01: the likeliest token")
    top_p: float | None = Field(None, description="0: the likeliest token")
    top_k: Whole | None = Field(None, description="0 or -1: all tokens")
    min_p: float | None = None
    repetition_penalty: float | None = Field(
        None, validation_alias=AliasChoices("repetition_penalty", "repeat_penalty")
    )
    repeat_last_n: Whole | None = Field(None, description="-1; penalties count all tokens")
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: (
        Annotated[
            dict[str, float],
            must(lambda v: not isinstance(v, dict) or len(v) <= MAX_BIASES, f"at most {MAX_BIASES} tokens"),
        ]
        | None
    ) = Field(None, description="token id to what is added to its logit")
    seed: Whole | None = Field(None, description="choice i of n uses seed + i; -1: a new one")
    draft: Annotated[Whole | Literal["auto"], must(_is_draft, "a number from 0 to 7, or auto")] | None = Field(
        None, description="tokens to draft before each step, or auto; null: what the server was started with"
    )

    @model_validator(mode="before")
    @classmethod
    def _available(cls, data: Any) -> Any:
        return refuse(data, CHAT_FIELDS)

    @model_validator(mode="after")
    def _whole_window(self) -> "GenerationRequest":
        none = self.repetition_penalty in (None, 1) and not (self.presence_penalty or self.frequency_penalty)
        if self.repeat_last_n not in (None, -1) and not none:
            raise ValueError(f"repeat_last_n is {self.repeat_last_n}; penalties count all tokens: leave it out")
        return self

    @property
    def limit(self) -> int | None:
        """Tokens of an answer at most, -1 for all that the context holds."""
        return self.n_predict if self.max_tokens is None else self.max_tokens


class FunctionDefinition(Strict):
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="the JSON schema of the arguments")
    strict: bool | None = Field(None, description="whether arguments always keep to the schema")


class Tool(Strict):
    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(Strict):
    name: str


class NamedToolChoice(Strict):
    type: Literal["function"]
    function: NamedFunction


class CalledFunction(Strict):
    name: str
    arguments: Any = Field(None, description="a JSON object, as text or as it is; what was cut off is taken too")


class CalledTool(Strict):
    id: str | None = None
    type: Literal["function"] | None = "function"
    function: CalledFunction


class ContentPart(Strict):
    type: Annotated[Any, must(lambda v: v == "text", "this model takes parts of type text only")]
    text: str


class ChatMessage(Strict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[ContentPart], Field(fail_fast=True)] | None = None
    reasoning_content: str | None = Field(None, validation_alias=AliasChoices("reasoning_content", "reasoning"))
    tool_calls: Annotated[list[CalledTool], Field(fail_fast=True)] | None = None
    tool_call_id: str | None = None


# Without fail_fast a body of a million wrong items takes seconds, in which no other request goes on.
Messages = Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]


class ChatRequest(GenerationRequest):
    """OpenAI's chat completion request."""

    messages: Messages
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[Whole, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = True
    chat_template_kwargs: (
        Annotated[
            dict[str, Any],
            must(
                lambda v: not isinstance(v, dict) or not RESERVED_TEMPLATE_NAMES & v.keys(),
                f"{', '.join(sorted(RESERVED_TEMPLATE_NAMES))} cannot be set here",
            ),
        ]
        | None
    ) = Field(None, description="variables of the chat template, such as enable_thinking and preserve_thinking")
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = Field(
        None, description="none, minimal: no reasoning; the model knows no further degrees"
    )
    enable_thinking: bool | None = Field(None, description="whether to reason; comes before reasoning_effort")
    reasoning_format: Literal["auto", "deepseek", "none"] | None = Field(
        None, description="none: reasoning stays in the content, in <think> tags"
    )
    reasoning_budget: Annotated[Whole, Field(ge=-1)] | None = Field(
        None,
        description="tokens of reasoning before it is closed and the answer begins; null or -1: no limit",
        validation_alias=AliasChoices("reasoning_budget", "thinking_budget", "thinking_budget_tokens"),
    )
    continue_final_message: bool | None = Field(
        None, description="whether a last message of the assistant is continued; null: it is"
    )
    add_generation_prompt: bool | None = Field(None, description="false only where the last message is continued")
    _raw_tools: list[dict[str, Any]] = PrivateAttr(default_factory=list)

    @model_validator(mode="wrap")
    @classmethod
    def _keep_raw_tools(cls, data: Any, handler: ModelWrapValidatorHandler["ChatRequest"]) -> "ChatRequest":
        request = handler(data)
        request._raw_tools = data.get("tools") or [] if isinstance(data, dict) else []
        return request

    @property
    def raw_tools(self) -> list[dict[str, Any]]:
        """The tools as they were sent: the template prints every key of them, in order."""
        return self._raw_tools

    @property
    def limit(self) -> int | None:
        return super().limit if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def continues(self) -> bool:
        """Whether the last message is one of the assistant's that the answer goes on with."""
        last = self.messages[-1]
        return last.role == "assistant" and not last.tool_calls and self.continue_final_message is not False

    @property
    def thinking(self) -> bool | None:
        """Whether to reason; None where the request does not say."""
        if self.enable_thinking is not None or self.reasoning_effort is None:
            return self.enable_thinking
        return self.reasoning_effort not in ("none", "minimal")

    @model_validator(mode="after")
    def _consistent(self) -> "ChatRequest":
        if self.continue_final_message and not self.continues:
            raise ValueError("continue_final_message: the last message is not a text of the assistant")
        if self.add_generation_prompt is False and not self.continues:
            raise ValueError("add_generation_prompt is false, and there is no message to continue: leave it out")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if isinstance(choice := self.tool_choice, NamedToolChoice):
            names = [tool.function.name for tool in self.tools or []]
            if choice.function.name not in names:
                raise ValueError(f"tool_choice names {choice.function.name!r}, which is not among tools")
        elif choice == "required" and not self.tools:
            raise ValueError("tool_choice is required, but there are no tools")
        asked = self.constrained_by
        if self.tools and self.tool_choice != "none" and asked and asked[1] != "json":
            raise ValueError(f'{asked[0]} and tools both constrain the answer: give one, or tool_choice: "none"')
        return self


class CompletionRequest(GenerationRequest):
    """OpenAI's text completion request; a prompt is text or token ids."""

    prompt: Annotated[
        str | list[int] | list[str] | list[list[int]],
        must(_is_prompt, f"expected text, token ids, or a list of at most {MAX_PROMPTS} of either"),
    ]
    max_tokens: TokensOrNone | None = Field(None, description="0: the prompt is evaluated, and nothing chosen")
    n_predict: TokensOrNone | None = Field(None, description="max_tokens, by llama.cpp's name")
    echo: bool | None = Field(False, description="the text begins with the prompt; its tokens have logprobs too")
    logprobs: Annotated[Whole, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    suffix: str | None = Field(None, description="the text goes between the prompt and this")
    best_of: Annotated[Literal[1] | None, must(lambda v: v in (1, None), "not available; use n")] = None


class TokenizeRequest(Strict):
    """Text, or messages that go through the chat template."""

    content: str | None = Field(None, validation_alias=AliasChoices("content", "prompt"))
    add_special: bool | None = Field(
        False, description="begin text as a prompt", validation_alias=AliasChoices("add_special", "add_special_tokens")
    )
    messages: Messages | None = None
    model: str | None = None

    @model_validator(mode="after")
    def _one(self) -> "TokenizeRequest":
        if (self.content is None) == (self.messages is None):
            raise ValueError("give either content or messages")
        return self


class DetokenizeRequest(Strict):
    tokens: Annotated[list[int], Field(fail_fast=True)]
    model: str | None = None
