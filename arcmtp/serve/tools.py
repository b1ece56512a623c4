"""Tool calls in the model's own format, as OpenAI's deltas while they are written:

    <tool_call>
    <function=NAME>
    <parameter=KEY>
    VALUE
    </parameter>
    </function>
    </tool_call>
"""

import json
import math
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from arcmtp.engine.stop_strings import held_back
from arcmtp.serve.responses import Delta, FunctionDelta, ToolCallDelta

CALL = "<tool_call>\n<function="  # how every call begins
_CALL, _CALL_END = "<tool_call>", "</tool_call>"
_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_PARAMETER, _PARAMETER_END = "<parameter=", "</parameter>"
_HEADER = re.compile(r"<(?:function|parameter)=([^>\n]+)>")
_MAX_REFERENCES = 16  # of a schema that refers to itself

Schema = Mapping[str, Any]


class ToolCallParser:
    """Splits text into content and tool calls; the deltas joined are the same whatever pieces it arrives in.

    tools: OpenAI's tool objects. The JSON schema of a parameter says what a value is: strings stream as they come,
    anything else is converted when it is complete. Text that only resembles a call is content.
    parallel: whether there may be more than one call; what follows the only one is left out.
    """

    def __init__(self, tools: Sequence[Mapping[str, Any]], parallel: bool = True) -> None:
        self._parallel = parallel
        self._schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
        self._rest = ""
        self._state: Callable[[], list[Delta] | None] = self._content
        self._schema: Schema = {}
        self._parameters = 0  # of the call so far
        self._types: frozenset[str] = frozenset()
        self._streams = False  # whether the value that is being read goes out piece by piece
        self._started = False  # whether a part of that value has gone out
        self.calls = 0  # begun
        self.complete = 0

    def push(self, text: str) -> list[Delta]:
        """The deltas that are certain."""
        self._rest += text
        deltas: list[Delta] = []
        while (step := self._state()) is not None:
            deltas += step
        return deltas

    def flush(self, finished: bool) -> list[Delta]:
        """What remains at the end of the text. A call is closed if the model has `finished`, else left cut off."""
        rest, self._rest = self._rest, ""
        if self._state == self._content:
            return _content(rest if not self.calls else rest.rstrip())
        if self._state == self._head:
            return _content(_CALL + rest)
        if self._state in (self._tail, self._ended) or not finished:
            return []
        deltas = self._value_end(rest) if self._state == self._value else []
        return [*deltas, *self._function_end()]

    # Each state takes what it can from the rest and gives its deltas, or None when it needs more text.

    def _content(self) -> list[Delta] | None:
        before, tag, after = self._rest.partition(_CALL)
        if tag:
            self._rest, self._state = after, self._head
            return _content(before.rstrip())
        certain = self._rest[: len(self._rest) - held_back(self._rest, [_CALL])].rstrip()
        self._rest = self._rest[len(certain) :]
        return _content(certain) or None

    def _head(self) -> list[Delta] | None:
        """After <tool_call>, before the function's name is complete."""
        text = self._rest.lstrip()
        if header := _HEADER.match(text):
            if text.startswith(_FUNCTION):
                self._rest, self._state = text[header.end() :], self._function
                return [self._begin(header[1])]
        elif _FUNCTION.startswith(text[: len(_FUNCTION)]) and "\n" not in text and ">" not in text:
            return None
        self._state = self._content
        return _content(_CALL)

    def _function(self) -> list[Delta] | None:
        """Between two parameters. What the format does not have there is left out."""
        found = re.search(f"{_PARAMETER}|{_FUNCTION_END}|{_CALL_END}", self._rest)
        if found is None:
            self._rest = self._rest[len(self._rest) - held_back(self._rest, [_PARAMETER, _FUNCTION_END, _CALL_END]) :]
            return None
        if found[0] != _PARAMETER:
            # Without its end tag the function ends with the call.
            self._rest = self._rest[found.end() if found[0] == _FUNCTION_END else found.start() :]
            return self._function_end()
        header = _HEADER.match(self._rest, found.start())
        if header is None:
            if ">" not in self._rest[found.end() :] and "\n" not in self._rest[found.end() :]:
                return None
            self._rest = self._rest[found.end() :]
            return []
        self._rest, self._state = self._rest[header.end() :], self._value
        return self._value_begin(header[1])

    def _value(self) -> list[Delta] | None:
        value, tag, after = self._rest.partition(_PARAMETER_END)
        if tag:
            self._rest, self._state = after, self._function
            return self._value_end(value)
        if not self._streams:
            return None
        held = held_back(self._rest, ["\n" + _PARAMETER_END, _PARAMETER_END])
        return self._value_part(self._rest[: len(self._rest) - held]) or None

    def _tail(self) -> list[Delta] | None:
        """After </function>."""
        _, tag, after = self._rest.partition(_CALL_END)
        if not tag:
            self._rest = self._rest[len(self._rest) - held_back(self._rest, [_CALL_END]) :]
            return None
        self._rest, self._state = after, self._content if self._parallel else self._ended
        return []

    def _ended(self) -> list[Delta] | None:
        self._rest = ""
        return None

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return self._state == self._ended

    def _begin(self, name: str) -> Delta:
        self.calls += 1
        self._schema, self._parameters = self._schemas.get(name, {}), 0
        call_id = f"call_{secrets.token_hex(12)}"
        function: FunctionDelta = {"name": name, "arguments": "{"}
        return _call({"index": self.calls - 1, "id": call_id, "type": "function", "function": function})

    def _function_end(self) -> list[Delta]:
        self._state = self._tail
        self.complete += 1
        return [self._arguments("}")]

    def _value_begin(self, key: str) -> list[Delta]:
        properties = self._schema.get("properties")
        schema = properties.get(key) if isinstance(properties, Mapping) else None
        self._types = types_of(schema, self._schema)
        self._streams = self._types == {"string"}
        self._started = False
        comma = ", " if self._parameters else ""
        self._parameters += 1
        return [self._arguments(f"{comma}{_json(key)}: " + ('"' if self._streams else ""))]

    def _value_part(self, text: str) -> list[Delta]:
        """Send `text`, with which the rest begins, as a part of a string."""
        self._rest = self._rest[len(text) :]
        if not self._started and text:
            self._started = True
            text = text.removeprefix("\n")
        return [self._arguments(_json(text)[1:-1])] if text else []

    def _value_end(self, text: str) -> list[Delta]:
        if not self._streams:
            value = text.removeprefix("\n").removesuffix("\n")
            return [self._arguments(_json(convert(value, self._types)))]
        if not self._started:
            text = text.removeprefix("\n")
        return [self._arguments(_json(text.removesuffix("\n"))[1:-1] + '"')]

    def _arguments(self, text: str) -> Delta:
        return _call({"index": self.calls - 1, "function": {"arguments": text}})


