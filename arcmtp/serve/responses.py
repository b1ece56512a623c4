"""What the server answers: the types of its JSON, which the OpenAPI page shows."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic reads typing.TypedDict only from Python 3.12 on


class ErrorObject(TypedDict):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(TypedDict):
    error: ErrorObject


class FunctionDelta(TypedDict):
    name: NotRequired[str]
    arguments: str


class ToolCallDelta(TypedDict):
    """A part of a tool call; `id`, `type` and the name come with the first part only."""

    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: FunctionDelta


class Delta(TypedDict):
    """A part of a message."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str]
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[ToolCallDelta]]


class FunctionCall(TypedDict):
    name: str
    arguments: str


class ToolCall(TypedDict):
    id: str
    type: Literal["function"]
    function: FunctionCall


class AnswerMessage(TypedDict):
    role: Literal["assistant"]
    content: str | None
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[ToolCall]]


class TopLogprob(TypedDict):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    content: list[TokenLogprob]


class TextLogprobs(TypedDict):
    """An item for each token; null for the first token of a prompt, before which there is nothing."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class ChatChoiceObject(TypedDict):
    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: str | None


class TextChoiceObject(TypedDict):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: str | None


class PromptDetails(TypedDict):
    cached_tokens: int


class CompletionDetails(TypedDict):
    reasoning_tokens: int


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class TimingsObject(TypedDict):
    """Speeds, under llama-server's names; the first token belongs to the prompt.

    Graphs are counted where anything ran, drafts where any were made; their times are null where the device does not
    tell them. Of several choices: the longest queue_ms, the largest draft_us_p95, sums and means of the rest.
    """

    queue_ms: float
    prompt_n: int  # evaluated
    cache_n: int  # not evaluated again
    prompt_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float
    graph_captures: NotRequired[int]
    graph_replays: NotRequired[int]
    draft_n: NotRequired[int]  # calls, a token each
    draft_n_accepted: NotRequired[int]
    draft_acceptance_by_position: NotRequired[list[float]]
    draft_us_mean: NotRequired[float | None]
    draft_us_p95: NotRequired[float | None]
    draft_lengths: NotRequired[list[int]]  # cycles with no draft, with one, …


class ChatCompletion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoiceObject]
    usage: Usage
    timings: TimingsObject


class Completion(TypedDict):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoiceObject]
    usage: Usage
    timings: TimingsObject


class NativeAnswer(TypedDict):
    """llama-server's own shape; tokens_cached: of the prompt, not evaluated again."""

    index: int
    content: str
    tokens: list[int]
    stop: bool
    model: str
    tokens_predicted: int
    tokens_evaluated: int
    tokens_cached: int
    truncated: bool
    stop_type: Literal["eos", "limit", "word"]
    stopping_word: str
    timings: TimingsObject


NativeAnswers = NativeAnswer | list[NativeAnswer]


class ModelObject(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(TypedDict):
    object: Literal["list"]
    data: list[ModelObject]


class Tokens(TypedDict):
    tokens: list[int]
    count: int


class Text(TypedDict):
    """The text under the names of llama-server and of vLLM."""

    content: str
    prompt: str


class PromptText(TypedDict):
    prompt: str


class TokenizerInfo(TypedDict):
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    add_bos_token: bool
    model_max_length: int
    chat_template: str | None


class SlotObject(TypedDict):
    """A slot. tokens: evaluated; the others are of the choice that holds it; prompt: the text of `tokens`."""

    id: int
    n_ctx: int
    is_processing: bool
    state: Literal["idle", "reading", "decoding"]
    tokens: int
    prompt_tokens: int
    cached_tokens: int
    predicted_tokens: int
    prompt: NotRequired[str]


class InputTokens(TypedDict):
    object: Literal["response.input_tokens"]
    input_tokens: int


class MessageTokens(TypedDict):
    input_tokens: int


class Deleted(TypedDict):
    id: str
    object: Literal["response"]
    deleted: bool


class Health(TypedDict):
    status: Literal["loading", "ready", "draining", "failed"]


class Props(TypedDict):
    """What the server runs, and its limits."""

    model: str
    version: str
    device: str
    context: int
    vocabulary: int
    slots: int
    draft: int | Literal["auto"]
    queue: int
    body_mib: float
    sampling: dict[str, Any]
