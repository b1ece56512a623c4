"""Hyperparameters of a file, read from its metadata and checked against what the kernels can run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, cast, get_args

import numpy as np

from arcmtp.errors import ArcmtpError, shown
from arcmtp.gguf import GGUF
from arcmtp.gguf_header import Value

Architecture = Literal["qwen35moe", "qwen35"]  # with a mixture of experts, or with a dense feed-forward, in every layer
LayerKind = Literal["gdn", "attention"]

DEFAULT_CONTEXT = 8192
MAX_BLOCKS = 1024
MAX_SIZE = 1 << 30
EXPERT_TENSOR = re.compile(r"_(exps|shexp)\.|\bffn_gate_inp\.")
MAX_EXPERTS_USED = 16  # the router keeps the chosen logits in the lanes of one vector


@dataclass(frozen=True)
class Config:
    """Hyperparameters of the trunk; sizes count elements."""

    architecture: Architecture
    hidden: int
    layers: int  # trunk layers, the MTP blocks not counted
    layer_kinds: tuple[LayerKind, ...]
    vocab: int  # rows of the embedding, padding ids included
    context_length: int
    rms_eps: float

    q_heads: int
    kv_heads: int
    head_dim: int
    rope_dim: int  # rotated elements of each head
    rope_theta: float

    gdn_k_heads: int
    gdn_v_heads: int
    gdn_k_dim: int
    gdn_v_dim: int
    conv_kernel: int

    mtp_layers: int

    # 0: the architecture has none
    ffn: int = 0
    experts: int = 0
    experts_used: int = 0
    expert_ffn: int = 0
    shared_ffn: int = 0

    @property
    def gdn_channels(self) -> int:
        """Rows of the GDN's q, k and v together: what the convolution runs over."""
        return 2 * self.gdn_k_heads * self.gdn_k_dim + self.gdn_v_heads * self.gdn_v_dim

    def usable_context(self, ctx: int | None) -> int:
        """`ctx` tokens if the model allows them; None takes 8192, or the model's limit if less."""
        if ctx is None:
            return min(self.context_length, DEFAULT_CONTEXT)
        if not 1 <= ctx <= self.context_length:
            raise ArcmtpError(f"ctx is {ctx}; this model takes 1 to {self.context_length} tokens")
        return ctx

    @classmethod
    def from_gguf(cls, gguf: GGUF) -> Config:
        """Read and check the hyperparameters.

        Raises ArcmtpError, naming the file and the key, for another architecture, a missing key, a value that is not a
        positive number, experts in a `qwen35` file, and shapes or options that the kernels do not run.
        """
        keys = _Keys(str(gguf.path), gguf.metadata)
        config = _read(keys, gguf)
        _check(keys, config)
        return config


class _Keys:
    """The architecture's metadata keys, with the lenience that real files need and errors that name file and key."""

    def __init__(self, path: str, metadata: Mapping[str, Value]) -> None:
        self.path = path
        self.metadata = metadata
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str) or architecture not in get_args(Architecture):
            known = " and ".join(map(repr, get_args(Architecture)))
            raise self.error(f"is architecture {shown(architecture)}; arcmtp runs {known}")
        self.architecture = cast(Architecture, architecture)

    def error(self, message: str) -> ArcmtpError:
        return ArcmtpError(f"{self.path}: {message}")

    def wrong(self, key: str, what: str) -> ArcmtpError:
        return self.error(f"metadata key '{self.architecture}.{key}' {what}")

    def get(self, key: str, default: Any = None) -> Any:
        return self.metadata.get(f"{self.architecture}.{key}", default)

    def _number(self, key: str, default: float | None) -> Any:
        value = self.get(key, default)
        if value is None:
            raise self.wrong(key, "is missing")
        if isinstance(value, np.ndarray):
            value = self._common(key, value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, f"is {shown(value)}, expected a number")
        return value

    def _common(self, key: str, values: np.ndarray[Any, Any]) -> Any:
        """The one value of a per-layer array, zeros (layers without the thing) aside."""
        distinct = np.unique(values[values != 0]).tolist()
        if len(distinct) != 1:
            raise self.wrong(key, f"has the values {distinct[:8]}, expected one for all")
        return distinct[0]

    def integer(self, key: str, default: int | None = None, least: int = 1, most: int = MAX_SIZE) -> int:
        value = self._number(key, default)
        if value != value or not least <= value <= most or value != int(value):
            raise self.wrong(key, f"is {value}, expected an integer from {least} to {most}")
        return int(value)

    def positive(self, key: str) -> float:
        value = float(self._number(key, None))
        if not (isfinite(value) and value > 0):
            raise self.wrong(key, f"is {value}, expected a positive number")
        return value


def _read(keys: _Keys, gguf: GGUF) -> Config:
    _refuse_other_options(keys)
    blocks = keys.integer("block_count", most=MAX_BLOCKS)
    mtp_layers = keys.integer("nextn_predict_layers", default=0, least=0, most=blocks - 1)
    v_heads = keys.integer("ssm.time_step_rank")
    inner = keys.integer("ssm.inner_size")
    if inner % v_heads:
        raise keys.error(f"ssm.inner_size {inner} is not a multiple of ssm.time_step_rank {v_heads}")
    return Config(
        architecture=keys.architecture,
        hidden=keys.integer("embedding_length"),
        layers=blocks - mtp_layers,
        layer_kinds=_layer_kinds(keys, blocks, blocks - mtp_layers),
        vocab=_vocab(keys, gguf),
        context_length=keys.integer("context_length"),
        rms_eps=keys.positive("attention.layer_norm_rms_epsilon"),
        q_heads=keys.integer("attention.head_count"),
        kv_heads=keys.integer("attention.head_count_kv"),
        head_dim=keys.integer("attention.key_length"),
        rope_dim=keys.integer("rope.dimension_count"),
        rope_theta=keys.positive("rope.freq_base"),
        gdn_k_heads=keys.integer("ssm.group_count"),
        gdn_v_heads=v_heads,
        gdn_k_dim=keys.integer("ssm.state_size"),
        gdn_v_dim=inner // v_heads,
        conv_kernel=keys.integer("ssm.conv_kernel"),
        mtp_layers=mtp_layers,
        **(_experts(keys) if keys.architecture == "qwen35moe" else _dense(keys, gguf)),
    )


