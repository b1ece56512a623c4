"""Options of sampling: what is refused, and that whole generations follow the operator's reference and their seed."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from arcmtp import LLM, ArcmtpError, SamplingOptions
from arcmtp.cli import main
from arcmtp.ops.gumbel_sampling import BIAS_SHIFT, IN_PROMPT, Options, reference

PROMPT = "import os\n\n\ndef read_lines(path):"
WARM = SamplingOptions(temperature=1.2, top_k=200, seed=5)
MARGIN = 2e-5  # as in arcmtp/selftest/operators/gumbel_sampling.py


@pytest.mark.parametrize(
    ("option", "value", "right"),
    [
        ("temperature", -0.5, "from 0.01 to 100"),
        ("temperature", 0.001, "from 0.01 to 100"),
        ("temperature", math.nan, "from 0.01 to 100"),
        ("temperature", math.inf, "from 0.01 to 100"),
        ("temperature", "warm", "from 0.01 to 100"),
        ("temperature", True, "from 0.01 to 100"),
        ("top_k", -1, "0 (all tokens) or more"),
        ("top_k", 2.0, "0 (all tokens) or more"),
        ("top_k", 2**31, "0 (all tokens) or more"),
        ("top_p", 0, "above 0 and at most 1"),
        ("top_p", 1.01, "above 0 and at most 1"),
        ("top_p", None, "above 0 and at most 1"),
        ("min_p", -0.1, "from 0 to 1"),
        ("min_p", 2, "from 0 to 1"),
        ("repetition_penalty", 0, "from 0.01 to 100"),
        ("presence_penalty", 101, "from -100 to 100"),
        ("frequency_penalty", -math.inf, "from -100 to 100"),
        ("seed", -1, "from 0 to 2**64 - 1"),
        ("seed", 2**64, "from 0 to 2**64 - 1"),
        ("logit_bias", {3: 101.0}, "from -100 to 100, or -inf"),
        ("logit_bias", {3: math.inf}, "from -100 to 100, or -inf"),
        ("logit_bias", {3: "x"}, "from -100 to 100, or -inf"),
    ],
)
def test_a_value_out_of_range_is_one_line_that_names_it(option: str, value: Any, right: str) -> None:
    with pytest.raises(ArcmtpError) as error:
        SamplingOptions(**{option: value})
    text = str(error.value)
    shown = next(iter(value.values())) if isinstance(value, Mapping) else value
    assert text.startswith(option) and f"is {shown!r}; it must be" in text and right in text and "\n" not in text


def test_biases_must_be_of_tokens_that_exist_and_fit_their_table(tiny: LLM) -> None:
    last = tiny.config.vocab - 1
    for token in (-1, last + 1, "a"):
        with pytest.raises(ArcmtpError, match=rf"logit_bias has token {token!r}; the vocabulary has ids 0 to {last}"):
            tiny.generate("a", sampling=SamplingOptions(logit_bias={token: 1.0}))  # type: ignore[dict-item]
    with pytest.raises(ArcmtpError, match="logit_bias has 1024 tokens; it can have 1023"):
        SamplingOptions(logit_bias=dict.fromkeys(range(1024), 1.0))
    tiny.generate("a", max_tokens=1, sampling=SamplingOptions(logit_bias=dict.fromkeys(range(1023), -100.0)))


def follow(llm: LLM, options: SamplingOptions, count: int) -> list[int]:
    """Generated ids, each checked against the reference on the device's own logits."""
    stream = llm.stream(PROMPT, count, logprobs=1, sampling=options, draft=0)  # whose logits can be read
    prompt_ids = llm.prompt_ids(PROMPT)
    rule = Options(
        options.temperature, options.top_k, options.top_p, options.min_p, options.repetition_penalty,
        options.presence_penalty, options.frequency_penalty, seed=options.seed or 0,
    )  # fmt: skip
    vocab_used = llm.network.head.vocabulary.used
    states = np.zeros(vocab_used, np.int32)
    states[prompt_ids] = IN_PROMPT
    states[list(options.logit_bias)] |= np.arange(1, len(options.logit_bias) + 1) << BIAS_SHIFT
    biases = np.array([0, *options.logit_bias.values()], np.float32)
    ids: list[int] = []
    for chunk in stream:
        if chunk.id is None:
            break
        logits = llm.network.head.logits.read(vocab_used)
        want, ahead = reference(rule, len(prompt_ids) + len(ids), logits, states, biases)
        assert chunk.id == want or ahead < MARGIN
        states[chunk.id] += 1
        ids.append(chunk.id)
    return ids


@pytest.mark.avx2
@pytest.mark.parametrize(
    "options",
    [
        SamplingOptions(temperature=1, seed=1),
        SamplingOptions(temperature=0.7, top_k=40, top_p=0.9, min_p=0.05, seed=2**63 + 1),
        SamplingOptions(repetition_penalty=1.5),
        SamplingOptions(presence_penalty=2, frequency_penalty=0.5),
        SamplingOptions(temperature=1.3, top_p=0.95, repetition_penalty=1.2, logit_bias={5: 3.0, 9: -math.inf}, seed=3),
    ],
)
def test_a_generation_follows_the_reference_token_by_token(tiny: LLM, options: SamplingOptions) -> None:
    assert len(follow(tiny, options, 40)) > 4


def test_a_seed_gives_the_same_text_again_and_another_seed_another_text(tiny: LLM) -> None:
    def text(seed: int) -> str:
        return tiny.generate(PROMPT, 40, sampling=SamplingOptions(temperature=1, seed=seed)).text

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(6)}) == 6


