import csv
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

import retinue
from retinue.errors import UsageError
from retinue.evaluation.classification import confusion_counts, confusion_table
from retinue.figures import Figure
from retinue.page.section import Section, TaskSections
from retinue.report.html import write_report

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
    from retinue.page.pictures import small as shrink

    pixels = np.zeros((200, 400, 3), np.uint8)
    pixels[:, :200] = (255, 0, 0)  # stored: the left half red
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the left becomes the top
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    small = shrink((tmp_path / "turned.jpg").read_bytes(), 100)
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
    assert "somewhat too good" in read(run).text
    fitted = {**metrics, "split": "val", "fitted_on_this_split": ["temperature"]}
    (run / "metrics.json").write_text(json.dumps(fitted))
    assert "chose the best epoch and the temperature, so" in read(run).text
    (run / "metrics.json").write_text(json.dumps({**fitted, "trained_on_this_split": True}))
    assert "was trained on these images" in read(run).text


def of_task(run: Path, name: str, **figures: float) -> None:
    metrics = {"task": name, "split": "test", "images": 1, **figures}
    (run / "metrics.json").write_text(json.dumps(metrics))


@pytest.mark.usefixtures("undrawn")
def test_a_folder_that_names_no_task_is_of_the_default(run_maker: Maker) -> None:
    """As the first release wrote it."""
    run = run_maker(["a", "b"])
    for name in ("metrics.json", "recipe.yaml"):
        text = (run / name).read_text(encoding="utf-8")
        kept = text.replace('"task": "classification", ', "").replace("task: classification\n", "")
        assert kept != text
        (run / name).write_text(kept, encoding="utf-8")
    page = read(run)
    assert "Top-1 accuracy" in page.text
    assert "confusion" in page.ids


