"""What a text must keep to: a JSON schema, a grammar or a regular expression."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llguidance import LLMatcher

from arcmtp.constraint.gbnf import parse
from arcmtp.constraint.lexemes import lark_of
from arcmtp.constraint.schema import checked_schema
from arcmtp.errors import ArcmtpError

MAX_BYTES = 256 * 1024  # of a grammar's text or of a schema

# Whitespace within JSON: a space, or an end of line and indentation. Without a bound a model may write nothing else.
_WHITESPACE = r" |\n{1,2}[ \t]{0,20}"
# Without \u a property's name has one spelling. With it "\u0061" would be a property of its own beside "a", and would
# escape the schema of "a".
_ESCAPES = 'nrbtf\\"'


@dataclass(frozen=True)
class Constraint:
    """A grammar as llguidance reads it. What is equal is the same grammar.

    The classmethods raise ArcmtpError, on one line, for what is malformed, unsupported or too large. A grammar that
    is well-formed and yet cannot be compiled is refused by `Grammars.matcher`. `name` is what errors call the input.
    """

    grammar: str

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | str, name: str = "schema") -> "Constraint":
        """JSON that a schema allows (draft 2020-12), its properties in the schema's order. Keywords that cannot be kept
        are refused."""
        return cls(LLMatcher.grammar_from_json_schema(_with_options(checked_schema(schema, name, MAX_BYTES))))

    @classmethod
    def json_object(cls) -> "Constraint":
        """Any JSON object."""
        return cls.json_schema({"type": "object"})

    @classmethod
    def lark(cls, text: str, name: str = "grammar") -> "Constraint":
        """A grammar in llguidance's variant of Lark, which begins with the rule `start`."""
        return cls(LLMatcher.grammar_from_lark(_within(text, name)))

    @classmethod
    def gbnf(cls, text: str, name: str = "grammar") -> "Constraint":
        """A grammar in llama.cpp's GBNF, which begins with the rule `root`."""
        return cls(LLMatcher.grammar_from_lark(lark_of(parse(_within(text, name), name), name)))

    @classmethod
    def regex(cls, pattern: str, name: str = "regex") -> "Constraint":
        """Text that a regular expression matches as a whole, in the syntax of Rust's crate `regex`."""
        return cls(LLMatcher.grammar_from_regex(_within(pattern, name)))


def json_expression(schema: Mapping[str, Any] | str, name: str) -> str:
    """JSON that a schema allows as an expression of a Lark grammar. ArcmtpError as from `Constraint.json_schema`."""
    return f"%json {json.dumps(_with_options(checked_schema(schema, name, MAX_BYTES)), ensure_ascii=False)}"


def lark_string(text: str) -> str:
    """A text as a literal of a Lark grammar."""
    return json.dumps(text, ensure_ascii=False)


def _with_options(schema: dict[str, Any]) -> dict[str, Any]:
    return schema | {"x-guidance": {"whitespace_pattern": _WHITESPACE, "json_allowed_escapes": _ESCAPES}}


def _within(text: str, name: str) -> str:
    if not text.strip():
        raise ArcmtpError(f"{name}: it is empty")
    if (size := len(text.encode(errors="replace"))) > MAX_BYTES:
        raise ArcmtpError(f"{name}: it has {size} bytes; it may have {MAX_BYTES}")
    return text
