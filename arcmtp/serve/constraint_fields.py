"""Fields by which OpenAI's, llama.cpp's and vLLM's clients ask for constrained answers."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from arcmtp.constraint.constraint import Constraint, json_expression, lark_string
from arcmtp.serve.strict import Strict

MAX_STRINGS = 1024  # of a choice

_LARK = re.compile(r"\s*%llguidance\b|(?m:^start\s*:)")  # no GBNF has either
GAP = r"/\n{0,2}/"  # which models have learnt to write between reasoning and JSON
JsonSchema = dict[str, Any]
Strings = Annotated[list[str], Field(min_length=1, max_length=MAX_STRINGS)]


class JsonSchemaFormat(Strict):
    name: str | None = None
    description: str | None = None
    schema_: JsonSchema | None = Field(None, alias="schema")
    strict: bool | None = Field(None, description="schemas are kept in any case")


class ResponseFormat(Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None
    schema_: JsonSchema | None = Field(None, alias="schema", description="beside json_object: llama.cpp's way")

    @model_validator(mode="after")
    def _has_schema(self) -> "ResponseFormat":
        if self.type == "json_schema" and (self.json_schema is None or self.json_schema.schema_ is None):
            raise ValueError("type json_schema needs json_schema.schema")
        return self


class StructuredOutputs(Strict):
    """vLLM's."""

    json_: JsonSchema | str | None = Field(default=None, alias="json")
    json_object: bool | None = None
    regex: str | None = None
    choice: Strings | None = None
    grammar: str | None = None


class ConstraintFields(Strict):
    """What an answer's content must keep to; one field at most."""

    response_format: ResponseFormat | None = Field(None, description="text, json_object or json_schema")
    json_schema: JsonSchema | None = Field(None, description="llama.cpp's: a JSON schema")
    grammar: str | None = Field(None, description="GBNF; Lark if it begins with %llguidance or has a rule start")
    regex: str | None = Field(None, description="matches the whole answer")
    ebnf: str | None = Field(None, description="grammar, by SGLang's name")
    guided_json: JsonSchema | str | None = Field(None, description="json_schema, by vLLM's name")
    guided_regex: str | None = Field(None, description="regex, by vLLM's name")
    guided_choice: Strings | None = Field(None, description="one of these strings")
    guided_grammar: str | None = Field(None, description="grammar, by vLLM's name")
    structured_outputs: StructuredOutputs | None = Field(None, description="vLLM's: json, regex, choice or grammar")

    @model_validator(mode="after")
    def _one(self) -> "ConstraintFields":
        fields = [field for field, _, _ in self._asked()]
        if len(fields) > 1:
            raise ValueError(f"{fields[0]} and {fields[1]} both constrain the answer: give one")
        return self

    @property
    def constrained_by(self) -> tuple[str, str, Any] | None:
        """(field, what its value is, value) of the constraint, if there is one."""
        return next(self._asked(), None)

    def _asked(self) -> Iterator[tuple[str, str, Any]]:
        """Empty texts, which some clients send for none, ask for nothing."""
        if form := self.response_format:
            if form.json_schema and form.type == "json_schema":
                yield "response_format.json_schema.schema", "json", form.json_schema.schema_
            elif form.type == "json_object":
                yield "response_format", "json", form.schema_ or {"type": "object"}
        outputs = self.structured_outputs or StructuredOutputs()
        for field, kind, value in (
            ("json_schema", "json", self.json_schema),
            ("grammar", "grammar", self.grammar),
            ("regex", "regex", self.regex),
            ("ebnf", "grammar", self.ebnf),
            ("guided_json", "json", self.guided_json),
            ("guided_regex", "regex", self.guided_regex),
            ("guided_choice", "choice", self.guided_choice),
            ("guided_grammar", "grammar", self.guided_grammar),
            ("structured_outputs.json", "json", outputs.json_),
            ("structured_outputs.json_object", "json", {"type": "object"} if outputs.json_object else None),
            ("structured_outputs.regex", "regex", outputs.regex),
            ("structured_outputs.choice", "choice", outputs.choice),
            ("structured_outputs.grammar", "grammar", outputs.grammar),
        ):
            if value not in (None, ""):
                yield field, kind, value


def constraint_of(field: str, kind: str, value: Any, after_reasoning: bool = False) -> Constraint:
    """The constraint that a field asks for; ArcmtpError, which begins with the field, for what is malformed."""
    match kind:
        case "json" if after_reasoning:
            return Constraint.lark(f"start: {GAP} {json_expression(value, field)}", field)
        case "json":
            return Constraint.json_schema(value, field)
        case "regex":
            return Constraint.regex(value, field)
        case "choice":
            return Constraint.lark("start: " + " | ".join(map(lark_string, value)), field)
        case _:
            return (Constraint.lark if _LARK.search(value) else Constraint.gbnf)(value, field)