def test_without_a_seed_each_generation_has_a_new_one_which_it_tells(tiny: LLM) -> None:
    first, second = (tiny.generate(PROMPT, 30, sampling=SamplingOptions(temperature=1)) for _ in range(2))
    assert first.seed is not None and first.seed != second.seed and first.ids != second.ids
    again = tiny.generate(PROMPT, 30, sampling=SamplingOptions(temperature=1, seed=first.seed))
    assert again.ids == first.ids


def test_options_that_change_nothing_are_greedy(tiny: LLM) -> None:
    greedy = tiny.generate(PROMPT, 24)
    assert greedy.seed is None
    for options in (
        SamplingOptions(top_k=5, top_p=0.5, min_p=0.1, seed=9),
        SamplingOptions(temperature=2, top_k=1),
        SamplingOptions(temperature=2, top_p=1e-6),
        SamplingOptions(temperature=2, min_p=1),
        SamplingOptions(logit_bias={3: 0.0}),
        SamplingOptions(temperature=0.01, top_p=0.01),
    ):
        assert tiny.generate(PROMPT, 24, sampling=options).ids == greedy.ids


def test_presence_forbids_repetition_in_the_text_and_repetition_also_that_of_the_prompt(tiny: LLM) -> None:
    text = "import os\nimport re\nimport"
    prompt = set(tiny.prompt_ids(text))
    ids = tiny.generate(text, 40, sampling=SamplingOptions(presence_penalty=100)).ids
    assert len(set(ids)) == len(ids) and prompt & set(ids)
    ids = tiny.generate(text, 40, sampling=SamplingOptions(repetition_penalty=100)).ids
    assert len(set(ids)) == len(ids) and not prompt & set(ids)


def test_a_bias_forces_a_token_or_forbids_it(tiny: LLM) -> None:
    token = tiny.generate(PROMPT, 1).ids[0]
    assert tiny.generate(PROMPT, 6, sampling=SamplingOptions(logit_bias={7: 100.0})).ids == [7] * 6
    assert token not in tiny.generate(PROMPT, 40, sampling=SamplingOptions(logit_bias={token: -math.inf})).ids


def test_options_change_without_a_new_capture_and_an_earlier_generation_leaves_no_trace(tiny: LLM) -> None:
    some = [
        WARM,
        SamplingOptions(temperature=1, repetition_penalty=1.4, frequency_penalty=0.3, logit_bias={40: 4.0}, seed=4),
        SamplingOptions(presence_penalty=1),
    ]
    first = [tiny.generate(PROMPT, 24, sampling=options).ids for options in some]
    statistics = tiny.network.stage.graphs.statistics
    captures = statistics.captures
    tiny.generate("class Lexer:", 30, sampling=SamplingOptions(temperature=1, logit_bias={40: -50.0}, seed=8))
    assert [tiny.generate(PROMPT, 24, sampling=options).ids for options in some] == first
    assert statistics.captures == captures


def test_graphs_and_launches_give_the_same_text(tiny: LLM) -> None:
    graphs, texts = tiny.network.stage.graphs, []
    before = graphs.enabled
    for enabled in (True, False):
        graphs.enabled = enabled
        texts.append(tiny.generate(PROMPT, 30, sampling=WARM).text)
    graphs.enabled = before
    assert texts[0] == texts[1]


def test_log_probabilities_are_those_of_the_model_without_options(tiny: LLM) -> None:
    hot = SamplingOptions(temperature=3, presence_penalty=5, logit_bias={7: 100.0}, seed=1)
    (first, *_) = tiny.generate(PROMPT, 3, logprobs=4).logprobs or []
    (biased, *_) = tiny.generate(PROMPT, 3, logprobs=4, sampling=hot).logprobs or []
    assert biased == first


def test_the_command_takes_every_option(capsys: pytest.CaptureFixture[str], tiny: LLM) -> None:
    arguments = (
        "generate --device cpu --raw --json -n 12 --temp 0.9 --top-k 50 --top-p 0.95 --min-p 0.01 --repeat-penalty 1.1 "
        "--presence-penalty 0.2 --frequency-penalty -0.1 --logit-bias 5=1.5 --logit-bias 9=-inf --seed 77 -p"
    )
    assert main([*arguments.split(), PROMPT]) == 0
    result = json.loads(capsys.readouterr().out)
    options = SamplingOptions(0.9, 50, 0.95, 0.01, 1.1, 0.2, -0.1, {5: 1.5, 9: -math.inf}, 77)
    assert result["ids"] == tiny.generate(PROMPT, 12, sampling=options).ids and result["seed"] == 77


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--temp 0.001", "temperature is 0.001; it must be 0 (greedy) or a number from 0.01 to 100"),
        ("--top-k -3", "top_k is -3; it must be a whole number, 0 (all tokens) or more"),
        ("--top-p x", "argument --top-p: invalid float value: 'x'"),
        ("--logit-bias 5", "argument --logit-bias: '5' is not ID=X, a token id and a number"),
        ("--logit-bias 5=nan", "logit_bias of token 5 is nan; it must be a number from -100 to 100, or -inf"),
    ],
)
def test_the_command_refuses_bad_options_before_it_loads_a_model(
    capsys: pytest.CaptureFixture[str], arguments: str, complaint: str
) -> None:
    assert main(["generate", "-m", "/no/such/model", "-p", "x", *arguments.split()]) == 2
    assert capsys.readouterr().err.startswith(f"arcmtp: {complaint}")
