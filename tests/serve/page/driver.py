"""What a user does with the page, and streams that a test answers with."""

import json
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Locator, Page, Route, expect

CHAT = "/v1/chat/completions"
Open = Callable[..., Page]


def message(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Message", exact=True)


def send(page: Page, text: str) -> None:
    message(page).fill(text)
    message(page).press("Enter")


def answers(page: Page) -> Locator:
    return page.get_by_role("article", name="Assistant")


def questions(page: Page) -> Locator:
    return page.get_by_role("article", name="You")


def button(place: Page | Locator, name: str) -> Locator:
    return place.get_by_role("button", name=name, exact=True)


def wait_complete(page: Page) -> None:
    """Until the last answer is complete, and kept."""
    expect(page.locator(".figures").last).to_be_visible()
    expect(button(page, "Send")).to_be_visible()


def set_setting(page: Page, name: str, value: str) -> None:
    button(page, "Settings").click()
    field = page.get_by_label(name)
    if field.evaluate("element => element.tagName") == "SELECT":
        field.select_option(value)
    else:
        field.fill(value)
    button(page, "Done").click()


def events(*deltas: dict[str, Any], end: bool = True) -> str:
    """A stream with these deltas; without an end it has been cut off."""
    chunks: list[Any] = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    if end:
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    lines = [json.dumps(chunk) for chunk in chunks] + (["[DONE]"] if end else [])
    return "".join(f"data: {line}\n\n" for line in lines)


def answer_once(page: Page, stream: str) -> None:
    """The next request for an answer gets this stream, and not the server's."""

    def answer(route: Route) -> None:
        route.fulfill(body=stream, content_type="text/event-stream")

    page.route(f"**{CHAT}", answer, times=1)


def think_forever(page: Page) -> None:
    """The scripted model thinks until it is stopped."""

    def ask(route: Route) -> None:
        body = json.loads(route.request.post_data or "")
        route.continue_(post_data=json.dumps({**body, "chat_template_kwargs": {"forever": True}}))

    page.route(f"**{CHAT}", ask)
