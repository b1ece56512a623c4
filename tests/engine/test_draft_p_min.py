"""Chains of drafts that end early: the text is that of no drafts, and what is counted is what the device has made."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from arcmtp import LLM, ArcmtpError, Generation, SamplingOptions
from arcmtp.engine.batch import Batch
from arcmtp.engine.cycle import Cycle
from arcmtp.engine.draft_log import DraftLog
from arcmtp.engine.request import Request
from arcmtp.engine.sampling import Sampler
from arcmtp.model.stage import LaunchList
from arcmtp.ops.draft_chain import draft_floor, reference
from arcmtp.runtime import _host
from tests.engine.conftest import finished

WARM = SamplingOptions(
    temperature=0.8, top_k=40, top_p=0.95, min_p=0.02, repetition_penalty=1.1, presence_penalty=0.3,
    frequency_penalty=0.1, logit_bias={120: 1.5, 300: -2.0}, seed=11,
)  # fmt: skip
SAMPLINGS = pytest.mark.parametrize("sampling", [SamplingOptions(), WARM], ids=["greedy", "warm"])
P_MIN = (0.0, 0.3, 0.75, 1.0)
POISON = -77


@pytest.fixture(scope="module")
def four() -> Iterator[LLM]:
    with LLM(device="cpu", ctx=512, parallel=4, draft=2) as llm:
        yield llm


def numbers(result: Generation) -> tuple[object, ...]:
    return result.ids, result.text, result.token_logprobs, result.logprobs, result.finish_reason


def calls(result: Generation) -> list[tuple[int, int, bool]]:
    return [(call.cycle, call.index, call.accepted) for call in result.draft_calls]


def made(result: Generation) -> list[int]:
    """How many drafts each cycle made."""
    return [len(list(group)) for _, group in itertools.groupby(result.draft_calls, key=lambda call: call.cycle)]


@SAMPLINGS
@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "launches"])
def test_any_least_probability_gives_the_same_ids_and_log_probabilities(
    tiny: LLM, text: str, monkeypatch: pytest.MonkeyPatch, sampling: SamplingOptions, graphs: bool
) -> None:
    monkeypatch.setattr(tiny.network.stage.graphs, "enabled", graphs)
    ids = tiny.tokenize(text)
    for begin, draft in ((0, 1), (0, 3), (400, 2), (400, 7)):
        prompt, lengths = ids[begin : begin + 40], []
        plain = tiny.generate(prompt, 60, logprobs=3, sampling=sampling, draft=0)
        for p_min in P_MIN:
            result = tiny.generate(prompt, 60, logprobs=3, sampling=sampling, draft=draft, draft_p_min=p_min)
            assert numbers(result) == numbers(plain), (begin, draft, p_min)
            summary = result.statistics.draft
            assert summary is not None and summary.calls == sum(made(result))
            assert summary.accepted == sum(call.accepted for call in result.draft_calls)
            lengths.append(summary.calls / summary.cycles)
        assert lengths[0] == draft and lengths == sorted(lengths, reverse=True)
        assert draft == 1 or lengths[0] > lengths[1] > lengths[2] > lengths[3] >= 1, lengths


@SAMPLINGS
@pytest.mark.parametrize("p_min", P_MIN[1:])
def test_a_chain_is_that_of_no_least_probability_as_far_as_it_goes_and_the_rest_is_not_computed(
    tiny: LLM, text: str, sampling: SamplingOptions, p_min: float
) -> None:
    """Each cycle's calls once unguarded, to see the drafts and their probabilities, and then as the engine makes them,
    with poison where a call leaves its logits and its draft."""
    draft, network, w = 5, tiny.network, tiny.network.controls
    assert network.mtp is not None
    logits = network.mtp.head.logits
    sequence = tiny.new_sequence(Sampler(sampling, tiny.config.vocab), draft=draft)
    sequence.draft_p_min = p_min
    sequence.prefill(tiny.tokenize(text)[:60], 60)
    tiny.scheduler.batch.form([sequence])
    mode, counts = sequence.sampler.mode(0), []
    while sequence.state == "decoding":
        logprobs = []
        for index in range(1, draft + 1):
            network.stage.run(network.draft(index, draft + 1, mode))
            row, token = logits.read(network.head.vocabulary.used).astype(np.float64), int(w.ids.read(index + 1)[index])
            shift = row.max()
            logprobs.append(row[token] - shift - np.log(np.exp(row - shift).sum()))
            np.testing.assert_allclose(w.stats.read(3)[2], logprobs[-1], atol=1e-5)
        chosen, count = w.ids.read(draft + 1), reference(np.array(logprobs, np.float32), draft_floor(p_min))
        for index in range(1, draft + 1):
            logits.fill(0xFF)
            w.ids.write(np.array([POISON], np.int32), 4 * index)
            network.stage.run(network.draft(index, draft + 1, mode, if_likely=True))
            assert np.isnan(logits.read(1)[0]) == (index > count), f"call {index} of {count}"
        drafts = w.ids.read(draft + 1)
        assert drafts.tolist() == [*chosen[: count + 1], *[POISON] * (draft - count)]
        network.stage.run(network.step(draft + 1, mode))
        cycle = sequence.take(0, 1)
        assert cycle is not None and cycle.accepted <= cycle.drafted == count
        counts.append(count)
    assert set(counts) == {1} if p_min == 1 else len(set(counts)) > 1, counts


def test_stale_drafts_are_not_accepted_by_chance(tiny: LLM, text: str) -> None:
    """The right tokens lie where skipped calls would have left theirs."""
    prompt, network = tiny.tokenize(text)[:60], tiny.network
    right = tiny.generate(prompt, 40, draft=0).ids
    sequence = tiny.new_sequence(draft=3)
    sequence.draft_p_min = 1.0
    tokens = sequence.prefill(prompt, 40).tokens
    tiny.scheduler.batch.form([sequence])
    while sequence.state == "decoding":
        network.controls.ids.write(np.array([*right, 0, 0, 0][len(tokens) : len(tokens) + 3], np.int32), 4)
        for index in (1, 2, 3):
            network.stage.run(network.draft(index, 4, sequence.sampler.mode(0), if_likely=True))
        network.stage.run(network.step(4, sequence.sampler.mode(0)))
        cycle = sequence.take(0, 1)
        assert cycle is not None and cycle.drafted == 1 and len(cycle.tokens) <= 2
        tokens += cycle.tokens
    assert tokens == right


@SAMPLINGS
@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "launches"])
def test_sequences_side_by_side_each_end_their_own_chains(
    four: LLM, text: str, monkeypatch: pytest.MonkeyPatch, sampling: SamplingOptions, graphs: bool, ahead: int
) -> None:
    monkeypatch.setattr(four.network.stage.graphs, "enabled", graphs)
    monkeypatch.setattr(Batch, "_ahead", ahead)
    ids = four.tokenize(text)
    asked = [
        Request(ids[begin : begin + 30], limit, sampling=sampling, draft=3, draft_p_min=p_min)
        for begin, limit, p_min in ((10, 60, 0.75), (200, 40, 0.3), (500, 60, 0.0), (700, 50, 1.0))
    ]
    plain = [four.generate(one.prompt_ids, one.max_tokens, sampling=sampling, draft=0) for one in asked]
    alone = [finished(four.stream_request(one)) for one in asked]
    for size in (2, 3, 4):
        streams = [four.stream_request(one) for one in asked[-size:]]
        for stream in streams:
            stream.start()
        results = [finished(stream) for stream in streams]
        assert [numbers(result) for result in results] == [numbers(result) for result in plain[-size:]]
        assert [calls(result) for result in results] == [calls(result) for result in alone[-size:]]
    assert set(made(alone[2])) == {3} and set(made(alone[3])) == {1} < set(made(alone[1]))


def test_without_a_least_probability_the_lists_are_those_without_guards(
    four: LLM, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for p_min in (0.0, 0.5):
        four.generate(text[:100], 20, draft=3, draft_p_min=p_min)
    lists = four.network.stage.lists
    plain, guarded = lists["draft 2"], lists["draft 2 if likely"]
    assert not any("guard" in launch.arguments for launch in plain)
    assert [launch.operator for launch in guarded] == ["draft_chain", *(launch.operator for launch in plain)]
    assert all("guard" in launch.arguments for launch in guarded.launches[1:])
    submit, used = four.network.stage.submit, set[str]()

    def noted(launches: LaunchList, as_graph: bool = True) -> _host.Event:
        used.add(launches.name)
        return submit(launches, as_graph)

    monkeypatch.setattr(four.network.stage, "submit", noted)
    four.generate(text[:100], 20, draft=3, draft_p_min=0)
    assert used >= {"draft 2", "draft 3"} and not any("likely" in name for name in used)


def test_the_model_has_one_for_generations_that_do_not_say(text: str) -> None:
    with LLM(device="cpu", ctx=256, draft=3, draft_p_min=1.0) as llm:
        plain, whole, own = (
            llm.generate(text[:100], 20, **options) for options in ({"draft": 0}, {"draft_p_min": 0.0}, {})
        )
        assert numbers(plain) == numbers(whole) == numbers(own)
        assert set(made(whole)) == {3} and set(made(own)) == {1}


@pytest.mark.parametrize("p_min", [-0.1, 1.5, float("nan"), "0.5"])
def test_what_is_no_probability_is_refused(tiny: LLM, p_min: float) -> None:
    refused = pytest.raises(ArcmtpError, match=r"^draft_p_min is .*; it must be a number from 0 to 1$")
    with refused:
        tiny.generate("x", draft_p_min=p_min)
    with refused:
        LLM(device="cpu", draft_p_min=p_min)


def test_the_time_of_a_skipped_call_is_drafting_time_and_no_calls() -> None:
    log = DraftLog(100, graphs=False)
    log.add(1, [10.0, 2.0, 2.0, 36.0], [1.0] * 3, [False] * 3, Cycle([5, 6], [0.0] * 2, None, 1, 1, False))
    log.add(2, [10.0, 16.0, 18.0, 36.0], [1.0] * 3, [False] * 3, Cycle([7, 8], [0.0] * 2, None, 3, 1, True))
    summary = log.summary()
    assert [(call.cycle, call.index) for call in log.calls] == [(1, 1), (2, 1), (2, 2), (2, 3)]
    assert summary is not None and (summary.calls, summary.accepted, summary.acceptance) == (4, 2, 0.5)
    assert (summary.mean_us, summary.drafting_share) == (13.5, 58 / 130)
    assert summary.acceptance_by_position == [1, 0, 0]
