"""Text from a model: `LLM` and what it returns."""

from arcmtp.engine.llm import LLM, Stream
from arcmtp.engine.perplexity import Perplexity
from arcmtp.engine.results import Chunk, Generation, Statistics
from arcmtp.engine.sampling import SamplingOptions

__all__ = ["LLM", "Chunk", "Generation", "Perplexity", "SamplingOptions", "Statistics", "Stream"]
