#!/usr/bin/env python3
"""Compile every kernel of Qwen3.6-35B-A3B for the default device, from its shapes alone: no weights are needed.

With run.sh and the compiler's dump switched on (check.sh does both), isa.py then reports on each of them.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from math import prod
from pathlib import Path

from arcmtp.formats.matrix import Requant
from arcmtp.gguf import GGUF, GgmlType, TensorInfo
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.config import Config
from arcmtp.model.network import Network, NetworkOptions
from arcmtp.ops.launch import MAX_ROWS
from arcmtp.runtime.device import Device
from arcmtp.runtime.launch import Kernel, kernels_of

ROW_COUNTS = (1, 4, 0)  # a step, one that verifies drafts, a prompt block
CONTEXT = 8192  # a launch argument: no kernel depends on it
SLOTS = 4  # of a network that advances several sequences at once
VOCAB_USED = 248_077  # the rest of the vocabulary is padding

CONFIG = Config(
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
Shapes = dict[str, tuple[int, ...]]
MODEL: Shapes = {"token_embd.weight": (248_320, 2048), "output.weight": (248_320, 2048), "output_norm.weight": (2048,)}
EVERY_LAYER: Shapes = {
    "attn_norm.weight": (2048,),
    "post_attention_norm.weight": (2048,),
    "ffn_gate_inp.weight": (256, 2048),
    "ffn_gate_inp_shexp.weight": (2048,),
    "ffn_gate_exps.weight": (256, 512, 2048),
    "ffn_up_exps.weight": (256, 512, 2048),
    "ffn_down_exps.weight": (256, 2048, 512),
    "ffn_gate_shexp.weight": (512, 2048),
    "ffn_up_shexp.weight": (512, 2048),
    "ffn_down_shexp.weight": (2048, 512),
}
GDN: Shapes = {
    "attn_qkv.weight": (8192, 2048),
    "attn_gate.weight": (4096, 2048),
    "ssm_alpha.weight": (32, 2048),
    "ssm_beta.weight": (32, 2048),
    "ssm_conv1d.weight": (8192, 4),
    "ssm_a": (32,),
    "ssm_dt.bias": (32,),
    "ssm_norm.weight": (128,),
    "ssm_out.weight": (2048, 4096),
}
ATTENTION: Shapes = {
    "attn_q.weight": (8192, 2048),
    "attn_k.weight": (512, 2048),
    "attn_v.weight": (512, 2048),
    "attn_output.weight": (2048, 4096),
    "attn_q_norm.weight": (256,),
    "attn_k_norm.weight": (256,),
}
MTP: Shapes = {
    "nextn.eh_proj.weight": (2048, 4096),
    "nextn.enorm.weight": (2048,),
    "nextn.hnorm.weight": (2048,),
    "nextn.shared_head_norm.weight": (2048,),
}
ALWAYS_F32 = {"ssm_conv1d.weight", "ssm_a", "ssm_dt.bias"}
ROUTERS = {"ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight"}

Mix = Callable[[int, str], GgmlType]  # of layer (-1: none) and the rest of a matrix's name


class Header(GGUF):
    """The tensor table of a file that does not exist, with the matrices' types by `mix`."""

    def __init__(self, mix: Mix) -> None:
        self.path = Path("Qwen3.6-35B-A3B")
        self.tensors = {tensor.name: tensor for tensor in _tensors(mix)}


def _tensors(mix: Mix) -> Iterator[TensorInfo]:
    blocks = [EVERY_LAYER | (GDN if kind == "gdn" else ATTENTION) for kind in CONFIG.layer_kinds]
    for layer, shapes in enumerate([MODEL, *blocks, EVERY_LAYER | ATTENTION | MTP], start=-1):
        for name, shape in shapes.items():
            plain = name in ALWAYS_F32 or name.endswith("norm.weight")
            ggml_type = GgmlType.F32 if plain else mix(layer, name)
            nbytes = prod(shape) // ggml_type.block * ggml_type.block_bytes
            yield TensorInfo(name if layer < 0 else f"blk.{layer}.{name}", shape, ggml_type, 0, nbytes, 0)


def stock_q4_0(layer: int, name: str) -> GgmlType:
    """What llama.cpp's quantiser makes of Q4_0."""
    if name in ROUTERS:
        return GgmlType.F32
    return GgmlType.Q6_K if name == "output.weight" else GgmlType.Q4_0


def unsloth_q4_k_m(layer: int, name: str) -> GgmlType:
    """The file that unsloth publishes as UD-Q4_K_M."""
    if name in ROUTERS:
        return GgmlType.BF16 if layer == CONFIG.layers else GgmlType.F32
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


MIXES: tuple[tuple[Mix, Requant | None], ...] = ((stock_q4_0, None), (unsloth_q4_k_m, None), (unsloth_q4_k_m, "int4"))


def main() -> None:
    device = Device()
    print(f"{device.card.name}: {device.sycl_device.name}", flush=True)
    networks = [network(device, mix, requant) for mix, requant in MIXES]
    networks.append(network(device, *MIXES[0], slots=SLOTS))
    for rows in ROW_COUNTS:
        kernels = _distinct(kernel for network in networks for kernel in all_kernels(network, rows))
        begin = time.perf_counter()
        device.compile(kernels)
        what = f"{rows} rows" if rows > 1 else "1 row" if rows else "block"
        print(f"{what}: {len(kernels)} kernels in {time.perf_counter() - begin:.1f} s", flush=True)


def network(
    device: Device, mix: Mix, requant: Requant | None, slots: int = 1, context: int = CONTEXT
) -> Network:
    """Qwen3.6-35B-A3B, of which nothing is loaded."""
    options = NetworkOptions(context, VOCAB_USED, slots, mtp=True, requant=requant)
    return Network(Header(mix), CONFIG, options, device)


def all_kernels(network: Network, rows: int) -> list[Kernel]:
    """Those for `rows` rows of one sequence, for as many of one row each, and, with 0, for blocks and larger steps."""
    shapes = [(rows, 1)]
    if network.slots > 1:
        shapes += [(1, rows)] if 1 < rows <= network.slots else []
        shapes += [] if rows else [(MAX_ROWS, network.slots)]
    modes = [SamplingMode(), SamplingMode(by_options=True, top=True)] if rows == 1 else [SamplingMode()]
    return kernels_of(
        launch for mode in modes for rows, runs in shapes for launch in network.launches(rows, runs, mode)
    )


def _distinct(kernels: Iterable[Kernel]) -> list[Kernel]:
    found: dict[str, Kernel] = {}
    for kernel in kernels:
        if found.setdefault(kernel.name, kernel) != kernel:
            sys.exit(f"two kernels share the name {kernel.name}")
    return list(found.values())


if __name__ == "__main__":
    main()
