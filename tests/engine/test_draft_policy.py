"""A draft length that changes from cycle to cycle gives the ids and log-probabilities of none at all."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from arcmtp import LLM, ArcmtpError, FixedDrafts, Generation, SamplingOptions
from arcmtp.engine.auto_drafts import AutoDrafts
from arcmtp.engine.batch import Batch
from arcmtp.engine.cycle import Cycle
from arcmtp.engine.draft_history import DraftHistory
from arcmtp.engine.draft_policy import longest, most_sequences
from arcmtp.formats.kv_cache import KV_F16
from arcmtp.ops.launch import CARRIED_ROWS
from tests.engine.conftest import finished

WARM = SamplingOptions(temperature=0.8, top_p=0.95, repetition_penalty=1.1, frequency_penalty=0.2, seed=7)
LENGTHS = range(8)
# Every length follows every length: a de Bruijn sequence.
ORDER = [length for low in LENGTHS for high in range(low, 8) for length in ([low] if high == low else [low, high])]


@dataclass(frozen=True)
class InOrder:
    """Drafts as its order says, and keeps what it said and was shown."""

    order: Sequence[int] = tuple(ORDER)
    lengths: Collection[int] = tuple(LENGTHS)
    said: list[int] = field(default_factory=list, compare=False)
    noted: list[tuple[int, float | None, bool]] = field(default_factory=list, compare=False)
    shown: list[list[list[int]]] = field(default_factory=list, compare=False)  # drafts of each cycle of each sequence

    def length(self, histories: Sequence[DraftHistory]) -> int:
        self.shown.append([[cycle.drafted for cycle in history.latest] for history in histories])
        self.said.append(self.order[len(self.said) % len(self.order)])
        return self.said[-1]

    def note(self, cycles: Sequence[Cycle], drafted: int, microseconds: float | None, usual: bool) -> None:
        assert microseconds is None or microseconds > 0
        self.noted.append((drafted, microseconds, usual))


@pytest.fixture(scope="module")
def three() -> Iterator[LLM]:
    with LLM(device="cpu", ctx=1024, parallel=3, draft=2) as llm:
        yield llm


def numbers(result: Generation) -> tuple[Any, ...]:
    return result.ids, result.text, result.token_logprobs, result.logprobs, result.finish_reason


def accepted(result: Generation) -> list[tuple[int, int, bool]]:
    return [(call.cycle, call.index, call.accepted) for call in result.draft_calls]


def test_the_order_has_every_pair_of_lengths() -> None:
    assert set(itertools.pairwise([*ORDER, ORDER[0]])) == set(itertools.product(LENGTHS, LENGTHS))


@pytest.mark.parametrize("sampling", [SamplingOptions(), WARM], ids=["greedy", "warm"])
@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "launches"])
def test_any_order_of_lengths_gives_the_same(
    tiny: LLM, text: str, monkeypatch: pytest.MonkeyPatch, sampling: SamplingOptions, graphs: bool
) -> None:
    monkeypatch.setattr(tiny.network.stage.graphs, "enabled", graphs)
    ids, seen = tiny.tokenize(text), set[tuple[int, int]]()
    for begin in (0, 300):
        policy, prompt = InOrder(), ids[begin : begin + 40]
        plain = tiny.generate(prompt, 300, logprobs=2, sampling=sampling, draft=0)
        result = tiny.generate(prompt, 300, logprobs=2, sampling=sampling, draft=policy)
        assert numbers(result) == numbers(plain)
        said = policy.said[:-1]  # the last was for a cycle behind the end
        seen |= set(itertools.pairwise(said))
        assert policy.shown[:40] == [[said[: max(count - 1, 0)]] for count in range(min(40, len(policy.said)))]
        assert [drafted for drafted, *_ in policy.noted] == said
        drafted = [sum(call.cycle == cycle for call in result.draft_calls) for cycle in range(1, len(said) + 1)]
        assert drafted == said
        summary = result.statistics.draft
        assert summary is not None and summary.calls == sum(said)
        assert len(summary.acceptance_by_position) == max(said)
    assert seen == set(itertools.product(LENGTHS, LENGTHS))


def fates(result: Generation) -> dict[int, list[bool]]:
    """Whether each draft of a cycle was accepted, by the place in the text where the cycle began."""
    found, place, before = {}, 0, 0
    for number, calls in itertools.groupby(result.draft_calls, key=lambda call: call.cycle):
        place += number - before - 1  # cycles without drafts give a token each
        found[place] = [call.accepted for call in calls]
        place, before = place + 1 + sum(found[place]), number
    return found


def test_drafts_from_one_place_are_the_same_whichever_lengths_came_before(tiny: LLM, text: str) -> None:
    """A draft that was wrong here and right there would tell that the MTP block has seen other rows."""
    ids, compared = tiny.tokenize(text), 0
    for begin in (0, 300, 700):
        prompt = ids[begin : begin + 40]
        for order in (ORDER, [*[0] * (2 * CARRIED_ROWS), 3, *[0] * 5, 2]):
            changing = fates(tiny.generate(prompt, 300, draft=InOrder(tuple(order))))
            for draft in (1, 3, 7):
                for place, alike in fates(tiny.generate(prompt, 300, draft=draft)).items():
                    pairs = list(zip(alike, changing.get(place, ()), strict=False))
                    compared += len(pairs)
                    assert all(one == other for one, other in pairs), (draft, place)
    assert compared > 200


def keys_and_values(llm: LLM, tokens: int) -> list[bytes]:
    """Of the MTP block's KV cache in slot 0, for so many positions."""
    assert llm.network.mtp is not None
    of_slot = llm.network.mtp.attention.cache.tensor.read()[0]
    return [part[:tokens].tobytes() for part in KV_F16.load(of_slot, llm.config.head_dim)]


