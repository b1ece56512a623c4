#!/usr/bin/env python3
"""Compare log-probabilities with llama.cpp's for each mix of tensor types that its quantiser makes of one model.

Print, as Markdown, a row per mix: the types of its matrices, bits per weight in the file and on the device, and how far
arcmtp and llama.cpp are from llama.cpp on the same weights as F32, at the 20 likeliest tokens behind each of some
prompts, which are pieces of a text. Both round activations to 8 bits where weights are quantised, in different ways.

    .venv/bin/python -m scripts.compare_types tests/data/tiny-qwen36moe-f16.gguf tests/data/perplexity.txt --build DIR

DIR: llama.cpp's binaries, built there if it has none (bench_vs_llama_cpp.py).
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np

from arcmtp import LLM
from arcmtp.errors import ArcmtpError
from arcmtp.formats.matrix import format_of
from arcmtp.gguf import GGUF
from arcmtp.gguf_header import TensorInfo
from scripts.bench_vs_llama_cpp import build, golden, server

# All that llama-quantize offers, but what only copies or names another one.
MIXES = (
    "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M",
    "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "MXFP4_MOE", "Q3_K_L", "Q3_K_M", "Q3_K_S",
    "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS", "Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S",
    "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ2_0", "TQ1_0", "Q2_0", "Q1_0",
)  # fmt: skip
PROMPT_TOKENS, CONTEXT = 96, 256
TOP, KNOWN = 20, 100  # tokens that are compared, of the F32 weights; tokens that each implementation is asked for


def quantise(binaries: Path, source: Path, mix: str, folder: Path) -> Path:
    """The file that llama-quantize makes, with all inputs equally important where it wants to know that."""
    weights, file = folder / "importance.gguf", folder / f"{mix}.gguf"
    if not weights.exists():
        write_importance(source, weights)
    run_quantiser(binaries, ["--imatrix", weights, source, file, mix])
    return file


def run_quantiser(binaries: Path, arguments: list[str | Path]) -> None:
    """Run llama-quantize; ArcmtpError with its last line when it fails."""
    done = subprocess.run([binaries / "llama-quantize", *arguments], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ArcmtpError(f"llama-quantize {' '.join(map(str, arguments))}: {last}")


def write_importance(source: Path, path: Path) -> None:
    """An importance matrix of ones for every matrix of a file."""
    writer = gguf.GGUFWriter(path, "")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["ones"])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", 512)
    for tensor in matrices(GGUF(source)):
        experts = tensor.shape[0] if len(tensor.shape) == 3 else 1
        writer.add_tensor(tensor.name + ".in_sum2", np.ones((experts, tensor.shape[-1]), np.float32))
        writer.add_tensor(tensor.name + ".counts", np.ones((experts, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def matrices(file: GGUF) -> list[TensorInfo]:
    """The tensors that are multiplied with rows, and the embedding."""
    return [t for t in file.tensors.values() if len(t.shape) > 1 and not t.name.endswith("ssm_conv1d.weight")]


def bits_per_weight(file: GGUF) -> tuple[float, float]:
    """Of the matrices, in the file and on the device."""
    found = matrices(file)
    elements = sum(tensor.elements for tensor in found)
    device = sum(format_of(t.type).matrix_bytes(t.elements // t.shape[-1], t.shape[-1]) for t in found)
    return 8 * sum(tensor.nbytes for tensor in found) / elements, 8 * device / elements


def differences(binaries: Path, file: Path, prompts: list[list[int]], threads: int) -> tuple[np.ndarray, np.ndarray]:
    """|log-probability - that of F32 weights| of the likeliest tokens, [prompts, TOP]: arcmtp's and llama.cpp's."""
    plain = file.with_suffix(".f32")
    run_quantiser(binaries, ["--allow-requantize", file, plain, "F32"])
    exact, theirs = (likeliest(binaries, path, prompts, threads) for path in (plain, file))
    plain.unlink()
    with LLM(file, device="cpu", ctx=CONTEXT, draft=0) as llm:
        found = [llm.generate(prompt, max_tokens=1, logprobs=KNOWN).logprobs for prompt in prompts]
    ours = [row[0] for row in found if row is not None]
    return distances(ours, exact), distances(theirs, exact)


def distances(rows: list[list[tuple[int, float]]], exact: list[list[tuple[int, float]]]) -> np.ndarray:
    """How far log-probabilities are from those of `exact` at its likeliest tokens, [prompts, TOP]."""
    found = []
    for candidates, top in zip(rows, exact, strict=True):
        known = dict(candidates)
        found.append([abs(known.get(token, -np.inf) - logprob) for token, logprob in top[:TOP]])
    return np.array(found)


def likeliest(binaries: Path, file: Path, prompts: list[list[int]], threads: int) -> list[list[tuple[int, float]]]:
    """llama.cpp's likeliest tokens behind each prompt."""
    with server(binaries, file, CONTEXT, threads) as address:
        return [golden(address, prompt, 1, KNOWN)["top"][0] for prompt in prompts]


def rows(options: argparse.Namespace, binaries: Path, folder: Path) -> Iterator[list[str]]:
    """The table's, as they come."""
    with LLM(options.file, device="cpu", ctx=CONTEXT, draft=0) as llm:
        tokens = llm.tokenizer.encode(options.text.read_text())
    step = len(tokens) // options.prompts
    prompts = [tokens[i * step : i * step + PROMPT_TOKENS] for i in range(options.prompts)]
    for mix in options.mixes:
        file = quantise(binaries, options.file, mix, folder)
        header = GGUF(file)
        types = " ".join(sorted({tensor.type.name for tensor in matrices(header)}))
        stored, device = bits_per_weight(header)
        ours, theirs = differences(binaries, file, prompts, options.threads)
        figures = [f"{figure:.4f}" for off in (ours, theirs) for figure in (np.mean(off), np.max(off))]
        yield [mix, types, f"{stored:.2f}", f"{device:.2f}", *figures]
        file.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare log-probabilities with llama.cpp's for each of its mixes.")
    parser.add_argument("file", type=Path, help="a model in F16")
    parser.add_argument("text", type=Path, help="whose pieces are the prompts")
    parser.add_argument("--build", type=Path, required=True, help="folder of llama.cpp's binaries")
    parser.add_argument("--mixes", type=lambda text: text.split(","), default=MIXES, metavar="A,B,…", help="(all)")
    parser.add_argument("--prompts", type=int, default=12, help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of llama.cpp (%(default)s)")
    options = parser.parse_args()
    head = ["mix", "types", "bits, file", "bits, device", "arcmtp: mean", "largest", "llama.cpp: mean", "largest"]
    try:
        binaries = build(options.build)
        print(f"| {' | '.join(head)} |\n|---|---|---:|---:|---:|---:|---:|---:|", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            for row in rows(options, binaries, Path(folder)):
                print(f"| {' | '.join(row)} |", flush=True)
    except ArcmtpError as error:
        print(f"compare_types: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
