"""A model file whose memory plan is wanted; no weight is read."""

from __future__ import annotations

from dataclasses import dataclass

from arcmtp.gguf import GGUF
from arcmtp.model.config import Config


@dataclass(frozen=True)
class PlannedModel:
    """A file, and `context` tokens that it is to hold."""

    gguf: GGUF
    config: Config
    context: int

    @classmethod
    def open(cls, path: str, ctx: int | None) -> PlannedModel:
        """The file's hyperparameters and the context, checked; ArcmtpError when one of them cannot be used."""
        gguf = GGUF(path)
        config = Config.from_gguf(gguf)
        return cls(gguf, config, config.usable_context(ctx))