def _experts(keys: _Keys) -> dict[str, int]:
    return {
        "experts": keys.integer("expert_count"),
        "experts_used": keys.integer("expert_used_count"),
        "expert_ffn": keys.integer("expert_feed_forward_length"),
        "shared_ffn": keys.integer("expert_shared_feed_forward_length"),
    }


def _dense(keys: _Keys, gguf: GGUF) -> dict[str, int]:
    without = f"architecture '{keys.architecture}' has no experts"
    for key, value in keys.metadata.items():
        unused = isinstance(value, int | float) and value == 0
        if key.startswith(f"{keys.architecture}.expert_") and not unused:
            raise keys.error(f"metadata key {shown(key)} is {shown(value)}; {without}")
    for name in gguf.tensors:
        if EXPERT_TENSOR.search(name):
            raise keys.error(f"tensor {shown(name)} is of experts; {without}")
    return {"ffn": keys.integer("feed_forward_length")}


def _refuse_other_options(keys: _Keys) -> None:
    scaling = keys.get("rope.scaling.type")
    if scaling is not None and (not isinstance(scaling, str) or scaling != "none"):
        raise keys.error(f"rope.scaling.type is {shown(scaling)}; arcmtp runs unscaled RoPE ('none')")
    for key in ("rope.scaling.factor", "rope.scale_linear"):
        factor = keys.get(key, 1)
        if scaling is None and (not isinstance(factor, int | float) or factor not in (0, 1)):
            raise keys.error(f"{key} is {shown(factor)}; arcmtp runs unscaled RoPE (no such key, or 1)")
    # Ollama's mark for V heads in Hugging Face order. Files without the key are in GGUF order for this architecture.
    if keys.get("ssm.v_head_reordered", True) is False:
        raise keys.error(
            "ssm.v_head_reordered is false; arcmtp runs V heads in llama.cpp's order: convert the model again"
        )


def _layer_kinds(keys: _Keys, blocks: int, layers: int) -> tuple[LayerKind, ...]:
    recurrent = keys.get("attention.recurrent_layers")
    if recurrent is None:
        interval = keys.integer("full_attention_interval", default=4)
        return tuple("attention" if (layer + 1) % interval == 0 else "gdn" for layer in range(layers))
    if not isinstance(recurrent, np.ndarray) or len(recurrent) not in (blocks, layers):
        raise keys.wrong("attention.recurrent_layers", f"is not an array of {blocks} flags")
    return tuple("gdn" if flag else "attention" for flag in recurrent[:layers].tolist())


def _vocab(keys: _Keys, gguf: GGUF) -> int:
    embedding = gguf.tensors.get("token_embd.weight")
    if embedding is None:
        raise keys.error("tensor 'token_embd.weight' is missing")
    tokens = keys.metadata.get("tokenizer.ggml.tokens", [])
    if isinstance(tokens, list) and len(tokens) > embedding.shape[0]:
        raise keys.error(f"the vocabulary has {len(tokens)} tokens, 'token_embd.weight' only {embedding.shape[0]} rows")
    return embedding.shape[0]


def _check(keys: _Keys, config: Config) -> None:
    if config.head_dim != (value_length := keys.integer("attention.value_length", default=config.head_dim)):
        raise keys.error(f"attention.value_length is {value_length}, expected key_length {config.head_dim}")
    if config.conv_kernel != 4:
        raise keys.error(f"ssm.conv_kernel is {config.conv_kernel}; arcmtp runs 4")
    multiples = [
        ("embedding_length", config.hidden, 32),
        ("attention.head_count × key_length", config.q_heads * config.head_dim, 32),
        ("ssm.inner_size", config.gdn_v_heads * config.gdn_v_dim, 32),
        ("feed_forward_length", config.ffn, 32),
        ("expert_feed_forward_length", config.expert_ffn, 32),
        ("expert_shared_feed_forward_length", config.shared_ffn, 32),
        ("attention.key_length", config.head_dim, 32),
        ("ssm.state_size", config.gdn_k_dim, 16),
        ("ssm.inner_size / time_step_rank", config.gdn_v_dim, 32),
        ("attention.head_count", config.q_heads, config.kv_heads),
        ("ssm.time_step_rank", config.gdn_v_heads, config.gdn_k_heads),
    ]
    for key, value, factor in multiples:
        if value % factor:
            raise keys.error(f"{key} is {value}; arcmtp runs multiples of {factor}")
    if config.rope_dim != 16 and config.rope_dim % 32:
        raise keys.error(f"rope.dimension_count is {config.rope_dim}; arcmtp runs 16 and multiples of 32")
    if config.rope_dim > config.head_dim:
        raise keys.error(f"rope.dimension_count is {config.rope_dim}, expected at most key_length {config.head_dim}")
    if config.experts_used > MAX_EXPERTS_USED:
        raise keys.error(f"expert_used_count is {config.experts_used}; arcmtp runs at most {MAX_EXPERTS_USED}")
    if config.experts_used > config.experts:
        raise keys.error(f"expert_used_count is {config.experts_used}, expected at most expert_count {config.experts}")
