"""Requests to jobs: prompts rendered and tokenized, options checked. Nothing here touches the device."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydantic_core

from arcmtp.engine.llm import LLM
from arcmtp.engine.reasoning import ReasoningSplitter, opens_reasoning
from arcmtp.engine.sampling import Sampler, SamplingOptions
from arcmtp.errors import ArcmtpError
from arcmtp.model.chat import reasoning_and_content
from arcmtp.model.infill import Gap, infill_ids
from arcmtp.serve import tools
from arcmtp.serve.choices import ChatChoice, Logprobs, TextChoice
from arcmtp.serve.constraints import chat_constraint, completion_constraint
from arcmtp.serve.errors import ApiError
from arcmtp.serve.jobs import Job, ReasoningBudget
from arcmtp.serve.protocol import (
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
    NamedToolChoice,
)

DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's
MAX_PROMPT_LOGPROBS = 2**18  # of a request: 57 MB while the answer is made, and 7 MB of JSON
LEAST_TEMPERATURE = 0.01  # below it clients mean the likeliest token
_CLOSING = "\n</think>\n\n"
_SAMPLING_FIELDS = ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")


@dataclass(frozen=True)
class Prepared:
    """The jobs of a request, a choice for each, and the tokens of its prompts."""

    jobs: Sequence[Job]
    choices: Sequence[ChatChoice | TextChoice]
    prompt_tokens: int


def prepare_chat(llm: LLM, request: ChatRequest, defaults: SamplingOptions) -> Prepared:
    """ApiError or ArcmtpError for what the model, its template or its context cannot take."""
    called = _called(request)
    several = request.parallel_tool_calls is not False and not isinstance(request.tool_choice, NamedToolChoice)
    forced = _forced_call(request)
    messages = template_messages(request.messages)
    ids = llm.prompt_ids(messages, **template_options(request))
    inside = _inside(llm, ids, messages[-1] if request.continues else {})
    if forced:
        ids += llm.tokenize((_CLOSING if inside else "") + forced)
        inside = False
    budget = _budget(llm, request.reasoning_budget) if inside else None
    constraint = chat_constraint(llm, request, several, inside)
    if constraint and inside and request.continues:
        raise ApiError(400, "the last message has reasoning alone, which no constraint can go on with", "messages")
    limit = _limit(llm, request.limit or -1)
    job = Job(ids, limit, request.top_logprobs or 0, budget=budget, constraint=constraint)
    jobs = _jobs(llm, request, defaults, job)
    choices = [
        ChatChoice(
            request.stop or (), _splitter(request, inside), request.raw_tools if called else (), forced, several,
            Logprobs(llm.tokenizer) if request.logprobs else None,
        )
        for _ in jobs
    ]  # fmt: skip
    return Prepared(jobs, choices, len(ids))


def template_options(request: ChatRequest) -> dict[str, Any]:
    """What a chat request gives its template beside messages."""
    options: dict[str, Any] = {
        "tools": request.raw_tools if _called(request) else None,
        "continue_final_message": request.continues,
    }
    if request.reasoning_effort is not None:
        options["reasoning_effort"] = request.reasoning_effort
    if request.thinking is not None:
        options["enable_thinking"] = request.thinking
    return options | (request.chat_template_kwargs or {})


def _called(request: ChatRequest) -> bool:
    """Whether the model may call tools."""
    return request.tools is not None and request.tool_choice != "none"


def prepare_completion(llm: LLM, request: CompletionRequest, defaults: SamplingOptions) -> Prepared:
    """ApiError or ArcmtpError for what the model or its context cannot take."""
    prompts: Sequence[str | Sequence[int]]
    prompts = [request.prompt] if _is_one(request.prompt) else request.prompt  # type: ignore[assignment, list-item]
    logprobs = None if request.logprobs is None else Logprobs(llm.tokenizer)
    jobs, choices, prompt_tokens = list[Job](), list[TextChoice](), 0
    limit = DEFAULT_COMPLETION_TOKENS if request.limit is None else request.limit
    scored = bool(request.echo) and logprobs is not None
    constraint = completion_constraint(llm, request)
    for prompt in prompts:
        ids = llm.prompt_ids(prompt)
        if request.suffix:
            ids = _between(llm, ids, request)
        prompt_tokens += len(ids)
        job = Job(ids, _limit(llm, limit), request.logprobs or 0, score_prompt=scored, constraint=constraint)
        jobs += _jobs(llm, request, defaults, job)
        echo = llm.detokenize(ids) if request.echo else ""
        while len(choices) < len(jobs):
            choices.append(TextChoice(request.stop or (), echo, logprobs, ids if scored else ()))
    if scored:
        _check_scores(sum(len(job.prompt_ids) for job in jobs) * (1 + (request.logprobs or 0)))
    return Prepared(jobs, choices, prompt_tokens)


def _between(llm: LLM, prefix: Sequence[int], request: CompletionRequest) -> list[int]:
    """The prompt for what comes before the suffix."""
    if request.echo:
        raise ApiError(400, "suffix: echo is not available with it", "suffix")
    suffix = llm.tokenizer.encode(request.suffix or "", special=False, context=llm.context)
    try:
        return infill_ids(llm.tokenizer, Gap(prefix, suffix))
    except ArcmtpError as error:
        raise ApiError(400, f"suffix: {error}", "suffix") from None


def _check_scores(numbers: int) -> None:
    if numbers > MAX_PROMPT_LOGPROBS:
        raise ApiError(
            400, f"echo with logprobs: {numbers} numbers, (1 + logprobs) for each token of a prompt, are more than "
            f"{MAX_PROMPT_LOGPROBS}, the limit: send fewer prompts or a smaller logprobs", "logprobs",
        )  # fmt: skip


def template_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Messages as chat templates read them: arguments of tool calls as objects, developers as the system."""
    return [_template_message(index, message) for index, message in enumerate(messages)]


