"""LLM and Stream beyond the numbers: prompts, chunks, endings, limits."""

from typing import Any

import pytest

from arcmtp import LLM, ArcmtpError
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.runtime.launch import Work
from tests.engine.conftest import CONTEXT, scripted

TEXT = "né€😀"  # characters of one to four bytes


def test_a_layer_takes_seven_launches_and_a_token_six_more_at_most(tiny: LLM) -> None:
    for rows in (1, 4):
        launches = len(tiny.network.trunk(rows)) + len(tiny.network.logits(rows))
        assert launches <= 7 * tiny.config.layers + 6
    assert tiny.generate("x", 2, draft=0).statistics.launches_per_cycle <= 7 * tiny.config.layers + 6


def test_chunks_hold_whole_characters_and_join_to_the_text(tiny: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = tiny.tokenize(TEXT)
    assert len(ids) > len(TEXT)  # some characters need several tokens
    monkeypatch.setattr("arcmtp.engine.sequence.Sequence", scripted(ids))
    stream = tiny.stream("x", max_tokens=50)
    chunks = list(stream)
    assert [chunk.id for chunk in chunks] == ids == stream.result.ids
    assert "".join(chunk.text for chunk in chunks) == stream.result.text == TEXT
    assert not any("\ufffd" in chunk.text for chunk in chunks)
    assert stream.result.finish_reason == "stop"


@pytest.mark.parametrize("limit", [None, 1])
def test_half_a_character_at_the_end_becomes_a_replacement_character(
    tiny: LLM, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    half = tiny.tokenize("😀")[:1]
    monkeypatch.setattr("arcmtp.engine.sequence.Sequence", scripted(half))
    stream = tiny.stream("x", max_tokens=limit or 50)
    chunks = list(stream)
    assert "".join(chunk.text for chunk in chunks) == stream.result.text == "\ufffd"
    assert [chunk.id for chunk in chunks if chunk.id is not None] == half == stream.result.ids
    assert stream.result.finish_reason == ("length" if limit else "stop")


def test_graphs_change_nothing_but_the_way_of_submitting(tiny: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = tiny.network.stage.graphs
    results = {}
    for enabled in (False, True):
        monkeypatch.setattr(graphs, "enabled", enabled)
        before = graphs.statistics.replays
        results[enabled] = tiny.generate("import os", max_tokens=12, logprobs=5, draft=0)
        assert graphs.statistics.replays == before + 12 * enabled
    assert (results[True].ids, results[True].logprobs) == (results[False].ids, results[False].logprobs)


@pytest.mark.parametrize(("asked", "taken"), [(None, False), (True, True)])
def test_on_the_cpu_whose_driver_leaks_steps_are_graphs_only_when_asked(asked: bool | None, taken: bool) -> None:
    with LLM(device="cpu", ctx=CONTEXT, graphs=asked, draft=2) as llm:
        assert llm.graph_choice is None
        assert (llm.generate("import os", max_tokens=3).statistics.graph_replays > 0) == taken


def test_a_stream_that_is_left_early_has_no_finish_reason(tiny: LLM) -> None:
    stream = tiny.stream("import os", max_tokens=10)
    first = next(iter(stream))
    assert (stream.result.ids, stream.result.text, stream.result.finish_reason) == ([first.id], first.text, None)


@pytest.mark.parametrize("taken", [1, 4])
def test_a_generation_waits_for_the_one_before(tiny: LLM, taken: int) -> None:
    first, second = tiny.stream("import os", max_tokens=5), tiny.stream("class", max_tokens=3)
    begun = [next(first) for _ in range(taken)]
    assert [chunk.id for chunk in second] == tiny.generate("class", max_tokens=3).ids
    assert first.finished
    assert [chunk.id for chunk in [*begun, *first]] == tiny.generate("import os", max_tokens=5).ids


def test_a_stream_that_is_closed_ends_and_leaves_its_place(tiny: LLM) -> None:
    stream = tiny.stream("import os", max_tokens=900)
    begun = [next(stream), next(stream)]
    stream.close()
    stream.close()
    assert stream.result.ids == [chunk.id for chunk in [*begun, *stream]]
    assert (stream.result.finish_reason, tiny.scheduler.free) == (None, 1)
    never = tiny.stream("import os")
    never.close()
    assert list(never) == [] and tiny.scheduler.free == 1


def test_a_stream_that_nobody_holds_gives_its_place_to_the_next(tiny: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in tiny.stream("import os", max_tokens=900):
        break
    submit, names = tiny.network.stage.graphs.submit, list[str]()

    def watched(name: str, *arguments: Any, **options: Any) -> Any:
        names.append(name)
        return submit(name, *arguments, **options)

    monkeypatch.setattr(tiny.network.stage.graphs, "submit", watched)
    assert len(tiny.generate("class", max_tokens=3, draft=0).ids) == 3
    assert [name for name in names if name.startswith("step")] == ["step of 1"] * 2
    assert tiny.scheduler.free == 1


def test_a_sequence_by_itself_ends_what_goes_on_and_is_ended_by_what_begins(tiny: LLM) -> None:
    stream = tiny.stream("import os", max_tokens=9)
    next(stream)
    sequence = tiny.new_sequence()
    with pytest.raises(ArcmtpError, match="this generation has ended: its LLM was closed, interrupted, or given to"):
        list(stream)
    sequence.prefill(tiny.tokenize("class"), 9)
    cycles = tiny.cycles(sequence)
    next(cycles)
    expected = tiny.generate("class", 9).ids
    for after in (lambda: next(cycles), lambda: sequence.extend([1]), lambda: list(tiny.cycles(sequence))):
        with pytest.raises(ArcmtpError, match="this generation has ended"):
            after()
    sequence = tiny.new_sequence()
    first = sequence.prefill(tiny.tokenize("class"), 9)
    assert [*first.tokens, *(token for cycle in tiny.cycles(sequence) for token in cycle.tokens)] == expected


def test_a_closed_llm_says_so() -> None:
    with LLM(device="cpu", ctx=64, draft=2) as llm:
        stream = iter(llm.stream("import os"))
        next(stream)
    with pytest.raises(ArcmtpError, match="this generation has ended: its LLM was closed"):
        next(stream)
    for call in (lambda: llm.generate("import os"), lambda: llm.new_sequence(), lambda: llm.network):
        with pytest.raises(ArcmtpError, match="this LLM is closed"):
            call()
    llm.close()


def test_a_prompt_is_text_or_ids_or_messages(tiny: LLM) -> None:
    ids = tiny.tokenize("import os")
    assert tiny.generate("import os", 4).ids == tiny.generate(ids, 4).ids
    messages = [{"role": "user", "content": "x"}]
    expected = tiny.tokenize("<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert tiny.prompt_ids(messages, enable_thinking=False) == expected


def test_a_beginning_of_sequence_token_comes_first_and_once_if_the_file_asks(
    tiny: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tiny.prompt_ids("import os")
    bos = tiny.tokenize("<|endoftext|>")[0]
    monkeypatch.setattr(tiny.tokenizer, "bos_id", bos)
    assert tiny.prompt_ids("import os") == [bos, *plain] == tiny.prompt_ids("<|endoftext|>import os")


def test_a_full_context_ends_the_text(tiny: LLM) -> None:
    ids = tiny.tokenize("x") * (CONTEXT - 2)
    result = tiny.generate(ids, max_tokens=50)
    assert (len(result.ids), result.finish_reason) == (3, "length")  # the last token chosen is not evaluated
    assert len(tiny.generate([*ids, *ids[:2]], max_tokens=50).ids) == 1


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("", {}, "the prompt is empty; it needs at least one token"),
        ([], {}, "the prompt is empty; it needs at least one token"),
        ([6144], {}, "token id 6144 is not in the vocabulary, which has ids 0 to 6143"),
        ([-1], {}, "token id -1 is not in the vocabulary, which has ids 0 to 6143"),
        ([1] * (CONTEXT + 1), {}, "the prompt has 1025 tokens, the context holds 1024: raise ctx"),
        (" " * 50_000, {}, "the prompt has 50000 bytes, at least 1042 tokens; the context holds 1024"),
        ("x", {"max_tokens": -1}, "max_tokens is -1; it must be at least 0"),
        ("x", {"logprobs": 101}, "logprobs is 101; it must be 0 to 100"),
        ("x", {"logprobs": -1}, "logprobs is -1; it must be 0 to 100"),
        ("x", {"draft": 8}, "draft is 8; it must be 0 to 7"),
        ("x", {"draft": -1}, "draft is -1; it must be 0 to 7"),
        ("x", {"stop": "end"}, "stop is 'end'; it must be a list of strings that are not empty"),
    ],
)
def test_a_generation_that_cannot_be_is_refused(
    tiny: LLM, prompt: str | list[int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArcmtpError) as error:
        tiny.generate(prompt, **options)
    assert str(error.value) == message


def test_statistics_count_what_happened(tiny: LLM) -> None:
    result = tiny.generate("import os", max_tokens=6, draft=0)
    s = result.statistics
    assert (s.prompt_tokens, s.completion_tokens) == (len(result.prompt_ids), 6)
    assert min(s.prompt_tokens_per_second, s.decode_tokens_per_second, s.load_seconds, s.peak_memory_bytes) > 0
    assert s.gigabytes_per_second == pytest.approx(s.bytes_per_token * s.decode_tokens_per_second / 1e9)
    assert 5_000_000 < s.bytes_per_token < tiny.network.weights.nbytes
    assert tiny.generate("import os", max_tokens=6, draft=2).statistics.gigabytes_per_second is None
    alone = tiny.generate("import os", max_tokens=1, draft=0).statistics  # the first token belongs to the prompt
    assert (alone.decode_tokens_per_second, alone.gigabytes_per_second) == (0, 0)


def test_bytes_of_a_step_are_those_of_its_launches(tiny: LLM) -> None:
    step = tiny.network.step(1, SamplingMode())
    for position, experts in ((0, None), (0, 5.5), (700, None), (1000, 2)):
        work = Work(1, position + 1, tiny.config.experts_used if experts is None else experts)
        assert tiny.network.step_bytes(position, experts) == sum(launch.cost(work).nbytes for launch in step)
