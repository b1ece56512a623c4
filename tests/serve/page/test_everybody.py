"""The page is safe with any text, asks for keys, and is usable on a phone, by keyboard and with a screen reader."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.serve.conftest import Server, started
from tests.serve.page.driver import (
    Open,
    answer_once,
    answers,
    button,
    events,
    message,
    send,
    think_forever,
    wait_complete,
)

HOSTILE = """\
<script>window.harmed = 1</script>

<img src=x onerror="window.harmed = 2"> and <b onclick="window.harmed = 3">bold</b>

[one](javascript:window.harmed=4) [two](data:text/html,<script>window.harmed=5</script>) [three](https://example.com/ok)
![picture](https://example.com/stolen?what=secret) <https://example.com/auto> [four](vbscript:x)

```python" onmouseover="window.harmed=6"
print("<img src=x onerror=window.harmed=7>")  # **not bold**
```

```"><img src=x onerror=window.harmed=8>
x
```

| a | <svg onload=window.harmed=9> |
|---|---|
| `x<y` | <iframe src="https://example.com"></iframe> |
"""
FORBIDDEN = "img, script, iframe, svg, b, style, object, form, input, [onerror], [onclick], [onload], [onmouseover]"


def test_nothing_that_a_model_writes_is_trusted(scripted: Server, open_page: Open) -> None:
    page = open_page(scripted)
    answer_once(page, events({"reasoning_content": HOSTILE}, {"content": HOSTILE}))
    send(page, "Harm me.")
    text = answers(page).locator("> .markdown")
    expect(text.locator("td").last).to_contain_text("<iframe")
    page.get_by_text(re.compile("^Thought")).click()
    answers(page).locator("a, pre").last.hover()
    assert answers(page).locator(".markdown").locator(FORBIDDEN).count() == 0
    expect(text.locator(".code-bar span")).to_have_text(['python"', '"><img'])
    links = text.locator("a").evaluate_all("all => all.map(a => [a.getAttribute('href'), a.rel, a.target])")
    ends = ["ok", "stolen?what=secret", "auto"]
    assert links == [[f"https://example.com/{end}", "noopener noreferrer nofollow", "_blank"] for end in ends]
    assert page.evaluate("window.harmed") is None
    expect(text.locator("pre").first).to_have_text('print("<img src=x onerror=window.harmed=7>")  # **not bold**')


def test_code_is_coloured_and_copied(scripted: Server, open_page: Open) -> None:
    page = open_page(scripted)
    answer_once(page, events({"content": "```python\ndef f():\n    return 1\n```\n\n- **bold**\n"}))
    send(page, "Code, please.")
    expect(answers(page).locator("pre .hljs-keyword")).to_have_text(["def", "return"])
    expect(answers(page).locator("li strong")).to_have_text("bold")
    button(answers(page).locator(".code"), "Copy").click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "def f():\n    return 1"


def test_no_other_address_can_be_reached(scripted: Server, server: Server, open_page: Open) -> None:
    page = open_page(scripted)
    reach = """url => new Promise((resolve) => {
        addEventListener('securitypolicyviolation', (event) => resolve(event.violatedDirective));
        fetch(url).then(() => resolve('reached'), () => setTimeout(resolve, 1000, 'refused by the server only'));
    })"""
    assert page.evaluate(reach, f"{server.url}/health") == "connect-src"
    with pytest.raises(Exception, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<b>x</b>'")


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Server]:
    """A server that wants a key. It is still loading, which what it says of keys does not wait for."""
    (tmp_path / "keys").write_text("secret-1\n")
    with started(tmp_path / "log", "--api-key-file", str(tmp_path / "keys")) as server:
        yield server


def test_a_key_is_asked_for_and_kept(locked: Server, open_page: Open) -> None:
    with locked.http() as http:
        statuses = {path: http.get(path).status_code for path in ("/", "/page/page.js", "/props", "/page", "/docs")}
    assert statuses == {"/": 200, "/page/page.js": 200, "/props": 401, "/page": 401, "/docs": 401}
    page = open_page(locked)
    dialog = page.get_by_role("dialog", name="API key")
    for said, key in (("asks for a key", "wrong"), ("does not accept this key", "secret-1")):
        expect(dialog).to_contain_text(said)
        dialog.get_by_role("textbox").fill(key)
        page.keyboard.press("Enter")
    expect(page.get_by_role("status").first).to_have_text(re.compile("loading the model|tiny"))
    expect(dialog).to_be_hidden()
    with page.expect_response("**/props") as answer:
        page.reload()
    assert answer.value.request.headers["authorization"] == "Bearer secret-1"
    assert answer.value.status in (200, 503)
    expect(dialog).to_be_hidden()


def test_a_phone_shows_everything_without_scrolling_sideways(scripted: Server, open_page: Open) -> None:
    page = open_page(scripted, viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    wide = f"| a | b |\n|---|---|\n| {'x' * 80} | y |\n\n```\n{'z' * 200}\n```\n\n{'w' * 120} `{'v' * 90}`\n"
    answer_once(page, events({"content": wide}))
    send(page, "q" * 150)
    expect(answers(page).locator("pre")).to_be_visible()
    widths = "[document.scrollingElement.scrollWidth, document.querySelector('.view').scrollWidth]"
    assert max(page.evaluate(widths)) <= 360
    page.get_by_role("button", name="Conversations").tap()
    expect(page.get_by_role("navigation", name="Conversations")).to_be_in_viewport(ratio=1)
    page.get_by_role("link", name="New conversation").tap()
    expect(page.get_by_role("navigation", name="Conversations")).to_be_hidden()
    expect(answers(page)).to_have_count(0)
    button(page, "Settings").tap()
    dialog = page.get_by_role("dialog", name="Settings")
    assert dialog.evaluate("element => element.scrollWidth <= element.clientWidth && element.clientWidth < 360")


def test_the_keyboard_alone_is_enough(scripted: Server, open_page: Open) -> None:
    page = open_page(scripted)
    focused = "document.activeElement.ariaLabel ?? document.activeElement.textContent"
    expect(message(page)).to_be_focused()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    expect(message(page)).to_have_value("one\ntwo")
    page.keyboard.press("Enter")
    wait_complete(page)
    expect(message(page)).to_be_focused()
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(focused) == "Regenerate"
    page.keyboard.press("Enter")
    expect(answers(page).get_by_role("group", name="Versions")).to_contain_text("2/2")
    wait_complete(page)
    page.locator(".skip").focus()
    order: list[str] = []
    while "Message" not in order:
        order.append(page.evaluate(focused))
        page.keyboard.press("Tab")
        assert len(order) < 30
    wanted = ["Skip to the message", "New conversation", "one", "Conversation menu", "Settings", "Conversation", "Edit"]
    assert [name for name in order if name in wanted] == wanted
    button(page, "Settings").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Settings")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(button(page, "Settings")).to_be_focused()


def test_a_screen_reader_is_told(scripted: Server, open_page: Open) -> None:
    page = open_page(scripted)
    think_forever(page)
    log = page.get_by_role("log")
    expect(log).to_have_attribute("aria-live", "polite")
    send(page, "Think.")
    expect(log).to_have_attribute("aria-busy", "true")
    page.keyboard.press("Escape")
    expect(log).to_have_attribute("aria-busy", "false")
    button(page, "Settings").click()
    unnamed = "all => all.filter(e => !(e.ariaLabel || e.textContent.trim() || e.labels?.length)).length"
    assert page.locator("button, a, input, select, textarea").evaluate_all(unnamed) == 0