def _template_message(index: int, message: ChatMessage) -> dict[str, Any]:
    fields = message.model_dump(exclude_none=True) | {"content": message.content and message.model_dump()["content"]}
    if message.role == "developer":
        fields["role"] = "system"
    for call in fields.get("tool_calls", ()):
        call["function"]["arguments"] = _arguments(call["function"].get("arguments"))
    if message.role in ("system", "developer", "user") and "content" not in message.model_fields_set:
        raise ApiError(400, f"messages.{index}.content is missing", f"messages.{index}.content")
    if fields["content"] is None and not fields.get("tool_calls"):
        fields["content"] = ""
    return fields


def _arguments(sent: Any) -> Mapping[str, Any]:
    """The arguments of an earlier call as templates want them. Of an object that was cut off, what there is; what is no
    object stands under the name `arguments`."""
    found = _parsed(sent.strip() or "{}") if isinstance(sent, str) else sent
    if found is None:
        return {}
    return found if isinstance(found, Mapping) else {"arguments": sent}


def _parsed(text: str) -> Any:
    try:
        return pydantic_core.from_json(text)
    except ValueError as error:
        cut_off = "EOF while parsing" in str(error)
        return pydantic_core.from_json(text, allow_partial="trailing-strings") if cut_off else text


def _inside(llm: LLM, ids: Sequence[int], continued: Mapping[str, Any]) -> bool:
    """Whether a prompt ends within reasoning, given the message that it ends with, if any."""
    reasoning, content = reasoning_and_content(continued)
    if reasoning or content:
        return not content
    return opens_reasoning(llm.tokenizer, ids)


def _splitter(request: ChatRequest, inside: bool) -> ReasoningSplitter:
    begun = request.continues and any(reasoning_and_content(request.messages[-1].model_dump()))
    return ReasoningSplitter(inside, begun, apart=request.reasoning_format != "none")


def _limit(llm: LLM, tokens: int) -> int:
    return llm.context if tokens == -1 else tokens


def _forced_call(request: ChatRequest) -> str:
    """The text with which an answer begins that must be a tool call."""
    if isinstance(request.tool_choice, NamedToolChoice):
        return f"{tools.CALL}{request.tool_choice.function.name}>\n"
    return tools.CALL if request.tool_choice == "required" else ""


def _budget(llm: LLM, tokens: int | None) -> ReasoningBudget | None:
    if tokens in (None, -1):
        return None
    closing = llm.tokenize(_CLOSING)
    end = llm.tokenize("</think>")
    if len(end) != 1:
        raise ApiError(400, "reasoning_budget: this model has no token </think>", "reasoning_budget")
    return ReasoningBudget(tokens, end[0], closing)


def _jobs(llm: LLM, request: GenerationRequest, defaults: SamplingOptions, job: Job) -> list[Job]:
    """The job for each of the request's n choices."""
    if not job.prompt_ids:
        raise ApiError(400, "the prompt is empty; it needs at least one token", "prompt")
    if (tokens := len(job.prompt_ids)) > llm.context:
        raise ApiError(
            400, f"the prompt has {tokens} tokens, the context holds {llm.context}", code="context_length_exceeded"
        )
    sampling = _sampling(llm, request, defaults)
    Sampler(sampling, llm.config.vocab)  # refuses biases of tokens that the vocabulary does not have
    if request.draft and not llm.draft:
        raise ApiError(400, f"draft is {request.draft}; this server was started without drafts (--draft 0)", "draft")
    return [
        dataclasses.replace(job, sampling=_of_choice(sampling, index), draft=request.draft)
        for index in range(request.n or 1)
    ]


def _sampling(llm: LLM, request: GenerationRequest, defaults: SamplingOptions) -> SamplingOptions:
    given: dict[str, Any] = {name: getattr(request, name) for name in _SAMPLING_FIELDS}
    given["top_k"] = 0 if request.top_k == -1 else request.top_k
    if request.top_p == 0:
        given |= {"top_p": 1.0, "top_k": 1}
    if request.temperature is not None and 0 < request.temperature < LEAST_TEMPERATURE:
        given["temperature"] = 0.0
    given["seed"] = None if request.seed is None else request.seed % 2**64
    given["logit_bias"] = None if request.logit_bias is None else _biases(request.logit_bias)
    sampling = dataclasses.replace(defaults, **{name: value for name, value in given.items() if value is not None})
    if request.ignore_eos:
        ends = dict.fromkeys(llm.tokenizer.eos_ids, -math.inf)
        sampling = dataclasses.replace(sampling, logit_bias={**sampling.logit_bias, **ends})
    return dataclasses.replace(sampling, seed=None) if request.seed == -1 else sampling


def _biases(biases: Mapping[str, float]) -> dict[int, float]:
    wrong = next((token for token in biases if not (token.isascii() and token.isdecimal() and len(token) < 10)), None)
    if wrong is not None:
        raise ApiError(400, f"logit_bias: {wrong!r} is not a token id", "logit_bias")
    return {int(token): bias for token, bias in biases.items()}


def _of_choice(sampling: SamplingOptions, index: int) -> SamplingOptions:
    return sampling if sampling.seed is None else dataclasses.replace(sampling, seed=(sampling.seed + index) % 2**64)


def _is_one(prompt: object) -> bool:
    return isinstance(prompt, str) or (isinstance(prompt, list) and isinstance(prompt[0], int))
