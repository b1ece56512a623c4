"""The dense sibling, `qwen35`, of random weights: its bits are the same however a text is fed, drafted or continued."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from arcmtp import LLM, ArcmtpError, SamplingOptions
from scripts.make_random_model import write_model
from scripts.random_model.tensors import DENSE
from tests.engine import test_drafting as drafting
from tests.engine import test_turns as turns
from tests.engine.conftest import Feeder, finished, poison
from tests.engine.test_batch import said
from tests.engine.test_drafting import LENGTHS, Cycles, goes_on
from tests.engine.test_identity import cut

SIZE = replace(
    DENSE, layers=3, attention_interval=2, vocab=1024, mtp=True, hidden=256, heads=4, kv_heads=2, head_dim=64,
    rope_dims=32, rope_sections=(6, 5, 5, 0), gdn_k_heads=2, gdn_v_heads=6, gdn_head_dim=32, dense_width=544,
)  # fmt: skip
# One of three tokens, so that random weights draft some of them right.
FEW = SamplingOptions(logit_bias={120: 60.0, 300: 60.0, 700: 60.0}, seed=2)
SAMPLING = {
    "greedy": SamplingOptions(), "few": FEW, "few warm": replace(FEW, temperature=0.8, top_p=0.95),
    "warm": drafting.WARM,
}  # fmt: skip
WRONG = 17  # a token that the text does not continue with
IDS = np.random.default_rng(6).integers(0, 1000, 900).tolist()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dense") / "dense.gguf"
    write_model(path, SIZE, Type.Q4_0, Type.Q6_K, seed=3)
    return path


@pytest.fixture(scope="module")
def dense(path: Path) -> Iterator[LLM]:
    with LLM(path, device="cpu", ctx=1024, draft=2) as llm:
        yield llm


@pytest.fixture(scope="module")
def expected(dense: LLM) -> np.ndarray:
    """Logits [40, vocabulary] from one step per token."""
    feeder = Feeder(dense.network)
    return np.concatenate([feeder.step([token]) for token in IDS[:40]])


@pytest.mark.parametrize("rows", range(2, 9))
def test_steps_of_several_rows_give_the_logits_of_single_steps(dense: LLM, expected: np.ndarray, rows: int) -> None:
    feeder = Feeder(dense.network)
    logits = np.concatenate([feeder.step(piece) for piece in cut(IDS[:40], rows) if len(piece) == rows])
    np.testing.assert_array_equal(logits, expected[: len(logits)])


@pytest.mark.avx2
@pytest.mark.parametrize("sizes", [(40,), (1,), (3, 8), (7,), (16,), (33, 1)])
def test_a_prompt_may_be_cut_into_chunks_anywhere(dense: LLM, expected: np.ndarray, sizes: tuple[int, ...]) -> None:
    feeder = Feeder(dense.network)
    pieces = cut(IDS[:40], *sizes)
    logits = np.concatenate([feeder.chunk(piece) for piece in pieces])
    np.testing.assert_array_equal(logits, expected[np.cumsum([len(piece) for piece in pieces]) - 1])


def test_a_prompt_of_two_chunks_is_the_same_cut_into_more(dense: LLM) -> None:
    whole, pieces = Feeder(dense.network), cut(IDS[:700], 130, 300, 77)
    whole.chunk(IDS[:512])
    expected = whole.chunk(IDS[512:700])
    feeder = Feeder(dense.network)
    np.testing.assert_array_equal([feeder.chunk(piece) for piece in pieces][-1], expected)


def test_steps_and_chunks_go_on_after_each_other_without_a_trace_of_rejected_rows_or_an_earlier_sequence(
    dense: LLM, expected: np.ndarray
) -> None:
    for rows in range(2, 9):
        for accepted in range(rows + 1):
            poison(dense.network)
            feeder, wrong = Feeder(dense.network), [WRONG] * (rows - accepted)
            np.testing.assert_array_equal(feeder.chunk(IDS[:8]), expected[7:8])
            logits = feeder.step([*IDS[8 : 8 + accepted], *wrong], accepted)
            np.testing.assert_array_equal(logits[:accepted], expected[8 : 8 + accepted])
            after = 8 + accepted
            np.testing.assert_array_equal(feeder.step(IDS[after : after + 2]), expected[after : after + 2])
            np.testing.assert_array_equal(feeder.chunk(IDS[after + 2 : 40]), expected[39:])


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "launches"])
def test_any_draft_length_gives_the_same_ids_and_log_probabilities(
    dense: LLM, monkeypatch: pytest.MonkeyPatch, sampling: str, graphs: bool
) -> None:
    cycles = Cycles()
    for start, length in ((0, 5), (50, 60)):
        prompt, options = IDS[start : start + length], SAMPLING[sampling]
        monkeypatch.setattr(dense.network.stage.graphs, "enabled", False)
        plain = dense.generate(prompt, 40, logprobs=3, sampling=options, draft=0)
        monkeypatch.setattr(dense.network.stage.graphs, "enabled", graphs)
        for draft in LENGTHS:
            result = dense.generate(prompt, 40, logprobs=3, sampling=options, draft=draft)
            assert drafting.same(result, plain), f"{draft} drafts after {prompt}"
            assert (result.statistics.graph_replays > 0) == graphs
            if draft:
                cycles.count(result, draft)
    total = cycles.all + cycles.some + cycles.none
    if sampling.startswith("few"):
        assert min(cycles.all, cycles.some, cycles.none) > 0.05 * total, vars(cycles)
    else:
        assert cycles.none > 0.8 * total, vars(cycles)


@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "launches"])
def test_sequences_side_by_side_say_what_they_say_alone(path: Path, dense: LLM, graphs: bool) -> None:
    starts = (0, 150, 400, 700)
    prompts = [IDS[at : at + 20 + at // 50] for at in starts]
    with LLM(path, device="cpu", ctx=1024, parallel=4, graphs=graphs, draft=2) as four:
        for draft, sampling in ((0, "warm"), (1, "greedy"), (3, "few warm"), (7, "few")):
            options = [replace(SAMPLING[sampling], seed=at) for at in starts]
            streams = [
                four.stream(prompt, 20, draft=draft, sampling=each, logprobs=2)
                for prompt, each in zip(prompts, options, strict=True)
            ]
            for stream in streams:
                stream.start()
            for prompt, stream, each in zip(prompts, streams, options, strict=True):
                alone = dense.generate(prompt, 20, draft=draft, sampling=each, logprobs=2)
                assert said(finished(stream)) == said(alone), (draft, sampling, prompt)
        assert (len(four.network.stage.graphs.captured) > 0) == graphs


@pytest.mark.parametrize("draft", [0, 3])
def test_what_goes_on_exactly_evaluates_only_new_tokens(dense: LLM, draft: int) -> None:
    prompt, evaluated = IDS[:70], 0
    dense.new_sequence()
    for turn in range(3):
        result = dense.generate(prompt, 24, logprobs=2, sampling=turns.WARM, draft=draft)
        assert result.statistics.cached_tokens == evaluated
        evaluated = len(prompt) + len(result.ids) - (result.finish_reason == "length")
        assert turns.same(result, turns.cold(dense, prompt, draft))
        prompt = [*prompt, *result.ids, *IDS[100 + turn : 130 + 7 * turn]]


@pytest.mark.parametrize("draft", [0, 3])
def test_a_chat_goes_on_from_the_checkpoint_at_its_last_message(dense: LLM, draft: int) -> None:
    messages = [{"role": "user", "content": "how do i read a file line by line"}]
    prompt = dense.prompt_ids(messages)
    boundary = len(prompt) - 1 - prompt[::-1].index(dense.tokenize("<|im_start|>")[0])
    dense.new_sequence()
    dense.generate(prompt, 24, sampling=turns.WARM, draft=draft)
    messages += [{"role": "assistant", "content": "another answer"}, {"role": "user", "content": "and how do i write"}]
    following = dense.prompt_ids(messages)
    assert following[:boundary] == prompt[:boundary]
    result = dense.generate(following, 24, logprobs=2, sampling=turns.WARM, draft=draft)
    assert result.statistics.cached_tokens >= boundary > 0
    assert turns.same(result, turns.cold(dense, following, draft))


def test_after_drafts_the_mtp_blocks_cache_is_that_of_a_fresh_sequence(dense: LLM) -> None:
    for draft in (0, 3, 7):
        sequence = dense.new_sequence(draft=draft)
        first = sequence.prefill(IDS[:30], 20)
        ids = [*first.tokens, *(token for cycle in dense.cycles(sequence) for token in cycle.tokens)]
        again = goes_on(dense, sequence, [ids[-1], *IDS[40:70]], draft)
        fresh = goes_on(dense, dense.new_sequence(draft=draft), [*IDS[:30], *ids, *IDS[40:70]], draft)
        assert again[0] == fresh[0]
        np.testing.assert_array_equal(again[1], fresh[1])


def test_a_file_without_an_mtp_block_does_not_draft(tmp_path: Path) -> None:
    path = tmp_path / "plain.gguf"
    write_model(path, replace(SIZE, layers=2, mtp=False), Type.Q4_0, Type.Q6_K, seed=3)
    with pytest.raises(ArcmtpError, match=rf"^{path}: the file has no MTP block .*nothing can be drafted") as caught:
        LLM(path, device="cpu", ctx=64, draft=1)
    assert "\n" not in str(caught.value)
    with LLM(path, device="cpu", ctx=1024) as llm:
        assert (llm.draft, llm.network.mtp) == (0, None)
        assert len(llm.generate(IDS[:5], 4).ids) == 4


@pytest.mark.parametrize(
    ("tensor", "shape"),
    [
        ("blk.0.ffn_down", [256, 544]), ("blk.1.ffn_gate", [544, 256]), ("blk.2.ffn_up", [544, 256]),
        ("blk.3.ffn_down", [256, 544]), ("blk.3.nextn.enorm", [256]),
    ],
)  # fmt: skip
def test_a_missing_tensor_is_named(path: Path, tmp_path: Path, tensor: str, shape: list[int]) -> None:
    """Of the trunk's layers and, where the MTP block is wanted, of the fourth."""
    data, other = path.read_bytes(), tensor[:-1] + "?"
    assert data.count(tensor.encode() + b".weight") == 1
    (tmp_path / "less.gguf").write_bytes(data.replace(tensor.encode() + b".weight", other.encode() + b".weight"))
    with pytest.raises(ArcmtpError) as caught:
        LLM(tmp_path / "less.gguf", device="cpu", ctx=64, draft=1)
    assert str(caught.value) == f"{tmp_path / 'less.gguf'}: tensor '{tensor}.weight' of shape {shape} is missing"
