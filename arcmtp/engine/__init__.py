"""Text from a model: `LLM` and what it returns."""

from arcmtp.constraint.constraint import Constraint
from arcmtp.engine.draft_log import DraftCall, DraftSummary
from arcmtp.engine.draft_policy import DraftPolicy, FixedDrafts
from arcmtp.engine.llm import LLM
from arcmtp.engine.perplexity import Perplexity
from arcmtp.engine.results import Chunk, Generation, Statistics
from arcmtp.engine.sampling import SamplingOptions
from arcmtp.engine.stream import Stream

__all__ = [
    "LLM",
    "Chunk",
    "Constraint",
    "DraftCall",
    "DraftPolicy",
    "DraftSummary",
    "FixedDrafts",
    "Generation",
    "Perplexity",
    "SamplingOptions",
    "Statistics",
    "Stream",
]