@pytest.mark.parametrize(
    "order", [ORDER, [*[0] * 150, 3, *[0] * 5, 2, 0], [2], [0]], ids=["any", "seldom", "always", "never"]
)
def test_the_mtp_block_has_seen_what_a_prompt_of_the_same_tokens_shows_it(
    tiny: LLM, text: str, order: list[int]
) -> None:
    """To the bit, whatever was drafted, accepted and left out."""
    prompt = tiny.tokenize(text)[:40]
    for limit in (30, 100, 170):
        tiny.new_sequence()
        result = tiny.generate(prompt, limit, draft=InOrder(tuple(order)))
        evaluated = [*prompt, *result.ids][:-1]
        found = keys_and_values(tiny, len(evaluated))
        tiny.new_sequence().extend(evaluated)
        assert found == keys_and_values(tiny, len(evaluated))


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "launches"])
def test_sequences_side_by_side_give_the_same(
    three: LLM, text: str, monkeypatch: pytest.MonkeyPatch, graphs: bool, ahead: int
) -> None:
    """They share the lengths while they are together; one ends early, and one more, of fixed length, comes in."""
    monkeypatch.setattr(three.network.stage.graphs, "enabled", graphs)
    monkeypatch.setattr(Batch, "_ahead", ahead)
    ids, policy = three.tokenize(text), InOrder()
    asked: list[tuple[list[int], int, Any]] = [
        (ids[10:40], 150, policy), (ids[200:290], 60, policy), (ids[500:505], 150, policy), (ids[700:740], 60, 2)
    ]  # fmt: skip
    plain = [three.generate(prompt, limit, sampling=WARM, draft=0) for prompt, limit, _ in asked]
    streams = [three.stream(prompt, limit, sampling=WARM, draft=draft) for prompt, limit, draft in asked]
    for stream in streams:
        stream.start()
    assert [numbers(finished(stream)) for stream in streams] == [numbers(result) for result in plain]
    assert {len(histories) for histories in policy.shown} >= {2, 3}
    assert len(set(itertools.pairwise(policy.said))) > 30


