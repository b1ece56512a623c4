"""A row's bits depend on its own tokens alone, so every way to feed a sequence gives equal logits, not close ones."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from arcmtp import LLM
from arcmtp.runtime.card import cards
from arcmtp.runtime.device import Device
from tests.engine.conftest import CONTEXT, Feeder, poison
from tests.engine.test_batch import said

LENGTH = 40
WRONG = 17  # a token that the text does not continue with


@pytest.fixture(scope="module")
def ids(tiny: LLM, text: str) -> list[int]:
    return tiny.tokenize(text)[:LENGTH]


@pytest.fixture(autouse=True)
def fresh(tiny: LLM) -> Iterator[None]:
    """A `Feeder` changes the slot behind the engine's back, so the engine must know nothing of what is there."""
    tiny.new_sequence()
    yield
    tiny.new_sequence()


@pytest.fixture(scope="module")
def expected(tiny: LLM, ids: list[int]) -> np.ndarray:
    """Logits [LENGTH, vocabulary] from one step per token."""
    feeder = Feeder(tiny.network)
    return np.concatenate([feeder.step([token]) for token in ids])


def cut(ids: Sequence[int], *sizes: int) -> list[list[int]]:
    """ids in pieces of `sizes`, the last size again and again."""
    pieces, start, index = [], 0, 0
    while start < len(ids):
        size = sizes[min(index, len(sizes) - 1)]
        pieces.append(list(ids[start : start + size]))
        start, index = start + size, index + 1
    return pieces


@pytest.mark.parametrize("rows", [2, 3, 4, 5, 6, 7, 8])
def test_steps_of_several_rows_give_the_logits_of_single_steps(
    tiny: LLM, ids: list[int], expected: np.ndarray, rows: int
) -> None:
    feeder = Feeder(tiny.network)
    logits = np.concatenate([feeder.step(piece) for piece in cut(ids, rows) if len(piece) == rows])
    np.testing.assert_array_equal(logits, expected[: len(logits)])


def test_the_trunk_is_the_same_whatever_is_drafted(some: LLM, ids: list[int], expected: np.ndarray) -> None:
    feeder = Feeder(some.network)
    logits = [feeder.chunk(ids[:8]), feeder.step(ids[8:12]), feeder.step(ids[12:13])]
    np.testing.assert_array_equal(np.concatenate(logits), expected[7:13])


@pytest.mark.avx2
@pytest.mark.nightly
def test_one_chunk_gives_the_logits_of_single_steps(tiny: LLM, ids: list[int], expected: np.ndarray) -> None:
    np.testing.assert_array_equal(Feeder(tiny.network).chunk(ids), expected[-1:])


@pytest.mark.parametrize("sizes", [(1,), (2,), (3, 8), (7,), (16,), (33, 1), (39,)])
def test_a_prompt_may_be_cut_into_chunks_anywhere(
    tiny: LLM, ids: list[int], expected: np.ndarray, sizes: tuple[int, ...]
) -> None:
    feeder = Feeder(tiny.network)
    ends = np.cumsum([len(piece) for piece in cut(ids, *sizes)]) - 1
    logits = np.concatenate([feeder.chunk(piece) for piece in cut(ids, *sizes)])
    np.testing.assert_array_equal(logits, expected[ends])


@pytest.mark.avx2
@pytest.mark.nightly
@pytest.mark.parametrize("first", [1, 2, 9, 17, 32])
def test_steps_go_on_after_a_chunk(tiny: LLM, ids: list[int], expected: np.ndarray, first: int) -> None:
    feeder = Feeder(tiny.network)
    logits = [feeder.chunk(ids[:first]), *(feeder.step([token]) for token in ids[first:])]
    np.testing.assert_array_equal(np.concatenate(logits), expected[first - 1 :])


