"""Schemas of strings as regular expressions, for values of parameters that a call has as they are, without quotes."""

from collections.abc import Mapping
from typing import Any

from llguidance import regex_to_lark

from arcmtp.constraint.constraint import MAX_BYTES, lark_string
from arcmtp.constraint.schema import ANNOTATIONS, PATTERNS, checked_schema
from arcmtp.errors import ArcmtpError, shown
from arcmtp.serve.tools import resolve, types_of

ANY = "/(?s:.*)/"
_DEPTH = 16  # of references and alternatives
_FORMATS = PATTERNS | {"uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"}
_LENGTHS = ("minLength", "maxLength")
# Keywords that say nothing of strings.
_OTHERS = frozenset(
    {
        "items", "prefixItems", "minItems", "maxItems", "properties", "required", "additionalProperties",
        "patternProperties", "minProperties", "maxProperties", "minimum", "maximum", "exclusiveMinimum",
        "exclusiveMaximum", "multipleOf", "$defs", "definitions", *_LENGTHS,
    }
)  # fmt: skip


def text_expression(schema: Any, root: Mapping[str, Any], place: str, depth: int = _DEPTH) -> str:
    """The expression of a Lark terminal for the strings that a schema allows, and for `null` where it allows that.

    `root` is where references lead. ArcmtpError, which begins with `place`, for keywords that it cannot keep.
    """
    if schema is True:
        return ANY
    if not isinstance(schema, Mapping) or not depth:
        raise ArcmtpError(f"{place}: it is no schema of a text, or refers to itself")
    parts = [
        _part(keyword, value, root, f"{place}.{keyword}", depth)
        for keyword, value in schema.items()
        if keyword not in ANNOTATIONS | _OTHERS
    ]
    if lengths := {keyword: schema[keyword] for keyword in _LENGTHS if keyword in schema}:
        checked_schema(lengths, place, MAX_BYTES)
        parts.append(f"/(?s:.{{{lengths.get('minLength', 0)},{lengths.get('maxLength', '')}}})/")
    return " & ".join(f"({part})" for part in parts) or ANY


def _part(keyword: str, value: Any, root: Mapping[str, Any], place: str, depth: int) -> str:
    match keyword:
        case "$ref":
            return text_expression(resolve(str(value), root), root, place, depth - 1)
        case "allOf" | "anyOf" | "oneOf" if isinstance(value, list):
            return _branches(keyword, value, root, place, depth)
        case "type":
            return _of_type(value, place)
        case "const":
            return _one_of([value], place)
        case "enum" if isinstance(value, list):
            return _one_of(value, place)
        case "pattern":
            checked_schema({keyword: value}, place, MAX_BYTES)
            return _searched(value, place)
        case "format" if value in _FORMATS:
            return f"/{_FORMATS[value]}/"
        case "format":
            raise ArcmtpError(f"{place}: {shown(value)} is not supported for a text; formats are {', '.join(_FORMATS)}")
        case _:
            raise ArcmtpError(f"{place}: the keyword {shown(keyword)} is not supported for a text")


def _branches(keyword: str, branches: list[Any], root: Mapping[str, Any], place: str, depth: int) -> str:
    places = [(branch, f"{place}.{index}") for index, branch in enumerate(branches)]
    if keyword != "allOf":
        places = [(branch, where) for branch, where in places if _has_text(branch, root)]
        strings = [branch for branch, _ in places if types_of(branch, root) != {"null"}]
        if keyword == "oneOf" and len(strings) > 1:
            raise ArcmtpError(f"{place}: several schemas of a text are not supported; use anyOf")
    if not places:
        raise ArcmtpError(f"{place}: it has no schema of a text")
    joint = " & " if keyword == "allOf" else " | "
    return joint.join(f"({text_expression(branch, root, where, depth - 1)})" for branch, where in places)


def _has_text(schema: Any, root: Mapping[str, Any]) -> bool:
    types = types_of(schema, root)
    return not types or not types.isdisjoint(("string", "null"))


def _of_type(value: Any, place: str) -> str:
    types = value if isinstance(value, list) else [value]
    if "string" in types:
        return ANY
    if "null" in types:
        return lark_string("null")
    raise ArcmtpError(f"{place}: {shown(value)} has no text")


def _one_of(values: list[Any], place: str) -> str:
    texts = [lark_string("null" if one is None else one) for one in values if one is None or isinstance(one, str)]
    if not texts:
        raise ArcmtpError(f"{place}: no value is a text")
    return " | ".join(texts)


def _searched(pattern: str, place: str) -> str:
    """A pattern that may match anywhere; Lark's expressions match a text as a whole."""
    begins, ends = pattern.startswith("^"), pattern.endswith("$") and not pattern.endswith("\\$")
    core = pattern[begins : len(pattern) - ends]
    if (begins or ends) and _has_alternatives(core):
        raise ArcmtpError(f"{place}: for a text, alternatives beside ^ or $ must be in parentheses")
    lark = regex_to_lark(core, "dw")
    return f"/{'' if begins else '(?s:.*)'}(?:{lark}){'' if ends else '(?s:.*)'}/"


def _has_alternatives(pattern: str) -> bool:
    """Whether a `|` of a regular expression is outside of parentheses and classes."""
    depth, escaped, in_class = 0, False, False
    for character in pattern:
        if escaped or character == "\\":
            escaped = not escaped
        elif in_class or character == "[":
            in_class = character != "]"
        elif character == "|" and not depth:
            return True
        depth += 0 if in_class or escaped else (character == "(") - (character == ")")
    return False
