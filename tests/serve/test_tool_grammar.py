"""Which texts of calls a grammar takes, and what becomes of them."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from arcmtp.constraint.constraint import Constraint
from arcmtp.constraint.grammars import Grammars
from arcmtp.engine.llm import bundled_model
from arcmtp.errors import ArcmtpError
from arcmtp.gguf import GGUF
from arcmtp.model.tokenizer import Tokenizer
from arcmtp.serve.constraint_fields import constraint_of
from arcmtp.serve.tool_grammar import ToolGrammar
from arcmtp.serve.tools import ToolCallParser

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 9},
        "days": {"type": "integer", "minimum": 1, "maximum": 20},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/Tag"}, "maxItems": 2},
        "unit": {"anyOf": [{"$ref": "#/$defs/Unit"}, {"type": "null"}]},
        "zip": {"type": ["string", "integer"], "pattern": "^(1|2)[0-9]$"},
        "day": {"type": "string", "format": "date"},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
    "$defs": {"Unit": {"enum": ["C", "F"]}, "Tag": {"type": "object", "properties": {"n": {"type": "boolean"}}}},
}
STRICT = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA, "strict": True}}
FREE = {"type": "function", "function": {"name": "time"}}
END = "</function>\n</tool_call>"
CALL = "<tool_call>\n<function="


def parameters(**values: str) -> str:
    return "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())


def weather(**values: str) -> str:
    return f"weather>\n{parameters(city='Zürich', days='3', **values)}{END}"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_gguf(GGUF(bundled_model()))


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> Grammars:
    return Grammars(tokenizer)


@pytest.fixture
def takes(grammars: Grammars, tokenizer: Tokenizer) -> Iterator[Any]:
    def taken(constraint: Constraint, text: str) -> bool:
        matcher, ids = grammars.matcher(constraint), tokenizer.encode(text)
        return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()

    yield taken


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"tags": '[{"n": true}]', "unit": "C"},
        {"unit": "null", "zip": "19", "day": "2026-11-28"},
        {"tags": "[\n  {},\n  {}\n]"},
    ],
)
def test_valid_arguments_are_taken_and_come_out_valid(takes: Any, values: dict[str, str]) -> None:
    text = weather(**values)
    assert takes(ToolGrammar([STRICT, FREE], several=True).calls(), text)
    parser = ToolCallParser([STRICT])
    deltas = [*parser.push(CALL + text), *parser.flush(finished=True)]
    arguments = "".join(call["function"]["arguments"] for delta in deltas for call in delta.get("tool_calls", ()))
    jsonschema.validate(json.loads(arguments), SCHEMA)
    assert json.loads(arguments).keys() == {"city", "days", *values}


@pytest.mark.parametrize(
    "text",
    [
        weather(tags="[1]"),
        weather(tags="[{}, {}, {}]"),
        weather(unit="K"),
        weather(zip="119"),
        weather(day="2026-02-30"),
        weather(other="x"),
        weather(unit="C", tags="[]"),  # not in the schema's order
        weather(unit="C") + "\n",
        f"weather>\n{parameters(city='Zürich')}{END}",
        f"weather>\n{parameters(days='3')}{END}",
        f"weather>\n{parameters(city='Zürich', days='21')}{END}",
        f"weather>\n{parameters(city='0123456789', days='3')}{END}",
        f"weather>\n{parameters(city='a</parameter>b', days='3')}{END}",
        f"weather>\n{parameters(city='a')}{parameters(city='b', days='3')}{END}",
        f"rain>\n{END}",
    ],
)
def test_arguments_that_the_schema_does_not_allow_are_not_taken(takes: Any, text: str) -> None:
    assert not takes(ToolGrammar([STRICT, FREE], several=True).calls(), text)


def test_how_many_calls_there_may_be(takes: Any) -> None:
    one, two = weather(), f"{weather()}\n{CALL}time>\n{END}"
    several, single = (ToolGrammar([STRICT, FREE], several) for several in (True, False))
    assert takes(several.calls(), one) and takes(several.calls(), two)
    assert takes(single.calls(), one) and not takes(single.calls(), two)
    named = ToolGrammar([STRICT], several=False).arguments()
    assert takes(named, one.removeprefix("weather>\n")) and not takes(named, one)


def test_text_is_free_until_a_call_begins(takes: Any) -> None:
    grammar = ToolGrammar([STRICT, FREE], several=True).text_or_calls()
    called = CALL + weather()
    assert all(takes(grammar, text) for text in ("", "plain < text <tool_call", called, f"Look:\n\n{called}"))
    assert takes(grammar, f"{called}\n{CALL}time>\n{parameters(anything='x')}{END}")
    assert not any(takes(grammar, text) for text in ("<tool_call>", f"{called} more", f"{CALL}rain>\n{END}"))


def test_text_beside_tools_may_have_a_schema_of_its_own(takes: Any) -> None:
    content = ({"type": "object", "properties": {"a": {"type": "integer"}}}, "response_format")
    grammar = ToolGrammar([STRICT], several=False).json_or_calls(*content, after_reasoning=False)
    assert takes(grammar, '{"a": 1}') and takes(grammar, CALL + weather())
    assert not any(takes(grammar, text) for text in ('{"a": "x"}', "text", '\n\n{"a": 1}'))
    grammar = ToolGrammar([STRICT], several=False).json_or_calls(*content, after_reasoning=True)
    assert all(takes(grammar, text) for text in ('{"a": 1}', '\n\n{"a": 1}', f"\n\n{CALL}{weather()}"))
    assert not takes(grammar, '\n\n\n{"a": 1}')


def test_json_behind_reasoning_may_begin_with_line_ends(takes: Any) -> None:
    plain, behind = (constraint_of("json_schema", "json", SCHEMA, reasoning) for reasoning in (False, True))
    text = '{"city": "a", "days": 2}'
    assert takes(plain, text) and not takes(plain, f"\n\n{text}")
    assert takes(behind, text) and takes(behind, f"\n\n{text}") and not takes(behind, f"\n\n\n{text}")


@pytest.mark.parametrize(
    "schema, value, bad",
    [
        ({"type": "string"}, "several\nlines\n", "a</parameter>"),
        ({"const": "x"}, "x", "y"),
        ({"enum": ["a", 1, None]}, "null", "1"),
        ({"type": "string", "pattern": "b"}, "abc", "ac"),
        ({"type": "string", "pattern": "^[|](a)$"}, "|a", "a"),
        ({"type": "string", "pattern": r"\$"}, "1$", "1"),
        ({"type": "string", "minLength": 2}, "ab", "a"),
        ({"allOf": [{"type": "string"}, {"minLength": 2}]}, "ab", "a"),
        ({"oneOf": [{"type": "string", "maxLength": 1}, {"type": "integer"}]}, "7", "77"),
        ({"type": "string", "format": "date-time"}, "2026-11-28T20:15:00Z", "2026-11-28T25:15:00Z"),
        ({"type": "string", "format": "uuid"}, "123e4567-e89b-12d3-a456-426614174000", "123e4567"),
        ({"type": ["boolean", "null"]}, "true", "maybe"),
        ({"type": "number"}, "-1.5e3", "x"),
        (True, "anything", "a</parameter>"),
    ],
)
def test_values_of_all_kinds(takes: Any, schema: Any, value: str, bad: str) -> None:
    function = {"name": "f", "parameters": {"properties": {"p": schema}, "required": ["p"]}, "strict": True}
    grammar = ToolGrammar([{"type": "function", "function": function}], several=False).arguments()
    assert takes(grammar, parameters(p=value) + END)
    assert not takes(grammar, parameters(p=bad) + END)


@pytest.mark.parametrize(
    "schema, words",
    [
        ({"properties": {"x": {"type": "array", "uniqueItems": True}}}, "properties.x: the keyword 'uniqueItems'"),
        ({"properties": {"x": {"type": "string", "not": {}}}}, "properties.x.not: the keyword 'not' is not supported"),
        ({"properties": {"x": {"type": "string", "pattern": "^a|b"}}}, "x.pattern: for a text, alternatives"),
        ({"properties": {"x": {"type": "string", "format": "color"}}}, "properties.x.format: 'color' is not supported"),
        ({"properties": {"x": {"type": "array", "items": {"$ref": "#"}}}}, "properties.x: '#' is not supported"),
        ({"properties": {"x": {"oneOf": [{"type": "string"}, {"const": "a"}]}}}, "oneOf: several schemas of a text"),
        ({"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}}, "refers to itself"),
        ({"properties": {"a>": {}}}, "cannot have '>'"),
        ({"properties": 5}, "properties: 5 is not an object of schemas"),
        ({"type": "array"}, "type: it must be 'object'"),
        ({"anyOf": [{}]}, "parameters: the keyword 'anyOf' is not supported for a call"),
    ],
)
def test_what_strict_tools_cannot_keep_is_named_and_other_tools_take_any_value(
    takes: Any, schema: Any, words: str
) -> None:
    function = {"name": "f", "parameters": schema}
    with pytest.raises(ArcmtpError) as error:
        ToolGrammar([{"function": function | {"strict": True}}], several=False).calls()
    assert words in str(error.value) and str(error.value).startswith("tools.0.function.parameters")
    free = ToolGrammar([{"function": function}], several=False).calls()
    assert takes(free, f"f>\n{END}")


def test_required_parameters_without_a_schema_must_be_there(takes: Any) -> None:
    function = {"name": "f", "parameters": {"required": ["x"], "additionalProperties": {"type": "integer"}}}
    grammar = ToolGrammar([{"function": function | {"strict": True}}], several=False).calls()
    assert takes(grammar, f"f>\n{parameters(x='1')}{END}")
    assert not takes(grammar, f"f>\n{END}") and not takes(grammar, f"f>\n{parameters(x='a')}{END}")


def test_loose_values_keep_their_types(takes: Any) -> None:
    schema = {"properties": {"x": {"type": "integer", "maximum": 1}, "y": {"type": "string", "maxLength": 1}}}
    grammar = ToolGrammar([{"function": {"name": "f", "parameters": schema}}], several=False, loose=True).calls()
    assert takes(grammar, f"f>\n{parameters(x='12', y='ab')}{END}")
    assert not takes(grammar, f"f>\n{parameters(x='a')}{END}")
