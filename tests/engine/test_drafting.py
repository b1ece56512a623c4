"""Drafting changes the speed and nothing else: ids and log-probabilities are equal, not close, at any draft length."""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from arcmtp import LLM, ArcmtpError, Generation, SamplingOptions
from arcmtp.engine.cycle import Cycle
from arcmtp.engine.sequence import Sequence
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.ops.accept import RECORD, RECORDS
from arcmtp.runtime.graphs import kernel_names
from arcmtp.runtime.tensor import Tensor
from scripts.make_random_model import write_model
from scripts.random_model.tensors import Geometry

WARM = SamplingOptions(
    temperature=0.8, top_k=40, top_p=0.95, min_p=0.02, repetition_penalty=1.1, presence_penalty=0.3,
    frequency_penalty=0.1, logit_bias={120: 1.5, 300: -2.0}, seed=11,
)  # fmt: skip
LENGTHS = range(8)
SMALL = Geometry(
    layers=4, experts=8, experts_used=2, vocab=1024, mtp=True, hidden=256, heads=4, kv_heads=2, head_dim=64,
    rope_dims=32, rope_sections=(6, 5, 5, 0), gdn_k_heads=2, gdn_v_heads=6, gdn_head_dim=32, expert_width=64,
)  # fmt: skip
CLOSE_DRAFTS = 0.1  # nat; llama.cpp rounds activations to halves for F16 weights, and calls of a chain add that up


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    """Random weights, so that next to nothing is accepted."""
    path = tmp_path_factory.mktemp("random") / "random.gguf"
    write_model(path, SMALL, Type.Q4_0, Type.Q6_K, seed=3)
    with LLM(path, device="cpu", ctx=256, draft=2) as llm:
        yield llm


def prompts(llm: LLM, text: str, count: int) -> list[list[int]]:
    """Pieces of the text, of 1 to 90 tokens."""
    ids, rng = llm.tokenize(text), np.random.default_rng(4)
    starts, lengths = rng.integers(0, len(ids) - 100, count), rng.integers(1, 91, count)
    return [ids[start : start + length] for start, length in zip(starts, lengths, strict=True)]


def same(one: Generation, other: Generation) -> bool:
    return (one.ids, one.text, one.finish_reason, one.token_logprobs, one.logprobs) == (
        other.ids, other.text, other.finish_reason, other.token_logprobs, other.logprobs
    )  # fmt: skip


class Cycles:
    """How many cycles accepted all of their drafts, some, or none."""

    def __init__(self) -> None:
        self.all = self.some = self.none = 0

    def count(self, result: Generation, draft: int) -> None:
        accepted: dict[int, int] = {}
        for call in result.draft_calls:
            accepted[call.cycle] = accepted.get(call.cycle, 0) + call.accepted
        self.all += sum(each == draft for each in accepted.values())
        self.some += sum(0 < each < draft for each in accepted.values())
        self.none += sum(each == 0 for each in accepted.values())


@pytest.fixture
def drafting(request: pytest.FixtureRequest) -> LLM:
    """The model that a test names: `tiny`, or `some` whose drafts are of some tokens."""
    llm: LLM = request.getfixturevalue(request.param)
    return llm


@pytest.mark.parametrize("sampling", [SamplingOptions(), WARM], ids=["greedy", "warm"])
@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "launches"])
@pytest.mark.parametrize("drafting", ["tiny", "some"], indirect=True)
def test_any_draft_length_gives_the_same_ids_and_log_probabilities(
    tiny: LLM, drafting: LLM, text: str, monkeypatch: pytest.MonkeyPatch, sampling: SamplingOptions, graphs: bool
) -> None:
    monkeypatch.setattr(drafting.network.stage.graphs, "enabled", graphs)
    cycles, rng = Cycles(), np.random.default_rng(5)
    for prompt in prompts(tiny, text, 6):
        limit = int(rng.integers(1, 60))
        plain = tiny.generate(prompt, limit, logprobs=3, sampling=sampling, draft=0)
        for draft in LENGTHS[1:]:
            result = drafting.generate(prompt, limit, logprobs=3, sampling=sampling, draft=draft)
            assert same(result, plain), f"{draft} drafts after {prompt}"
            cycles.count(result, draft)
    assert cycles.some >= 0.2 * (cycles.all + cycles.some + cycles.none), vars(cycles)


def test_where_next_to_nothing_is_accepted_it_is_the_same_too(random_model: LLM) -> None:
    cycles = Cycles()
    for seed in range(3):
        prompt = np.random.default_rng(seed).integers(0, 1000, 5 + 40 * seed).tolist()
        plain = random_model.generate(prompt, 40, draft=0, sampling=WARM)
        for draft in LENGTHS[1:]:
            result = random_model.generate(prompt, 40, draft=draft, sampling=WARM)
            assert same(result, plain)
            cycles.count(result, draft)
    assert cycles.none > 10 * (cycles.all + cycles.some)


