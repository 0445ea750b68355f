"""A real browser for the tests of pages; without one they skip, and say so."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def page(*, width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Any]:
    """An empty page of Playwright's. `page.troubles` is a list of what goes wrong on it: errors,
    refusals of its policy, and requests that leave this machine's files."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("needs Chromium, which is not here")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        shown = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        troubles: list[str] = []
        shown.on("pageerror", lambda error: troubles.append(str(error)))
        shown.on(
            "console", lambda told: troubles.append(told.text) if told.type == "error" else None
        )
        shown.on("request", lambda asked: None if asked.url.startswith(("file:", "data:"))
                 else troubles.append(asked.url))  # fmt: skip
        shown.troubles = troubles
        try:
            yield shown
        finally:
            browser.close()
