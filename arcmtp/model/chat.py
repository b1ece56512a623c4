"""Messages to prompt text: the Jinja chat template that a GGUF file carries in its metadata."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from arcmtp.errors import ArcmtpError, one_line

TEMPLATE = "tokenizer.chat_template"  # the metadata key


class ChatTemplate:
    """A compiled chat template, rendered as Hugging Face's `apply_chat_template` does.

    Templates come with downloaded files, so they run in Jinja's sandbox and cannot change what they are given.
    """

    def __init__(self, text: str, bos_token: str = "", eos_token: str = "", file: str = "") -> None:
        """Compile `text`; the token texts are what it sees under those names, `file` begins its errors. ArcmtpError for
        a syntax error."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        try:
            self._template = environment.from_string(text)
        except jinja2.TemplateSyntaxError as error:
            raise ArcmtpError(f"{file}chat template, line {error.lineno}: {one_line(error)}") from None
        except (RecursionError, SyntaxError) as error:  # nested deeper than Python compiles
            raise ArcmtpError(f"{file}chat template: {one_line(error)}") from None
        self._file = file
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], file: str = "") -> "ChatTemplate":
        """The template of a GGUF file, whose errors begin with `file`; ArcmtpError if it has none."""
        text = metadata.get(TEMPLATE)
        if not isinstance(text, str) or not text:
            raise ArcmtpError(f"{file}the file has no chat template ({TEMPLATE}): give it a raw prompt")
        return cls(text, _token_text(metadata, "bos_token_id"), _token_text(metadata, "eos_token_id"), file)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        enable_thinking: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> str:
        """The prompt for `messages`, each {"role": str, "content": str | None | list of parts, ...}.

        Content may be missing only beside `tool_calls`. Further keywords reach the template as variables. Raises
        ArcmtpError for malformed messages and, with the template's own words, for what the template refuses.
        """
        _check_messages(messages)
        try:
            return self._template.render(
                self._tokens | kwargs,
                messages=messages,
                tools=tools,
                add_generation_prompt=add_generation_prompt,
                enable_thinking=enable_thinking,
            )
        except Exception as error:  # the template is a program of the file's: it may fail in any way
            raise ArcmtpError(f"{self._file}chat template: {one_line(error)}") from None


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise ArcmtpError("messages: expected a non-empty list of objects with role and content")
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise ArcmtpError(f"messages[{index}]: expected an object with role and content")
        if not isinstance(message.get("role"), str):
            raise ArcmtpError(f"messages[{index}].role: expected a string")
        if "content" not in message and not message.get("tool_calls"):
            raise ArcmtpError(f"messages[{index}].content is missing")
        if not isinstance(message.get("content"), str | list | None):
            raise ArcmtpError(f"messages[{index}].content: expected a string, null or a list of parts")


def _token_text(metadata: Mapping[str, Any], name: str) -> str:
    token_id, tokens = metadata.get("tokenizer.ggml." + name), metadata.get("tokenizer.ggml.tokens", [])
    return tokens[token_id] if isinstance(token_id, int) and 0 <= token_id < len(tokens) else ""


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML and sorts keys, which is not what models were trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
