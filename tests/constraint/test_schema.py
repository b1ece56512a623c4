"""JSON schemas: texts drawn at random by their masks are valid, and what cannot be kept is refused by name."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from arcmtp.constraint.constraint import MAX_BYTES, Constraint
from arcmtp.constraint.grammars import Grammars
from arcmtp.constraint.schema import FORMATS, MAX_DEPTH
from arcmtp.errors import ArcmtpError
from arcmtp.model.tokenizer import Tokenizer

SCHEMAS = json.loads((Path(__file__).parents[1] / "data/schemas.json").read_text())
FORMATTED = {name: {"type": "string", "format": name, "maxLength": 40} for name in sorted(FORMATS)}
DRAFT = jsonschema.Draft202012Validator
WALKS = 3


@pytest.mark.parametrize("name", [*SCHEMAS, *FORMATTED])
def test_texts_drawn_at_random_are_valid(grammars: Grammars, tokenizer: Tokenizer, name: str) -> None:
    schema = (SCHEMAS | FORMATTED)[name]
    DRAFT.check_schema(schema)
    constraint, choose = Constraint.json_schema(schema), np.random.default_rng(1)
    for _ in range(WALKS):
        matcher, ids = grammars.matcher(constraint), list[int]()
        while len(ids) < 300:
            mask = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
            allowed = np.flatnonzero(mask)
            assert len(allowed), matcher.get_error()
            ends = tokenizer.eos_ids.intersection(allowed.tolist())
            if ends:
                break
            ids.append(int(choose.choice(allowed)))
            assert matcher.consume_token(ids[-1])
        else:
            continue  # a long name of a property
        DRAFT(schema, format_checker=DRAFT.FORMAT_CHECKER).validate(json.loads(tokenizer.decode(ids)))


@pytest.mark.parametrize(
    "schema, text",
    [
        # The second spelling of a name does not escape the schema of that name, and no name comes twice.
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, r'{"\u0061": "x"}'),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, '{"a": 1, "a": "x"}'),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, '{"b": 1, "a": "x"}'),
        ({"type": "string", "format": "date"}, '"2026-02-29"'),
        ({"type": "string", "format": "date"}, '"0000-02-28"'),
        ({"type": "string", "format": "time", "allOf": [{"minLength": 1}]}, '"23:59:60Z"'),
        ({"type": "string", "format": "date", "allOf": [{"pattern": "^2026"}]}, '"2025-01-01"'),
        ({"type": "integer"}, "1.0"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "$id": "x", "prefixItems": [{"type": "null"}]}, "[1]"),
        ({"type": "object"}, "{}" + "\n" * 3),
        ({"type": "array"}, "[" + " " * 3 + "]"),
    ],
)
def test_texts_that_are_not_taken(grammars: Grammars, tokenizer: Tokenizer, schema: Any, text: str) -> None:
    ids = tokenizer.encode(text)
    assert grammars.matcher(Constraint.json_schema(schema)).try_consume_tokens(ids) < len(ids)


def nested(depth: int) -> Any:
    schema: Any = {"type": "null"}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    "schema, words",
    [
        ({"properties": {"x": {"not": {}}}}, "schema.properties.x: the keyword 'not' is not supported"),
        ({"items": {"anyOf": [{}, {"uniqueItems": True}]}}, "schema.items.anyOf.1: the keyword 'uniqueItems' is not"),
        ({"$defs": {"a": {"if": {}}}}, "schema.$defs.a: the keyword 'if' is not supported"),
        ({"x-guidance": {"lenient": True}}, "schema: the keyword 'x-guidance' is not supported"),
        ({"unheard": 1}, "schema: the keyword 'unheard' is not supported"),
        ({"items": [{}]}, "schema.items: an array of 1 is not a schema: it must be an object, true or false"),
        ({"format": "color"}, "schema.format: 'color' is not supported; formats are date, date-time, duration, email"),
        ({"properties": []}, "schema.properties: an array of 0 is not an object of schemas"),
        ({"anyOf": []}, "schema.anyOf: it must be an array of at least one schema"),
        ({"minItems": -1}, "schema.minItems: -1 is not a whole number of 0 to 2147483647"),
        ({"maxLength": 2.0}, "schema.maxLength: 2.0 is not a whole number of 0 to 2147483647"),
        ({"minimum": "1"}, "schema.minimum: '1' is not a number"),
        ({"exclusiveMinimum": True}, "schema.exclusiveMinimum: True is not a number"),
        ({"multipleOf": 0}, "schema.multipleOf: 0 is not above 0"),
        ({"maximum": 2**53 + 1}, "schema.maximum: 9007199254740993 is too large; whole numbers go up to"),
        ('{"const": {"a": [1e999]}}', "schema.const.a.0: the number is too large"),
        ({"type": "float"}, "schema.type: 'float' is not a type of JSON"),
        ({"type": []}, "schema.type: an array of 0 is not a type of JSON"),
        ({"enum": []}, "schema.enum: it must be an array of at least one value"),
        ({"required": "a"}, "schema.required: it must be an array of property names"),
        ({"pattern": 5}, "schema.pattern: 5 is not a string"),
        ({"$ref": "other.json"}, "schema.$ref: 'other.json' is not supported; references must be '#' or begin with"),
        ({"$ref": "#/$defs/a", "$defs": {}}, "schema.$ref: '#/$defs/a' leads to no schema"),
        ({"minLength": 2, "maxLength": 1}, "schema: minLength is 2, maxLength is 1: nothing can be valid"),
        ({"minimum": 2, "maximum": 1.5}, "schema: minimum is 2, maximum is 1.5: nothing can be valid"),
        ({"minProperties": 2}, "schema: minProperties is supported up to one more than the properties that are "),
        ({"properties": {"x": {"$id": "x"}}}, "schema.properties.x.$id: it is supported at the top only"),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a~1b": {}}}, "schema.$ref: '#/$defs/a~1b': escapes in references are not"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "schema.$schema: 'http://json-schema.org/draft-04/"),
        (nested(MAX_DEPTH + 1), "the schema is nested more than 96 levels deep"),
        ("[" * 100_000, "schema: it is nested too deeply"),
        ([], "schema: an array of 0 is not an object"),
        ("{", "schema: no JSON: Expecting property name"),
        ({"const": {1, 2}}, "schema: it must be of JSON's values: Object of type set is not JSON serializable"),
        ({"const": float("nan")}, "schema: it must be of JSON's values: "),
        ({"title": "x" * MAX_BYTES}, f"schema: it has {MAX_BYTES + 13} bytes; it may have {MAX_BYTES}"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_in_one_line_that_names_the_place(schema: Any, words: str) -> None:
    with pytest.raises(ArcmtpError) as error:
        Constraint.json_schema(schema)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_schema_is_not_changed() -> None:
    schema = {"properties": {"on": {"format": "date"}}}
    assert Constraint.json_schema(schema) == Constraint.json_schema(json.dumps(schema))
    assert schema == {"properties": {"on": {"format": "date"}}}