def test_a_chunk_goes_on_after_steps_of_any_size(tiny: LLM, ids: list[int], expected: np.ndarray) -> None:
    for rows in range(1, 9):
        feeder = Feeder(tiny.network)
        feeder.step(ids[:rows])
        np.testing.assert_array_equal(feeder.chunk(ids[rows:]), expected[-1:], err_msg=f"after a step of {rows} rows")


def test_rejected_rows_leave_no_trace(tiny: LLM, ids: list[int], expected: np.ndarray) -> None:
    for rows in range(2, 9):
        for accepted in range(1, rows):
            feeder = Feeder(tiny.network)
            feeder.chunk(ids[:8])
            for start in range(8, 8 + 2 * accepted, accepted):
                wrong = [WRONG] * (rows - accepted)
                logits = feeder.step([*ids[start : start + accepted], *wrong], accepted)
                np.testing.assert_array_equal(logits[:accepted], expected[start : start + accepted])
            after = 8 + 2 * accepted
            np.testing.assert_array_equal(feeder.step([ids[after]]), expected[after : after + 1])


def test_a_step_may_be_rejected_whole(tiny: LLM, ids: list[int], expected: np.ndarray) -> None:
    feeder = Feeder(tiny.network)
    feeder.chunk(ids[:8])
    feeder.step([WRONG] * 4, accepted=0)
    np.testing.assert_array_equal(feeder.step(ids[8:12]), expected[8:12])


def test_a_chunk_after_rejected_rows_does_not_see_them(tiny: LLM, ids: list[int], expected: np.ndarray) -> None:
    feeder = Feeder(tiny.network)
    feeder.chunk(ids[:8])
    feeder.step([ids[8], ids[9], WRONG, WRONG], accepted=2)
    np.testing.assert_array_equal(feeder.chunk(ids[10:]), expected[-1:])


def test_nothing_is_pending_after_a_reset(tiny: LLM) -> None:
    pending = tiny.network.controls.pending_count
    pending.fill(1)
    tiny.network.reset()
    assert pending.read(1).tolist() == [0]
    pending.fill(0)


def test_nothing_of_an_earlier_sequence_is_seen(tiny: LLM, ids: list[int], expected: np.ndarray) -> None:
    earlier = Feeder(tiny.network)
    earlier.chunk([WRONG] * 100)
    earlier.step([WRONG] * 8)
    poison(tiny.network)
    feeder = Feeder(tiny.network)
    logits = np.concatenate([feeder.chunk(ids[:5]), feeder.step(ids[5:9]), feeder.step([ids[9]])])
    np.testing.assert_array_equal(logits, expected[4:10])


def test_a_prompt_of_two_chunks_is_the_same_cut_into_more(tiny: LLM, text: str) -> None:
    ids = tiny.tokenize(text)[:700]
    whole = Feeder(tiny.network)
    whole.chunk(ids[:512])
    expected = whole.chunk(ids[512:])
    pieces = Feeder(tiny.network)
    logits = [pieces.chunk(piece) for piece in cut(ids, 130, 300, 77)]
    np.testing.assert_array_equal(logits[-1], expected)


def test_a_device_with_shorter_chunks_gives_the_same(tiny: LLM, text: str) -> None:
    """Five of 64 tokens, the last one not full, for one that is not full either."""
    ids, card = tiny.tokenize(text)[:300], cards()["cpu"]
    card = replace(card, geometry=replace(card.geometry, chunk_rows=64))
    with LLM(device=Device("cpu", card), ctx=CONTEXT, draft=2) as other:
        got, want = (llm.generate(ids, max_tokens=12, logprobs=3) for llm in (other, tiny))
    assert said(got) == said(want)


def test_generating_twice_gives_the_same(tiny: LLM) -> None:
    first = tiny.generate("import os", max_tokens=24, logprobs=3)
    tiny.generate("class Lexer:\n    def __init__(self", max_tokens=5)
    second = tiny.generate("import os", max_tokens=24, logprobs=3)
    assert (first.ids, first.text, first.logprobs) == (second.ids, second.text, second.logprobs)
