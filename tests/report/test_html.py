import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from retinue.errors import UsageError
from retinue.report.html import Section, register_sections, write_report

Maker = Callable[..., Path]
VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Balanced tags, ids, addresses and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "data", "action", "srcset"):
                self.addresses.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(run: Path) -> Page:
    path = write_report(run)
    assert path == run / "report.html"
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not rendered, which is what takes the time."""
    from retinue.report import classification, general

    for module in (general, classification):
        monkeypatch.setattr(module, "draw", lambda *_: {"svg": "", "label": ""})


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, make_anywhere: Maker) -> tuple[Path, Page]:
    """A run of two classes, which have every section, and its page, drawn in full."""
    folder = tmp_path_factory.mktemp("two") / "run"
    run = make_anywhere(folder, ["functional", "defective"], images=300)
    return run, read(run)


def test_two_classes_show_every_section(two: tuple[Path, Page]) -> None:
    run, page = two
    wanted = {"figures", "curves", "confusion", "classes", "calibration", "threshold", "mistakes",
              "batches", "recipe", "skipped", "run"}  # fmt: skip
    assert wanted <= set(page.ids)
    assert "the epoch whose weights were kept, 7 of 8" in page.text
    top1 = json.loads((run / "metrics.json").read_text())["top1"]
    assert f"{100 * top1:.1f}\u202f%".replace("\u202f", " ") in page.text.replace("\u202f", " ")
    assert "95 % interval" in page.text
    assert "300 images of the test split" in page.text
    for name in ("loss", "top1", "learning_rate", "confusion", "calibration", "roc", "threshold"):
        with Image.open(run / "plots" / f"{name}.png") as picture:
            picture.load()
            assert picture.width > 300


def test_nothing_comes_from_outside(two: tuple[Path, Page]) -> None:
    run, page = two
    text = (run / "report.html").read_text(encoding="utf-8")
    assert page.addresses
    for address in page.addresses:
        assert address.startswith(("#", "data:image/")), address
    assert re.findall(r"url\((?!#)[^)]*\)|@import", text) == []
    assert "default-src 'none'" in text
    assert len(page.ids) == len(set(page.ids)), "ids of inlined drawings must not clash"


def test_names_are_never_markup(run_maker: Maker) -> None:
    names = ["<script>alert(1)</script>", "猫 & dog/1", "$x^2$", '" onload="x', "two\nlines", "a"]
    run = run_maker(names, images=400, accuracy=0.3)
    environment = {"skipped": {"<img src=x onerror=alert(2)>.jpg": "</td><script>"}}
    (run / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    text = write_report(run).read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 1, "only the page's own"
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "<script>alert(1)</script>" in page.text
    assert "猫 & dog/1" in page.text
    assert "two\\nlines" in page.text
    assert not any(tag in page.tags for tag in ("b", "i")) or "<b>care" not in text


def test_a_thousand_classes_stay_a_page(run_maker: Maker) -> None:
    names = [f"class {k:04d}" for k in range(1000)]
    run = run_maker(names, images=3000, pictures=0)
    page = read(run)
    assert "class 0999" in page.text
    assert "Most frequent confusions" in page.text
    assert page.tags.count("tr") < 1200, "no thousand-by-thousand table"
    assert (run / "report.html").stat().st_size < 2_000_000


@pytest.mark.usefixtures("undrawn")
def test_missing_pictures_are_shown_as_such(run_maker: Maker) -> None:
    run = run_maker(["a", "b", "c"], accuracy=0.0, pictures=3)
    (run / "data" / "1.png").write_bytes(b"not a picture")
    page = read(run)
    assert "file not found" in page.text
    assert "cannot be read" in page.text
    assert any(address.startswith("data:image/jpeg") for address in page.addresses)


def test_thumbnails_stand_upright(run_maker: Maker, tmp_path: Path) -> None:
    from retinue.report.classification import _small

    pixels = np.zeros((200, 400, 3), np.uint8)
    pixels[:, :200] = (255, 0, 0)  # stored: the left half red
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the left becomes the top
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    small = _small(tmp_path / "turned.jpg", 100)
    assert small.size == (50, 100)
    assert small.getpixel((25, 20))[0] > 240
    assert small.getpixel((25, 80))[0] < 15


@pytest.mark.parametrize(
    "missing", ["metrics.csv", "metrics.json", "predictions.parquet", "environment.json",
                "classes.json", "recipe.yaml"]
)  # fmt: skip
@pytest.mark.usefixtures("undrawn")
def test_whatever_is_missing_is_left_out(run_maker: Maker, missing: str) -> None:
    run = run_maker(["a", "b"], images=60)
    (run / missing).unlink()
    page = read(run)
    assert "cannot be read" not in page.text
    assert "left out" not in page.text
    assert "Time, machine, versions" in page.text


@pytest.mark.parametrize(
    "damaged", ["metrics.csv", "metrics.json", "predictions.parquet", "environment.json",
                "classes.json", "recipe.yaml"]
)  # fmt: skip
@pytest.mark.usefixtures("undrawn")
def test_whatever_is_damaged_is_named(run_maker: Maker, damaged: str) -> None:
    run = run_maker(["a", "b"], images=60)
    (run / damaged).write_bytes(b'\xff\xfe{"half": [')
    page = read(run)
    assert f"{damaged} cannot be read" in page.text
    assert "What the network saw" in page.text


@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_run_says_how_to_go_on(run_maker: Maker) -> None:
    run = run_maker(["a", "b"], finished=False, epochs=1)
    page = read(run)
    assert "1 epoch so far" in page.text
    assert "--resume" in page.text
    assert "figures" not in page.ids


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_has_only_begun(run_maker: Maker) -> None:
    run = run_maker(["a", "b"], finished=False, epochs=0)
    assert "nothing so far" in read(run).text


@pytest.mark.usefixtures("undrawn")
def test_figures_of_the_validation_split_are_called_bright(run_maker: Maker) -> None:
    run = run_maker(["a", "b"])
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({**metrics, "split": "val"}))
    assert "bright side" in read(run).text


@pytest.mark.usefixtures("undrawn")
def test_another_tasks_predictions_do_not_disturb(run_maker: Maker) -> None:
    run = run_maker(["a", "b"])
    boxes = pa.table({"path": ["x.jpg"], "boxes": [[[0.0, 0.0, 4.0, 4.0]]]})
    pq.write_table(boxes, run / "predictions.parquet")
    metrics = {"task": "detection", "split": "test", "images": 1, "map50": 0.5, "map50_95": 0.3}
    (run / "metrics.json").write_text(json.dumps(metrics))
    page = read(run)
    assert "mAP" in page.text
    assert "confusion" not in page.ids
    assert "left out" not in page.text


@pytest.mark.usefixtures("undrawn")
def test_a_task_brings_its_own_sections(run_maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    from retinue.report import html

    monkeypatch.setattr(html, "_OF_TASK", {})
    values = {"text": "42 dots", "command": ""}
    register_sections("dots", [lambda record: Section("dots", "The dots", "recipe.html", values)])
    run = run_maker(["a", "b"])
    metrics = {"task": "dots", "split": "test", "images": 1}
    (run / "metrics.json").write_text(json.dumps(metrics))
    page = read(run)
    assert "42 dots" in page.text
    assert "mistakes" not in page.ids


@pytest.mark.usefixtures("undrawn")
def test_a_section_that_fails_costs_only_itself(
    run_maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retinue.report import general

    def curves(record: object) -> None:
        raise ZeroDivisionError("no epochs")

    monkeypatch.setattr(general, "curves", curves)
    page = read(run_maker(["a", "b"]))
    assert "curves is left out: ZeroDivisionError: no epochs" in page.text
    assert "mistakes" in page.ids


@pytest.mark.usefixtures("undrawn")
def test_a_report_is_replaced_whole(run_maker: Maker) -> None:
    run = run_maker(["a", "b"], images=40, pictures=0)
    (run / "report.html").write_text("old")
    write_report(run)
    assert (run / "report.html").read_text(encoding="utf-8") != "old"
    assert [p.name for p in run.iterdir() if p.name.startswith(".")] == []


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        write_report(tmp_path)
    with pytest.raises(UsageError, match="no such run folder"):
        write_report(tmp_path / "absent")


def test_unlabelled_rows_do_not_count(run_maker: Maker) -> None:
    from retinue.report.record import read_run

    run = run_maker(["a", "b"], images=50)
    table = pq.read_table(run / "predictions.parquet")
    labels = table["label"].to_numpy().copy()
    labels[:10] = -1
    changed = table.set_column(1, "label", pa.array(labels, pa.int32()))
    pq.write_table(changed, run / "predictions.parquet")
    scored = read_run(run).scored
    assert scored is not None
    assert len(scored.labels) == len(scored.paths) == len(scored.scores) == 40


@pytest.mark.usefixtures("undrawn")
def test_the_folder_of_an_evaluation(run_maker: Maker) -> None:
    run = run_maker(["a", "b"], images=40)
    for name in ("recipe.yaml", "classes.json", "environment.json", "metrics.csv"):
        (run / name).unlink()
    metrics = json.loads((run / "metrics.json").read_text())
    metrics |= {
        "split": "all",
        "per_class": [{"name": "cats"}, {"name": "dogs"}],
        "skipped": {"bad.jpg": "cut"},
    }
    (run / "metrics.json").write_text(json.dumps(metrics))
    page = read(run)
    assert "40 images." in page.text
    assert "cats" in page.text
    assert "bad.jpg" in page.text
