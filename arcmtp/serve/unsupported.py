"""Fields of OpenAI's and other servers' requests that this server does not have, and that would change the answer."""

from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticCustomError

_SAMPLER = "the options of sampling are temperature, top_k, top_p, min_p, penalties and logit_bias"
_TEXT_ONLY = "this model takes and writes text only"
_TOKENS = "use stop, max_tokens or logit_bias"
_THINKING = "use reasoning_effort or enable_thinking"

# The values beside null, false, "", 0, [] and {} with which a field asks for nothing, and what to use instead.
Fields = Mapping[str, tuple[tuple[Any, ...], str]]
CHAT_FIELDS: Fields = {
    "functions": ((), "use tools"),
    "function_call": ((), "use tool_choice"),
    **dict.fromkeys(
        (
            "mirostat", "mirostat_mode", "dry_multiplier", "xtc_probability", "dynatemp_range", "samplers", "top_a",
            "smoothing_factor", "use_beam_search", "logits_processors", "penalty_alpha", "adaptive_target",
        ), ((), _SAMPLER),
    ),
    **dict.fromkeys(("typical_p", "typ_p", "tfs_z", "cfg_scale", "guidance_scale"), ((1,), _SAMPLER)),
    "top_n_sigma": ((-1,), _SAMPLER),
    **dict.fromkeys(
        ("min_tokens", "stop_token_ids", "bad_words", "allowed_token_ids", "include_stop_str_in_output", "n_indent"),
        ((), _TOKENS),
    ),
    "t_max_predict_ms": ((-1,), _TOKENS),
    "n_probs": ((), "use logprobs"),
    "prompt_logprobs": ((), "only tokens of answers have log-probabilities"),
    "truncate_prompt_tokens": ((-1,), "prompts are taken whole"),
    "chat_template": ((), "the template is the file's"),
    "documents": ((), "put them into a message"),
    "lora": ((), "there are no adapters"),
    "grammar_lazy": ((), "a grammar holds from the beginning of the answer"),
    "guided_whitespace_pattern": ((), "whitespace within JSON is one space, or line ends and indentation"),
    "structural_tag": ((), "use tools"),
    "verbosity": (("medium",), "say it in a message"),
    "web_search_options": ((), "there is no search"),
    "modalities": ((["text"],), _TEXT_ONLY),
    "audio": ((), _TEXT_ONLY),
    **dict.fromkeys(("multimodal_data", "image_data"), ((), _TEXT_ONLY)),
    "response_fields": ((), "answers have all their fields"),
    "thinking": ((), _THINKING),
    "reasoning": ((), _THINKING),
}  # fmt: skip
# Fields of a chat that other protocols name otherwise, or do not have.
_CHAT_NAMES: Fields = {
    "n": ((1,), "an answer has one choice"),
    **dict.fromkeys(("logprobs", "top_logprobs"), ((), "/v1/chat/completions has log-probabilities")),
    **dict.fromkeys(("max_completion_tokens", "n_predict"), ((), "this route has another name for the limit")),
    "continue_final_message": ((), "leave it out"),
    "add_generation_prompt": ((True,), "leave it out"),
}
RESPONSES_FIELDS: Fields = {
    **_CHAT_NAMES,
    "messages": ((), "use input"),
    "max_tokens": ((), "use max_output_tokens"),
    "response_format": ((), "use text.format"),
    "reasoning_effort": ((), "use reasoning.effort"),
    "background": ((), "use stream"),
    "conversation": ((), "use previous_response_id"),
    "prompt": ((), "there are no stored prompts: use instructions"),
    "truncation": (("disabled",), "an input is taken whole"),
    "context_management": ((), "an input is taken whole"),
}
MESSAGES_FIELDS: Fields = {
    **_CHAT_NAMES,
    "stop": ((), "use stop_sequences"),
    "response_format": ((), "use output_config.format"),
    "reasoning_effort": ((), "use thinking"),
    "parallel_tool_calls": ((True,), "use tool_choice.disable_parallel_tool_use"),
    "mcp_servers": ((), "this server runs no tools"),
    "container": ((), "this server runs no tools"),
}
# Fields that ask for nothing when they are true.
_SWITCHES: Mapping[str, str] = {
    "skip_special_tokens": "special tokens are never part of a text",
    "add_special_tokens": "a prompt begins as the file's tokenizer says",
    "parse_tool_calls": 'use tool_choice: "none"',
}


def refuse(body: Any, fields: Fields) -> Any:
    """The body of a request as it is. PydanticCustomError for the first field that asks for what this server does not
    have, with what is right."""
    for name, value in body.items() if isinstance(body, Mapping) else ():
        right = _SWITCHES.get(name) if value is False else None
        if value and name in fields and value not in fields[name][0]:
            right = fields[name][1]
        if right:
            message = "{field} is not available: {right}"
            raise PydanticCustomError("unsupported", message, {"field": name, "right": right})
    return body
