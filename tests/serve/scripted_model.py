"""A model file that says what a test wants: the bundled model with its layers silenced, so that each token has one
successor.

Attention and experts add nothing to the residual, so a token's logits depend on its embedding alone: random signs,
which the output row of its successor repeats. All tensors keep their shapes, and so no kernel has to be compiled.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from arcmtp.engine.llm import BUNDLED_MODEL
from arcmtp.runtime.paths import data_dir

END = "<|im_end|>"
# A token may have one successor only, so no piece stands in two places.
CALLS = [
    "<think>\n", "I should ", "look.\n", "</think>", "\n\nLet me", " look.\n\n", "<tool_call>\n",
    "<function=weather>\n", "<parameter=city>\nZür", "ich\n</para",
    "meter>\n<parameter=days>\n2\n</parameter>\n</func", "tion>\n</tool_call>",
    "\n<tool_call>\n<function=time>\n<parameter=utc>\ntrue\n</parameter>\n</function>\n</tool_call>", END,
]  # fmt: skip
FOREVER = ["<think>\n\n", "hm ", "hm "]
PLAIN = ["</think>\n\n", "The answer", " is 42.", END]
REQUIRED = ["<function=", "weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>", END]
GAP = ["<|fim_middle|>", "in ", "between", END]
SCRIPTS = (CALLS, FOREVER, PLAIN, REQUIRED, GAP)
INFILL = ["<|fim_prefix|>", "<|fim_suffix|>", "<|repo_name|>", "<|file_sep|>"]
TEMPLATE = """\
{%- for tool in tools or [] %}{{ '[' + (tool | tojson) + ']' }}{% endfor %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
    {%- for call in message.tool_calls or [] %}
        {%- for key, value in call.function.arguments.items() %}{{ '(' + key + '=' + value | tojson + ')' }}{% endfor %}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{{- '<|im_start|>assistant\\n' + ('<think>\\n\\n' if forever else '<think>\\n') }}
{%- if not enable_thinking %}{{ '\\n</think>\\n\\n' }}{% endif %}
"""


def write(path: Path) -> Path:
    """Write the file; a prompt that ends with the first piece of a script is continued by the others."""
    reader = gguf.GGUFReader(data_dir() / BUNDLED_MODEL)
    tokens, types = _contents(reader, "tokens"), _contents(reader, "token_type")
    ids = _with_pieces(tokens, types)
    replaced = {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": _contents(reader, "merges")[:1],
        "tokenizer.chat_template": TEMPLATE,
    }
    writer = gguf.GGUFWriter(path, "qwen35moe")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        sub_type = field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(name, replaced.get(name, field.contents()), field.types[0], sub_type)
    signs = np.where(np.random.default_rng(1).random((len(tokens), 256)) < 0.5, -1, 1)
    for tensor in reader.tensors:
        data = tensor.data.copy()
        if tensor.name == "token_embd.weight":
            _write_rows(data, {token: _q4_0(signs[token]) for token in ids.values()})
        elif tensor.name == "output.weight":
            _write_rows(data, {after: _q8_0(sum(signs[t] for t in before)) for after, before in _links(ids).items()})
        elif tensor.name.endswith(("attn_output.weight", "ssm_out.weight", "down_exps.weight", "down_shexp.weight")):
            data[...] = 0
        elif tensor.name == "output_norm.weight":
            data[...] = 1
        writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _contents(reader: gguf.GGUFReader, name: str) -> Any:
    return list(reader.fields["tokenizer.ggml." + name].contents())


def _with_pieces(tokens: list[str], types: list[int]) -> dict[str, int]:
    """Put the pieces in the place of ordinary tokens, as user-defined ones; the id of each."""
    free = (token_id for token_id in reversed(range(len(tokens))) if types[token_id] == 1 and len(tokens[token_id]) > 2)
    ids = {}
    for piece in dict.fromkeys([*(piece for script in SCRIPTS for piece in script), *INFILL]):
        if piece in tokens:
            ids[piece] = tokens.index(piece)
        else:
            ids[piece] = next(free)
            tokens[ids[piece]], types[ids[piece]] = piece, 4
    return ids


def _links(ids: dict[str, int]) -> dict[int, list[int]]:
    """The ids that lead to an id."""
    links: dict[int, list[int]] = {}
    for script in SCRIPTS:
        for before, after in pairwise(script):
            links.setdefault(ids[after], []).append(ids[before])
    return links


def _write_rows(data: np.ndarray, rows: dict[int, bytes]) -> None:
    data[...] = 0
    for token, row in rows.items():
        data[token] = np.frombuffer(row, np.uint8)


def _q4_0(signs: np.ndarray) -> bytes:
    codes = (signs + 8).astype(np.uint8).reshape(-1, 2, 16)  # two halves of a block share its bytes
    return b"".join(np.float16(1).tobytes() + (low | high << 4).tobytes() for low, high in codes)


def _q8_0(values: np.ndarray) -> bytes:
    return b"".join(np.float16(1).tobytes() + block.astype(np.int8).tobytes() for block in values.reshape(-1, 32))
