"""A generation under way, token by token."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from arcmtp.engine.draft_log import DraftLog
from arcmtp.engine.results import Chunk, Generation, Statistics, TopLogprobs
from arcmtp.engine.sampling import Sampler
from arcmtp.engine.sequence import Cycle
from arcmtp.engine.stop_strings import StopStrings
from arcmtp.model.tokenizer import Detokenizer

if TYPE_CHECKING:
    from arcmtp.engine.llm import LLM


class Stream:
    """An iterator of chunks, and `result` at any time, final when the iterator has ended."""

    def __init__(
        self, llm: LLM, prompt_ids: list[int], max_tokens: int, top: int, sampler: Sampler, draft: int,
        stop: Sequence[str] = (), progress: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        self._llm, self._prompt_ids, self._max_tokens, self._sampler = llm, prompt_ids, max_tokens, sampler
        self._top, self._draft, self._stop, self._progress = top, draft, StopStrings(stop), progress
        self._reused = 0
        self._chunks_so_far: list[Chunk] = []
        self._finish_reason: Literal["stop", "length"] | None = None
        self._prompt_seconds = self._decode_seconds = 0.0
        self._decoded = 0  # tokens that cycles gave
        self._bytes_to_host = 0
        self._log = DraftLog(llm.network.head_product.segments[0].n, llm.network.graphs.enabled)
        self._graphs_before = llm.network.graphs.statistics.copy()
        self._chunks = self._run()

    def __iter__(self) -> Iterator[Chunk]:
        return self._chunks

    def _run(self) -> Iterator[Chunk]:
        detokenizer = Detokenizer(self._llm.tokenizer, skip_special=True)
        for cycle in self._cycles():
            for place, token in enumerate(cycle.tokens):
                last = cycle.done and place + 1 == len(cycle.tokens)
                if last and token in self._llm.tokenizer.eos_ids:
                    self._finish_reason = "stop"
                    if rest := self._text(detokenizer.flush(), last):
                        yield self._keep(Chunk(None, rest))
                    return
                text = self._text(detokenizer.push(token) + (detokenizer.flush() if last else ""), last)
                if last or self._stop.found:
                    self._finish_reason = "stop" if self._stop.found else "length"
                top = None if cycle.top is None else cycle.top[place]
                yield self._keep(Chunk(token, text, top, cycle.logprobs[place]))
                if self._stop.found:
                    return

    def _text(self, text: str, last: bool) -> str:
        """What is certain to come before a stop string: all, once the generation has ended."""
        certain = self._stop.push(text)
        return certain + self._stop.flush() if last else certain

    def _keep(self, chunk: Chunk) -> Chunk:
        self._chunks_so_far.append(chunk)
        return chunk

    def _cycles(self) -> Iterator[Cycle]:
        """That of the prompt and those after it, timed."""
        began = time.perf_counter()
        sequence, left, self._reused = self._llm.resumed_sequence(
            self._prompt_ids, self._sampler, self._draft, self._top, self._log, self._progress
        )
        first = sequence.prefill(left, self._max_tokens, self._llm.tokenizer.eos_ids)
        self._prompt_seconds = time.perf_counter() - began
        yield first
        cycles = iter(()) if first.done else sequence.cycles()
        while True:
            began = time.perf_counter()
            cycle = next(cycles, None)
            if cycle is None:
                return
            self._decode_seconds += time.perf_counter() - began
            self._decoded += len(cycle.tokens)
            self._bytes_to_host = sequence.bytes_to_host
            yield cycle

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were not evaluated again."""
        return self._reused

    @property
    def result(self) -> Generation:
        """What has been generated so far."""
        tokens = [(chunk.id, chunk.logprob, chunk.logprobs) for chunk in self._chunks_so_far if chunk.id is not None]
        top: list[TopLogprobs] | None = [likeliest or [] for _, _, likeliest in tokens] if self._top else None
        return Generation(
            self._prompt_ids, [token for token, _, _ in tokens], "".join(chunk.text for chunk in self._chunks_so_far),
            self._finish_reason, [logprob or 0.0 for _, logprob, _ in tokens], top, self._sampler.seed,
            self._statistics(len(tokens)), list(self._log.calls),
        )  # fmt: skip

    def _statistics(self, tokens: int) -> Statistics:
        network, graphs = self._llm.network, self._llm.network.graphs.statistics.since(self._graphs_before)
        rate = self._decoded / self._decode_seconds if self._decoded else 0.0
        evaluated = len(self._prompt_ids) - self._reused
        step_bytes = network.step_bytes(len(self._prompt_ids) + tokens // 2)
        return Statistics(
            prompt_tokens=len(self._prompt_ids),
            completion_tokens=tokens,
            cached_tokens=self._reused,
            prompt_tokens_per_second=evaluated / self._prompt_seconds if self._prompt_seconds else 0.0,
            decode_tokens_per_second=rate,
            launches_per_cycle=self._llm.launches_per_cycle(self._draft, self._sampler),
            bytes_per_token=step_bytes,
            gigabytes_per_second=None if self._draft else step_bytes * rate / 1e9,
            bytes_to_host_per_token=self._bytes_to_host / self._decoded if self._decoded else 0.0,
            graph_captures=graphs.captures,
            graph_replays=graphs.replays,
            graph_misses=graphs.misses,
            host_us_per_replay=graphs.us_per_replay,
            draft=self._log.summary(),
            load_seconds=self._llm.load_seconds,
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )
