#!/usr/bin/env python3
"""What each type of KV cache loses against f16: perplexity, KL divergence, and how often the likeliest are the same.

A text is cut into windows of so many tokens of context and so many scored ones behind them; a text that is too short
begins again. KL is the mean over the scored tokens, in nats, of the distribution with the type from that with f16.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcmtp import LLM
from arcmtp.cli.loading import ProgressBar, read_text
from arcmtp.cli.options import integer
from arcmtp.formats.kv_cache import KV_F16, KV_FORMATS
from arcmtp.model.blocks.cache import KvCache
from arcmtp.ops.launch import MAX_ROWS

TEXT = Path(__file__).parents[1] / "tests" / "data" / "perplexity.txt"
LIKELIEST = 20


@dataclass(frozen=True)
class Scores:
    """logprobs float32 [tokens, vocabulary] of what may follow each scored token; next: the ids that follow."""

    logprobs: np.ndarray
    next: np.ndarray
    bytes_per_token: int

    @property
    def perplexity(self) -> float:
        """e to the mean negative log-likelihood of a token."""
        return float(np.exp(-np.take_along_axis(self.logprobs, self.next[:, None], axis=1).mean(dtype=np.float64)))

    def divergence(self, other: "Scores") -> float:
        """The mean KL divergence of these distributions from the other's."""
        p = np.exp(other.logprobs.astype(np.float64))
        return float((p * (other.logprobs - self.logprobs)).sum(-1).mean())

    def same(self, other: "Scores", count: int) -> float:
        """The share of the `count` likeliest tokens that are among the other's `count` likeliest."""
        likeliest = (np.argpartition(-scores.logprobs, count - 1, axis=1)[:, :count] for scores in (self, other))
        return float(np.mean([len(np.intersect1d(*pair)) / count for pair in zip(*likeliest, strict=True)]))


def scores(options: argparse.Namespace, kv_type: str, text: str) -> Scores:
    """Load the model with this type and evaluate all windows."""
    size = options.context + options.scored
    rows: list[np.ndarray] = []
    targets: list[int] = []
    with ProgressBar() as progress, LLM(options.file, ctx=size + 1, draft=0, kv_type=kv_type) as llm:
        ids = np.resize(llm.tokenize(text), options.windows * size + 1).tolist()
        for window in range(options.windows):
            sequence, begin = llm.new_sequence(), window * size
            sequence.extend(ids[begin : begin + options.context])
            for start in range(begin + options.context, begin + size, MAX_ROWS):
                progress("scored tokens", len(rows) * MAX_ROWS, options.windows * options.scored)
                piece = ids[start : start + MAX_ROWS + 1]
                sequence.score(piece, 1)
                rows.append(_log_softmax(llm.network.head.logits.read()[:MAX_ROWS, : llm.network.head.vocabulary.used]))
                targets += piece[1:]
        caches = [cache.nbytes(1) for cache in llm.network.caches if isinstance(cache, KvCache)]
    return Scores(np.concatenate(rows), np.array(targets), sum(caches))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", metavar="FILE", nargs="?", help="GGUF file (default: the bundled one)")
    parser.add_argument("--text", type=Path, default=TEXT, help="(%(default)s)")
    parser.add_argument("--context", type=integer(1), default=256, help="tokens of a window (%(default)s)")
    parser.add_argument("--scored", type=integer(MAX_ROWS), default=256, help="behind them, eights (%(default)s)")
    parser.add_argument("--windows", type=integer(1), default=16, help="(%(default)s)")
    options = parser.parse_args()
    options.scored -= options.scored % MAX_ROWS
    text = read_text(options.text)
    base = scores(options, KV_F16.name, text)
    print("| type | bytes a token | perplexity | ΔPPL | KL | top-1 the same | of the 20 likeliest |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in KV_FORMATS:
        of_type = base if name == KV_F16.name else scores(options, name, text)
        more = of_type.perplexity / base.perplexity - 1
        values = f"{of_type.bytes_per_token} | {of_type.perplexity:.4f} | {more:+.2%}"
        alike = f"{of_type.same(base, 1):.1%} | {of_type.same(base, LIKELIEST):.1%}"
        print(f"| {name} | {values} | {of_type.divergence(base):.5f} | {alike} |", flush=True)


if __name__ == "__main__":
    main()