def test_every_limit_ends_a_generation_exactly(tiny: LLM) -> None:
    whole = tiny.generate("def __len__(self):", 24, draft=0)
    for limit, draft in itertools.product(range(1, 25), (1, 3, 7)):
        result = tiny.generate("def __len__(self):", limit, draft=draft)
        assert (result.ids, result.finish_reason) == (whole.ids[:limit], "length"), (limit, draft)


def test_the_context_may_end_inside_a_step(tiny: LLM, text: str) -> None:
    for left, draft in itertools.product((0, 1, 2, 5), (2, 7)):
        prompt = tiny.tokenize(text)[: tiny.context - left]
        result, plain = (tiny.generate(prompt, 50, draft=k) for k in (draft, 0))
        assert same(result, plain) and len(result.ids) == left + 1


def test_an_end_of_generation_token_ends_it_wherever_it_is_among_the_accepted(
    tiny: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each token of a text in turn is made one that ends: after a wrong draft, among accepted ones, as the last."""
    whole = tiny.generate("def __len__(self):\n        return", 40, draft=0)
    places = set()
    for position in range(1, 30):
        if whole.ids[position] in whole.ids[:position]:
            continue
        monkeypatch.setattr(tiny.tokenizer, "eos_ids", frozenset([whole.ids[position]]))
        for draft in (0, 3, 7):
            result = tiny.generate("def __len__(self):\n        return", 40, draft=draft)
            assert (result.ids, result.finish_reason) == (whole.ids[:position], "stop"), (position, draft)
            if draft:
                last = [call.accepted for call in result.draft_calls[-draft:]]
                places.add((last[0], all(last)))
    assert places >= {(True, False), (False, False)}  # as an accepted draft, and as the first token of a cycle


def test_a_stop_string_cuts_the_text_wherever_it_is_among_the_drafts(tiny: LLM) -> None:
    prompt = "def __len__(self):\n        return"
    whole = tiny.generate(prompt, 40, draft=0).text
    for start in range(0, len(whole) - 4, 3):
        stop = [whole[start : start + 4], "never there"]
        for draft in (0, 2, 3, 7):
            result = tiny.generate(prompt, 40, draft=draft, stop=stop)
            assert (result.text, result.finish_reason) == (whole[: whole.index(stop[0])], "stop")
    assert tiny.generate(prompt, 40, stop=["never there", whole[-1] + "x"]).text == whole


def test_f16_drafts_and_accepts_as_llama_cpp_does(tiny_f16: LLM, golden: dict[str, Any]) -> None:
    exact = 0
    for prompt, reference in zip(golden["prompts"], golden["models"]["tiny-qwen36moe-f16.gguf"], strict=True):
        expected = (reference["draft"]["drafted"], reference["draft"]["accepted"])
        ours = drafts(tiny_f16, prompt, reference)
        assert ours.ids == reference["tokens"]
        exact += (ours.drafted, ours.accepted) == expected
        if (ours.drafted, ours.accepted) != expected:
            others = [drafts(tiny_f16, prompt, reference, place) for place in ours.close]
            assert expected in [(other.drafted, other.accepted) for other in others]
    assert exact >= 4


def test_q4_0_drafts_and_accepts_as_llama_cpp_does(tiny: LLM, golden: dict[str, Any]) -> None:
    references = golden["models"]["tiny-qwen36moe-q4_0.gguf"]
    ours = [drafts(tiny, *pair) for pair in zip(golden["prompts"], references, strict=True)]
    theirs = [reference["draft"] for reference in references]
    rate = sum(each.accepted for each in ours) / sum(each.drafted for each in ours)
    expected = sum(each["accepted"] for each in theirs) / sum(each["drafted"] for each in theirs)
    assert rate == pytest.approx(expected, abs=0.03)


@dataclass
class Drafts:
    """Counted as llama.cpp counts: before its last step it drafts no more than the limit leaves room for, and an end of
    generation is an accepted draft where it is the last of its chain.

    close: (cycle, index) of calls whose two likeliest tokens are so near to each other that other roundings may choose
    the other.
    """

    ids: list[int]
    drafted: int = 0
    accepted: int = 0
    close: list[tuple[int, int]] = field(default_factory=list)


def draft_logits(llm: LLM) -> Tensor:
    """Those of the MTP block's head."""
    assert llm.network.mtp is not None
    return llm.network.mtp.head.logits


def drafts(
    llm: LLM, prompt: dict[str, Any], reference: dict[str, Any], other: tuple[int, int] | None = None
) -> Drafts:
    """The drafts for a prompt; call `other`, (cycle, index), drafts its second choice."""
    most, limit, network = reference["draft"]["n_max"], 48, llm.network
    ids, sampled, logits = network.controls.ids, network.controls.sampled, draft_logits(llm)
    sequence = llm.new_sequence(draft=most)
    found = Drafts(list(sequence.prefill(prompt["tokens"], limit, llm.tokenizer.eos_ids).tokens))
    calls = [network.draft(index, most + 1, SamplingMode()) for index in range(1, most + 1)]
    step = network.step(most + 1, SamplingMode())
    llm.scheduler.batch.form([sequence])
    record, done = network.controls.records.view().view(RECORD), False
    for cycle in itertools.count():
        if done:
            return found
        for index, call in enumerate(calls, start=1):
            network.stage.run(call)
            row = logits.read(network.head.vocabulary.used)
            second, first = np.argsort(row)[-2:]
            if row[first] - row[second] < CLOSE_DRAFTS:
                found.close.append((cycle, index))
            if (cycle, index) == other:
                ids.write(np.array([second], np.int32), 4 * index)
        network.stage.run(step)
        given = record[(cycle + 1) % RECORDS]
        tokens, done = given["tokens"][: given["count"]].tolist(), bool(given["done"])
        right = bool((ids.read(most + 1)[1:] == sampled.read(most)).all())
        found.drafted += min(most, limit - len(found.ids) - 1)
        ended = len(tokens) == most and tokens[-1] in llm.tokenizer.eos_ids
        found.accepted += int(given["accepted"]) + (ended and right)
        found.ids += tokens
    raise AssertionError


def test_hidden_rows_before_the_norm_draft_otherwise_and_give_the_same_text(tiny: LLM, text: str) -> None:
    with LLM(device="cpu", ctx=256, draft=2, mtp_hidden="pre") as other:
        logits, texts = [], []
        for llm in (tiny, other):
            texts.append(llm.generate(text[:200], 40).text)
            sequence = llm.new_sequence(draft=2)
            sequence.prefill(llm.tokenize(text)[:50], 20)
            llm.scheduler.batch.form([sequence])
            for index in (1, 2):
                llm.network.stage.run(llm.network.draft(index, 3, SamplingMode()))
                logits.append(draft_logits(llm).read(llm.network.head.vocabulary.used))
        assert texts[0] == texts[1]
        for post, pre in zip(logits[:2], logits[2:], strict=True):
            assert 0.1 < np.abs(post - pre).max() < 5


def test_a_conversation_goes_on_after_drafts_as_if_it_had_come_at_once(tiny: LLM, text: str) -> None:
    """Further tokens after a generation: state, history, and the MTP block's cache are those of a fresh sequence."""
    more = tiny.tokenize(text)[40:70]
    for draft in (0, 3, 7):
        sequence = tiny.new_sequence(draft=draft)
        first = sequence.prefill(tiny.tokenize(text)[:30], 20)
        ids = [*first.tokens, *(token for cycle in tiny.cycles(sequence) for token in cycle.tokens)]
        again = goes_on(tiny, sequence, [ids[-1], *more], draft)
        expected = goes_on(tiny, tiny.new_sequence(draft=draft), [*tiny.tokenize(text)[:30], *ids, *more], draft)
        assert again[0] == expected[0]
        np.testing.assert_array_equal(again[1], expected[1])


def goes_on(llm: LLM, sequence: Sequence, prompt: list[int], draft: int) -> tuple[list[Cycle], np.ndarray]:
    """The cycles after a prompt, and the logits of the first draft, in which all of the MTP block's cache has part."""
    first, network = sequence.prefill(prompt, 30), llm.network
    if draft:  # once by itself: the same comes again in the cycle
        llm.scheduler.batch.form([sequence])
        network.stage.run(network.draft(1, draft + 1, SamplingMode()))
    logits = draft_logits(llm).read(network.head.vocabulary.used)
    return [first, *llm.cycles(sequence)], logits


def test_drafts_are_drawn_with_the_noise_of_their_own_position(tiny: LLM, text: str) -> None:
    results = [tiny.generate(prompt, 60, sampling=WARM, draft=3) for prompt in prompts(tiny, text, 6)]
    accepted = [sum(c.accepted for r in results for c in r.draft_calls if c.index == index) for index in (1, 2, 3)]
    assert accepted[1] > 0.3 * accepted[0] and accepted[2] > 0.3 * accepted[1], accepted


def test_each_state_is_read_and_written_once_in_a_cycle_whatever_is_drafted(tiny: LLM) -> None:
    network = tiny.network
    gdn = network.config.layer_kinds.count("gdn")
    for rows in range(1, 9):
        drafts = (network.draft(index, rows, SamplingMode()) for index in range(1, rows))
        lists = [*drafts, network.step(rows, SamplingMode())]
        assert sum(launch.operator == "gated_delta_net" for launches in lists for launch in launches) == gdn
        for launches in lists:
            network.stage.graphs.enabled, before = True, network.stage.graphs.enabled
            network.stage.submit(launches)
            network.stage.graphs.enabled = before
            _, graph = network.stage.graphs.captured[launches.name]
            names = [launch.kernel.name for launch in launches]
            assert graph.nodes == len(launches) and kernel_names(graph) == names  # no copies
    tiny.device.wait()


def test_drafting_takes_its_weights_one_kv_layer_and_20_mb(tiny: LLM) -> None:
    with LLM(device="cpu", ctx=tiny.context, draft=0) as without:
        mtp, network = tiny.network.mtp, tiny.network
        assert mtp is not None and without.network.mtp is None
        added = network.weights.nbytes - without.network.weights.nbytes
        assert mtp.embedding is network.embedding.weights
        assert mtp.head.weights.output is network.head.weights.output
        assert 0.05 * without.network.weights.nbytes < added < 0.15 * without.network.weights.nbytes
        cache = mtp.attention.cache.tensor.nbytes
        assert cache <= network.nbytes - without.network.nbytes <= cache + 20_000_000


def test_every_draft_call_is_timed_and_counted(tiny: LLM) -> None:
    result = tiny.generate("def __len__(self):\n        return", 40, draft=3)
    calls, summary = result.draft_calls, result.statistics.draft
    assert summary is not None and summary.calls == len(calls) == 3 * summary.cycles
    assert [(call.cycle, call.index) for call in calls] == [
        (cycle, index) for cycle in range(1, summary.cycles + 1) for index in (1, 2, 3)
    ]
    assert all(call.device_us is not None and call.device_us > 0 and call.host_us > 0 for call in calls)
    assert {call.head_rows for call in calls} == {tiny.config.vocab}
    assert summary.accepted == sum(call.accepted for call in calls)
    assert summary.acceptance_by_position == [
        np.mean([call.accepted for call in calls if call.index == index]) for index in (1, 2, 3)
    ]
    assert summary.mean_accepted_length == pytest.approx(39 / summary.cycles)
    assert result.statistics.bytes_to_host_per_token <= 128


def test_a_captured_call_is_told_from_a_replayed_one(tiny: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    for enabled, kinds in ((True, {"captured", "replayed"}), (True, {"replayed"}), (False, {"none"})):
        monkeypatch.setattr(tiny.network.stage.graphs, "enabled", enabled)
        if kinds == {"captured", "replayed"}:
            monkeypatch.setattr(tiny.network.stage.graphs, "_graphs", {})
        result = tiny.generate("import os", 20, draft=4)
        assert {call.graph for call in result.draft_calls} == kinds


def test_a_file_without_an_mtp_block_does_not_draft(tmp_path: Path) -> None:
    path = tmp_path / "plain.gguf"
    size = Geometry(
        layers=4, experts=4, experts_used=2, vocab=512, hidden=256, heads=4, kv_heads=2, head_dim=64, rope_dims=32,
        rope_sections=(6, 5, 5, 0), gdn_k_heads=2, gdn_v_heads=4, gdn_head_dim=32, expert_width=64,
    )  # fmt: skip
    write_model(path, size, Type.Q4_0, Type.Q6_K, seed=3)
    with pytest.raises(ArcmtpError, match=rf"{path}: the file has no MTP block .*nothing can be drafted"):
        LLM(path, device="cpu", ctx=64, draft=1)
    with LLM(path, device="cpu", ctx=64) as llm:
        assert llm.draft == 0
        with pytest.raises(ArcmtpError, match="draft is 2; this LLM was opened without drafts"):
            llm.generate("x", draft=2)


def test_options_of_a_step_are_part_of_its_graphs_name_and_their_values_are_not(tiny: LLM) -> None:
    tiny.network.stage.graphs.enabled, before = True, tiny.network.stage.graphs.enabled
    tiny.generate("import os", 12, sampling=WARM, draft=2)
    captures = tiny.network.stage.graphs.statistics.captures
    hot = dataclasses.replace(WARM, temperature=1.3, top_k=0, logit_bias={}, seed=12)
    result = tiny.generate("class A:", 12, sampling=hot, draft=2)
    tiny.network.stage.graphs.enabled = before
    assert tiny.network.stage.graphs.statistics.captures == captures
    assert result.statistics.graph_captures == 0
