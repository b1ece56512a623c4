"""Messages to prompt text: the Jinja chat template that a GGUF file carries in its metadata."""

from collections.abc import Mapping, Sequence
from typing import Any

from arcmtp.errors import ArcmtpError
from arcmtp.model.template_process import TemplateProcess

TEMPLATE = "tokenizer.chat_template"  # the metadata key
_OPEN, _CLOSE = "<think>", "</think>"


class ChatTemplate:
    """A compiled chat template, rendered as Hugging Face's `apply_chat_template` does.

    Templates come with downloaded files, so they run in Jinja's sandbox, in a process with limits of time and memory.
    """

    def __init__(self, text: str, bos_token: str = "", eos_token: str = "", file: str = "") -> None:
        """Compile `text`; the token texts are what it sees under those names, `file` begins its errors. ArcmtpError for
        what does not compile within the limits."""
        self._process = TemplateProcess(text, f"{file}chat template")
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
        continue_final_message: bool = False,
        **kwargs: Any,
    ) -> str:
        """The prompt for `messages`, each {"role": str, "content": str | None | list of parts, ...}.

        Content may be missing only beside `tool_calls`. With `continue_final_message` the prompt ends with the last
        message, whose reasoning goes on if it has no content. Further keywords reach the template as variables. Raises
        ArcmtpError for malformed messages and, with the template's own words, for what the template refuses.
        """
        _check_messages(messages)
        text = self._process.render(
            self._tokens
            | kwargs
            | {
                "messages": messages[:-1] if continue_final_message else messages,
                "tools": tools,
                "add_generation_prompt": add_generation_prompt,
                "enable_thinking": enable_thinking,
            }
        )
        return text + _continuation(text, messages[-1]) if continue_final_message else text


def reasoning_and_content(message: Mapping[str, Any]) -> tuple[str, str]:
    """The reasoning of an assistant's message, which may also stand in <think> tags before its content, and the rest of
    its text."""
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = "".join(part.get("text", "") for part in content)
    if (reasoning := message.get("reasoning_content") or "") or not content.startswith(_OPEN):
        return reasoning, content
    reasoning, _, content = content.removeprefix(_OPEN).partition(_CLOSE)
    return reasoning.strip("\n"), content.lstrip("\n")


def _continuation(prompt: str, message: Mapping[str, Any]) -> str:
    """What a message that is to be continued adds to the prompt for it, written as Qwen3.6's template writes earlier
    messages."""
    reasoning, content = reasoning_and_content(message)
    opened = prompt.rstrip().endswith(_OPEN)
    if content:
        return f"{reasoning}\n{_CLOSE}\n\n{content}" if opened else content
    return reasoning if opened or not reasoning else f"{_OPEN}\n{reasoning}"


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
