"""Routes that tell how the model takes text, and what its slots do."""

import asyncio

from arcmtp.engine.llm import LLM
from arcmtp.serve.model_thread import ModelThread
from arcmtp.serve.prepare import template_messages, template_options
from arcmtp.serve.protocol import ChatRequest
from arcmtp.serve.responses import PromptText, SlotObject, TokenizerInfo


class Details:
    """Their bodies. Nothing here touches the device."""

    def __init__(self, model_thread: ModelThread) -> None:
        self._model_thread = model_thread

    async def tokenizer_info(self) -> TokenizerInfo:
        """Special tokens and the chat template, by the names of Hugging Face's tokenizer files."""
        llm = self._model_thread.llm
        return {
            "bos_token": _named_token(llm, "bos_token_id"),
            "eos_token": _named_token(llm, "eos_token_id"),
            "pad_token": _named_token(llm, "padding_token_id"),
            "add_bos_token": llm.tokenizer.add_bos,
            "model_max_length": llm.context,
            "chat_template": llm.prompting.chat_template,
        }

    async def apply_template(self, body: ChatRequest) -> PromptText:
        """The prompt that a chat request makes, as text."""
        llm = self._model_thread.llm
        messages, options = template_messages(body.messages), template_options(body)
        return {"prompt": await asyncio.to_thread(llm.prompting.text_of_messages, messages, **options)}

    async def slots(self, prompt: bool = False) -> list[SlotObject]:
        """What each slot does; with `prompt` also the text that it has evaluated."""
        llm = self._model_thread.llm
        return [await asyncio.to_thread(_slot, llm, index, prompt) for index in range(llm.parallel)]


def _slot(llm: LLM, index: int, prompt: bool) -> SlotObject:
    state = llm.scheduler.slot_state(index)
    slot: SlotObject = {
        "id": index,
        "n_ctx": llm.context,
        "is_processing": state.doing != "idle",
        "state": state.doing,
        "tokens": len(state.ids),
        "prompt_tokens": state.prompt_tokens,
        "cached_tokens": state.cached_tokens,
        "predicted_tokens": state.decoded,
    }
    if prompt:
        slot["prompt"] = llm.detokenize(state.ids)
    return slot


def _named_token(llm: LLM, name: str) -> str | None:
    token_id = llm.tokenizer.named_id(name)
    return None if token_id is None else llm.tokenizer.token_bytes(token_id).decode(errors="replace")
