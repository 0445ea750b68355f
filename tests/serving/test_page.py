"""A person's way over the page, in a real browser; skipped where there is none.

Screenshots are compared in structure: where things lie at each width, and that light is light and
dark dark. With `RETINUE_SCREENSHOTS` set to a folder they are kept there.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from served import Service, encoded, lights, picture, quick, serving, wait_until

from retinue.serving import app
from retinue.serving.bodies import parsed

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")

ODD = '<img src=x onerror=alert(1)> & "it\'s"'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        arguments = [
            "--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"
        ]  # fmt: skip
        made = started.chromium.launch(executable_path=BROWSER, args=arguments)
        yield made
        made.close()


@pytest.fixture(scope="module")
def service(
    classifier: Path, detector: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    samples = tmp_path_factory.mktemp("samples")
    (samples / f"{'a'}.png").write_bytes(lights())
    (samples / "b & c.png").write_bytes(picture())
    models = {"flowers": classifier, "lights": detector}
    with serving(models, quick(samples=samples)) as (running, _):
        yield running


class Visit:
    """A page that is open, and what it asked and said."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address = page, address
        self.asked: list[Any] = []
        self.said: list[str] = []
        page.on("request", lambda request: self.asked.append(request))
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: self.said.append(f"dialog {dialog.message}"))

    def open(self) -> Visit:
        self.page.goto(self.address)
        self.page.wait_for_selector("#about:not([hidden])")
        return self

    def upload(self, data: bytes, name: str = "photo.png", kind: str = "image/png") -> None:
        self.page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": data})

    def answered(self) -> Visit:
        self.page.wait_for_selector("#results:not([hidden])")
        self.page.wait_for_selector('#stage[data-state="done"]')
        return self

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).inner_text())

    def predictions(self) -> int:
        return sum("/v1/predict" in request.url for request in self.asked)

    def pixels(self, selector: str = "#canvas") -> Any:
        data = self.page.locator(selector).screenshot()
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.fixture
def visit(browser: Any, service: Service) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = Visit(context.new_page(), service.address).open()
    yield page
    context.close()
    # Nothing is loaded from elsewhere, and the policy had nothing to stop.
    assert all(one.url.startswith((service.address, "blob:")) for one in page.asked)
    assert not [line for line in page.said if "policy" in line.lower() or "dialog" in line]