def types_of(schema: Any, root: Schema) -> frozenset[str]:
    """The JSON types that a schema allows, as far as it says; `root` is where its references lead."""
    return frozenset(_types(schema, root, _MAX_REFERENCES))


def convert(text: str, types: frozenset[str]) -> Any:
    """The value that a parameter's text stands for.

    >>> convert("12", frozenset({"integer"})), convert("12", frozenset({"string"}))
    (12, '12')
    >>> convert("True", frozenset({"boolean"})), convert("null", frozenset({"string", "null"}))
    (True, None)
    """
    if "string" in types:
        return None if text == "null" and "null" in types else text
    if not types and not text.lstrip().startswith(("{", "[")):
        return text
    python = {"True": True, "False": False, "None": None}  # as Qwen3.5's template writes them
    if text in python:
        return python[text]
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        return text


def _types(schema: Any, root: Schema, references: int) -> set[str]:
    if not isinstance(schema, Mapping) or not references:
        return set()
    if isinstance(reference := schema.get("$ref"), str):
        return _types(resolve(reference, root), root, references - 1)
    found = set()
    if kinds := schema.get("type"):
        found.update([kinds] if isinstance(kinds, str) else [kind for kind in kinds if isinstance(kind, str)])
    elif isinstance(values := schema.get("enum"), list):
        found.update(_type_of(value) for value in values)
    elif "const" in schema:
        found.add(_type_of(schema["const"]))
    for key in ("anyOf", "oneOf", "allOf"):
        if isinstance(branches := schema.get(key), list):
            for branch in branches:
                found |= _types(branch, root, references - 1)
    return found


def resolve(reference: str, root: Schema) -> Any:
    """The schema that a reference such as `#/$defs/Name` leads to, None if there is none."""
    found: Any = root
    for name in reference.removeprefix("#/").split("/"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _type_of(value: Any) -> str:
    names = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} has no JSON")
    return value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _call(delta: ToolCallDelta) -> Delta:
    return {"tool_calls": [delta]}


def _content(text: str) -> list[Delta]:
    return [{"content": text}] if text else []
