"""Every type of KV cache gives one arithmetic: whatever way a sequence is computed, its bits are the same."""

from collections.abc import Iterator

import numpy as np
import pytest

from arcmtp import LLM, ArcmtpError, Generation
from arcmtp.formats.kv_cache import KV_F16, KV_FORMATS
from arcmtp.model.blocks.cache import KvCache
from tests.engine.conftest import Feeder, finished, poison

CONTEXT = 512
LENGTH = 150  # three tiles of keys
CODED = [name for name in KV_FORMATS if name != KV_F16.name]


@pytest.fixture(scope="module", params=CODED)
def llm(request: pytest.FixtureRequest) -> Iterator[LLM]:
    with LLM(device="cpu", ctx=CONTEXT, draft=2, parallel=2, kv_type=request.param) as llm:
        yield llm


@pytest.fixture
def feeder(llm: LLM) -> Iterator[Feeder]:
    """A fresh sequence over a cache of the worst, behind the engine's back."""
    llm.new_sequence()
    poison(llm.network)
    yield Feeder(llm.network)
    llm.new_sequence()


def bits(result: Generation) -> tuple[object, ...]:
    return result.ids, result.logprobs


def test_steps_chunks_and_rejected_rows_give_the_logits_of_single_steps(llm: LLM, feeder: Feeder, text: str) -> None:
    ids = llm.tokenize(text)[:LENGTH]
    expected = np.concatenate([feeder.step([token]) for token in ids])
    assert np.isfinite(expected).all()
    for first in (1, 63, 65, 128, 130):
        other = Feeder(llm.network)
        rows = [other.chunk(ids[:first]), other.step([*ids[first : first + 2], 17], accepted=2)[:2]]
        rows += [other.step(ids[first + 2 : first + 5]), other.chunk(ids[first + 5 :])]
        places = [first - 1, *range(first, first + 5), LENGTH - 1]
        np.testing.assert_array_equal(np.concatenate(rows), expected[places], err_msg=f"chunk of {first}")


def test_drafts_batches_and_cached_prompts_change_nothing(llm: LLM, text: str) -> None:
    ids = llm.tokenize(text)
    prompts = [ids[:140], ids[200:330]]
    llm.new_sequence()
    plain = [llm.generate(prompt, max_tokens=24, logprobs=2, draft=0) for prompt in prompts]
    for result, prompt in zip(plain, prompts, strict=True):
        llm.new_sequence()
        drafted = llm.generate(prompt, max_tokens=24, logprobs=2)
        assert bits(drafted) == bits(result)
        again = llm.generate([*prompt, *result.ids[:8]], max_tokens=16, logprobs=2)
        assert again.statistics.cached_tokens > len(prompt) - 2, "what was evaluated before is not evaluated again"
        assert (again.ids, again.logprobs) == (result.ids[8:], (result.logprobs or [])[8:])
    together = [llm.stream(prompt, max_tokens=24, logprobs=2) for prompt in prompts]
    assert [bits(finished(stream)) for stream in together] == [bits(result) for result in plain]


def test_a_slot_is_copied_from_anothers_checkpoint(llm: LLM, text: str) -> None:
    """Two streams with one beginning: the second goes on from the first one's checkpoint."""
    messages = [{"role": "system", "content": text[:400]}, {"role": "user", "content": "Go on."}]
    llm.new_sequence()
    alone = llm.chat(messages, max_tokens=12, logprobs=1)
    llm.new_sequence()
    streams = [llm.stream(messages, max_tokens=12, logprobs=1) for _ in range(2)]
    results = [finished(stream) for stream in streams]
    assert [bits(result) for result in results] == [bits(alone)] * 2


def test_a_type_is_near_f16_and_takes_its_bytes(llm: LLM, tiny: LLM, text: str) -> None:
    caches = [cache for cache in llm.network.caches if isinstance(cache, KvCache)]
    of_head = KV_FORMATS[llm.kv_type].nbytes(llm.config.head_dim)
    assert [cache.nbytes(1) for cache in caches] == 3 * [2 * llm.config.kv_heads * of_head], "trunk and MTP block"
    rope = 4 * llm.config.rope_dim
    assert llm.network.bytes_per_position == rope + llm.parallel * sum(cache.nbytes(1) for cache in caches)
    logits = []
    for model in (tiny, llm):
        model.new_sequence()
        logits.append(Feeder(model.network).chunk(llm.tokenize(text)[:LENGTH])[0])
        model.new_sequence()
    want, got = logits
    assert not np.array_equal(got, want)
    assert np.argmax(got) == np.argmax(want)


def test_an_unknown_type_is_refused_before_the_file_is_opened() -> None:
    with pytest.raises(ArcmtpError, match=r"^kv_type is 'q5_0'; it must be one of f16, q8_0, turbo4, turbo3$"):
        LLM("no such file", kv_type="q5_0")
