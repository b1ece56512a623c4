"""Tool calls in the model's format, with the text cut at every point."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from arcmtp.serve.tools import ToolCallParser, convert, types_of
from tests.engine.test_reasoning import cuts

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "tags": {"type": "array"},
        "unit": {"$ref": "#/$defs/Unit"},
        "when": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "free": {},
    },
    "$defs": {"Unit": {"enum": ["C", "F"]}},
}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]


def call(*parameters: tuple[str, str], name: str = "weather") -> str:
    body = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in parameters)
    return f"<tool_call>\n<function={name}>\n{body}</function>\n</tool_call>"


def parsed(pieces: Sequence[str], finished: bool = True, parallel: bool = True) -> tuple[str, list[tuple[str, str]]]:
    """Content, and (name, arguments) of each call, after joining the deltas as clients do."""
    parser = ToolCallParser(TOOLS, parallel)
    content, calls = "", list[tuple[str, str]]()
    for delta in [delta for piece in pieces for delta in parser.push(piece)] + parser.flush(finished):
        content += delta.get("content", "")
        for part in delta.get("tool_calls", ()):
            function = part["function"]
            if "name" in function:
                assert part["id"].startswith("call_") and part["type"] == "function"
                calls.append((function["name"], ""))
            assert part["index"] == len(calls) - 1
            calls[-1] = (calls[-1][0], calls[-1][1] + function["arguments"])
    return content, calls


@pytest.mark.parametrize(
    ("text", "content", "arguments"),
    [
        (call(), "", [{}]),
        (call(("city", "Zürich")), "", [{"city": "Zürich"}]),
        ("Let me look.\n\n" + call(("city", "a"), ("days", "2")), "Let me look.", [{"city": "a", "days": 2}]),
        (call(("city", "a")) + "\n" + call(("city", "b")) + "\n", "", [{"city": "a"}, {"city": "b"}]),
        (call(("city", 'two\n"lines"\\ </para <tag>\n')), "", [{"city": 'two\n"lines"\\ </para <tag>\n'}]),
        (call(("city", "")), "", [{"city": ""}]),
        (call(("tags", '[1, {"a": "ü"}]'), ("unit", "7"), ("when", "null"), ("free", "x")), "",
         [{"tags": [1, {"a": "ü"}], "unit": "7", "when": None, "free": "x"}]),
        (call(("days", "many")), "", [{"days": "many"}]),
        (call(("other", "1")), "", [{"other": "1"}]),
        ("<tool_call><function=weather><parameter=city>a</parameter></function></tool_call>", "", [{"city": "a"}]),
        ("<tool_call>\n<function=weather>\n<parameter=city>\na\n</parameter>\n</tool_call>", "", [{"city": "a"}]),
    ],
)  # fmt: skip
def test_calls_become_json_typed_by_their_schema(text: str, content: str, arguments: list[dict[str, Any]]) -> None:
    for pieces in cuts(text):
        found, calls = parsed(pieces)
        assert (found, [json.loads(text) for _, text in calls]) == (content, arguments), pieces
        assert {name for name, _ in calls} == {"weather"}


@pytest.mark.parametrize(
    "text",
    [
        "plain, with space at the end \n",
        "a <tool_call",
        '<tool_call>\n{"name": "weather"}\n</tool_call>',
        "<tool_call>\n<functional>",
        "<tool_call><parameter=x>",
        "</tool_call> <function=weather>",
    ],
)
def test_what_only_resembles_a_call_is_content(text: str) -> None:
    for pieces in cuts(text):
        assert parsed(pieces) == (text, []), pieces


@pytest.mark.parametrize(
    ("text", "closed", "cut"),
    [
        ("<tool_call>\n<function=weather>\n<parameter=city>\nZür", '{"city": "Zür"}', '{"city": "Zür'),
        ("<tool_call>\n<function=weather>\n<parameter=days>\n1", '{"days": 1}', '{"days": '),
        ("<tool_call>\n<function=weather>\n", "{}", "{"),
    ],
)
def test_an_unfinished_call_is_closed_only_if_the_model_meant_to_end(text: str, closed: str, cut: str) -> None:
    for pieces in cuts(text):
        assert parsed(pieces, finished=True) == ("", [("weather", closed)]), pieces
        assert parsed(pieces, finished=False) == ("", [("weather", cut)]), pieces


def test_strings_stream_as_they_are_written() -> None:
    parser = ToolCallParser(TOOLS)
    parser.push("<tool_call>\n<function=weather>\n<parameter=city>\n")
    assert parser.push("Zür") == [{"tool_calls": [{"index": 0, "function": {"arguments": "Zür"}}]}]
    assert parser.push("\n</param") == []


def test_only_the_first_call_counts_when_calls_must_not_be_parallel() -> None:
    text = call(("city", "a")) + call(("city", "b")) + "more"
    for pieces in cuts(text):
        assert parsed(pieces, parallel=False) == ("", [("weather", '{"city": "a"}')]), pieces


@pytest.mark.parametrize(
    ("text", "types", "value"),
    [
        ("1", {"number"}, 1),
        ("1e999", {"number"}, "1e999"),
        ("NaN", {"number"}, "NaN"),
        ("false", {"boolean"}, False),
        ("None", {"null"}, None),
        ("1", {"string", "integer"}, "1"),
        ('{"a": 1}', set(), {"a": 1}),
        ("1", set(), "1"),
        ("[" * 100_000, {"array"}, "[" * 100_000),
    ],
)
def test_values_follow_their_types(text: str, types: set[str], value: Any) -> None:
    assert convert(text, frozenset(types)) == value


def test_types_are_found_through_references_and_alternatives() -> None:
    root = {"$defs": {"Loop": {"$ref": "#/$defs/Loop"}, "Unit": {"enum": ["C", 1, None]}}}
    assert types_of({"type": ["string", "null"]}, root) == {"string", "null"}
    assert types_of({"oneOf": [{"type": "object"}, {"const": True}]}, root) == {"object", "boolean"}
    assert types_of({"$ref": "#/$defs/Unit"}, root) == {"string", "integer", "null"}
    for unknown in ({"$ref": "#/$defs/Loop"}, {"$ref": "#/none"}, None):
        assert types_of(unknown, root) == set()
