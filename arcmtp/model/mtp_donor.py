"""Whether the MTP block of one file, the donor, goes with the trunk of another."""

from __future__ import annotations

from dataclasses import dataclass

from arcmtp.errors import ArcmtpError, shown
from arcmtp.gguf import GGUF
from arcmtp.model.blocks.mtp import has_mtp
from arcmtp.model.config import Config

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


def require_block(gguf: GGUF, config: Config) -> None:
    """Raises ArcmtpError for a file without an MTP block."""
    if not has_mtp(gguf, config):
        raise ArcmtpError(f"{gguf.path}: has no MTP block (tensors 'blk.{config.layers}.nextn.*')")


def check_donor(trunk: GGUF, trunk_config: Config, donor: GGUF) -> Config:
    """The hyperparameters of the file `donor`.

    Raises ArcmtpError for one without an MTP block, and for hyperparameters and vocabularies that differ.
    """
    pair = _Pair(trunk, trunk_config, donor, Config.from_gguf(donor))
    pair.check_architecture()
    require_block(donor, pair.donor_config)
    pair.check_numbers()
    pair.check_vocabulary()
    return pair.donor_config


@dataclass(frozen=True)
class _Pair:
    trunk: GGUF
    config: Config
    donor: GGUF
    donor_config: Config

    def check_architecture(self) -> None:
        ours, theirs = self.config.architecture, self.donor_config.architecture
        if theirs != ours:
            raise self._differs(f"metadata key 'general.architecture' is {theirs!r}", repr(ours))

    def check_numbers(self) -> None:
        ours, theirs, prefix = self.config.layers, self.donor_config.layers, self.config.architecture
        if theirs != ours:
            what = f"metadata keys '{prefix}.block_count' and 'nextn_predict_layers' leave {theirs} layers"
            raise self._differs(what, ours)
        for name, field in NEEDED.items():
            number, other = getattr(self.config, field), getattr(self.donor_config, field)
            if other != number:
                raise self._differs(f"metadata key '{prefix}.{name}' is {other}", number)

    def check_vocabulary(self) -> None:
        if self.donor_config.vocab != self.config.vocab:
            what = f"tensor 'token_embd.weight' has {self.donor_config.vocab} rows"
            raise self._differs(what, self.config.vocab)
        ours, theirs = _tokens(self.trunk), _tokens(self.donor)
        if len(theirs) != len(ours):
            raise self._differs(f"metadata key '{TOKENS}' has {len(theirs)} tokens", len(ours))
        for index, (token, other) in enumerate(zip(ours, theirs, strict=True)):
            if other != token:
                raise self._differs(f"metadata key '{TOKENS}' has {shown(other)} for token {index}", shown(token))

    def _differs(self, what: str, expected: object) -> ArcmtpError:
        return ArcmtpError(f"{self.donor.path}: {what}, expected {expected} as in {self.trunk.path}")


def _tokens(gguf: GGUF) -> list[str]:
    """The vocabulary; none where the file has no tokenizer."""
    tokens = gguf.metadata.get(TOKENS)
    return tokens if isinstance(tokens, list) else []
