"""JSON schemas (draft 2020-12) that a grammar can keep to: each keyword is either kept, without meaning for validity,
or refused."""

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from arcmtp.errors import ArcmtpError, shown

MAX_DEPTH = 96  # levels of JSON; llguidance's reader takes 128 with what is around the schema
EXACT = 2**53  # whole numbers up to it are kept as they are

TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)  # fmt: skip
_DATE = (
    "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
# In place of llguidance's, which allow 29 February of every year, a year 0 and a 61st second of every minute.
PATTERNS = {"date": _DATE, "time": _TIME, "date-time": f"{_DATE}T{_TIME}"}
# Keywords that say nothing about which values are valid.
ANNOTATIONS = frozenset(
    {
        "$comment", "title", "description", "default", "examples", "readOnly", "writeOnly",
        "deprecated", "contentMediaType", "contentEncoding",
    }
)  # fmt: skip
# In draft 7 and 2019-09 the keywords that are supported mean the same, but for lists of items.
_DRAFTS = (
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
)


def checked_schema(schema: Mapping[str, Any] | str, name: str, max_bytes: int) -> dict[str, Any]:
    """A copy of a schema, from JSON text if it is text, of which every keyword can be kept, some in other words.

    Raises ArcmtpError, on one line that begins with the place in the schema, which is called `name`.
    """
    text = schema if isinstance(schema, str) else _dumped(schema, name)
    if (size := len(text.encode(errors="replace"))) > max_bytes:
        raise ArcmtpError(f"{name}: it has {size} bytes; it may have {max_bytes}")
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else f"no JSON: {error}"
        raise ArcmtpError(f"{name}: {what}") from None
    if not isinstance(loaded, dict):
        raise ArcmtpError(f"{name}: {shown(loaded)} is not an object")
    _Checker(loaded).schema(loaded, name, 0)
    return loaded


def _dumped(schema: Any, name: str) -> str:
    try:
        return json.dumps(schema, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArcmtpError(f"{name}: it must be of JSON's values: {error}") from None


def _refuse(place: str, what: str) -> NoReturn:
    raise ArcmtpError(f"{place}: {what}")


class _Checker:
    """Walks through a schema, which it changes; `root` is where its references lead."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._keywords: dict[str, Callable[[Any, str, int], None]] = {
            **dict.fromkeys(ANNOTATIONS, lambda value, place, depth: None),
            **dict.fromkeys(("items", "additionalProperties"), self.schema),
            **dict.fromkeys(("properties", "patternProperties", "$defs", "definitions"), self._map),
            **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), self._list),
            **dict.fromkeys(
                ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"), self._count
            ),
            **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), self._number),
            "multipleOf": self._multiple,
            "type": self._type,
            "enum": self._enum,
            "const": self._value,
            "required": self._required,
            "pattern": self._text,
            "format": self._format,
            "$ref": self._reference,
            "$schema": self._draft,
            "$id": self._identity,
        }

    def schema(self, schema: Any, place: str, depth: int) -> None:
        """Raise ArcmtpError for the first thing in a schema that cannot be kept."""
        if isinstance(schema, bool):
            return
        if not isinstance(schema, dict):
            _refuse(place, f"{shown(schema)} is not a schema: it must be an object, true or false")
        self._deep(place, depth)
        for keyword, value in schema.items():
            check = self._keywords.get(keyword)
            if check is None:
                _refuse(place, f"the keyword {shown(keyword)} is not supported")
            check(value, f"{place}.{keyword}", depth + 1)
        self._bounds(schema, place)
        schema.pop("$schema", None)  # llguidance would take prefixItems for unknown in earlier drafts
        if schema.get("format") in PATTERNS:
            pattern = PATTERNS[schema.pop("format")]
            schema["allOf"] = [*schema.get("allOf", ()), {"pattern": f"^(?:{pattern})$"}]

    def _deep(self, place: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            _refuse(place[:200], f"the schema is nested more than {MAX_DEPTH} levels deep")

    def _map(self, value: Any, place: str, depth: int) -> None:
        if not isinstance(value, dict):
            _refuse(place, f"{shown(value)} is not an object of schemas")
        for key, schema in value.items():
            self.schema(schema, f"{place}.{key}", depth + 1)

    def _list(self, value: Any, place: str, depth: int) -> None:
        if not isinstance(value, list) or not value:
            _refuse(place, "it must be an array of at least one schema")
        for index, schema in enumerate(value):
            self.schema(schema, f"{place}.{index}", depth + 1)

    def _count(self, value: Any, place: str, depth: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
            _refuse(place, f"{shown(value)} is not a whole number of 0 to 2147483647")

    def _number(self, value: Any, place: str, depth: int) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            _refuse(place, f"{shown(value)} is not a number")
        self._value(value, place, depth)

    def _multiple(self, value: Any, place: str, depth: int) -> None:
        self._number(value, place, depth)
        if value <= 0:
            _refuse(place, f"{value} is not above 0")

    def _type(self, value: Any, place: str, depth: int) -> None:
        types = value if isinstance(value, list) and value else [value]
        wrong = next((one for one in types if not isinstance(one, str) or one not in TYPES), None)
        if wrong is not None or value is None:
            _refuse(place, f"{shown(wrong)} is not a type of JSON")

    def _enum(self, value: Any, place: str, depth: int) -> None:
        if not isinstance(value, list) or not value:
            _refuse(place, "it must be an array of at least one value")
        for index, one in enumerate(value):
            self._value(one, f"{place}.{index}", depth + 1)

    def _value(self, value: Any, place: str, depth: int) -> None:
        """Any value of JSON whose numbers a 64-bit float holds exactly."""
        self._deep(place, depth)
        if isinstance(value, int) and abs(value) > EXACT:
            _refuse(place, f"{shown(value)} is too large; whole numbers go up to {EXACT}")
        if isinstance(value, float) and abs(value) == float("inf"):
            _refuse(place, "the number is too large")
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, child in children:
            self._value(child, f"{place}.{key}", depth + 1)

    def _required(self, value: Any, place: str, depth: int) -> None:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            _refuse(place, "it must be an array of property names")

    def _text(self, value: Any, place: str, depth: int) -> None:
        if not isinstance(value, str):
            _refuse(place, f"{shown(value)} is not a string")

    def _format(self, value: Any, place: str, depth: int) -> None:
        if not isinstance(value, str) or value not in FORMATS:
            _refuse(place, f"{shown(value)} is not supported; formats are {', '.join(sorted(FORMATS))}")

    def _reference(self, value: Any, place: str, depth: int) -> None:
        if not isinstance(value, str) or not (value == "#" or value.startswith("#/")):
            _refuse(place, f"{shown(value)} is not supported; references must be '#' or begin with '#/'")
        if "~" in value or "%" in value:
            _refuse(place, f"{shown(value)}: escapes in references are not supported")
        found: Any = self._root
        for step in value[2:].split("/") if len(value) > 2 else ():
            found = found.get(step) if isinstance(found, dict) else None
        if not isinstance(found, dict | bool):
            _refuse(place, f"{shown(value)} leads to no schema")

    def _draft(self, value: Any, place: str, depth: int) -> None:
        if not isinstance(value, str) or value.rstrip("#") not in _DRAFTS:
            _refuse(place, f"{shown(value)} is not supported; it may be {_DRAFTS[0]}, or absent")

    def _identity(self, value: Any, place: str, depth: int) -> None:
        if depth > 1:  # references below it would lead elsewhere
            _refuse(place, "it is supported at the top only")

    def _bounds(self, schema: dict[str, Any], place: str) -> None:
        """What llguidance would accept and not keep, or finds unsatisfiable without naming the place."""
        for low, high in (("minItems", "maxItems"), ("minLength", "maxLength"), ("minProperties", "maxProperties"),
                          ("minimum", "maximum")):  # fmt: skip
            if low in schema and high in schema and schema[low] > schema[high]:
                _refuse(place, f"{low} is {schema[low]}, {high} is {schema[high]}: nothing can be valid")
        if schema.get("minProperties", 0) > len(set(schema.get("required", ()))) + 1:
            _refuse(place, "minProperties is supported up to one more than the properties that are required")
