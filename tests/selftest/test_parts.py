"""Each part passes on the CPU device, and fails where what it tests is broken."""

import copy
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from arcmtp import LLM, Generation
from arcmtp.model.network import Network
from arcmtp.ops import bandwidth
from arcmtp.selftest.parts import dpas, golden, graph, launches
from arcmtp.selftest.registry import PARTS, Part
from arcmtp.selftest.run import Result, run_part
from arcmtp.selftest.subject import Subject

BY_NAME = {part.name: part for part in PARTS}


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject("cpu")


def result_of(name: str, subject: Subject) -> Result:
    return run_part(BY_NAME[name], lambda: subject)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_every_part_passes_and_tells_something(part: Part, subject: Subject) -> None:
    result = result_of(part.name, subject)
    assert result.problem == "" and result.findings
    assert bool(result.differences) == (part.name not in ("bandwidth", "steps"))


def slightly(values: np.ndarray) -> np.ndarray:
    """One value of many is off by as much as the largest is large."""
    values = np.array(values)
    values.flat[values.size // 2] += np.abs(values).max()
    return values


def of_first(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A change of the first of several results."""
    return lambda results: (change(results[0]), *results[1:])


# What a reference gives is changed: by operator, the reference's name and the change.
MUTATIONS: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("norm", "reference", slightly),
    ("mul_mat", "reference", slightly),
    ("router", "reference", of_first(lambda chosen: chosen[:, ::-1])),
    ("router", "reference", lambda results: (results[0], slightly(results[1]))),
    ("experts", "gate_up_reference", slightly),
    ("experts", "down_reference", slightly),
    ("feed_forward", "reference", slightly),
    ("embedding", "reference", slightly),
    ("gated_delta_net", "reference", of_first(slightly)),
    ("gated_delta_net", "reference", lambda results: (results[0], slightly(results[1]))),
    ("attention", "reference", slightly),
    ("sampling", "reference", of_first(lambda ids: ids + 1)),
    ("sampling", "reference", lambda results: (results[0], results[1] + [0, 0, 1e-4])),
    ("gumbel_sampling", "reference", lambda results: (results[0] + 1, np.inf)),
    ("top_logprobs", "reference", lambda results: (results[0], np.nextafter(results[1], np.float32(9)))),
    ("accept", "reference", lambda results: (results[0], not results[1])),
    ("draft_input", "reference", slightly),
    ("draft_input", "order", lambda ranks: ranks[::-1]),
    ("draft_chain", "reference", lambda count: count + 1),
]


@pytest.mark.parametrize(("name", "reference", "change"), MUTATIONS)
def test_an_operator_that_differs_from_its_reference_is_named_with_the_place(
    name: str, reference: str, change: Callable[[Any], Any], subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module(BY_NAME[name].module)
    right = getattr(module, reference)
    monkeypatch.setattr(module, reference, lambda *arguments: change(right(*arguments)))
    problem = result_of(name, subject).problem
    assert " allowed at [" in problem and ", expected " in problem


def test_every_operator_is_mutated() -> None:
    assert {name for name, _, _ in MUTATIONS} == {part.name for part in PARTS if part.group == "operators"}


def test_a_product_of_integers_that_is_off_by_one_fails(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    right = dpas.product

    def off_by_one(*arguments: Any) -> tuple[np.ndarray, np.ndarray]:
        got, want = right(*arguments)
        got[0, -1] += 1
        return got, want

    monkeypatch.setattr(dpas, "product", off_by_one)
    problem = result_of("dpas", subject).problem
    assert "weights, 1 rows: 1 more than the 0 allowed at [0, 31]" in problem


@pytest.mark.parametrize("broken", ["ids", "log-probabilities"])
def test_text_that_is_not_llama_cpps_fails(broken: str, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    content = copy.deepcopy(golden.golden())
    reference = content["models"]["tiny-qwen36moe-q4_0.gguf"][golden.PROMPTS[1]]
    if broken == "ids":
        reference["tokens"][golden.TOKENS - 1] += 1
    else:
        reference["top5"] = [[[token, logprob - 0.2] for token, logprob in five] for five in reference["top5"]]
    monkeypatch.setattr(golden, "golden", lambda: content)
    assert f"prompt 4: {broken}" in result_of("golden", subject).problem


def changed(result: Generation, what: str) -> Generation:
    """A generation whose last id, or log-probability, is another one."""
    values = list(getattr(result, what))
    values[-1] = values[-1] + 1 if what == "ids" else np.nextafter(values[-1], 0)
    changes: dict[str, Any] = {what: values}
    return replace(result, **changes)


@pytest.mark.parametrize("what", ["ids", "token_logprobs"])
def test_drafts_that_change_the_text_fail(what: str, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = LLM.generate

    def with_other_drafts(llm: LLM, *arguments: Any, **options: Any) -> Generation:
        result = generate(llm, *arguments, **options)
        return changed(result, what) if options["draft"] == "auto" else result

    monkeypatch.setattr(LLM, "generate", with_other_drafts)
    problem = result_of("mtp", subject).problem
    assert "auto drafts: " in problem and "more than the 0 allowed" in problem


def test_no_drafts_at_all_prove_nothing(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = LLM.generate

    def without_drafts(llm: LLM, *arguments: Any, **options: Any) -> Generation:
        return generate(llm, *arguments, **options | {"draft": 0})

    monkeypatch.setattr(LLM, "generate", without_drafts)
    assert "drafts that were made" in result_of("mtp", subject).problem


@pytest.mark.parametrize("what", ["ids", "token_logprobs"])
def test_graphs_that_change_the_text_fail(what: str, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    right = graph.by_graphs
    monkeypatch.setattr(graph, "by_graphs", lambda *arguments: changed(right(*arguments), what))
    assert "more than the 0 allowed" in result_of("graph", subject).problem


def test_graphs_that_are_not_replayed_prove_nothing(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def by_launches(tested: Subject, ids: list[int], draft: int) -> Generation:
        return tested.llm.generate(ids, golden.TOKENS, draft=draft)

    monkeypatch.setattr(graph, "by_graphs", by_launches)
    assert "graphs that were replayed" in result_of("graph", subject).problem


def test_launches_that_do_not_run_fail(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(launches.ADD, variant="broken", body="*x = *x + (add == 264 ? 0 : add);")
    monkeypatch.setattr(launches, "ADD", broken)
    assert "launch: sum" in result_of("launches", subject).problem


def test_memory_that_is_not_read_fails(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(bandwidth._KERNEL, variant="broken", body="sums[simd::group_index() * 64] = data[0] + 1;")
    monkeypatch.setattr(bandwidth, "_KERNEL", broken)
    assert "does not execute kernels" in result_of("bandwidth", subject).problem


def test_steps_that_cannot_run_fail(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any) -> None:
        raise RuntimeError("the device is\nlost")

    monkeypatch.setattr(Network, "step", failing)
    assert result_of("steps", subject).problem == "RuntimeError: the device is lost"


def test_a_row_that_is_written_behind_the_last_fails(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned = type(subject.bench).poisoned

    def with_a_row(bench: Any, nbytes: int) -> Any:
        buffer = poisoned(bench, nbytes)
        buffer.write(np.zeros(1, np.float32), nbytes - 4)
        return buffer

    monkeypatch.setattr(type(subject.bench), "poisoned", with_a_row)
    assert result_of("norm", subject).problem == "a row behind the last was written"
