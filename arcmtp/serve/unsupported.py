"""Fields of OpenAI's and other servers' requests that this server does not have, and that would change the answer."""

from collections.abc import Mapping
from typing import Any

_SAMPLER = "the options of sampling are temperature, top_k, top_p, min_p, penalties and logit_bias"
_TEXT_ONLY = "this model takes and writes text only"
_TOKENS = "use stop, max_tokens or logit_bias"
_THINKING = "use reasoning_effort or enable_thinking"

# The values beside null, false, "", 0, [] and {} with which a field asks for nothing, and what to use instead.
_FIELDS: Mapping[str, tuple[tuple[Any, ...], str]] = {
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
    "multimodal_data": ((), _TEXT_ONLY),
    "thinking": ((), _THINKING),
    "reasoning": ((), _THINKING),
}  # fmt: skip
# Fields that ask for nothing when they are true.
_SWITCHES: Mapping[str, str] = {
    "skip_special_tokens": "special tokens are never part of a text",
    "add_special_tokens": "a prompt begins as the file's tokenizer says",
    "parse_tool_calls": 'use tool_choice: "none"',
}


def unsupported(body: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first field of a request that asks for what this server does not have, and what is right; None if none
    does."""
    for name, value in body.items():
        if name in _SWITCHES and value is False:
            return name, _SWITCHES[name]
        if name in _FIELDS and value and value not in _FIELDS[name][0]:
            return name, _FIELDS[name][1]
    return None