@pytest.mark.usefixtures("undrawn")
def test_another_tasks_predictions_do_not_disturb(
    run_maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retinue.report import general

    declared = [Figure("map50_95", "mAP", "fraction"), Figure("gap", "Gap", "pixels")]
    monkeypatch.setattr(general, "figures_of", lambda record: declared)
    run = run_maker(["a", "b"])
    boxes = pa.table({"path": ["x.jpg"], "boxes": [[[0.0, 0.0, 4.0, 4.0]]]})
    pq.write_table(boxes, run / "predictions.parquet")
    of_task(run, "detection", map50=0.5, map50_95=0.3, gap=2.5)
    page = read(run)
    assert "mAP 30.0 %" in page.text
    assert "Gap 2.500 px" in page.text
    assert "Map50" not in page.text, "not declared"
    assert "confusion" not in page.ids
    assert "left out" not in page.text


@pytest.mark.usefixtures("undrawn")
def test_an_unknown_task_gets_a_page_of_plain_figures(run_maker: Maker) -> None:
    run = run_maker(["a", "b"])
    of_task(run, "dots", count_error=1.25, images_per_second=100.0)
    page = read(run)
    assert "Count error 1.250" in page.text
    assert "100 images a second" in page.text
    assert "classes" not in page.text.lower(), "whether it has any is the task's to say"
    assert {"confusion", "mistakes"}.isdisjoint(page.ids)
    assert "left out" not in page.text


@pytest.mark.usefixtures("undrawn")
def test_a_task_brings_its_own_sections(
    run_maker: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from retinue.report import general, html

    (tmp_path / "dots.html").write_text("<p>{{ s.count|integer }} dots, {{ s.share|percent }}</p>")
    values = {"count": 4200, "share": 0.5}
    section = Section("dots", "The dots", tmp_path / "dots.html", values)
    dots = TaskSections(
        (lambda record: section,),
        summary=lambda record: "dots of <any> kind",
        baseline=lambda record: "No dots at all would do.",
    )
    for module in (general, html):
        monkeypatch.setattr(module, "sections_of", lambda task: dots)
    run = run_maker(["a", "b"])
    of_task(run, "dots", count_error=1.25)
    page = read(run)
    assert "4,200 dots, 50.0 %" in page.text
    assert "dots of <any> kind" in page.text
    assert "No dots at all would do." in page.text
    assert page.ids.index("curves") < page.ids.index("dots") < page.ids.index("batches")
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
    from retinue.page.record import read_run
    from retinue.tasks.classification.sections import scored

    run = run_maker(["a", "b"], images=50)
    table = pq.read_table(run / "predictions.parquet")
    labels = table["label"].to_numpy().copy()
    labels[:10] = -1
    changed = table.set_column(1, "label", pa.array(labels, pa.int32()))
    pq.write_table(changed, run / "predictions.parquet")
    rows = scored(read_run(run))
    assert rows is not None
    assert len(rows.labels) == len(rows.paths) == len(rows.scores) == len(rows.predicted) == 40


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


def words_of_confusion(run: Path) -> str:
    return read(run).text.split("What was taken for what")[-1].split("Class by class")[0]


@pytest.mark.usefixtures("undrawn")
def test_the_confusion_matrix_comes_from_its_file_an_old_metrics_json_or_the_predictions(
    run_maker: Maker,
) -> None:
    run = run_maker(["cats", "dogs"], images=40)
    table = pq.read_table(run / "predictions.parquet")
    labels, scores = table["label"].to_numpy(), np.array(table["scores"].to_pylist())
    counts = confusion_counts(labels, scores.argmax(1))
    expected = words_of_confusion(run)
    assert str(counts.count.max()) in expected
    (run / "predictions.parquet").unlink()
    assert "confusion" not in read(run).ids

    metrics = json.loads((run / "metrics.json").read_text())
    matrix = np.zeros((2, 2), int)
    matrix[counts.true, counts.predicted] = counts.count
    (run / "metrics.json").write_text(json.dumps({**metrics, "confusion": matrix.tolist()}))
    assert words_of_confusion(run) == expected

    (run / "metrics.json").write_text(json.dumps(metrics))
    pq.write_table(confusion_table(counts, ["cats", "dogs"]), run / "confusion.parquet")
    assert words_of_confusion(run) == expected


@pytest.mark.parametrize(
    ("metric", "kept"), [("ece", 2), ("top1", 8), ("loss", 5), (None, 8)]
)  # fmt: skip
@pytest.mark.usefixtures("undrawn")
def test_the_kept_epoch_is_the_best_of_the_figure_that_is_watched(
    run_maker: Maker, metric: str | None, kept: int
) -> None:
    run = run_maker(["a", "b"], images=40)
    (run / "environment.json").unlink()
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    for epoch, row in enumerate(rows, 1):
        row |= {"val_ece": abs(epoch - 2) / 10, "val_loss": 0.1 + abs(epoch - 5) / 10,
                "val_top1": 0.1 * epoch}  # fmt: skip
    with (run / "metrics.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    if metric:
        with (run / "recipe.yaml").open("a") as stream:
            stream.write(f"evaluation:\n  metric: {metric}\n")
    assert f"whose weights were kept, {kept} of 8" in read(run).text


def test_the_curve_beside_the_loss_is_of_the_figure_that_is_watched(run_maker: Maker) -> None:
    run = run_maker(["a", "b"], images=40)
    with (run / "recipe.yaml").open("a") as stream:
        stream.write("evaluation:\n  metric: ece\n")
    page = read(run)
    assert "Calibration error" in page.text
    assert (run / "plots" / "ece.png").is_file()
    assert not (run / "plots" / "top1.png").exists()


@pytest.mark.usefixtures("undrawn")
def test_of_all_classes_the_right_one_is_always_among_them(run_maker: Maker) -> None:
    run = run_maker(["a", "b", "c"])
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({**metrics, "top3": 1.0}))
    assert "Top-3" not in read(run).text
    (run / "metrics.json").write_text(json.dumps({**metrics, "top2": 0.95}))
    assert "Top-2 accuracy 95.0 %" in read(run).text


def test_tables_are_read_once_and_only_when_asked_for(
    run_maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retinue.page.record import read_run

    run = run_maker(["a", "b"], images=20)
    read_paths: list[Path] = []
    real = pq.read_table

    def counted(path: Path) -> pa.Table:
        read_paths.append(path)
        return real(path)

    monkeypatch.setattr(pq, "read_table", counted)
    record = read_run(run)
    assert read_paths == []
    assert record.table("predictions.parquet") is record.table("predictions.parquet")
    assert record.table("absent.parquet") is None
    assert read_paths == [run / "predictions.parquet"]
    assert record.notes == []


def test_every_table_has_a_box_to_scroll_in() -> None:
    """Else a long cell makes the whole page wider than a phone."""
    package = Path(retinue.__file__).parent
    pages = [p for p in package.rglob("templates/**/*.html") if "<table" in p.read_text("utf-8")]
    assert len(pages) > 10
    bare = [
        path.name
        for path in pages
        if len(re.findall(r"<table", text := path.read_text("utf-8")))
        != len(re.findall(r'<div class="scroll[^>]*>\s*<table', text))
    ]
    assert not bare
