"""Prompts of all kinds to token ids."""

import operator
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

from arcmtp.errors import ArcmtpError, ContextExceeded
from arcmtp.gguf import GGUF
from arcmtp.model.chat import TEMPLATE, ChatTemplate
from arcmtp.model.tokenizer import Tokenizer

Message = Mapping[str, Any]
Prompt = str | Sequence[int] | Sequence[Message]
Prompts = list[str] | Sequence[Sequence[int]] | Sequence[Sequence[Message]]


class Prompting:
    """How the prompts of a file's model are made; context: how many tokens one may have."""

    def __init__(self, gguf: GGUF, tokenizer: Tokenizer, vocab: int, context: int) -> None:
        self._gguf, self._tokenizer, self._vocab, self._context = gguf, tokenizer, vocab, context
        turn = tokenizer.encode("<|im_start|>", special=True)
        self._turn_id = turn[0] if len(turn) == 1 else None

    @property
    def chat_template(self) -> str | None:
        """How the file says that chat messages become text, if it does."""
        text = self._gguf.metadata.get(TEMPLATE)
        return text if isinstance(text, str) and text else None

    @property
    def has_chat_template(self) -> bool:
        """Whether the file says how chat messages become text."""
        return self.chat_template is not None

    def ids(self, prompt: Prompt, **template_options: Any) -> list[int]:
        """Token ids of text, of chat messages, or as they are. Raises ArcmtpError for ids outside of the vocabulary."""
        if isinstance(prompt, str):
            return self._encoded(prompt)
        if isinstance(prompt, Sequence) and prompt and isinstance(prompt[0], Mapping):
            return self.of_messages(cast(Sequence[Message], prompt), **template_options)
        return self._known(cast(Sequence[int], prompt))

    def of_messages(self, messages: Sequence[Message], **template_options: Any) -> list[int]:
        """Token ids of chat messages through the file's chat template. Raises ArcmtpError for what are no messages."""
        return self._encoded(self.text_of_messages(messages, **template_options))

    def text_of_messages(self, messages: Sequence[Message], **template_options: Any) -> str:
        """The text of chat messages through the file's chat template; raises as `of_messages` does."""
        return self._template.render(messages, **template_options)

    @cached_property
    def _template(self) -> ChatTemplate:
        # The file's name without its folder, which clients of a server need not know.
        return ChatTemplate.from_metadata(self._gguf.metadata, f"{self._gguf.path.name}: ")

    def boundaries(self, ids: list[int]) -> list[int]:
        """Where the last two messages of a prompt begin, and where its first one ends, ascending; without messages, its
        last token. States there become checkpoints, for prompts that go on otherwise: with the answer rendered in
        another way, with another last message, or with another conversation behind the same system message."""
        places = [place for place in range(1, len(ids)) if ids[place] == self._turn_id]
        return sorted({places[0], *places[-2:]}) if places else [len(ids) - 1]

    def checked(self, ids: Sequence[int]) -> list[int]:
        """The ids of a prompt. Raises ArcmtpError for none at all and for ids outside of the vocabulary, and
        ContextExceeded for more than the context holds."""
        if len(ids) == 0:
            raise ArcmtpError("the prompt is empty; it needs at least one token")
        if len(ids) > self._context:
            raise ContextExceeded(f"the prompt has {len(ids)} tokens, the context holds {self._context}: raise ctx")
        return self._known(ids)

    def _known(self, prompt: Sequence[int]) -> list[int]:
        try:
            ids = [operator.index(token) for token in prompt]
        except TypeError:
            raise ArcmtpError("a prompt must be text, a list of token ids or a list of messages") from None
        wrong = next((token for token in ids if not 0 <= token < self._vocab), None)
        if wrong is not None:
            raise ArcmtpError(f"token id {wrong} is not in the vocabulary, which has ids 0 to {self._vocab - 1}")
        return ids

    def _encoded(self, text: str) -> list[int]:
        """Raises ContextExceeded, before any work, for more bytes than the context's tokens can have."""
        ids = self._tokenizer.encode(text, context=self._context)
        bos = self._tokenizer.bos_id
        return ids if bos is None or ids[:1] == [bos] else [bos, *ids]


def are_several(prompt: Prompt | Prompts) -> bool:
    """Whether this is a list of prompts: of texts, or of lists."""
    listed = isinstance(prompt, Sequence) and not isinstance(prompt, str)
    return listed and len(prompt) > 0 and isinstance(prompt[0], Sequence)
