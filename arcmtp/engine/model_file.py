"""A model file that is open and checked, of which no weight is read yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from arcmtp.engine.prompts import Prompting
from arcmtp.gguf import GGUF
from arcmtp.model.config import Config
from arcmtp.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class ModelFile:
    """A file and what its metadata says: enough to check what is asked of the model before it is loaded."""

    gguf: GGUF
    config: Config
    tokenizer: Tokenizer

    @classmethod
    def open(cls, path: str | Path) -> ModelFile:
        """The file at `path`. Raises ArcmtpError for one that cannot be used."""
        gguf = GGUF(path)
        return cls(gguf, Config.from_gguf(gguf), Tokenizer.from_gguf(gguf))

    def prompting(self, context: int) -> Prompting:
        """How prompts become token ids, for a context of so many tokens."""
        return Prompting(self.gguf, self.tokenizer, self.config.vocab, context)