@pytest.mark.parametrize("sampling", [SamplingOptions(), WARM], ids=["greedy", "warm"])
@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "launches"])
def test_auto_gives_the_same(
    tiny: LLM, text: str, monkeypatch: pytest.MonkeyPatch, sampling: SamplingOptions, graphs: bool
) -> None:
    monkeypatch.setattr(tiny.network.stage.graphs, "enabled", graphs)
    ids = tiny.tokenize(text)
    for begin in (0, 300, 700):
        prompt = ids[begin : begin + 40]
        plain = tiny.generate(prompt, 200, logprobs=2, sampling=sampling, draft=0)
        result = tiny.generate(prompt, 200, logprobs=2, sampling=sampling, draft="auto")
        assert numbers(result) == numbers(plain)
        made = Counter(call.cycle for call in result.draft_calls)
        assert result.draft_lengths == [made[cycle] for cycle in range(1, len(result.draft_lengths) + 1)]
        assert set(plain.draft_lengths) == {0}
    policy = tiny.policy("auto")
    assert isinstance(policy, AutoDrafts)
    assert min(policy.chosen[:2]) > 0, "a draft and none have been tried"


@pytest.mark.parametrize("ahead", [0, 1])
def test_auto_beside_others_gives_the_same(
    three: LLM, text: str, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    monkeypatch.setattr(Batch, "_ahead", ahead)
    ids = three.tokenize(text)
    asked: list[tuple[list[int], int, Any, SamplingOptions]] = [
        (ids[10:40], 150, "auto", WARM), (ids[200:290], 60, "auto", SamplingOptions()),
        (ids[500:505], 150, "auto", WARM), (ids[700:740], 60, 2, WARM),
        (ids[300:333], 90, "auto", SamplingOptions()), (ids[800:840], 40, 0, WARM),
    ]  # fmt: skip
    plain = [three.generate(prompt, limit, sampling=sampling, draft=0) for prompt, limit, _, sampling in asked]
    streams = [three.stream(prompt, limit, sampling=how, draft=draft) for prompt, limit, draft, how in asked]
    for stream in streams:
        stream.start()
    assert [numbers(finished(stream)) for stream in streams] == [numbers(result) for result in plain]


def test_a_cycle_that_another_one_waited_for_tells_no_time(
    tiny: LLM, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a cycle more under way each change between drafts and none waits for the one before it."""
    monkeypatch.setattr(Batch, "_ahead", 1)
    policy = InOrder((0, 0, 0, 2, 2, 2))
    tiny.generate(tiny.tokenize(text)[:40], 60, draft=policy)
    for (length, us, _), (following, _, usual) in itertools.pairwise(policy.noted[7:]):
        assert (us is None) == ((length > 0) != (following > 0))
        assert usual == (length == following)


def test_a_step_has_room_for_so_many_sequences_and_drafts() -> None:
    assert [most_sequences(FixedDrafts(count)) for count in (0, 1, 2, 7)] == [32, 16, 10, 4]
    assert [longest(sequences) for sequences in (1, 4, 5, 10, 11, 16, 17, 32)] == [7, 7, 5, 2, 1, 1, 0, 0]
    assert most_sequences(AutoDrafts()) == 32


def test_what_comes_after_changing_lengths_drafts_as_from_cold(tiny: LLM, text: str) -> None:
    """The MTP block's cache is whole after them, whichever length was the last."""
    ids = tiny.tokenize(text)
    for limit in (20, 23, 27, 31):
        tiny.new_sequence()
        first = tiny.generate(ids[:50], limit, draft=InOrder())
        prompt = [*ids[:50], *first.ids, *ids[90:100]]
        again = tiny.generate(prompt, 30, draft=3)
        assert again.statistics.cached_tokens >= 50
        tiny.new_sequence()
        cold = tiny.generate(prompt, 30, draft=3)
        assert (numbers(again), accepted(again)) == (numbers(cold), accepted(cold))


@pytest.mark.parametrize("lengths", [(), (0, 8), (8,), (-1,)])
def test_lengths_that_there_are_not_are_refused(tiny: LLM, lengths: tuple[int, ...]) -> None:
    with pytest.raises(ArcmtpError, match=r"a draft policy has lengths .*; it must have some of 0 to 7"):
        tiny.generate("x", draft=InOrder(lengths=lengths))


def test_a_length_that_was_not_announced_is_refused(tiny: LLM) -> None:
    with pytest.raises(ArcmtpError, match=r"a draft policy wants 1 drafts; its lengths are \[2, 3\]"):
        tiny.generate("x", draft=InOrder((1,), (2, 3)))
    assert len(tiny.generate("x", 3, draft=FixedDrafts(2)).ids) == 3