def test_upload_shows_classes_with_bars_and_sends_the_bytes_as_they_are(
    visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []

    def noted(kind: str, disposition: str, body: bytes, *, most: int) -> Any:
        sent.append(body)
        return parsed(kind, disposition, body, most=most)

    monkeypatch.setattr(app, "parsed", noted)
    visit.upload(picture())
    visit.answered()
    rows = visit.page.locator("#list li")
    assert rows.count() == 4
    names = visit.page.locator("#list .name").all_inner_texts()
    assert set(names) == {"daisy", "lily", "rose", "tulip"}
    assert visit.text("#best") == names[0]
    widths = [one.bounding_box()["width"] for one in visit.page.locator("#list .fill").all()]
    assert widths == sorted(widths, reverse=True)
    assert sent == [picture()]
    assert names[0] in visit.page.locator("#canvas").get_attribute("aria-label")
    assert names[0] in visit.text("#said")


def test_boxes_are_drawn_and_the_slider_acts_without_another_request(visit: Visit) -> None:
    visit.page.select_option("#model", "lights")
    visit.upload(lights())
    visit.answered()
    assert visit.page.locator("#list li").count() == 2
    before = visit.predictions()
    with_boxes = visit.pixels()
    visit.page.locator("#threshold").evaluate(
        "e => { e.value = 100; e.dispatchEvent(new Event('input')); }"
    )
    assert visit.page.locator("#list li").count() == 0
    assert visit.page.locator("#none").is_visible()
    without = visit.pixels()
    visit.page.locator("#threshold").focus()
    visit.page.keyboard.press("Home")
    assert visit.page.locator("#list li").count() == 2
    assert visit.predictions() == before
    # The red rectangle lies at 10–30 × 10–40 of 100 × 60; its frame does, too.
    changed = np.abs(with_boxes - without).sum(2) > 60
    scale = changed.shape[1] / 100
    rows, columns = np.nonzero(changed[:, : int(40 * scale)])
    assert abs(columns.min() / scale - 10) < 2
    assert abs(columns.max() / scale - 30) < 8  # the label may be longer
    assert abs(rows.max() / scale - 40) < 2


def test_a_thing_is_pointed_at_by_keyboard(visit: Visit) -> None:
    visit.page.select_option("#model", "lights")
    visit.upload(lights())
    visit.answered()
    plain = visit.pixels()
    thing = visit.page.locator("button.thing").first
    thing.focus()
    assert thing.get_attribute("aria-pressed") == "true"
    assert np.abs(visit.pixels() - plain).max() > 50
    visit.page.keyboard.press("Enter")
    visit.page.locator("#copy").focus()
    assert thing.get_attribute("aria-pressed") == "true"  # chosen, it stays


def test_paste(visit: Visit) -> None:
    """The file is only there while the event lasts."""
    data = base64.b64encode(picture()).decode()
    visit.page.evaluate(
        """data => {
            const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
            const held = new DataTransfer();
            held.items.add(new File([bytes], "image.png", { type: "image/png" }));
            const event = new ClipboardEvent("paste", { clipboardData: held, bubbles: true });
            document.dispatchEvent(event);
            held.items.clear();
        }""",
        data,
    )
    visit.answered()
    assert visit.page.locator("#list li").count() == 4


def test_drop_and_samples(visit: Visit) -> None:
    visit.page.locator("#sample-list button").nth(1).click()
    visit.answered()
    assert visit.page.locator("#sample-list img").nth(1).get_attribute("alt") == "b & c"
    visit.page.evaluate(
        """() => {
            const held = new DataTransfer();
            held.items.add(new File(["no picture"], "notes.txt", { type: "text/plain" }));
            dispatchEvent(new DragEvent("drop", { dataTransfer: held, bubbles: true }));
        }"""
    )
    assert "That is not a picture" in visit.text("#alert")


def test_errors_are_told_in_the_servers_words_and_the_next_picture_is_answered(
    visit: Visit,
) -> None:
    visit.upload(picture()[:300])
    visit.page.wait_for_selector("#alert:not([hidden])")
    assert "The picture cannot be read: truncated" in visit.text("#alert")
    assert not visit.page.locator("#results").is_visible()
    visit.upload(picture())
    visit.answered()
    assert visit.page.locator("#explain").is_visible()
    visit.upload(picture()[:300])
    visit.page.wait_for_selector("#alert:not([hidden])")
    assert not visit.page.locator("#explain").is_visible()
    visit.upload(picture())
    visit.answered()
    assert not visit.page.locator("#alert").is_visible()


def test_the_camera_takes_a_picture(visit: Visit) -> None:
    visit.page.locator("#camera").click()
    visit.page.wait_for_selector("#snap:not([hidden])")
    wait_until(lambda: visit.page.evaluate("video.videoWidth > 0"))
    visit.page.locator("#snap").click()
    visit.answered()
    assert visit.page.locator("#video").is_hidden()


def test_without_a_secure_context_there_is_no_camera_and_the_page_says_why(
    browser: Any, service: Service
) -> None:
    context = browser.new_context()
    context.add_init_script(
        "Object.defineProperty(navigator, 'mediaDevices', { value: undefined });"
        "Object.defineProperty(window, 'isSecureContext', { value: false });"
    )
    visit = Visit(context.new_page(), service.address).open()
    assert visit.page.locator("#camera").is_disabled()
    assert "needs HTTPS" in visit.text("#camera-why")
    context.close()


def test_a_huge_photograph_is_on_a_canvas_of_the_size_that_is_shown(visit: Visit) -> None:
    huge = encoded(Image.new("RGB", (5712, 4284), (90, 140, 60)), "JPEG")
    visit.upload(huge, "phone.jpg", "image/jpeg")
    visit.answered()
    width, shown = visit.page.evaluate("[canvas.width, canvas.clientWidth]")
    assert shown <= width <= 2 * shown <= 2400
    assert "5712 × 4284" in visit.text("#facts")


def test_a_picture_that_no_browser_shows_is_answered_all_the_same(visit: Visit) -> None:
    visit.page.select_option("#model", "lights")
    tiff = encoded(Image.open(io.BytesIO(lights())), "TIFF")
    visit.upload(tiff, "scan.tif", "image/tiff")
    visit.answered()
    assert visit.page.locator("#list li").count() == 2
    width, height = visit.page.evaluate("[canvas.clientWidth, canvas.clientHeight]")
    assert width / height == pytest.approx(100 / 60, abs=0.02)


def test_names_are_text(browser: Any, tmp_path: Path) -> None:
    from .conftest import write_classifier

    file = write_classifier(tmp_path / "odd.safetensors", classes=[ODD, "b"])
    with serving({ODD: file}) as (running, _):
        context = browser.new_context()
        visit = Visit(context.new_page(), running.address).open()
        visit.upload(picture(), f"{ODD}.png".replace("/", ""))
        visit.answered()
        assert ODD in visit.page.locator("#list .name").all_inner_texts()
        assert visit.text("#about-name") == ODD
        assert not any("dialog" in line or "alert" in line for line in visit.said)
        assert visit.page.locator("main img[src='x']").count() == 0
        context.close()


def test_a_key_is_asked_for_and_kept_for_the_tab(browser: Any, classifier: Path) -> None:
    key = "k" * 20
    with serving({"flowers": classifier}, quick(keys=(key,))) as (running, _):
        context = browser.new_context()
        visit = Visit(context.new_page(), running.address)
        visit.page.goto(running.address)
        visit.page.wait_for_selector("#key-form:not([hidden])")
        visit.upload(picture())  # which waits for the key
        visit.page.wait_for_selector('#stage[data-state="done"]')
        assert not visit.page.locator("#alert").is_visible()
        visit.page.fill("#key", "wrong" * 5)
        visit.page.keyboard.press("Enter")
        visit.page.wait_for_selector("#alert:not([hidden])")
        visit.page.fill("#key", key)
        visit.page.keyboard.press("Enter")
        visit.page.wait_for_selector("#about:not([hidden])")
        visit.answered()
        assert not visit.page.locator("#alert").is_visible()
        assert key not in "".join(request.url for request in visit.asked)
        context.close()


def test_what_was_chosen_stays_while_another_model_is_loaded(visit: Visit) -> None:
    asked: list[bool] = []

    def still_loading(route: Any) -> None:
        told = route.fetch().json()
        told["models"][0]["ready"] = False
        asked.append(True)
        route.fulfill(json=told)

    visit.page.route("**/v1/models", still_loading)
    visit.page.reload()
    visit.page.wait_for_selector("#about:not([hidden])")
    visit.page.select_option("#model", "lights")
    visit.page.locator("#threshold").evaluate(
        "e => { e.value = 77; e.dispatchEvent(new Event('input')); }"
    )
    before = len(asked)
    with visit.page.expect_response("**/v1/models"):
        pass
    visit.page.wait_for_timeout(100)
    assert len(asked) > before
    assert visit.page.locator("#model").input_value() == "lights"
    assert visit.page.locator("#threshold").input_value() == "77"


# --- how it looks --------------------------------------------------------------------------------

LAYOUT = """() => Object.fromEntries(
    ["stage", "choose", "results", "about", "samples", "canvas"].map(id => {
        const r = document.getElementById(id).getBoundingClientRect();
        return [id, [r.left, r.top + scrollY, r.right, r.bottom + scrollY]];
    }).concat([["wide", [document.documentElement.scrollWidth, innerWidth]]]))"""


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 820, 1360])
def test_it_looks_right_at_each_width_in_both_modes(
    browser: Any, service: Service, width: int, mode: str
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 850}, color_scheme=mode, reduced_motion="reduce"
    )
    visit = Visit(context.new_page(), service.address).open()
    visit.page.select_option("#model", "lights")
    visit.upload(lights())
    visit.answered()
    at = visit.page.evaluate(LAYOUT)
    assert at["wide"][0] <= at["wide"][1], "nothing scrolls sideways"
    left, _, right, bottom = at["stage"]
    assert at["canvas"][0] >= left - 1
    assert at["canvas"][2] <= right + 1
    assert right - left > 0.5 * min(width, 1240)
    if width < 860:  # one below the other
        order = [at[name][1] for name in ("stage", "choose", "results", "samples", "about")]
        assert order == sorted(order)
        assert at["results"][1] < 850, "the answer shows without scrolling"
    else:  # side by side
        assert at["results"][0] > right
        assert at["results"][1] < bottom
    shot = visit.page.screenshot(full_page=True)
    if folder := os.environ.get("RETINUE_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"page-{width}-{mode}.png").write_bytes(shot)
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("L"))
    ground = float(np.median(np.concatenate([pixels[:, :6], pixels[:, -6:]], axis=1)))
    assert ground > 220 if mode == "light" else ground < 40
    context.close()


