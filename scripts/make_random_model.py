#!/usr/bin/env python3
"""Write a GGUF file of random weights with the per-layer shapes of Qwen3.6-35B-A3B or, with `--arch qwen35`, of
Qwen3.6-27B. Needs the extra `test`.

Such files measure speed and compare implementations where the real weights are not at hand. The bytes depend on the
arguments alone: everything comes from raw bits of one generator per tensor, through arithmetic that every machine
and numpy version rounds alike. Matrices map unit-RMS inputs to about unit-RMS outputs, so activations stay sane
through any number of layers.
"""

import argparse
import os
import sys
import time
from dataclasses import replace
from math import prod
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where a program's folder is on it, not the repository's

try:
    import gguf
    import numpy as np
    from gguf import GGMLQuantizationType as Type
    from tqdm import tqdm

    from scripts.random_model.metadata import SPECIAL_TOKENS, add_metadata, add_tokenizer
    from scripts.random_model.tensors import FULL, SHORT, Geometry, Others, Tensor, inventory
    from scripts.random_model.weights import MATRIX, Bits, default_output_type
except ModuleNotFoundError as error:
    sys.exit(f"make_random_model: {error.name} is missing: pip install 'arcmtp[test]'")

CHUNK_ELEMENTS = 1 << 22  # a tensor is made in pieces of at most 16 MiB


def write_header(
    path: Path, size: Geometry, matrix_type: Type, output_type: Type, seed: int, others: Others = ()
) -> tuple[gguf.GGUFWriter, list[Tensor]]:
    """Write the file as far as its tensors' bytes; the writer, whose file is open there, and what is to follow."""
    tensors = list(inventory(size, matrix_type, output_type, others))
    writer = gguf.GGUFWriter(path, size.architecture)
    add_metadata(writer, size, matrix_type, seed)
    add_tokenizer(writer, size.vocab)
    for tensor in tensors:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.nbytes, tensor.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    return writer, tensors


def write_model(
    path: Path, size: Geometry, matrix_type: Type, output_type: Type, seed: int, others: Others = ()
) -> None:
    """Write the file; no more than one chunk of one tensor is in memory at a time."""
    writer, tensors = write_header(path, size, matrix_type, output_type, seed, others)
    assert writer.fout is not None
    file = writer.fout[0]
    with tqdm(total=sum(tensor.nbytes for tensor in tensors), unit="B", unit_scale=True, disable=None) as progress:
        for tensor in tensors:
            bits = Bits(seed, tensor.name)
            elements = prod(tensor.shape)
            for start in range(0, elements, CHUNK_ELEMENTS):
                chunk = tensor.sample(bits, min(CHUNK_ELEMENTS, elements - start))
                file.write(chunk.view(np.uint8).data)
                progress.update(chunk.nbytes)
            writer.write_padding(file, tensor.nbytes)
    writer.close()


def parse_arguments(arguments: list[str] | None) -> tuple[Path, Geometry, Type, Type, int]:
    parser = argparse.ArgumentParser(description="Write a random-weight GGUF with the layer shapes of Qwen3.6.")
    types = [kind.name.lower() for kind in MATRIX]
    short = SHORT["qwen35moe"]
    parser.add_argument("out", type=Path, metavar="OUT.gguf")
    parser.add_argument("--arch", choices=SHORT, default="qwen35moe", help="35B-A3B's (qwen35moe) or the dense 27B's")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--layers", type=int, help=f"of the trunk ({short.layers})")
    parser.add_argument(
        "--interval", type=int, dest="attention_interval", metavar="N",
        help=f"every N-th layer is attention ({short.attention_interval})",
    )  # fmt: skip
    parser.add_argument("--experts", type=int, help=f"of qwen35moe ({short.experts})")
    parser.add_argument("--used", type=int, dest="experts_used", help=f"experts per token ({short.experts_used})")
    parser.add_argument("--vocab", type=int, help=f"({short.vocab})")
    parser.add_argument("--type", choices=types, default="q4_0", help="of the matrices (q4_0)")
    parser.add_argument("--output-type", choices=types, help="of output.weight (as llama.cpp's quantiser)")
    parser.add_argument("--mtp", action="store_true", help="add an MTP block")
    parser.add_argument("--full", action="store_true", help="all layers, experts and tokens: 20 GB (16 GB) in q4_0")
    options = parser.parse_args(arguments)
    names = ("layers", "attention_interval", "experts", "experts_used", "vocab")
    sizes = {name: value for name in names if (value := getattr(options, name)) is not None}
    if options.arch == "qwen35" and not sizes.keys().isdisjoint(("experts", "experts_used")):
        parser.error("qwen35 has no experts: --experts and --used are for qwen35moe")
    size = replace((FULL if options.full else SHORT)[options.arch], mtp=options.mtp, **sizes)
    least_vocab = 256 + len(SPECIAL_TOKENS)
    if not (min(size.layers, size.attention_interval) > 0 and least_vocab <= size.vocab <= 1 << 20):
        parser.error(f"expected --layers and --interval from 1, --vocab from {least_vocab} to 1048576")
    if options.arch == "qwen35moe" and not 0 < size.experts_used <= size.experts:
        parser.error("expected --used from 1 to --experts")
    if options.seed < 0:
        parser.error(f"argument --seed: {options.seed} is negative")
    if not options.out.parent.is_dir():
        parser.error(f"{options.out.parent} is not a folder")
    matrix_type = Type[options.type.upper()]
    output_type = Type[options.output_type.upper()] if options.output_type else default_output_type(matrix_type)
    return options.out, size, matrix_type, output_type, options.seed


def main(arguments: list[str] | None = None) -> None:
    path, size, matrix_type, output_type, seed = parse_arguments(arguments)
    begin = time.perf_counter()
    unfinished = path.with_name(path.name + ".part")
    try:
        write_model(unfinished, size, matrix_type, output_type, seed)
        os.replace(unfinished, path)
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")
    finally:
        unfinished.unlink(missing_ok=True)
    print(f"{path}: {path.stat().st_size / 1e9:.2f} GB in {time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    main()
