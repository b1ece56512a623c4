"""The published models as headers: hyperparameters, names, shapes and types of tensors, and no weights."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod
from pathlib import Path

from arcmtp.errors import ArcmtpError
from arcmtp.gguf import GGUF
from arcmtp.gguf_header import GgmlType, TensorInfo
from arcmtp.model.config import Config

MOE = Config(
    architecture="qwen35moe",
    hidden=2048,
    layers=40,
    layer_kinds=tuple("attention" if layer % 4 == 3 else "gdn" for layer in range(40)),
    vocab=248_320,
    context_length=262_144,
    rms_eps=1e-6,
    q_heads=16,
    kv_heads=2,
    head_dim=256,
    rope_dim=64,
    rope_theta=1e7,
    gdn_k_heads=16,
    gdn_v_heads=32,
    gdn_k_dim=128,
    gdn_v_dim=128,
    conv_kernel=4,
    experts=256,
    experts_used=8,
    expert_ffn=512,
    shared_ffn=512,
    mtp_layers=1,
)
DENSE = replace(
    MOE,
    architecture="qwen35",
    hidden=5120,
    layers=64,
    layer_kinds=tuple("attention" if layer % 4 == 3 else "gdn" for layer in range(64)),
    q_heads=24,
    kv_heads=4,
    gdn_v_heads=48,
    ffn=17_408,
    experts=0,
    experts_used=0,
    expert_ffn=0,
    shared_ffn=0,
)
NAMES = {"qwen35moe": "Qwen3.6-35B-A3B", "qwen35": "Qwen3.6-27B"}
VOCAB_USED = 248_077  # the rest of the vocabulary is padding
ALWAYS_F32 = {"ssm_conv1d.weight", "ssm_a", "ssm_dt.bias"}
ROUTERS = {"ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight"}

Shapes = dict[str, tuple[int, ...]]
Mix = Callable[[int, str], GgmlType]  # of layer (-1: none) and the rest of a matrix's name


class Header(GGUF):
    """The tensor table of a file that does not exist, with the matrices' types by `mix`.

    The models are published in BF16, so F32 tensors have numbers of BF16."""

    def __init__(self, config: Config, mix: Mix) -> None:
        self.path = Path(NAMES[config.architecture])
        self.tensors = {tensor.name: tensor for tensor in _tensors(config, mix)}

    def in_bf16(self, tensor: TensorInfo) -> bool:
        """Whether the tensor is F32."""
        return tensor.type is GgmlType.F32


def published(name: str) -> tuple[Config, GGUF]:
    """The model of that name, as the file that most people have: hyperparameters and tensor table.

    Raises ArcmtpError, naming those that are known, for another name.
    """
    files = {NAMES[config.architecture].lower(): (config, mix) for config, mix in FILES}
    if name.lower() not in files:
        raise ArcmtpError(f"config is {name!r}; known are {', '.join(files)}")
    config, mix = files[name.lower()]
    return config, Header(config, mix)


def stock_q4_0(layer: int, name: str) -> GgmlType:
    """What llama.cpp's quantiser makes of Q4_0."""
    if name in ROUTERS:
        return GgmlType.F32
    return GgmlType.Q6_K if name == "output.weight" else GgmlType.Q4_0


def unsloth_q4_k_m(layer: int, name: str) -> GgmlType:
    """The file of Qwen3.6-35B-A3B with MTP block that unsloth publishes as UD-Q4_K_M."""
    if name in ROUTERS:
        return GgmlType.BF16 if layer == MOE.layers else GgmlType.F32
    if name == "ffn_down_exps.weight":
        return GgmlType.Q6_K if layer in (34, 38, 39) else GgmlType.Q5_K
    types = {
        "ffn_gate_exps.weight": GgmlType.Q4_K,
        "ffn_up_exps.weight": GgmlType.Q4_K,
        "output.weight": GgmlType.Q6_K,
        "ssm_alpha.weight": GgmlType.F32,
        "ssm_beta.weight": GgmlType.F32,
    }
    return types.get(name, GgmlType.Q8_0)


def unsloth_q4_k_s(layer: int, name: str) -> GgmlType:
    """Its UD-Q4_K_S: Q4_K in place of Q5_K.

    Of the file without MTP block others counted 117 Q4_K, 251 Q8_0 and 4 Q6_K. Only down matrices and the head are
    Q6_K: github.com/andreaborio/hebrus, tests/qwen/normalize_qwen36_gguf.py. With the block the bytes are the file's.
    """
    return _instead({GgmlType.Q5_K: GgmlType.Q4_K}, unsloth_q4_k_m(layer, name))


