"""Constrained text keeps to its grammar, and is the same at any draft length, batched, graph or eager."""

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from arcmtp import LLM, ArcmtpError, Constraint, Generation, SamplingOptions
from arcmtp.engine.guide import Guide
from tests.engine.conftest import finished

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "kind": {"enum": ["import", "class", "return"]},
        "sizes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "maxItems": 3},
    },
    "required": ["name", "kind", "sizes"],
    "additionalProperties": False,
}
OBJECT = Constraint.json_schema(SCHEMA)
WORDS = Constraint.regex("(def|class) [a-z]{2,6}(, [a-z]{2,6}){3}")
WARM = SamplingOptions(
    temperature=0.9, top_k=40, top_p=0.95, min_p=0.02, repetition_penalty=1.1, presence_penalty=0.3,
    frequency_penalty=0.1, logit_bias={120: 1.5, 300: -2.0}, seed=11,
)  # fmt: skip
THINK = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n<think>\n"


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(device="cpu", ctx=512, draft=3, parallel=3) as llm:
        yield llm


def same(one: Generation, other: Generation) -> bool:
    return (one.ids, one.text, one.finish_reason, one.token_logprobs, one.logprobs) == (
        other.ids, other.text, other.finish_reason, other.token_logprobs, other.logprobs
    )  # fmt: skip


def check(value: Any) -> None:
    """An object as SCHEMA has it."""
    assert list(value) == ["name", "kind", "sizes"] and len(value["name"]) <= 8
    assert value["kind"] in SCHEMA["properties"]["kind"]["enum"]  # type: ignore[index]
    assert len(value["sizes"]) <= 3 and all(type(size) is int and 0 <= size <= 99 for size in value["sizes"])


@pytest.mark.parametrize("sampling", [SamplingOptions(), WARM], ids=["greedy", "warm"])
@pytest.mark.parametrize("constraint", [OBJECT, WORDS], ids=["schema", "regex"])
def test_constrained_text_is_the_same_at_any_draft_length_and_beside_others(
    llm: LLM, sampling: SamplingOptions, constraint: Constraint
) -> None:
    prompts = ["import os\n", "def f(self):\n    return", "class A:"]
    plain = [llm.generate(one, 200, 2, sampling, 0, constraint=constraint) for one in prompts]
    for result in plain:
        assert result.finish_reason == "stop"
        if constraint is OBJECT:
            check(json.loads(result.text))
        else:
            assert re.fullmatch("(def|class) [a-z]{2,6}(, [a-z]{2,6}){3}", result.text)
    accepted = 0
    for draft in (1, 2, 3, 4, "auto"):
        results = [llm.generate(one, 200, 2, sampling, draft, constraint=constraint) for one in prompts]
        assert all(map(same, results, plain)), f"{draft} drafts"
        accepted += sum(call.accepted for result in results for call in result.draft_calls)
    together = llm.generate(prompts, 200, 2, sampling, 3, constraint=constraint)
    assert all(map(same, together, plain))
    assert accepted > 20


def test_free_and_constrained_sequences_share_a_batch(llm: LLM) -> None:
    for sampling in (SamplingOptions(), WARM):
        asked = [("import os\n", OBJECT), ("import os\n", None), ("class A:", WORDS)]
        alone = [llm.generate(one, 40, 0, sampling, 0, constraint=constraint) for one, constraint in asked]
        streams = [llm.stream(one, 40, 0, sampling, 3, constraint=constraint) for one, constraint in asked]
        for stream in streams:
            stream.start()
        assert all(map(same, map(finished, streams), alone))


