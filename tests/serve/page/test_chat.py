"""Conversations in the page."""

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.serve.conftest import Server
from tests.serve.page.driver import (
    CHAT,
    Open,
    answer_once,
    answers,
    button,
    events,
    message,
    questions,
    send,
    set_setting,
    think_forever,
    wait_complete,
)


def test_an_answer_is_the_servers_and_has_its_figures(server: Server, open_page: Open) -> None:
    question: Any = {"messages": [{"role": "user", "content": "How do I read a file?"}], "max_tokens": 150}
    with server.http() as http:
        expected = http.post(CHAT, json=question).json()["choices"][0]["message"]["content"]
    page = open_page(server)
    expect(page.get_by_text("tiny on")).to_be_visible()
    set_setting(page, "Max tokens", "150")
    send(page, "How do I read a file?")
    expect(page.get_by_text("The limit of tokens is reached.")).to_be_visible()
    expect(page.locator(".figures")).to_contain_text(
        re.compile(r"^[\d.]+ tokens/s · \d+ % of drafts accepted · 150 tokens · first after [\d.]+ s$")
    )
    button(answers(page), "Copy").first.click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == expected


def test_an_answer_streams_stops_by_escape_and_goes_on(scripted: Server, open_page: Open) -> None:
    page = open_page(scripted)
    think_forever(page)
    send(page, "Think.")
    thoughts = answers(page).locator("details")
    expect(thoughts).to_contain_text("hm hm hm")
    expect(page.get_by_text("Thinking …")).to_be_visible()
    page.keyboard.press("Escape")
    expect(answers(page)).to_contain_text("Stopped.")
    written = thoughts.text_content() or ""
    with page.expect_request(f"**{CHAT}") as asked:
        button(page, "Continue").click()
    body: Any = asked.value.post_data_json
    assert body["messages"][-1]["reasoning_content"] in written
    page.wait_for_function("n => document.querySelector('details').textContent.length > n", arg=len(written))
    button(page, "Stop").click()
    expect(answers(page)).to_contain_text("Stopped.")


def test_thoughts_are_folded_and_can_be_switched_off(scripted: Server, open_page: Open) -> None:
    page = open_page(scripted)
    send(page, "Weather?")
    wait_complete(page)
    expect(answers(page).get_by_text("I should look.")).to_be_hidden()
    expect(answers(page)).to_contain_text("<function=weather>")
    answers(page).get_by_text(re.compile("^Thought for")).click()
    expect(answers(page).get_by_text("I should look.")).to_be_visible()
    set_setting(page, "Thinking", "off")
    send(page, "And now?")
    expect(answers(page).last).to_contain_text("The answer is 42.")
    assert answers(page).last.locator("details").count() == 0


def test_regenerating_and_editing_make_branches(scripted: Server, open_page: Open) -> None:
    page = open_page(scripted)
    send(page, "first")
    wait_complete(page)
    button(answers(page), "Regenerate").click()
    expect(answers(page).get_by_role("group", name="Versions")).to_contain_text("2/2")
    wait_complete(page)
    send(page, "second")
    expect(answers(page)).to_have_count(2)
    wait_complete(page)
    button(questions(page).first, "Edit").click()
    page.get_by_label("Edit the message").fill("changed")
    with page.expect_request(f"**{CHAT}") as asked:
        page.keyboard.press("Enter")
    body: Any = asked.value.post_data_json
    assert body["messages"] == [{"role": "user", "content": "changed"}]
    wait_complete(page)
    expect(questions(page)).to_have_text([re.compile("changed")])
    button(questions(page), "Earlier version").click()
    expect(questions(page)).to_have_text([re.compile("first"), re.compile("second")])
    expect(answers(page).first.get_by_role("group", name="Versions")).to_contain_text("2/2")


def test_a_reload_keeps_conversations_settings_and_what_was_typed(scripted: Server, open_page: Open) -> None:
    page = open_page(scripted)
    set_setting(page, "System prompt", "Be brief.")
    wanted = {"Temperature": "0.25", "Top-k": "7", "Seed": "5", "Draft length": "0", "Thinking": "off"}
    for name, value in wanted.items():
        set_setting(page, name, value)
    set_setting(page, "Top-p", "1.5")  # refused
    message(page).fill("not sent")
    page.reload()
    expect(message(page)).to_have_value("not sent")
    with page.expect_request(f"**{CHAT}") as asked:
        send(page, "What is it?")
    wait_complete(page)
    page.reload()
    expect(answers(page)).to_contain_text("The answer is 42.")
    body: Any = asked.value.post_data_json
    assert [one["content"] for one in body.pop("messages")] == ["Be brief.", "What is it?"]
    assert body == {
        "temperature": 0.25, "top_k": 7, "seed": 5, "draft": 0, "enable_thinking": False,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_conversations_are_renamed_exported_and_deleted(scripted: Server, open_page: Open) -> None:
    page = open_page(scripted)
    set_setting(page, "Thinking", "off")
    send(page, "What is it?")
    wait_complete(page)
    listed = page.get_by_role("navigation", name="Conversations").get_by_role("listitem")
    button(page, "Conversation menu").click()
    button(page, "Rename").click()
    page.get_by_label("Title").fill("My title")
    page.keyboard.press("Enter")
    expect(listed).to_have_text(["My title"])
    button(page, "Conversation menu").click()
    with page.expect_download() as saved:
        button(page, "Export as Markdown").click()
    assert saved.value.suggested_filename == "My-title.md"
    text = Path(saved.value.path()).read_text(encoding="utf-8")
    assert text == "# My title\n\n## You\n\nWhat is it?\n\n## Assistant\n\nThe answer is 42.\n"
    for undone in (True, False):
        button(page, "Conversation menu").click()
        button(page, "Delete").click()
        expect(listed).to_have_count(0)
        if undone:
            button(page, "Undo").click()
            expect(listed).to_have_text(["My title"])
    page.reload()
    expect(page.get_by_text("scripted on")).to_be_visible()
    expect(listed).to_have_count(0)
    expect(message(page)).to_have_value("")


def test_a_lost_connection_keeps_what_was_written_and_goes_on(scripted: Server, open_page: Open) -> None:
    page = open_page(scripted)
    set_setting(page, "Thinking", "off")
    answer_once(page, events({"content": "The answer"}, end=False))
    send(page, "What is it?")
    expect(answers(page).get_by_role("alert")).to_contain_text("The connection to the server was lost. Check that")
    expect(button(page, "Send")).to_be_visible()
    page.reload()
    expect(answers(page)).to_contain_text("The answer")
    button(page, "Continue").click()
    expect(answers(page)).to_contain_text("The answer is 42.")
    expect(answers(page).get_by_role("alert")).to_have_count(0)


def test_an_error_of_the_server_is_a_line_that_says_what_to_do(scripted: Server, open_page: Open) -> None:
    page = open_page(scripted)
    send(page, "word " * 9000)
    alert = answers(page).get_by_role("alert")
    expect(alert).to_contain_text("Begin a new conversation, or start the server with a larger --ctx.")
    assert "\n" not in (alert.text_content() or "")
    button(questions(page), "Edit").click()
    page.get_by_label("Edit the message").fill("short")
    page.keyboard.press("Enter")
    wait_complete(page)
