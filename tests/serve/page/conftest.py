"""The page at `/` in a real browser, Chromium without a window."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.serve.conftest import Server
from tests.serve.page.driver import Open

PATIENCE = 60_000  # milliseconds
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; without one the tests are skipped. Its end matters: until then asyncio.run fails in this process."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens the page of a server in a browser that knows nothing yet. The page may ask its server only, and have no
    error of JavaScript."""
    contexts: list[BrowserContext] = []
    origins: list[str] = []
    asked: list[str] = []
    failed: list[Any] = []

    def open_page(server: Server, **options: Any) -> Page:
        context = browser.new_context(permissions=["clipboard-read", "clipboard-write"], **options)
        contexts.append(context)
        origins.append(f"{server.url}/")
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: failed.append(error))
        page.goto(server.url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert asked and all(url.startswith((*origins, "blob:")) for url in asked), asked
    assert not failed