def test_graphs_and_launches_give_the_same_and_free_lists_are_as_before(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = llm.network.stage.lists
    for graphs, ahead in itertools.product((False, True), repeat=2):
        monkeypatch.setattr(llm.network.stage.graphs, "enabled", graphs)
        monkeypatch.setattr(llm.scheduler.batch, "logits_ahead", ahead)  # as on a GPU
        results = [llm.generate("import os\n", 200, draft=k, constraint=OBJECT) for k in (0, 2)]
        assert same(*results) and results[0].finish_reason == "stop"
    llm.generate("import os\n", 4, draft=2)
    free = {launch.kernel.name for name, made in lists.items() if "masked" not in name for launch in made}
    assert not any("masked" in name for name in free)


def test_drafts_of_some_tokens_are_masked_too(some: LLM, llm: LLM) -> None:
    plain = llm.generate("import os\n", 200, draft=0, constraint=OBJECT)
    result = some.generate("import os\n", 200, draft=3, constraint=OBJECT)
    assert same(result, plain)
    matcher = llm.grammars.matcher(OBJECT)
    assert matcher.try_consume_tokens(result.ids) == len(result.ids)
    assert any(call.accepted for call in result.draft_calls)


def test_a_chain_that_may_end_early_gives_the_same(llm: LLM, tiny: LLM) -> None:
    plain = llm.generate("import os\n", 200, draft=0, constraint=OBJECT)
    assert same(tiny.generate("import os\n", 200, draft=2, draft_p_min=0.7, constraint=OBJECT), plain)


def test_the_end_is_allowed_exactly_where_the_text_may_end(llm: LLM) -> None:
    ends = dict.fromkeys(llm.tokenizer.eos_ids, -math.inf)
    closed = llm.generate("import", 20, constraint=Constraint.regex("ab"), sampling=SamplingOptions(logit_bias=ends))
    assert (closed.text, closed.finish_reason) == ("ab", "stop"), "only the end is left, whatever its bias"
    open_end = Constraint.regex("a+")
    wanted = SamplingOptions(logit_bias=dict.fromkeys(llm.tokenizer.eos_ids, 100.0))
    assert llm.generate("import", 20, constraint=open_end, sampling=wanted, draft=3).text.strip("a") == ""
    ended = llm.generate("import", 20, constraint=open_end, sampling=wanted)
    assert ended.finish_reason == "stop" and len(ended.ids) == 1
    endless = llm.generate("import", 20, constraint=open_end, sampling=SamplingOptions(logit_bias=ends))
    assert endless.finish_reason == "length" and set(endless.text) == {"a"}


def test_allowed_tokens_win_where_biases_and_filters_forbid_them_all(llm: LLM) -> None:
    allowed = {llm.tokenize(word)[0]: -math.inf for word in ("a", "b", "ab")}
    filtered = SamplingOptions(temperature=1.0, top_k=3, top_p=0.5, min_p=0.9, seed=3)
    for options in (SamplingOptions(), filtered):
        sampling = dataclasses.replace(options, logit_bias=allowed)
        results = [llm.generate("import", 9, 0, sampling, k, constraint=Constraint.regex("[ab]{4}")) for k in (0, 3)]
        assert same(*results) and re.fullmatch("[ab]{4}", results[0].text)
        assert np.isfinite(results[0].token_logprobs).all()


def test_log_probabilities_are_those_of_the_model_without_the_mask(llm: LLM) -> None:
    prompt = llm.tokenize("import os\n")
    result = llm.generate(prompt, 200, 3, constraint=WORDS)
    free = llm.generate(prompt, 1, 3)
    assert result.logprobs and result.logprobs[0] == (free.logprobs or [])[0]
    scored = llm.new_sequence().score([*prompt, *result.ids], len(prompt))
    assert np.array_equal(scored.astype(np.float32), np.array(result.token_logprobs, np.float32))


def test_stop_strings_and_limits_end_constrained_text(llm: LLM) -> None:
    whole = llm.generate("import os\n", 200, constraint=OBJECT)
    stopped = llm.generate("import os\n", 200, constraint=OBJECT, stop=['"kind"'])
    assert stopped.text == whole.text.partition('"kind"')[0] and stopped.finish_reason == "stop"
    for limit in (1, 5, 6):
        cut = llm.generate("import os\n", limit, constraint=OBJECT, draft=3)
        assert (cut.ids, cut.finish_reason) == (whole.ids[:limit], "length")


@pytest.mark.parametrize("bias", [0.0, 100.0], ids=["by itself", "at once"])
def test_the_constraint_begins_behind_the_reasoning(llm: LLM, bias: float) -> None:
    """The bundled model never closes its reasoning, so a bias lets it: at once, or where its drafts say so too."""
    (close,) = llm.tokenize("</think>")
    sampling = SamplingOptions(temperature=1.0, logit_bias={close: bias or 14.0}, seed=4)
    plain = llm.generate(THINK, 120, 0, sampling, 0, constraint=WORDS)
    for draft in (1, 2, 3, 4):
        assert same(llm.generate(THINK, 120, 0, sampling, draft, constraint=WORDS), plain)
    assert close in plain.ids and bool(plain.ids.index(close)) is not bool(bias)
    reasoning, _, text = plain.text.partition("</think>")
    assert re.fullmatch("(def|class) [a-z]{2,6}(, [a-z]{2,6}){3}", text), plain.text
    if not bias:
        free = llm.generate(THINK, len(plain.ids), 0, sampling, 0)
        assert free.text.startswith(reasoning) and reasoning


def test_reasoning_does_not_end_the_text(llm: LLM) -> None:
    sampling = SamplingOptions(logit_bias=dict.fromkeys(llm.tokenizer.eos_ids, 100.0))
    assert llm.generate(THINK, 8, 0, sampling).ids == []
    assert len(llm.generate(THINK, 8, 0, sampling, constraint=WORDS).ids) == 8


def guide(llm: LLM, constraint: Constraint, prompt: str = "import") -> Guide:
    return Guide(llm.grammars.matcher(constraint), llm.tokenizer, llm.tokenize(prompt))


def allowed(llm: LLM, of: Guide) -> set[int] | None:
    """What a guide allows next; None: anything."""
    row = np.zeros(llm.network.controls.masks.shape[1], np.uint32)
    of.allow(row)
    return set(np.flatnonzero(np.unpackbits(row[:-1].view(np.uint8), bitorder="little")).tolist()) if row[-1] else None


def test_a_guide_goes_back_over_drafts_that_were_wrong(llm: LLM) -> None:
    constraint, (close,) = Constraint.regex("ab[cd]e*f"), llm.tokenize("</think>")
    a, b, c, d, e, f = (llm.tokenize(letter)[0] for letter in "abcdef")
    end = min(llm.tokenizer.eos_ids)
    for drafts in ([], [a], [a, b], [a, b, c], [a, b, d, f, end, a], [b, a], [a, b, c, c, c], [close, a]):
        for count in range(4):
            one, other = guide(llm, constraint), guide(llm, constraint)
            for draft in drafts:
                one.draft(draft)
                allowed(llm, one)
            for of in (one, other):
                of.settle([a, b, c, e][: count + 1])
            assert allowed(llm, one) == allowed(llm, other) and one.error is None
    opened, late = guide(llm, constraint, THINK), guide(llm, constraint, THINK)
    for draft in (b, close, a, b, c):
        opened.draft(draft)
    for of in (opened, late):
        of.settle([b, b])
        assert allowed(llm, of) == set(range(llm.tokenizer.vocab_used)) - llm.tokenizer.eos_ids
        of.settle([close, a])
    assert allowed(llm, opened) == allowed(llm, late) == allowed(llm, guide_after(llm, constraint, [a]))


def guide_after(llm: LLM, constraint: Constraint, tokens: list[int]) -> Guide:
    of = guide(llm, constraint)
    of.settle(tokens)
    return of


def test_text_that_can_go_no_further_ends_alone_with_an_error(llm: LLM) -> None:
    other = llm.stream("import os\n", 30, draft=2, constraint=WORDS)
    plain = llm.generate("import os\n", 30, draft=0, constraint=WORDS)
    stream = llm.stream("class A:", 30, draft=2, constraint=WORDS)
    made = stream.sequence.sampler.guide
    assert made is not None
    other.start()
    next(stream)
    made._part = "beyond"  # as after a limit of the grammar's parser
    with pytest.raises(ArcmtpError, match="cannot keep to its constraint"):
        for _ in stream:
            pass
    assert same(finished(other), plain)


def test_the_cost_of_masks_is_told(llm: LLM) -> None:
    result = llm.generate("import os\n", 200, draft=2, constraint=OBJECT)
    cost = result.statistics.masks
    assert cost is not None and cost.us_per_token > 0 and 0 < cost.share < 1
    assert llm.generate("import os\n", 4).statistics.masks is None


def test_an_answer_of_a_chat_keeps_to_it_too(llm: LLM) -> None:
    answer = llm.chat([{"role": "user", "content": "Hello"}], constraint=WORDS, max_tokens=60, enable_thinking=False)
    assert re.fullmatch("(def|class) [a-z]{2,6}(, [a-z]{2,6}){3}", answer.text) and answer.finish_reason == "stop"
