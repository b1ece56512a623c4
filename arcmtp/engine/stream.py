"""A generation under way, token by token."""

from __future__ import annotations

import resource
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from arcmtp.engine.draft_log import DraftLog
from arcmtp.engine.results import Chunk, Cycle, Generation, Statistics, TopLogprobs
from arcmtp.engine.sampling import Sampler
from arcmtp.engine.stop_strings import StopStrings
from arcmtp.errors import ArcmtpError
from arcmtp.model.network import Network
from arcmtp.model.tokenizer import Detokenizer

if TYPE_CHECKING:
    from arcmtp.engine.llm import LLM


class Stream:
    """An iterator of chunks, and `result` at any time, final when the iterator has ended.

    It starts with the first chunk that is asked for, or with `start`; from then on whoever advances the LLM, another
    stream too, advances it.
    """

    def __init__(
        self, llm: LLM, prompt_ids: list[int], max_tokens: int, top: int, sampler: Sampler, draft: int,
        stop: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.prompt_ids, self.max_tokens, self.top = prompt_ids, max_tokens, top
        self.sampler, self.draft, self.stop_ids = sampler, draft, llm.tokenizer.eos_ids
        self.log = DraftLog(_draft_head_rows(llm.network), llm.network.stage.graphs.enabled)
        self.cached_tokens = 0  # of the prompt, which were not evaluated again
        self.prompt_seconds = self.decode_seconds = 0.0  # of the turns in which it read its prompt, and decoded
        self.ended = False  # advanced no further
        self._llm, self._stop = llm, StopStrings(stop)
        self._detokenizer = Detokenizer(llm.tokenizer, skip_special=True)
        self._chunks: deque[Chunk] = deque()  # not asked for yet
        self._chunks_so_far: list[Chunk] = []
        self.finish_reason: Literal["stop", "length"] | None = None
        self._started = False
        self._decoded = self._bytes_to_host = 0  # tokens that cycles gave, without the first, and what that moved
        self._graphs_before = llm.network.stage.graphs.statistics.copy()

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        self.start()
        while not self._chunks:
            if self.finished:
                raise StopIteration
            if self.ended:
                raise ArcmtpError("this generation has ended: its LLM was closed or began another one")
            self._llm.scheduler.advance()
        return self._chunks.popleft()

    def start(self) -> None:
        """Take a slot, to be advanced from now on; harmless if that was done."""
        if not self._started:
            self._llm.scheduler.start(self)
            self._started = True

    def close(self) -> None:
        """Generate no further and leave the slot; harmless if that was done."""
        self._llm.scheduler.end(self)

    def take_chunks(self) -> list[Chunk]:
        """The chunks that are there already and were not asked for yet."""
        chunks = list(self._chunks)
        self._chunks.clear()
        return chunks

    @property
    def finished(self) -> bool:
        """Whether all has been generated."""
        return self.finish_reason is not None

    def push(self, cycle: Cycle, bytes_to_host: int | None = None) -> None:
        """Make chunks of what a cycle gave, unless the generation has finished; without `bytes_to_host`, which decoding
        has moved so far, it is the first token, which belongs to the prompt."""
        if bytes_to_host is not None:
            self._decoded, self._bytes_to_host = self._decoded + len(cycle.tokens), bytes_to_host
        for place, token in enumerate(cycle.tokens):
            if self.finished:
                return
            last = cycle.done and place + 1 == len(cycle.tokens)
            if last and token in self.stop_ids:
                self.finish_reason = "stop"
                if rest := self._text(self._detokenizer.flush(), last):
                    self._keep(Chunk(None, rest))
                return
            text = self._text(self._detokenizer.push(token) + (self._detokenizer.flush() if last else ""), last)
            if last or self._stop.found:
                self.finish_reason = "stop" if self._stop.found else "length"
            top = None if cycle.top is None else cycle.top[place]
            self._keep(Chunk(token, text, top, cycle.logprobs[place]))

    def _text(self, text: str, last: bool) -> str:
        """What is certain to come before a stop string: all, once the generation has ended."""
        certain = self._stop.push(text)
        return certain + self._stop.flush() if last else certain

    def _keep(self, chunk: Chunk) -> None:
        self._chunks.append(chunk)
        self._chunks_so_far.append(chunk)

    @property
    def result(self) -> Generation:
        """What has been generated so far."""
        tokens = [(chunk.id, chunk.logprob, chunk.logprobs) for chunk in self._chunks_so_far if chunk.id is not None]
        top: list[TopLogprobs] | None = [likeliest or [] for _, _, likeliest in tokens] if self.top else None
        return Generation(
            self.prompt_ids, [token for token, _, _ in tokens], "".join(chunk.text for chunk in self._chunks_so_far),
            self.finish_reason, [logprob or 0.0 for _, logprob, _ in tokens], top, self.sampler.seed,
            self._statistics(len(tokens)), list(self.log.calls),
        )  # fmt: skip

    def _statistics(self, tokens: int) -> Statistics:
        network, graphs = self._llm.network, self._llm.network.stage.graphs.statistics.since(self._graphs_before)
        rate = self._decoded / self.decode_seconds if self._decoded else 0.0
        evaluated = len(self.prompt_ids) - self.cached_tokens
        step_bytes = network.step_bytes(len(self.prompt_ids) + tokens // 2)
        return Statistics(
            prompt_tokens=len(self.prompt_ids),
            completion_tokens=tokens,
            cached_tokens=self.cached_tokens,
            prompt_tokens_per_second=evaluated / self.prompt_seconds if self.prompt_seconds else 0.0,
            decode_tokens_per_second=rate,
            launches_per_cycle=self._llm.launches_per_cycle(self.draft, self.sampler),
            bytes_per_token=step_bytes,
            gigabytes_per_second=None if self.draft else step_bytes * rate / 1e9,
            bytes_to_host_per_token=self._bytes_to_host / self._decoded if self._decoded else 0.0,
            graph_captures=graphs.captures,
            graph_replays=graphs.replays,
            host_us_per_replay=graphs.us_per_replay,
            draft=self.log.summary(),
            load_seconds=self._llm.load_seconds,
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )


def _draft_head_rows(network: Network) -> int:
    """Rows of the output matrix that a draft call reads."""
    return network.mtp.head.weights.output.matrices[0].n if network.mtp else 0
