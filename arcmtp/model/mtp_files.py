"""MTP blocks as files: one taken out of a file, and one put into a file that has none."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from arcmtp.errors import ArcmtpError
from arcmtp.gguf import GGUF
from arcmtp.gguf_writer import Source, file_pieces, longer_entry, uint32_entry
from arcmtp.model.blocks.mtp import has_mtp
from arcmtp.model.config import Config
from arcmtp.progress import Progress
from arcmtp.runtime.files import OutputFile

# Numbers of `Config` that the MTP block needs as they are, by their metadata keys.
NEEDED = {
    "embedding_length": "hidden",
    "attention.layer_norm_rms_epsilon": "rms_eps",
    "attention.head_count": "q_heads",
    "attention.head_count_kv": "kv_heads",
    "attention.key_length": "head_dim",
    "rope.dimension_count": "rope_dim",
    "rope.freq_base": "rope_theta",
    "feed_forward_length": "ffn",
    "expert_count": "experts",
    "expert_used_count": "experts_used",
    "expert_feed_forward_length": "expert_ffn",
    "expert_shared_feed_forward_length": "shared_ffn",
}
TOKENS = "tokenizer.ggml.tokens"
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

    def tokens(self) -> list[str]:
        """The vocabulary; none where the file has no tokenizer."""
        tokens = self.gguf.metadata.get(TOKENS)
        return tokens if isinstance(tokens, list) else []

    def error(self, message: str) -> ArcmtpError:
        return ArcmtpError(f"{self.gguf.path}: {message}")

    def require_block(self) -> None:
        if not has_mtp(self.gguf, self.config):
            raise self.error(f"has no MTP block (tensors 'blk.{self.config.layers}.nextn.*')")


def extract(path: Path, out: Path, progress: Progress) -> None:
    """Write the MTP block of the file `path` as a file of its own, as llama.cpp's converter does: with all metadata,
    and with embedding, final norm and output, without which llama.cpp does not load it.

    Raises ArcmtpError for a file without the block, and if `out` cannot be written.
    """
    model = _Model(path)
    model.require_block()
    with OutputFile(out, model.gguf.paths) as output:
        entries = list(model.entries().values())
        tensors = [*model.others, *model.mtp_block]
        output.write_pieces(file_pieces(entries, tensors, model.gguf.alignment, progress))


def merge(trunk_path: Path, donor_path: Path, out: Path, progress: Progress) -> None:
    """Write the file `trunk_path`, which has no MTP block, with that of the file `donor_path`; a file that `extract`
    wrote will do.

    Raises ArcmtpError for a trunk with a block, a donor without one, hyperparameters or vocabularies that differ, and
    if `out` cannot be written.
    """
    trunk, donor = _Model(trunk_path), _Model(donor_path)
    if trunk.mtp_block:
        raise trunk.error(f"has an MTP block already (tensor '{trunk.mtp_block[0].tensor.name}')")
    _check_architecture(trunk, donor)
    donor.require_block()
    _check_numbers(trunk, donor)
    _check_vocabulary(trunk, donor)
    with OutputFile(out, [*trunk.gguf.paths, *donor.gguf.paths]) as output:
        entries = list(_merged_entries(trunk, donor.config.mtp_layers).values())
        tensors = [*trunk.others, *trunk.trunk_layers, *donor.mtp_block]
        output.write_pieces(file_pieces(entries, tensors, trunk.gguf.alignment, progress))


def _check_architecture(trunk: _Model, donor: _Model) -> None:
    ours, theirs = trunk.config.architecture, donor.config.architecture
    if theirs != ours:
        raise _differs(trunk, donor, f"metadata key 'general.architecture' is {theirs!r}", repr(ours))


def _check_numbers(trunk: _Model, donor: _Model) -> None:
    ours, theirs = trunk.config.layers, donor.config.layers
    if theirs != ours:
        what = f"metadata keys '{donor.key('block_count')}' and 'nextn_predict_layers' leave {theirs} layers"
        raise _differs(trunk, donor, what, ours)
    for name, field in NEEDED.items():
        number, other = getattr(trunk.config, field), getattr(donor.config, field)
        if other != number:
            raise _differs(trunk, donor, f"metadata key '{donor.key(name)}' is {other}", number)


def _check_vocabulary(trunk: _Model, donor: _Model) -> None:
    if donor.config.vocab != trunk.config.vocab:
        what = f"tensor 'token_embd.weight' has {donor.config.vocab} rows"
        raise _differs(trunk, donor, what, trunk.config.vocab)
    ours, theirs = trunk.tokens(), donor.tokens()
    if len(theirs) != len(ours):
        raise _differs(trunk, donor, f"metadata key '{TOKENS}' has {len(theirs)} tokens", len(ours))
    for index, (token, other) in enumerate(zip(ours, theirs, strict=True)):
        if other != token:
            raise _differs(trunk, donor, f"metadata key '{TOKENS}' has {other!r} for token {index}", repr(token))


def _differs(trunk: _Model, donor: _Model, what: str, expected: object) -> ArcmtpError:
    return donor.error(f"{what}, expected {expected} as in {trunk.gguf.path}")


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
