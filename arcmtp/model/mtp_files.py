"""MTP blocks as files: one taken out of a file, and one put into a file that has none."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from arcmtp.errors import ArcmtpError, shown
from arcmtp.formats.kv_cache import KEY_TILE
from arcmtp.gguf import GGUF
from arcmtp.gguf_writer import Source, file_pieces, longer_entry, uint32_entry
from arcmtp.model.architecture import feed_forward
from arcmtp.model.blocks.embedding import EmbeddingBlock
from arcmtp.model.blocks.head import trunk_head
from arcmtp.model.blocks.mtp import MtpBlock, Trunk
from arcmtp.model.builder import Builder
from arcmtp.model.config import Config
from arcmtp.model.controls import Controls
from arcmtp.model.mtp_donor import check_donor, require_block
from arcmtp.model.weight_plan import WeightPlan
from arcmtp.progress import Progress
from arcmtp.runtime.card import cards
from arcmtp.runtime.files import OutputFile
from arcmtp.runtime.tensor import Arena

_LAYER = re.compile(r"blk\.(\d+)\.")


class _Model:
    """An open file, its hyperparameters and its tensors by place."""

    def __init__(self, path: Path) -> None:
        self.gguf = GGUF(path)
        self.config = Config.from_gguf(self.gguf)
        self.trunk_layers: list[Source] = []
        self.mtp_block: list[Source] = []
        self.others: list[Source] = []  # embedding, final norm, output
        for tensor in self.gguf.tensors.values():
            layer = _LAYER.match(tensor.name)
            if layer is None:
                place = self.others
            else:
                place = self.trunk_layers if int(layer[1]) < self.config.layers else self.mtp_block
            place.append(Source(self.gguf, tensor))

    def key(self, name: str) -> str:
        return f"{self.config.architecture}.{name}"

    def entries(self) -> dict[str, bytes]:
        """The metadata as a file has it that is not split."""
        return {key: self.gguf.entry(key) for key in self.gguf.metadata if not key.startswith("split.")}

    def error(self, message: str) -> ArcmtpError:
        return ArcmtpError(f"{self.gguf.path}: {message}")


def extract(path: Path, out: Path, progress: Progress) -> None:
    """Write the MTP block of the file `path` as a file of its own, as llama.cpp's converter does: with all metadata,
    and with embedding, final norm and output, without which llama.cpp does not load it.

    Raises ArcmtpError for a file without the block, and if `out` cannot be written.
    """
    model = _Model(path)
    require_block(model.gguf, model.config)
    with OutputFile(out, model.gguf.paths) as output:
        entries = list(model.entries().values())
        tensors = [*model.others, *model.mtp_block]
        output.write_pieces(file_pieces(entries, tensors, model.gguf.alignment, progress))


def merge(trunk_path: Path, donor_path: Path, out: Path, progress: Progress) -> None:
    """Write the file `trunk_path`, which has no MTP block, with that of the file `donor_path`; a file that `extract`
    wrote will do.

    Raises ArcmtpError for a trunk with a block, a donor without one, hyperparameters or vocabularies that differ,
    tensors of the block that are missing or wrong, and if `out` cannot be written.
    """
    trunk, donor = _Model(trunk_path), _Model(donor_path)
    if trunk.mtp_block:
        raise trunk.error(f"has an MTP block already (tensor {shown(trunk.mtp_block[0].tensor.name)})")
    check_donor(trunk.gguf, trunk.config, donor.gguf)
    _check_tensors(trunk, donor)
    with OutputFile(out, [*trunk.gguf.paths, *donor.gguf.paths]) as output:
        entries = list(_merged_entries(trunk, donor.config.mtp_layers).values())
        tensors = [*trunk.others, *trunk.trunk_layers, *donor.mtp_block]
        output.write_pieces(file_pieces(entries, tensors, trunk.gguf.alignment, progress))


def _check_tensors(trunk: _Model, donor: _Model) -> None:
    """Plan the donor's MTP block beside the trunk's embedding and head, as a network does, for no device."""
    arena, config, geometry = Arena(), trunk.config, cards()["cpu"].geometry
    build = Builder(
        config, WeightPlan(trunk.gguf, arena), arena, Controls(arena, 1, config.vocab, geometry.chunk_rows), geometry,
        activation_orders=1, slots=1, context=KEY_TILE,
    )  # fmt: skip
    embedding = EmbeddingBlock(build).weights
    of_trunk = Trunk(embedding, trunk_head(build, embedding, config.vocab, 0, hidden_rows=True), 0, "post")
    MtpBlock(replace(build, weights=build.weights.with_file(donor.gguf)), of_trunk, feed_forward)


def _merged_entries(trunk: _Model, mtp_layers: int) -> dict[str, bytes]:
    """The trunk's metadata for a file with the block: counts of layers, and arrays with a number per layer."""
    config, entries = trunk.config, trunk.entries()
    for name, value in (("block_count", config.layers + mtp_layers), ("nextn_predict_layers", mtp_layers)):
        entries[trunk.key(name)] = uint32_entry(trunk.key(name), value)
    for name, of_block in (
        ("attention.recurrent_layers", 0),
        ("attention.head_count", config.q_heads),
        ("attention.head_count_kv", config.kv_heads),
        ("feed_forward_length", config.ffn),
        ("expert_feed_forward_length", config.expert_ffn),
    ):
        array = trunk.gguf.metadata.get(trunk.key(name))
        if isinstance(array, np.ndarray) and len(array) == config.layers:
            more = np.full(mtp_layers, of_block, array.dtype)
            entries[trunk.key(name)] = longer_entry(entries[trunk.key(name)], array, more)
    return entries
