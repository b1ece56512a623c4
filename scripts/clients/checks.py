"""What the scripts of all clients share: where the server is, what is asked, and how checks are run and told."""

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

MODEL = "tiny"
URL = os.environ.get("ARCMTP_URL", "http://127.0.0.1:8080")
MARK = "CHECK "  # begins a line that tells of a check
QUESTION: list[Any] = [{"role": "user", "content": "What is a list?"}]
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"enum": [1, 2, 3]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather of a city", "parameters": WEATHER, "strict": True},
}


class Verdict(BaseModel):
    """What a model is to fill in; nothing of it can be long."""

    model_config = ConfigDict(extra="forbid")
    colour: Literal["red", "green", "blue"]
    sure: bool
    stars: Literal[1, 2, 3]


def run(*checks: Callable[[], None]) -> None:
    """Run each check, named by its docstring, and print a line of JSON: tried, ok, why (not)."""
    for check in checks:
        why = ""
        try:
            check()
        except (Exception, SystemExit) as error:
            traceback.print_exc(file=sys.stderr)
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        print(MARK + json.dumps({"tried": (check.__doc__ or "").rstrip("."), "ok": not why, "why": why}), flush=True)


def expect(holds: object, what: object) -> None:
    """AssertionError that says what was found, unless it holds."""
    if not holds:
        raise AssertionError(f"found {what!r}")


def expect_weather(name: str, arguments: str | dict[str, Any]) -> None:
    """The call of the tool has a city and days."""
    found = json.loads(arguments) if isinstance(arguments, str) else arguments
    expect(name == "weather" and found.get("city") in ("Paris", "Rome") and found.get("days") in (1, 2, 3), found)
