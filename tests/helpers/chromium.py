"""A page in a real Chromium, driven as a visitor would."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from helpers.patience import PATIENCE_SECONDS

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
"""Flags with which Chromium asks for nothing by itself."""


@contextmanager
def open_in_chromium(address: str, width: int = 1200, height: int = 900) -> Iterator[Any]:
    """Give the page at an address, as playwright's `Page`.

    At the end it checks that nothing was written to the console, no script failed, no image is broken, and nothing was
    asked for from elsewhere.

    Args:
        address: Address of the page, `http://...` or `file:///...`.
        width, height: Size of the window in pixels.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra browser: make test-browser")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "install Chromium for this test"

    # What goes wrong is noted while the page is used.
    complaints: list[str] = []
    asked: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(1000 * PATIENCE_SECONDS)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        yield page

        # All of it at the end.
        broken = page.evaluate(
            "Array.from(document.images).filter((image) => image.complete && !image.naturalWidth).length"
        )
        browser.close()
    assert complaints == [] and broken == 0
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
