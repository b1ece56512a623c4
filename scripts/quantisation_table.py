#!/usr/bin/env python3
"""Print, as Markdown, what each mix of tensor types of Qwen3.6-35B-A3B takes on a card, and how fast it may be there.

    .venv/bin/python -m scripts.quantisation_table --build DIR

DIR has llama.cpp's binaries (bench_vs_llama_cpp.py builds them): its quantiser says what type it would give each tensor
of a file that has the model's header and no weights. What a step of one row moves is counted by `arcmtp` itself.
Speeds are predicted (docs/predict.md).
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from gguf import GGMLQuantizationType as Type

from arcmtp.errors import ArcmtpError
from arcmtp.gguf_header import GgmlType
from arcmtp.predict import CardOnPaper, predicted_tokens_per_second
from arcmtp.predict.published import unsloth_mxfp4_moe, unsloth_q4_k_s, unsloth_q4_k_xl, unsloth_q6_k_xl
from arcmtp.runtime.card import Card, cards
from scripts.battlemage.models import MOE, Header, Mix, network, unsloth_q4_k_m
from scripts.bench_vs_llama_cpp import build
from scripts.compare_types import MIXES, matrices
from scripts.make_random_model import write_header
from scripts.random_model.tensors import FULL

UNSLOTH = {
    "UD-Q6_K_XL": unsloth_q6_k_xl,
    "UD-Q4_K_XL": unsloth_q4_k_xl,
    "UD-Q4_K_M": unsloth_q4_k_m,
    "UD-Q4_K_S": unsloth_q4_k_s,
    "MXFP4_MOE": unsloth_mxfp4_moe,
}
TENSOR = re.compile(r"\] (\S+)\s+- \[.*?type =\s*(\w+), size =.*?(?:\((\w+)\))?$", re.MULTILINE)


def write_holes(path: Path) -> None:
    """The file of Qwen3.6-35B-A3B in F16, a hole where its weights would be."""
    writer, tensors = write_header(path, replace(FULL["qwen35moe"], mtp=True), Type.F16, Type.F16, seed=1)
    assert writer.fout is not None
    file = writer.fout[0]
    file.truncate(file.tell() + sum(-(-tensor.nbytes // 32) * 32 for tensor in tensors))
    writer.close()


def mix_of(binaries: Path, header: Path, name: str) -> Mix:
    """The types that llama-quantize would choose."""
    command = [str(binaries / "llama-quantize"), "--dry-run", str(header), name]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ArcmtpError(f"llama-quantize {name}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    chosen = {tensor: GgmlType[(to or kept).upper()] for tensor, kept, to in TENSOR.findall(done.stdout + done.stderr)}

    def mix(layer: int, rest: str) -> GgmlType:
        return chosen[rest if layer < 0 else f"blk.{layer}.{rest}"]

    return mix


def row(name: str, mix: Mix, card: Card) -> list[str]:
    """The mix, its types, bits per weight in file and on the device, GiB, MB a token, tokens/s."""
    assert card.hardware is not None
    found = matrices(Header(MOE, mix))
    elements, stored = (sum(getattr(tensor, what) for tensor in found) for what in ("elements", "nbytes"))
    types = sorted({tensor.type.name for tensor in found if tensor.type is not GgmlType.F32})
    planned = network(CardOnPaper(card, card.hardware), MOE, mix)
    device = sum(m.nbytes for merged in planned.weights.merged for m in merged.matrices)
    moved, speed = planned.step_bytes(0), predicted_tokens_per_second(planned, card.hardware).expected
    cells = [f"{8 * stored / elements:.2f}", f"{8 * device / elements:.2f}", f"{planned.weights.nbytes / 2**30:.1f}"]
    return [name, " ".join(types), *cells, f"{moved / 1e6:,.0f}", f"{speed:.0f}"]


def rows(binaries: Path, card: Card) -> Iterator[list[str]]:
    """The table's, llama.cpp's mixes first."""
    with tempfile.TemporaryDirectory() as folder:
        header = Path(folder) / "header.gguf"
        write_holes(header)
        for name in MIXES:
            yield row(name, mix_of(binaries, header, name), card)
    for name, mix in UNSLOTH.items():
        yield row(f"unsloth {name}", mix, card)


def main() -> int:
    parser = argparse.ArgumentParser(description="What each mix of Qwen3.6-35B-A3B takes on a card, and its speed.")
    parser.add_argument("--build", type=Path, required=True, help="folder of llama.cpp's binaries")
    parser.add_argument("--card", choices=cards(), default="arc-pro-b70", help="(%(default)s)")
    options = parser.parse_args()
    head = ["mix", "types beside F32", "bits, file", "bits, device", "GiB", "MB a token", "tokens/s, predicted"]
    try:
        print(f"| {' | '.join(head)} |\n|---|---|---:|---:|---:|---:|---:|", flush=True)
        for cells in rows(build(options.build), cards()[options.card]):
            print(f"| {' | '.join(cells)} |", flush=True)
    except ArcmtpError as error:
        print(f"quantisation_table: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
