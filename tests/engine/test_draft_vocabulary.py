"""Drafts of some tokens, and from 4-bit weights: the text and the trunk stay, what is read for a draft shrinks."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from arcmtp import LLM, SamplingOptions
from arcmtp.engine.sampling import GREEDY, Sampler
from arcmtp.formats.matrix import LANES, W4
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.network import Network
from arcmtp.runtime.launch import Cost, Work
from scripts.make_random_model import write_model
from tests.engine.conftest import CONTEXT, SOME_TOKENS
from tests.engine.test_drafting import SMALL, WARM, same

# Filters look at shares of all tokens that may be drafted, so that among some others are kept.
DRAWN = dataclasses.replace(WARM, top_k=0, top_p=1.0, min_p=0.0)
PROMPT = "def __len__(self):\n        return"

Write = Callable[[list[int]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a vocabulary file of these ids."""

    def made(ids: list[int]) -> Path:
        path = tmp_path / f"{len(ids)}.txt"
        path.write_text("".join(f"{token}\n" for token in ids))
        return path

    return made


def drafted(llm: LLM, prompt: list[int], sampling: SamplingOptions, draft: int) -> Iterator[list[int]]:
    """The drafts of each cycle of a generation."""
    sequence = llm.new_sequence(Sampler(sampling, llm.config.vocab), draft)
    sequence.prefill(prompt, 60)
    for _ in llm.cycles(sequence):
        yield llm.network.controls.ids.read(draft + 1)[1:].tolist()


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_where_all_that_is_drafted_may_be_drafted_the_drafts_are_the_same(
    tiny: LLM, text: str, write: Write, sampling: SamplingOptions
) -> None:
    """So noise, penalties and biases are those of a token and not of its column."""
    prompts = [tiny.tokenize(text)[at : at + 30] for at in (0, 300, 700)]
    expected = [[*drafted(tiny, prompt, sampling, 3)] for prompt in prompts]
    seen = {token for cycles in expected for drafts in cycles for token in drafts}
    assert 20 < len(seen) < 200
    with LLM(device="cpu", ctx=CONTEXT, draft=2, draft_vocab=write(sorted(seen | {*range(0, 6144, 17)}))) as llm:
        assert [[*drafted(llm, prompt, sampling, 3)] for prompt in prompts] == expected


def test_nothing_else_is_drafted(tiny: LLM, text: str, write: Write) -> None:
    few = [300, 301, 302, 11, 15]
    always = tiny.tokenizer.eos_ids | tiny.tokenizer.user_defined_ids
    with LLM(device="cpu", ctx=CONTEXT, draft=2, draft_vocab=write(few)) as llm:
        assert llm.network.mtp is not None
        assert llm.network.mtp.head.vocabulary.used == len(always | {*few})
        for sampling in (GREEDY, WARM):
            cycles = [*drafted(llm, tiny.tokenize(text)[:30], sampling, 4)]
            assert len(cycles) > 15
            assert {token for drafts in cycles for token in drafts} <= always | {*few}


@pytest.mark.parametrize("tokens", [1, 65, 6143])
def test_the_text_is_the_same_with_any_number_of_tokens(tiny: LLM, tokens: int) -> None:
    with LLM(device="cpu", ctx=256, draft=2, draft_vocab=tokens) as llm:
        for sampling in (GREEDY, WARM):
            plain = tiny.generate(PROMPT, 30, logprobs=3, sampling=sampling, draft=0)
            assert same(llm.generate(PROMPT, 30, logprobs=3, sampling=sampling), plain)


def test_all_tokens_by_number_read_the_trunks_matrix() -> None:
    with LLM(device="cpu", ctx=256, draft=2, draft_vocab=6144) as llm:
        assert llm.network.mtp is not None
        assert llm.network.mtp.head.weights.output is llm.network.head.weights.output


def test_the_text_is_the_same_where_next_to_nothing_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "random.gguf"
    write_model(path, SMALL, Type.Q4_0, Type.Q6_K, seed=3)
    with (
        LLM(path, device="cpu", ctx=256, draft=2) as full,
        LLM(path, device="cpu", ctx=256, draft=2, draft_vocab=100) as some,
    ):
        prompt = np.random.default_rng(1).integers(0, 1000, 45).tolist()
        plain = full.generate(prompt, 40, draft=0, sampling=WARM)
        for draft in (1, 2):
            assert same(some.generate(prompt, 40, draft=draft, sampling=WARM), plain)


def call_bytes(network: Network) -> int:
    """Bytes of the second draft call."""
    launches = network.draft(2, 3, SamplingMode())
    return sum((launch.cost(Work(1, 10, 2)) for launch in launches), Cost(0)).nbytes


def test_memory_the_log_and_the_cost_of_a_call_are_those_of_fewer_rows(tiny: LLM) -> None:
    with LLM(device="cpu", ctx=CONTEXT, draft=2, draft_vocab=SOME_TOKENS) as llm:
        network, full = llm.network, tiny.network
        assert network.mtp is not None
        whole, some = full.head.weights.output.matrices[0], network.mtp.head.weights.output.matrices[0]
        assert (some.n, some.k, some.format) == (SOME_TOKENS, whole.k, whole.format)
        assert network.weights.nbytes == full.weights.nbytes + some.nbytes
        logits = 4 * (whole.n - LANES * some.tiles) + 4 * (whole.n - some.n)  # written, and read by sampling
        assert call_bytes(full) - call_bytes(network) == whole.nbytes - some.nbytes + logits
        assert network.step_bytes(0) == full.step_bytes(0)
        assert {call.head_rows for call in llm.generate(PROMPT, 20).draft_calls} == {SOME_TOKENS}


def test_only_the_mtp_block_is_requantised(tiny_f16: LLM, data_dir: Path) -> None:
    path = data_dir / "tiny-qwen36moe-f16.gguf"
    with LLM(path, device="cpu", ctx=CONTEXT, draft=2, draft_requant="int4") as llm:
        formats = {merged.tensor.name: {m.format for m in merged.matrices} for merged in llm.network.weights.merged}
        before = {m.tensor.name: {one.format for one in m.matrices} for m in tiny_f16.network.weights.merged}
        changed = {name for name, found in formats.items() if found != before.get(name)}
        block = f"blk.{llm.config.layers}."
        parts = ("projections", "output", "eh_proj", "gate_up", "down", "shared_gate_up", "shared_down")
        assert changed == {"draft output", *(block + part for part in parts)}
        assert {form for name in changed for form in formats[name]} == {W4}
        assert all(name == "output.weight" or name.startswith(block) for name in llm.requant_errors)
        for sampling in (GREEDY, WARM):
            plain = tiny_f16.generate(PROMPT, 40, logprobs=3, sampling=sampling, draft=0)
            assert same(llm.generate(PROMPT, 40, logprobs=3, sampling=sampling), plain)
