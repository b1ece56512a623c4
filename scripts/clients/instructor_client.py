"""Instructor."""

from collections.abc import Callable
from typing import Any

import instructor
from openai import OpenAI

from scripts.clients.checks import MODEL, QUESTION, URL, Verdict, expect, run


def check(mode: Any, tried: str) -> Callable[[], None]:
    def ask() -> None:
        client = instructor.from_openai(OpenAI(base_url=f"{URL}/v1", api_key="none"), mode=mode)
        options: Any = {"max_tokens": 600, "max_retries": 1, "reasoning_effort": "none"}
        answer = client.create(model=MODEL, messages=QUESTION, response_model=Verdict, **options)
        expect(isinstance(answer, Verdict), answer)

    ask.__doc__ = tried
    return ask


run(
    check(instructor.Mode.JSON_SCHEMA, "mode JSON_SCHEMA"),
    check(instructor.Mode.TOOLS, "mode TOOLS"),
    check(instructor.Mode.TOOLS_STRICT, "mode TOOLS_STRICT"),
)
