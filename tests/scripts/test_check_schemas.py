"""The check of schemas: a few answers, and that it finds what is wrong."""

import dataclasses
import json
from typing import Any

import pytest

from arcmtp import LLM
from arcmtp.engine.results import Generation
from scripts import check_schemas
from scripts.check_schemas import SCHEMAS, check

NAMES = ("an object of all types", "a pattern and a length", "a list that refers to itself", "an array of objects")


@pytest.fixture(scope="module")
def llm() -> Any:
    with LLM(ctx=512) as llm:
        yield llm


def test_answers_are_valid_and_the_same_with_any_drafts(llm: LLM) -> None:
    schemas = json.loads(SCHEMAS.read_text())
    found = list(check(llm, {name: schemas[name] for name in NAMES}, count=2, tokens=200))
    assert [answers.wrong for answers in found] == [[]] * len(NAMES)
    assert sum(answers.cut for answers in found) <= 2


@pytest.mark.parametrize(
    "text, reason, wrong",
    [
        ('{"a": "x"}', "stop", "'x' is not of type 'integer'"),
        ("{", "stop", "is no JSON"),
        ("{]", "length", "is no JSON"),
        ('{"a": 1', "length", None),
    ],
)
def test_what_is_wrong_is_found(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, text: str, reason: Any, wrong: str | None
) -> None:
    real = llm.generate("x", 1)
    monkeypatch.setattr(llm, "generate", lambda *_, **__: dataclasses.replace(real, text=text, finish_reason=reason))
    (answers,) = check(llm, {"it": {"properties": {"a": {"type": "integer"}}}}, count=1, tokens=9)
    assert answers.cut == (reason == "length")
    assert not answers.wrong if wrong is None else wrong in answers.wrong[0]


def test_texts_that_differ_are_found(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    real = llm.generate("x", 1)

    def generate(*_: Any, draft: Any, **__: Any) -> Generation:
        return dataclasses.replace(real, text="1", ids=[len(str(draft))], finish_reason="stop")

    monkeypatch.setattr(llm, "generate", generate)
    (answers,) = check(llm, {"it": {}}, count=1, tokens=9)
    assert answers.wrong == ["seed 0: the text depends on the drafts"]
    assert check_schemas.DRAFTS == (0, 3, "auto")
