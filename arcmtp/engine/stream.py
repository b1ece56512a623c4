"""A generation as text, token by token."""

import threading
from collections import abc, deque
from math import isfinite
from typing import Literal

import numpy as np

from arcmtp.engine.cycle import Cycle
from arcmtp.engine.loading import LoadedModel
from arcmtp.engine.results import Chunk, Generation
from arcmtp.engine.scheduler import Scheduler
from arcmtp.engine.scores import Scores, join
from arcmtp.engine.sequence import Sequence, ended
from arcmtp.engine.statistics import statistics
from arcmtp.engine.stop_strings import StopStrings
from arcmtp.errors import NotFinite
from arcmtp.model.tokenizer import Detokenizer


class Stream:
    """A generation under way: an iterator of `Chunk`s, one a token, and `result` at any time, which is final when the
    iterator has ended.

    It starts with the first chunk that is asked for, or with `start`; from then on whoever advances its LLM, another
    stream too, advances it. It waits for its turn where more have started than the LLM's `parallel`.

    `close` ends it, from any thread: once the turn under way is over, iterating gives the chunks that are there and
    ends, and `result` has no finish reason. Iterating raises ArcmtpError if the LLM was closed meanwhile or a turn was
    interrupted or no token keeps to the constraint, NotFinite for logits that are NaN or infinite, and what the device
    raises if it fails.

        >>> from arcmtp import LLM
        >>> with LLM() as llm:
        ...     stream = llm.stream("import os", max_tokens=20)
        ...     for chunk in stream:
        ...         stream.close()
        ...     len(stream.result.ids), stream.result.finish_reason
        (1, None)
    """

    def __init__(
        self, model: LoadedModel, scheduler: Scheduler, sequence: Sequence, stop: abc.Sequence[str] = ()
    ) -> None:
        self.sequence = sequence
        self.end: Chunk | None = None  # the token that ends a generation with "stop", which is no part of it
        self._model, self._scheduler = model, scheduler
        self._stop = StopStrings(stop)
        self._detokenizer = Detokenizer(model.tokenizer, skip_special=True)
        self._chunks: deque[Chunk] = deque()  # not asked for yet
        self._chunks_so_far: list[Chunk] = []
        self._finish_reason: Literal["stop", "length"] | None = None
        self._started = False
        self._lock = threading.Lock()  # guards what makes and gives chunks
        self._graphs_before = model.network.stage.graphs.statistics.copy()

    def __iter__(self) -> abc.Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        self.start()
        while True:
            over = self.sequence.state in ("finished", "ended")  # asked first: no cycle comes after that
            if (chunk := self._next_chunk()) is not None:
                return chunk
            if over and self.sequence.error and not self._finish_reason:
                raise self.sequence.error
            if self._finish_reason or (over and self.sequence.cancelled):
                raise StopIteration
            if over:
                raise ended()
            self._scheduler.advance()

    def __del__(self) -> None:
        self.sequence.cancelled = True  # nobody will ask for more; the next turn ends it

    def start(self) -> None:
        """Wait for a slot, or take it, to be advanced from now on; harmless if that was done. Raises ArcmtpError if the
        LLM is closed."""
        if not self._started:
            self._started = True
            self._scheduler.start(self.sequence)

    def close(self) -> None:
        """Generate no further and leave the slot; from any thread, and harmless if that was done."""
        self._scheduler.end(self.sequence)

    def take_chunks(self) -> list[Chunk]:
        """The chunks that are there already and were not asked for yet."""
        with self._lock:
            self._make_chunks()
            chunks = list(self._chunks)
            self._chunks.clear()
        return chunks

    @property
    def finish_reason(self) -> Literal["stop", "length"] | None:
        """As in `Generation`."""
        with self._lock:
            self._make_chunks()
        return self._finish_reason

    @property
    def prompt_scores(self) -> Scores:
        """Of the prompt's tokens but the first, as far as it has been read; none unless the request asked for them.
        Raises NotFinite for log-probabilities that are NaN or infinite."""
        scores = join(list(self.sequence.scores))
        if not np.isfinite(scores.logprobs).all():
            what = "log-probabilities of the prompt are NaN or infinite: weights of the file, or the device, are wrong"
            raise NotFinite(f"{self._model.path.name}: {what}")
        return scores

    @property
    def finished(self) -> bool:
        """Whether all has been generated."""
        return self.finish_reason is not None

    @property
    def ended(self) -> bool:
        """Whether it has ended before all was generated."""
        return self.sequence.state == "ended"

    @property
    def result(self) -> Generation:
        """What has been generated so far. Raises ArcmtpError if the LLM is closed."""
        with self._lock:
            self._make_chunks()
            chunks = list(self._chunks_so_far)
        tokens = [(chunk.id, chunk.logprob, chunk.logprobs) for chunk in chunks if chunk.id is not None]
        sequence, network = self.sequence, self._model.network
        graphs = network.stage.graphs.statistics.since(self._graphs_before)
        return Generation(
            prompt_ids=sequence.prompt,
            ids=[token for token, _, _ in tokens],
            text="".join(chunk.text for chunk in chunks),
            finish_reason=self._finish_reason,
            token_logprobs=[logprob or 0.0 for _, logprob, _ in tokens],
            logprobs=[likeliest or [] for _, _, likeliest in tokens] if sequence.top else None,
            seed=sequence.sampler.seed,
            statistics=statistics(network, sequence, len(tokens), graphs, self._model.load_seconds),
            draft_calls=list(sequence.log.calls) if sequence.log else [],
            draft_lengths=list(sequence.draft_lengths),
        )

    def _make_chunks(self) -> None:
        """Of all that cycles have given; at a stop string the sequence ends."""
        while self.sequence.unread and not self._finish_reason:
            self._push(self.sequence.unread.popleft())
        if self._finish_reason and self.sequence.state == "decoding":
            self.close()

    def _next_chunk(self) -> Chunk | None:
        with self._lock:
            if not self._chunks:
                self._make_chunks()
            return self._chunks.popleft() if self._chunks else None

    def _push(self, cycle: Cycle) -> None:
        if not cycle.tokens:
            self._finish_reason = "length"
        for place, token in enumerate(cycle.tokens):
            top = None if cycle.top is None else cycle.top[place]
            self._check(token, cycle.logprobs[place], *(logprob for _, logprob in top or []))
            last = cycle.done and place + 1 == len(cycle.tokens)
            if last and token in self.sequence.stop_ids:
                self._finish_reason = "stop"
                self.end = Chunk(token, "", top, cycle.logprobs[place])
                if rest := self._text(self._detokenizer.flush(), last):
                    self._keep(Chunk(None, rest))
                return
            text = self._text(self._detokenizer.push(token) + (self._detokenizer.flush() if last else ""), last)
            if last or self._stop.found:
                self._finish_reason = "stop" if self._stop.found else "length"
            self._keep(Chunk(token, text, top, cycle.logprobs[place]))
            if self._finish_reason:
                return

    def _check(self, token: int, *logprobs: float) -> None:
        """End the generation if numbers of a token are not finite: all that comes after it is as wrong."""
        if all(map(isfinite, logprobs)):
            return
        self.sequence.unread.clear()
        self.close()
        wrong = next(logprob for logprob in logprobs if not isfinite(logprob))
        what = f"the log-probability of token {token} is {wrong}: weights of the file, or the device, are wrong"
        raise NotFinite(f"{self._model.path.name}: {what}")

    def _text(self, text: str, last: bool) -> str:
        """What is certain to come before a stop string: all, once the generation has ended."""
        certain = self._stop.push(text)
        return certain + self._stop.flush() if last else certain

    def _keep(self, chunk: Chunk) -> None:
        self._chunks.append(chunk)
        self._chunks_so_far.append(chunk)
