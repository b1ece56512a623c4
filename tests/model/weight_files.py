"""Weights of files on a device that is not there, files to damage, and what the package gguf says is in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from arcmtp.formats.matrix import Format, Requant, unpack
from arcmtp.gguf import GGUF
from arcmtp.model import weights
from arcmtp.model.config import Config
from arcmtp.model.network import Network, NetworkOptions
from arcmtp.model.weight_plan import Merged
from arcmtp.model.weights import WeightLoader
from arcmtp.runtime.card import cards
from arcmtp.runtime.tensor import Tensor

ROOT = Path(__file__).parents[2]
Q4_0_FILE = ROOT / "arcmtp/data/tiny-qwen36moe-q4_0.gguf"
F16_FILE = ROOT / "tests/data/tiny-qwen36moe-f16.gguf"
Q4_K_M_FILE = ROOT / "tests/data/tiny-qwen36moe-q4_k_m.gguf"

Floats = npt.NDArray[np.float32]
Values = dict[str, Floats]
Types = dict[str, gguf.GGMLQuantizationType]
F16, BF16, Q8_0 = (gguf.GGMLQuantizationType[name] for name in ("F16", "BF16", "Q8_0"))


class FakeBuffer:
    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.memory = np.full(nbytes, 0xA5, np.uint8)

    def write(self, array: npt.NDArray[Any], offset: int = 0) -> None:
        data = array.reshape(-1).view(np.uint8)
        assert offset + data.nbytes <= self.nbytes
        self.memory[offset : offset + data.nbytes] = data


class FakeDevice:
    """Memory of the host, and nothing runs."""

    card, activation_orders = cards()["cpu"], 3

    def __init__(self) -> None:
        self.allocated_bytes = self.host_bytes = 0

    def alloc(self, nbytes: int, at_once: bool = True) -> FakeBuffer:
        self.allocated_bytes += nbytes
        return FakeBuffer(nbytes)

    def host_alloc(self, nbytes: int, at_once: bool = True) -> FakeBuffer:
        self.host_bytes += nbytes
        return FakeBuffer(nbytes)


class Loaded:
    """The weights of a network on a fake device."""

    def __init__(self, network: Network, progress: weights.Progress | None = None) -> None:
        self.network, self.plan = network, network.weights
        device: Any = FakeDevice()
        self.requant_errors = WeightLoader(self.plan, device, progress).load()
        assert device.host_bytes == self.plan.host_nbytes
        assert device.allocated_bytes == self.plan.nbytes - device.host_bytes

    def __getitem__(self, name: str) -> Merged:
        """What is merged under a name."""
        return next(merged for merged in self.plan.merged if merged.tensor.name == name)


def loaded(made: Network, progress: weights.Progress | None = None) -> Loaded:
    return Loaded(made, progress)


def planned(path: Path, requant: Requant | None = None, mtp: bool = False, **options: Any) -> Network:
    file, device = GGUF(path), FakeDevice()
    config = Config.from_gguf(file)
    fake: Any = device
    of_network = NetworkOptions(64, config.vocab, mtp=file if mtp else None, requant=requant, **options)
    return Network(file, config, of_network, fake)


def formats(merged: Merged) -> list[Format]:
    return [matrix.format for matrix in merged.matrices]


def matrices(merged: Merged) -> list[Floats]:
    """The values of each segment: [n, k], or [experts, n, k] for a stack of several."""
    found = []
    for matrix in merged.matrices:
        memory = memory_of(merged.tensor)[matrix.offset : matrix.offset + matrix.nbytes]
        stack = [unpack(matrix.format, tiles, matrix.n, matrix.k) for tiles in np.split(memory, matrix.experts)]
        found.append(stack[0] if matrix.experts == 1 else np.stack(stack))
    return found


def memory_of(tensor: Tensor) -> npt.NDArray[np.uint8]:
    buffer: Any = tensor.buffer
    return buffer.memory


def file_values(path: Path) -> Values:
    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        .astype(np.float32)
        .reshape(tensor.shape.tolist()[::-1])
        for tensor in gguf.GGUFReader(path).tensors
    }


def assert_loaded_values(
    found: Loaded, expected: Values, close: Callable[[Floats, Floats], bool] = np.array_equal
) -> None:
    """Every matrix and vector that the network asked for against plain values by file name."""
    for merged in found.plan.merged:
        for value, segment in zip(matrices(merged), merged.segments, strict=True):
            name, rows = segment.tensor.name, slice(segment.first_row, segment.first_row + segment.matrix.n)
            whole = expected[name].reshape(segment.matrix.experts, -1, segment.matrix.k)
            assert close(value, whole[:, rows].reshape(value.shape)), name
    for _, tensor, target in found.plan.vectors:
        assert np.array_equal(memory_of(target).view(np.float32), expected[tensor.name].reshape(-1)), tensor.name


class ModelFile:
    """A small file of every tensor a trunk of one GDN and one attention layer needs, open to changes before writing."""

    hidden, vocab, experts, ffn = 64, 48, 3, 32

    def __init__(self, seed: int = 0) -> None:
        self.metadata: dict[str, int | float] = {
            "block_count": 2, "context_length": 128, "embedding_length": self.hidden,
            "attention.head_count": 2, "attention.head_count_kv": 1, "attention.key_length": 32,
            "attention.value_length": 32, "attention.layer_norm_rms_epsilon": 1e-6,
            "rope.freq_base": 1e7, "rope.dimension_count": 16, "expert_count": self.experts, "expert_used_count": 2,
            "expert_feed_forward_length": self.ffn, "expert_shared_feed_forward_length": 96,
            "ssm.conv_kernel": 4, "ssm.state_size": 16, "ssm.group_count": 2, "ssm.time_step_rank": 6,
            "ssm.inner_size": 192, "full_attention_interval": 2,
        }  # fmt: skip
        rng = np.random.default_rng(seed)
        shapes = {"token_embd.weight": (48, 64), "output.weight": (48, 64), "output_norm.weight": (64,)}
        gdn = {
            "attn_qkv.weight": (256, 64), "attn_gate.weight": (192, 64), "ssm_beta.weight": (6, 64),
            "ssm_alpha.weight": (6, 64), "ssm_conv1d.weight": (256, 4), "ssm_dt.bias": (6,), "ssm_a": (6,),
            "ssm_norm.weight": (32,), "ssm_out.weight": (64, 192),
        }  # fmt: skip
        attention = {
            "attn_q.weight": (128, 64), "attn_k.weight": (32, 64), "attn_v.weight": (32, 64),
            "attn_output.weight": (64, 64), "attn_q_norm.weight": (32,), "attn_k_norm.weight": (32,),
        }  # fmt: skip
        both = {
            "attn_norm.weight": (64,), "post_attention_norm.weight": (64,), "ffn_gate_inp.weight": (3, 64),
            "ffn_gate_inp_shexp.weight": (64,), "ffn_gate_exps.weight": (3, 32, 64), "ffn_up_exps.weight": (3, 32, 64),
            "ffn_down_exps.weight": (3, 64, 32), "ffn_gate_shexp.weight": (96, 64), "ffn_up_shexp.weight": (96, 64),
            "ffn_down_shexp.weight": (64, 96),
        }  # fmt: skip
        shapes |= {f"blk.0.{name}": shape for name, shape in (gdn | both).items()}
        shapes |= {f"blk.1.{name}": shape for name, shape in (attention | both).items()}
        self.values = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        self.types: Types = {}

    def write(self, path: Path) -> Values:
        """Write the file and return the values that it holds after quantisation."""
        writer = gguf.GGUFWriter(path, "qwen35moe")
        for key, number in self.metadata.items():
            if isinstance(number, float):
                writer.add_float32(f"qwen35moe.{key}", number)
            else:
                writer.add_uint32(f"qwen35moe.{key}", number)
        held = {}
        for name, value in self.values.items():
            kind = self.types.get(name, gguf.GGMLQuantizationType.F32)
            data = gguf.quants.quantize(value, kind)
            held[name] = gguf.quants.dequantize(data, kind).astype(np.float32)
            writer.add_tensor(name, data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return held
