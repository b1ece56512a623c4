"""Grammars of tool calls: the model's own format (`arcmtp/serve/tools.py`) with only the names and values that the
tools allow."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arcmtp.constraint.constraint import MAX_BYTES, Constraint, json_expression, lark_string
from arcmtp.constraint.schema import ANNOTATIONS, checked_schema
from arcmtp.errors import ArcmtpError, shown
from arcmtp.serve.constraint_fields import GAP
from arcmtp.serve.parameter_text import ANY, text_expression
from arcmtp.serve.tools import CALL, types_of

_ARGUMENTS = frozenset({"type", "properties", "required", "additionalProperties", "$defs", "definitions"}) | ANNOTATIONS
_DEFINITIONS = ("$defs", "definitions")
_PARAMETER_END = lark_string("\n</parameter>\n")
_CALL_END = lark_string("</function>\n</tool_call>")
_TEXT = r"""
CONTENT: /(?s:.*)/ & ~/(?s:.*)<tool_call>(?s:.*)/
BEFORE_CALL: CONTENT "<tool_call>"
INSIDE: /(?s:.*)/ & ~/(?s:.*)<\/parameter>(?s:.*)/
FREE: "<parameter=" /[^>\n]+/ ">\n" INSIDE "\n</parameter>\n"
"""


@dataclass(frozen=True)
class ToolGrammar:
    """Constraints for calls of tools.

    tools: OpenAI's tool objects. several: whether there may be more than one call. loose: values of parameters are any
    of their types.

    The methods raise ArcmtpError, which begins with the place, for what a `strict` tool asks and a call or llguidance
    cannot keep. Of other tools a parameter whose schema cannot be kept is any value of its types.
    """

    tools: Sequence[Mapping[str, Any]]
    several: bool
    loose: bool = False

    def calls(self) -> Constraint:
        """What follows `CALL`: a call of one of the tools, perhaps more."""
        return _lark(f"call{self._more}", *self._rules())

    def arguments(self) -> Constraint:
        """What follows `CALL`, the name of the first tool, and `>\\n`: the rest of one call."""
        return _lark(f"arguments_0 {_CALL_END}", *self._rules())

    def text_or_calls(self) -> Constraint:
        """Text up to a call, if there is one, and from there on calls alone."""
        return _lark(f"CONTENT | BEFORE_CALL {self._called}", *self._rules())

    def json_or_calls(self, schema: Any, name: str, after_reasoning: bool) -> Constraint:
        """JSON that a schema allows, or calls alone. name: what errors call the schema."""
        gap = GAP if after_reasoning else ""
        content = f"content: {json_expression(schema, name)}"
        return _lark(f'{gap} (content | "<tool_call>" {self._called})', content, *self._rules())

    @property
    def _called(self) -> str:
        return f"{lark_string(CALL.removeprefix('<tool_call>'))} call{self._more}"

    @property
    def _more(self) -> str:
        return f" ({lark_string(chr(10) + CALL)} call)*" if self.several else ""

    def _rules(self) -> Iterator[str]:
        names = [lark_string(f"{tool['function']['name']}>\n") for tool in self.tools]
        yield "call: " + " | ".join(f"{name} arguments_{i} {_CALL_END}" for i, name in enumerate(names))
        for index, tool in enumerate(self.tools):
            yield from _Arguments(index, tool["function"], self.loose).rules()


class _Arguments:
    """The rules of one function's arguments. Parameters come in the schema's order."""

    def __init__(self, index: int, function: Mapping[str, Any], loose: bool) -> None:
        self._index, self._loose = index, loose
        self._place = f"tools.{index}.function.parameters"
        self._strict = bool(function.get("strict"))
        self._parameters: Mapping[str, Any] = function.get("parameters") or {}
        properties, required = self._parameters.get("properties"), self._parameters.get("required")
        if self._strict:
            self._check(properties)
        self._properties = dict(properties) if isinstance(properties, Mapping) else {}
        self._required = [key for key in required if isinstance(key, str)] if isinstance(required, list) else []
        self._other = self._parameters.get("additionalProperties", True)
        for key in self._required:
            self._properties.setdefault(key, self._other)

    def rules(self) -> Iterator[str]:
        """`arguments_INDEX`, and what it refers to."""
        if not self._properties and not self._strict and self._other is not False:
            yield f"arguments_{self._index}: FREE*"
            return
        parts = []
        for number, (key, schema) in enumerate(self._properties.items()):
            place, needed = f"{self._place}.properties.{key}", self._strict or key in self._required
            if not key or ">" in key or "\n" in key:
                if needed:
                    raise ArcmtpError(f"{place}: the name of a parameter cannot have '>' or an end of line")
                continue
            name = f"value_{self._index}_{number}"
            yield from self._value(name, schema, place)
            part = f"{lark_string(f'<parameter={key}>{chr(10)}')} {name}"
            parts.append(part if key in self._required else f"({part})?")
        yield f"arguments_{self._index}: {' '.join(parts) or lark_string('')}"

    def _check(self, properties: Any) -> None:
        for keyword in self._parameters:
            if keyword not in _ARGUMENTS:
                raise ArcmtpError(f"{self._place}: the keyword {shown(keyword)} is not supported for a call")
        if self._parameters.get("type", "object") != "object":
            raise ArcmtpError(f"{self._place}.type: it must be 'object'")
        names = dict.fromkeys(properties, True) if isinstance(properties, Mapping) else properties
        checked_schema({**self._parameters, "properties": names or {}}, self._place, MAX_BYTES)

    def _value(self, name: str, schema: Any, place: str) -> Iterator[str]:
        """The rule of a parameter's value and the end behind it."""
        types = types_of(schema, self._parameters)
        is_json = types and "string" not in types
        try:
            if self._loose:
                expression = json_expression({"type": sorted(types)}, place) if is_json else ANY
            elif is_json:
                expression = json_expression(self._with_definitions(schema, place), place)
            else:
                expression = text_expression(schema, self._parameters, place)
        except ArcmtpError:
            if self._strict:
                raise
            expression = json_expression({"type": sorted(types)}, place) if is_json else ANY
        if is_json:
            yield f"{name}: {expression} {_PARAMETER_END}"
        else:  # one terminal: the text alone would run on, since a longer match is always preferred
            yield f"{name}: {name.upper()}"
            yield f"{name.upper()}: (INSIDE & ({expression})) {_PARAMETER_END}"

    def _with_definitions(self, schema: Mapping[str, Any], place: str) -> dict[str, Any]:
        """A parameter's schema as a whole one."""
        if "$ref" not in json.dumps(schema):
            return dict(schema)
        definitions = {key: self._parameters[key] for key in _DEFINITIONS if key in self._parameters}
        whole = {**definitions, **schema}
        for reference in re.findall(r'"\$ref": "([^"]*)"', json.dumps(whole)):
            if not reference.startswith(tuple(f"#/{key}/" for key in _DEFINITIONS)):
                raise ArcmtpError(f"{place}: {shown(reference)} is not supported; references lead to #/$defs")
        return whole


def _lark(start: str, *rules: str) -> Constraint:
    return Constraint.lark("\n".join([f"start: {start}", *rules, _TEXT]), "tools")
