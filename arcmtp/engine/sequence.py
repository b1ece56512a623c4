"""A sequence: what is asked of it, where it is kept, how far it is and what it has given."""

from collections import abc, deque
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from arcmtp.engine.cycle import Cycle
from arcmtp.engine.draft_history import DraftHistory
from arcmtp.engine.draft_log import DraftLog
from arcmtp.engine.draft_policy import NO_DRAFTS, DraftPolicy
from arcmtp.engine.prefix_cache import SPACING, common
from arcmtp.engine.sampling import Sampler
from arcmtp.engine.scores import Scores
from arcmtp.engine.slot import Slot
from arcmtp.errors import ArcmtpError
from arcmtp.ops.accept import RECORD
from arcmtp.ops.launch import MAX_ROWS

# Tokens between checkpoints of a prompt without any boundary. The state of Qwen3.6-35B-A3B takes as many bytes as keys
# and values of 3,000 tokens: more checkpoints would take more memory than what they lie between, and an edit costs so
# many tokens of a prompt at most.
CHECKPOINT_EVERY = 2048

State = Literal["waiting", "reading", "decoding", "finished", "ended"]


@dataclass(eq=False)
class Sequence:
    """Token ids in, cycles of token ids out. The device keeps its state; of a cycle only its record comes to the host.

    It is "waiting" until it has a slot, "reading" its prompt, "decoding", and "finished" when a token or the limit has
    ended it; or it has "ended" before. What cycles gave is `unread` until somebody takes it.
    """

    sampler: Sampler
    prompt: list[int] = field(default_factory=list)
    limit: int = 0  # tokens to generate at most
    stop_ids: abc.Collection[int] = ()  # tokens that end it
    policy: DraftPolicy = NO_DRAFTS
    draft_p_min: float = 0.0  # a less likely draft is the last one of its cycle
    top: int = 0  # how many of the likeliest tokens to give with each position
    scored: bool = False  # whether all of the prompt is evaluated and its tokens get `scores`
    scores: list[Scores] = field(default_factory=list)  # of the prompt's tokens but the first, so far
    boundaries: abc.Sequence[int] = ()  # places in the prompt where checkpoints should be, ascending
    log: DraftLog | None = None  # where draft calls are noted
    state: State = "waiting"
    cancelled: bool = False  # asked to end, by any thread
    cached_tokens: int | None = None  # of the prompt, that the slot had seen; None before it is known
    prompt_seconds: float = 0.0  # of the turns in which it read its prompt
    decode_seconds: float = 0.0  # of those in which it decoded
    decoded: int = 0  # tokens that cycles gave; without the first one, which belongs to the prompt
    bytes_to_host: int = 0  # all that decoding moves between host and device, but for commands
    unread: deque[Cycle] = field(default_factory=deque)
    history: DraftHistory = field(default_factory=DraftHistory)  # that the policy is shown
    draft_lengths: list[int] = field(default_factory=list)  # of all cycles
    branches: set[int] = field(default_factory=set)  # further such places: where other sequences part from this one
    last: int = -1  # the token that was chosen and is not evaluated yet
    cycles_taken: int = -1  # the first choice is none
    _slot: Slot | None = None

    @property
    def slot(self) -> Slot:
        """Where it is kept; ArcmtpError before it has a slot and after its end."""
        if self._slot is None:
            raise ended()
        return self._slot

    def holds(self, slot: Slot) -> bool:
        """Whether it is kept in a slot."""
        return self._slot is slot

    def enter(self, slot: Slot) -> None:
        """Take a slot, to read the prompt next."""
        self._slot, self.state = slot, "reading"

    def leave(self) -> None:
        """Go no further: the slot belongs to another sequence."""
        self._slot = None
        if self.state != "finished":
            self.state = "ended"

    @property
    def reusable(self) -> list[int]:
        """The part of the prompt that need not be evaluated again where it is known: nothing of it if it is scored."""
        return [] if self.scored else self.prompt

    def resume(self) -> None:
        """Go to the state after those tokens of the prompt that the slot has seen."""
        self.sampler.see(self.prompt)
        self.cached_tokens = self.slot.resume(self.reusable)
        self.branches.add(self.slot.cache.known(self.prompt))

    @property
    def error(self) -> ArcmtpError | None:
        """Why it can have no further tokens, though none has ended it."""
        return None if self.sampler.guide is None else self.sampler.guide.error

    @property
    def unevaluated(self) -> int:
        """How many tokens of the prompt are still to be read."""
        return len(self.prompt) - len(self.slot.ids)

    def read(self, rows: int) -> None:
        """Evaluate up to `rows` further tokens of the prompt, at most a chunk; on the way states become checkpoints.

        The last one lies before the few tokens with which an answer begins: they are evaluated with those before it."""
        slot, end = self.slot, min(len(self.slot.ids) + rows, len(self.prompt))
        while (seen := len(slot.ids)) < end:
            places = self._places
            place = min(places, default=end)
            if end == len(self.prompt) and len(places) == 1 and end - place <= MAX_ROWS:
                slot.extend_past(self.prompt[seen:end], end - place)
            else:
                slot.extend(self.prompt[seen : min(place, end)])
                if len(slot.ids) == place < len(self.prompt):
                    slot.save()
            if self.scored and (targets := self.prompt[seen + 1 : len(slot.ids) + 1]):
                self.scores.append(slot.score_chunk(0, targets, self.top))

    def comes_to(self, prompt: list[int]) -> int:
        """The tokens before the deepest checkpoint that reading will still make and another prompt can go on from, 0 if
        there is none. From now on there is one where both part."""
        shared = common(self.prompt, prompt[:-1])
        self.branches.add(shared)
        return max((place for place in self._places if place <= shared), default=0)

    @property
    def _places(self) -> list[int]:
        """Where in the unread part of the prompt checkpoints should be. One follows another within SPACING tokens only
        where the last message begins."""
        slot, seen = self.slot, len(self.slot.ids)
        if not slot.cache.enabled:
            return []
        every = (seen // CHECKPOINT_EVERY + 1) * CHECKPOINT_EVERY
        return [
            place
            for place in (*self.boundaries, *self.branches, every)
            if seen < place < len(self.prompt)
            and (place - slot.checkpoint >= SPACING or place == self.boundaries[-1])
        ]

    def begin(self) -> None:
        """Choose the first token, into `unread`, right after the last chunk of the prompt; with a limit of 0 none."""
        if not self.limit:
            self.unread.append(Cycle([], [], None, 0, 0, done=True))
            self.state = "finished"
            return
        self.last, self.cycles_taken, self.state = -1, -1, "decoding"
        self.history, self.draft_lengths = DraftHistory(), []
        self.slot.begin_drafts(self.draft_p_min)
        self.slot.choose_first(self.sampler, self.limit, self.stop_ids, self.top)
        self.take(0, 1)

    def extend(self, ids: abc.Sequence[int]) -> None:
        """Evaluate further tokens of a prompt and choose nothing."""
        self.sampler.see(ids)
        self.slot.extend(ids)

    def prefill(self, ids: abc.Sequence[int], limit: int, stop_ids: abc.Collection[int] = ()) -> Cycle:
        """`extend`, then choose the first of at most `limit` tokens, which any of `stop_ids` ends."""
        self.extend(ids)
        self.limit, self.stop_ids = limit, stop_ids
        self.begin()
        return self.unread.popleft()

    def score(self, ids: abc.Sequence[int], first: int) -> np.ndarray:
        """Log-probabilities in nats, float64 [len(ids) - first], of ids[first:] given all tokens before each of them;
        ids[:-1] are evaluated."""
        return self.slot.score(ids, first)

    def take(self, index: int, size: int) -> Cycle | None:
        """What a step gave sequence `index` of a batch of `size`; None after its end."""
        if self.state != "decoding":
            return None
        self.cycles_taken += 1
        record = self.slot.record(self.cycles_taken)
        count, done = int(record["count"]), bool(record["done"])
        tokens = record["tokens"][:count].tolist()
        if self.last >= 0:
            self.slot.ids += [self.last, *tokens[:-1]]
        top = [self.slot.top_of(row * size + index, self.top) for row in range(count)] if self.top else None
        drafted, accepted = int(record["drafted"]), int(record["accepted"])
        cycle = Cycle(tokens, record["logprobs"][:count].tolist(), top, drafted, accepted, done)
        if (guide := self.sampler.guide) is not None:
            guide.settle(tokens)
            if guide.error is not None:
                self.cancelled = True
                return None
        self.unread.append(cycle)
        self.bytes_to_host += RECORD.itemsize + 8 * self.top * count
        if self.cycles_taken:
            self.decoded += count
            self.history.add(cycle)
            self.draft_lengths.append(drafted)
        self.last = tokens[-1]
        if done:
            self.state = "finished"
        return cycle


def ended() -> ArcmtpError:
    """What is raised for a sequence that can go no further."""
    return ArcmtpError("this generation has ended: its LLM was closed, interrupted, or given to another sequence")