def test_contrast_is_enough_in_both_modes(browser: Any, service: Service) -> None:
    """WCAG's 4.5:1 for words, of each colour that words have on each ground that they lie on."""
    for mode in ("light", "dark"):
        context = browser.new_context(color_scheme=mode)
        page = Visit(context.new_page(), service.address).open().page
        colours = page.evaluate(
            """() => { const pen = document.createElement("canvas").getContext("2d");
              const probe = document.body.appendChild(document.createElement("i"));
              return Object.fromEntries(["ground", "card", "sunken", "ink", "quiet", "accent",
                "accent-strong", "on-accent", "bad", "bad-ground", "accent-soft"].map(name => {
                probe.style.color = `var(--${name})`;
                pen.fillStyle = getComputedStyle(probe).color; pen.fillRect(0, 0, 1, 1);
                return [name, [...pen.getImageData(0, 0, 1, 1).data]];
              })); }"""
        )

        def luminance(name: str, colours: Any = colours) -> float:
            channels = np.array(colours[name][:3]) / 255
            curved = ((channels + 0.055) / 1.055) ** 2.4
            linear = np.where(channels <= 0.04045, channels / 12.92, curved)
            return float(linear @ [0.2126, 0.7152, 0.0722])

        pairs = [("ink", g) for g in ("ground", "card", "sunken")]
        pairs += [("quiet", g) for g in ("ground", "card", "sunken")]
        pairs += [("on-accent", "accent-strong"), ("bad", "bad-ground"), ("accent", "accent-soft")]
        for words, ground in pairs:
            light, dark = sorted((luminance(words), luminance(ground)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (mode, words, ground)
        context.close()


def test_everything_is_reached_by_keyboard_and_has_a_name(visit: Visit) -> None:
    def reached() -> set[str]:
        found = set()
        for _ in range(30):
            visit.page.keyboard.press("Tab")
            found.add(visit.page.evaluate("document.activeElement.id"))
        return found

    assert {"model", "theme", "file", "choose", "camera"} <= reached()
    visit.upload(picture())
    visit.answered()
    unnamed = visit.page.evaluate(
        """() => [...document.querySelectorAll("button, a, input, select, canvas, video")].filter(
            e => !(e.ariaHidden || e.ariaLabel || e.textContent.trim() || e.labels?.length
                   || e.querySelector("img[alt]"))
        ).map(e => e.outerHTML)"""
    )
    assert unnamed == []
    assert {"model", "choose", "camera", "threshold", "copy"} <= reached()


def test_the_colours_can_be_chosen_and_are_kept(visit: Visit) -> None:
    def dark() -> bool:
        return visit.pixels("body").mean() < 100

    assert not dark()
    visit.page.locator("#theme").click()  # light
    visit.page.locator("#theme").click()
    assert dark()
    visit.page.reload()
    visit.page.wait_for_selector("#about:not([hidden])")
    assert dark()
    assert visit.page.locator("#theme").get_attribute("aria-label") == "Colours: dark"


def test_the_explanation_lies_over_the_picture_and_goes_again(visit: Visit) -> None:
    visit.upload(lights())
    visit.answered()
    before = visit.pixels()
    visit.page.locator("#explain").click()
    visit.page.wait_for_selector('#explain[aria-pressed="true"]')
    over = visit.pixels()
    assert np.abs(over - before).max() > 50
    visit.page.locator("#opacity").evaluate(
        "e => { e.value = 0; e.dispatchEvent(new Event('input')); }"
    )
    assert np.array_equal(visit.pixels(), before)
    visit.page.locator("#explain").click()
    assert visit.page.locator("#explain").get_attribute("aria-pressed") == "false"
    assert np.array_equal(visit.pixels(), before)


@pytest.mark.parametrize("what", ["not a picture", "damaged"])
def test_nothing_of_an_earlier_picture_stays_beside_an_error(visit: Visit, what: str) -> None:
    visit.upload(picture())
    visit.answered()
    visit.page.click("#explain")
    visit.page.wait_for_selector("#opacity-label:not([hidden])")
    if what == "damaged":
        visit.upload(b"junk")
    else:
        visit.upload(b"words", "notes.txt", "text/plain")
    visit.page.wait_for_selector("#alert:not([hidden])")
    visit.page.wait_for_selector("#stage.empty")
    for gone in ("#canvas", "#results", "#explain", "#opacity-label"):
        assert not visit.page.locator(gone).is_visible(), gone
    assert visit.page.locator("#invitation").is_visible()
    visit.upload(picture(seed=1))  # and it is as before
    visit.answered()
    assert not visit.page.locator("#alert").is_visible()
    assert visit.page.locator("#canvas").is_visible()
