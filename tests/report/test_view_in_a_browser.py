"""A person's way through the page of a data set, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
from PIL import Image

from retinue.api import view_data

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")

ODD = "猫 & <img src=x onerror=alert(1)>"


def counted(page: Any, selector: str, number: int) -> None:
    """Waits until there are so many."""
    sync_api.expect(page.locator(selector)).to_have_count(number)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seventy images of two classes, one of them broken, and a page of them."""
    root = tmp_path_factory.mktemp("view") / "photos"
    draws = np.random.default_rng(0)
    for name, count in ((ODD, 30), ("rose", 40)):
        (root / name).mkdir(parents=True)
        for k in range(count):
            pixels = draws.integers(0, 255, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{k:02}.jpg")
    (root / "rose" / "05.jpg").write_bytes(b"\xff\xd8 broken")
    return view_data(root, root.parent / "out", side=32).page


def test_pictures_are_filtered_found_and_enlarged(out: Path, tmp_path: Path) -> None:
    with browser.page() as page:
        page.goto(out.as_uri())
        page.wait_for_selector(".card img")
        assert page.text_content("#shown") == "all 70 images"
        assert page.locator(".card").count() == 60
        page.click("#after")
        counted(page, ".card img", 10)
        page.click(f"#classes button:has-text('{ODD[:1]}')")
        counted(page, ".card img", 30)
        assert page.text_content("#shown") == "30 of 70 images"
        assert page.locator(".card .label").first.text_content() == ODD  # as text
        page.fill("#search", "07")
        counted(page, ".card", 1)
        page.click(".card .frame")
        page.wait_for_selector("dialog[open] img")
        assert "07.jpg · 40 × 30" in page.text_content("dialog .told")
        page.locator("dialog img").evaluate("(image) => image.decode()")
        # The original, not the small picture.
        assert page.locator("dialog img").evaluate("(image) => image.naturalWidth") == 40
        page.keyboard.press("Escape")
        page.go_back()
        counted(page, ".card img", 30)
        page.screenshot(path=tmp_path / "view.png")
        assert page.troubles == []


def test_an_address_opens_what_was_chosen_and_a_broken_image_is_told(out: Path) -> None:
    with browser.page(width=390, dark=True) as page:
        page.goto(f"{out.as_uri()}#c=bad")
        page.wait_for_selector(".card .frame p")
        assert page.locator(".card").count() == 1
        assert page.locator(".card .frame").is_disabled()
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390  # nothing sticks out on a phone
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
        assert page.troubles == []