def unsloth_q4_k_xl(layer: int, name: str) -> GgmlType:
    """Its UD-Q4_K_XL.

    Counts by type and bytes are the file's: github.com/Caedral-ai/caedral-notre-engine,
    docs/models/qwen3.6-35b-a3b-q4_k_xl.md. They say that one layer's gate and up matrices are Q5_K. That it is the last
    is taken from UD-Q6_K_XL; bytes and speed are the same for any.
    """
    if name == "output.weight":
        return GgmlType.Q8_0
    if layer == MOE.layers - 1 and name in ("ffn_gate_exps.weight", "ffn_up_exps.weight"):
        return GgmlType.Q5_K
    return unsloth_q4_k_m(layer, name)


def unsloth_q6_k_xl(layer: int, name: str) -> GgmlType:
    """Its UD-Q6_K_XL, tensor by tensor: github.com/nixabe/llmxabe, docs/MODEL.md."""
    more = {GgmlType.Q4_K: GgmlType.Q6_K, GgmlType.Q5_K: GgmlType.Q8_0, GgmlType.Q6_K: GgmlType.Q8_0}
    return _instead(more, unsloth_q4_k_xl(layer, name))


def unsloth_mxfp4_moe(layer: int, name: str) -> GgmlType:
    """Its MXFP4_MOE: UD-Q4_K_XL with MXFP4 in place of Q4_K.

    Counts by type are published of the file without MTP block: github.com/signalnine/lucebox-hub,
    docs/port-qwen36-35b-a3b-moe.md. There a fourth down matrix is Q6_K, as in UD-Q4_K_XL without the block. With the
    block the bytes are the file's.
    """
    return _instead({GgmlType.Q4_K: GgmlType.MXFP4}, unsloth_q4_k_xl(layer, name))


def _instead(others: dict[GgmlType, GgmlType], ggml_type: GgmlType) -> GgmlType:
    return others.get(ggml_type, ggml_type)


FILES = ((MOE, unsloth_q4_k_m), (DENSE, stock_q4_0))


def _tensors(config: Config, mix: Mix) -> Iterator[TensorInfo]:
    c = config
    every = {"attn_norm.weight": (c.hidden,), "post_attention_norm.weight": (c.hidden,), **_feed_forward(c)}
    layers = [every | (_gdn(c) if kind == "gdn" else _attention(c)) for kind in c.layer_kinds]
    vocabulary = (c.vocab, c.hidden)
    model = {"token_embd.weight": vocabulary, "output.weight": vocabulary, "output_norm.weight": (c.hidden,)}
    mtp: Shapes = {f"nextn.{name}.weight": (c.hidden,) for name in ("enorm", "hnorm", "shared_head_norm")}
    mtp |= {"nextn.eh_proj.weight": (c.hidden, 2 * c.hidden)}
    for layer, shapes in enumerate([model, *layers, every | _attention(c) | mtp], start=-1):
        for name, shape in shapes.items():
            plain = name in ALWAYS_F32 or name.endswith("norm.weight")
            ggml_type = GgmlType.F32 if plain else mix(layer, name)
            nbytes = prod(shape) // ggml_type.block * ggml_type.block_bytes
            yield TensorInfo(name if layer < 0 else f"blk.{layer}.{name}", shape, ggml_type, 0, nbytes, 0)


def _feed_forward(c: Config) -> Shapes:
    def products(suffix: str, width: int, *stack: int) -> Shapes:
        inputs, down = (*stack, width, c.hidden), (*stack, c.hidden, width)
        return {f"ffn_{part}{suffix}.weight": down if part == "down" else inputs for part in ("gate", "up", "down")}

    if not c.experts:
        return products("", c.ffn)
    routers: Shapes = {"ffn_gate_inp.weight": (c.experts, c.hidden), "ffn_gate_inp_shexp.weight": (c.hidden,)}
    return routers | products("_exps", c.expert_ffn, c.experts) | products("_shexp", c.shared_ffn)


def _gdn(c: Config) -> Shapes:
    inner, heads = c.gdn_v_heads * c.gdn_v_dim, c.gdn_v_heads
    return {
        "attn_qkv.weight": (c.gdn_channels, c.hidden),
        "attn_gate.weight": (inner, c.hidden),
        "ssm_alpha.weight": (heads, c.hidden),
        "ssm_beta.weight": (heads, c.hidden),
        "ssm_conv1d.weight": (c.gdn_channels, c.conv_kernel),
        "ssm_a": (heads,),
        "ssm_dt.bias": (heads,),
        "ssm_norm.weight": (c.gdn_v_dim,),
        "ssm_out.weight": (c.hidden, inner),
    }


def _attention(c: Config) -> Shapes:
    inner, kv = c.q_heads * c.head_dim, c.kv_heads * c.head_dim
    return {
        "attn_q.weight": (2 * inner, c.hidden),
        "attn_k.weight": (kv, c.hidden),
        "attn_v.weight": (kv, c.hidden),
        "attn_output.weight": (c.hidden, inner),
        "attn_q_norm.weight": (c.head_dim,),
        "attn_k_norm.weight": (c.head_dim,),
    }
