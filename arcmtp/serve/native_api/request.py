"""llama-server's own requests, as completions."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from arcmtp.engine.llm import LLM
from arcmtp.errors import ArcmtpError
from arcmtp.model.infill import File, Gap, infill_ids
from arcmtp.serve.errors import ApiError
from arcmtp.serve.protocol import MAX_PROMPTS, CompletionRequest, GenerationRequest, TokensOrNone, must
from arcmtp.serve.strict import Strict

MAX_FILES = 64
Mixed = str | list[int | str]


def _is_mixed(prompt: Any) -> bool:
    """Whether this is one prompt: text, or ids with pieces of text between them."""
    if not isinstance(prompt, list):
        return isinstance(prompt, str)
    return any(type(item) is int for item in prompt) and all(type(item) in (int, str) for item in prompt)


def _is_prompt(value: Any) -> bool:
    several = isinstance(value, list) and 0 < len(value) <= MAX_PROMPTS and all(map(_is_mixed, value))
    return several or _is_mixed(value)


class NativeRequest(GenerationRequest, ABC):
    """What both requests have; without a limit a text goes on to the end of the context."""

    max_tokens: TokensOrNone | None = Field(None, description="0: the prompt is evaluated, and nothing chosen")
    n_predict: TokensOrNone | None = Field(None, description="max_tokens, by llama.cpp's name; -1 if both are absent")
    return_tokens: bool | None = Field(False, description="whether the answer has token ids; a stream always has")

    @property
    def several(self) -> bool:
        """Whether the answer is a list."""
        return (self.n or 1) > 1

    @abstractmethod
    def prompts(self, llm: LLM) -> list[list[int]]:
        """Token ids of each prompt. ApiError or ArcmtpError for what the model cannot take."""

    def completion(self, llm: LLM) -> CompletionRequest:
        """The same in OpenAI's words."""
        fields = self.model_dump(include={*GenerationRequest.model_fields}, exclude_unset=True)
        limit = -1 if self.limit is None else self.limit
        return CompletionRequest(**fields | {"prompt": self.prompts(llm), "max_tokens": limit, "n_predict": None})


class TextRequest(NativeRequest):
    """A prompt is text, or a list of token ids and texts; a list of prompts has a list of answers."""

    prompt: Annotated[
        Mixed | list[Mixed],
        must(_is_prompt, f"expected text, a list of token ids and texts, or a list of at most {MAX_PROMPTS} of these"),
    ]

    @property
    def several(self) -> bool:
        return super().several or not _is_mixed(self.prompt)

    def prompts(self, llm: LLM) -> list[list[int]]:
        listed: Any = [self.prompt] if _is_mixed(self.prompt) else self.prompt
        prompts = [_ids(llm, prompt) for prompt in listed]
        if not all(prompts):
            raise ApiError(400, "the prompt is empty; it needs at least one token", "prompt")
        return prompts


class ExtraFile(Strict):
    filename: str = "file"
    text: str


class InfillRequest(NativeRequest):
    """What stands between `input_prefix` and `input_suffix`."""

    input_prefix: str
    input_suffix: str
    input_extra: Annotated[list[ExtraFile], Field(max_length=MAX_FILES, fail_fast=True)] | None = Field(
        None, description="other files of the project"
    )
    prompt: str = Field("", description="how it begins")

    def prompts(self, llm: LLM) -> list[list[int]]:
        prefix, suffix, begun = (
            llm.tokenizer.encode(text, special=False, context=llm.context)
            for text in (self.input_prefix, self.input_suffix, self.prompt)
        )
        files = [File(extra.filename, extra.text) for extra in self.input_extra or ()]
        try:
            return [infill_ids(llm.tokenizer, Gap(prefix, suffix, begun, files))]
        except ArcmtpError as error:
            raise ApiError(400, f"/infill: {error}") from None


def _ids(llm: LLM, prompt: str | Sequence[int | str]) -> list[int]:
    if isinstance(prompt, str):
        return llm.prompt_ids(prompt)
    ids: list[int] = []
    for piece in prompt:
        ids += [piece] if isinstance(piece, int) else llm.tokenizer.encode(piece, context=llm.context)
    return ids
