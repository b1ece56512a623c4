"""The metadata of a random model: hyperparameters, a tokenizer of synthetic words, a chat template."""

from collections import deque
from collections.abc import Iterator
from itertools import islice

import gguf
from gguf import GGMLQuantizationType as Type

from arcmtp.model.tokenizer import BYTE_ALPHABET
from scripts.random_model.tensors import Geometry
from scripts.random_model.weights import file_type

TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + (message.content | trim) + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
# The last ids of the vocabulary; GGUF's type 3 is control, 4 user-defined.
SPECIAL_TOKENS = {
    "<|endoftext|>": 3,
    "<|im_start|>": 3,
    "<|im_end|>": 3,
    "<think>": 4,
    "</think>": 4,
    "<tool_call>": 4,
    "</tool_call>": 4,
}


def _merges() -> Iterator[tuple[str, str]]:
    """Ever longer words of lower-case letters, with and without a space in front, as (stem, letter)."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    stems = deque([BYTE_ALPHABET[ord(" ")], *letters])
    while True:
        stem = stems.popleft()
        for letter in letters:
            yield stem, letter
            stems.append(stem + letter)


def vocabulary(count: int) -> tuple[list[str], list[int], list[str]]:
    """Tokens, their types, and merges of a byte-level BPE: the bytes, synthetic words, the special tokens."""
    merges = list(islice(_merges(), count - 256 - len(SPECIAL_TOKENS)))
    words = [stem + letter for stem, letter in merges]
    types = [1] * (256 + len(words)) + list(SPECIAL_TOKENS.values())
    return [*BYTE_ALPHABET, *words, *SPECIAL_TOKENS], types, [" ".join(merge) for merge in merges]


def add_metadata(writer: gguf.GGUFWriter, size: Geometry, matrix_type: Type, seed: int) -> None:
    writer.add_string("general.name", f"random {size.architecture}, seed {seed}")
    writer.add_uint32("general.file_type", file_type(matrix_type))
    writer.add_uint32("general.quantization_version", 2)
    writer.add_int32("general.sampling.top_k", 20)
    writer.add_float32("general.sampling.top_p", 0.95)
    writer.add_float32("general.sampling.temp", 1.0)
    integers = {
        "block_count": size.layers + size.mtp,
        "context_length": 262_144,
        "embedding_length": size.hidden,
        "attention.head_count": size.heads,
        "attention.head_count_kv": size.kv_heads,
        "attention.key_length": size.head_dim,
        "attention.value_length": size.head_dim,
        "rope.dimension_count": size.rope_dims,
        **_feed_forward(size),
        "ssm.conv_kernel": size.conv_kernel,
        "ssm.state_size": size.gdn_head_dim,
        "ssm.group_count": size.gdn_k_heads,
        "ssm.time_step_rank": size.gdn_v_heads,
        "ssm.inner_size": size.gdn_inner,
        "full_attention_interval": size.attention_interval,
    }
    if size.mtp:
        integers["nextn_predict_layers"] = 1
    for name, value in integers.items():
        writer.add_uint32(f"{size.architecture}.{name}", value)
    writer.add_float32(f"{size.architecture}.attention.layer_norm_rms_epsilon", 1e-6)
    writer.add_float32(f"{size.architecture}.rope.freq_base", 1e7)
    writer.add_array(f"{size.architecture}.rope.dimension_sections", list(size.rope_sections))


def _feed_forward(size: Geometry) -> dict[str, int]:
    if not size.experts:
        return {"feed_forward_length": size.dense_width}
    return {
        "expert_count": size.experts,
        "expert_used_count": size.experts_used,
        "expert_feed_forward_length": size.expert_width,
        "expert_shared_feed_forward_length": size.expert_width,
    }


def add_tokenizer(writer: gguf.GGUFWriter, count: int) -> None:
    tokens, types, merges = vocabulary(count)
    writer.add_string("tokenizer.ggml.model", "gpt2")
    writer.add_string("tokenizer.ggml.pre", "qwen35")
    writer.add_array("tokenizer.ggml.tokens", tokens)
    writer.add_array("tokenizer.ggml.token_type", types)
    writer.add_array("tokenizer.ggml.merges", merges)
    writer.add_uint32("tokenizer.ggml.bos_token_id", tokens.index("<|endoftext|>"))
    writer.add_uint32("tokenizer.ggml.eos_token_id", tokens.index("<|im_end|>"))
    writer.add_uint32("tokenizer.ggml.padding_token_id", tokens.index("<|endoftext|>"))
    writer.add_bool("tokenizer.ggml.add_bos_token", False)
    writer.add_string("tokenizer.chat_template", TEMPLATE)
