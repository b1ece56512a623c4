"""A model file whose memory plan is wanted; no weight is read."""

from __future__ import annotations

from dataclasses import dataclass

from arcmtp.formats.kv_cache import KV_F16, KvFormat, kv_format
from arcmtp.gguf import GGUF
from arcmtp.model.config import Config


@dataclass(frozen=True)
class PlannedModel:
    """A file, and `context` tokens that it is to hold in KV caches of the format `kv`."""

    gguf: GGUF
    config: Config
    context: int
    kv: KvFormat

    @classmethod
    def open(cls, path: str, ctx: int | None, kv_type: str = KV_F16.name) -> PlannedModel:
        """The file's hyperparameters, context and KV type, checked; ArcmtpError when one of them cannot be used."""
        kv = kv_format(kv_type)
        gguf = GGUF(path)
        config = Config.from_gguf(gguf)
        return cls(gguf, config, config.usable_context(ctx), kv)
