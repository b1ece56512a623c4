"""Qwen3.6-35B-A3B from a GGUF file on a SYCL device, Intel Arc Battlemage above all.

    from arcmtp import LLM

    with LLM() as llm:  # the bundled tiny model; LLM("model.gguf") for another
        print(llm.generate("import os").text)

`LLM` loads a model; `generate`, `chat` and `stream` give `Generation`s and `Stream`s of `Chunk`s. What cannot be used
raises `ArcmtpError`. Importing the package sets up the SYCL runtime's environment (`arcmtp.runtime.environment`) and
loads nothing heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from arcmtp.errors import ArcmtpError, ContextExceeded
from arcmtp.runtime import environment

if TYPE_CHECKING:
    from arcmtp.engine import (
        LLM,
        Chunk,
        Constraint,
        DraftCall,
        DraftPolicy,
        DraftSummary,
        FixedDrafts,
        Generation,
        Perplexity,
        SamplingOptions,
        Statistics,
        Stream,
    )

__version__ = "0.1.0"
__all__ = [
    "LLM",
    "ArcmtpError",
    "Chunk",
    "Constraint",
    "ContextExceeded",
    "DraftCall",
    "DraftPolicy",
    "DraftSummary",
    "FixedDrafts",
    "Generation",
    "Perplexity",
    "SamplingOptions",
    "Statistics",
    "Stream",
    "__version__",
]

environment.prepare()


def __getattr__(name: str) -> Any:
    if name in __all__:
        environment.check()
        return getattr(import_module("arcmtp.engine"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
