"""A confusion leads to its images, and the page stays small."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pages import section

from retinue.page.record import read_run
from retinue.report.html import write_report
from retinue.tasks.classification.confused import confused, confused_rows

Maker = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("undrawn")


def links(run: Path) -> tuple[set[str], set[str]]:
    """The groups of images that the page leads to, and those that there are."""
    page = write_report(run).read_text(encoding="utf-8")
    return (set(re.findall(r'href="#(confused-\d+-\d+)"', page)),
            set(re.findall(r'id="(confused-\d+-\d+)"', page)))  # fmt: skip


@pytest.mark.parametrize("classes", [2, 3, 40])
def test_every_confusion_leads_to_its_images(run_maker: Maker, classes: int) -> None:
    run = run_maker([f"c{k}" for k in range(classes)], images=120, accuracy=0.7)
    table = pq.read_table(run / "predictions.parquet")
    predicted = np.array(table["scores"].to_pylist()).argmax(1)
    pairs = {(int(t), int(p)) for t, p in zip(table["label"].to_pylist(), predicted, strict=True)
             if t != p}  # fmt: skip
    expected = {f"confused-{true}-{said}" for true, said in pairs}
    leading, there = links(run)
    assert there == expected
    if classes <= 30:
        assert leading == expected, "a cell each"
    else:
        assert leading <= expected
        assert len(leading) >= 15, "the most frequent"


def test_a_group_holds_its_images_the_most_confident_first(run_maker: Maker) -> None:
    run = run_maker(["a", "b"], images=200, accuracy=0.5)
    record = read_run(run)
    table = pq.read_table(run / "predictions.parquet")
    scores, labels = np.array(table["scores"].to_pylist()), table["label"].to_numpy()
    found = confused_rows(record)
    counts = [len(members) for members in found.values()]
    assert counts == sorted(counts, reverse=True)
    for (true, said), members in found.items():
        assert (labels[members] == true).all()
        assert (scores[members].argmax(1) == said).all()
        sure = scores[members, said]
        assert (np.diff(sure) <= 0).all()
    made = confused(record)
    assert made is not None
    for group in made.values["groups"]:
        assert len(group["cards"]) == 6
        assert len(group["cards"]) + len(group["others"]) + group["more"] == group["count"]
    assert "a taken for b" in section(run, "confused")


def test_many_mistakes_of_many_classes_stay_a_page(run_maker: Maker) -> None:
    run = run_maker([f"class {k:03d}" for k in range(300)], images=6000, accuracy=0.0)
    made = confused(read_run(run))
    assert made is not None
    groups = made.values["groups"]
    assert len(groups) == 300
    assert sum(len(group["cards"]) for group in groups) == 96
    assert sum(len(group["others"]) for group in groups) <= 1500
    table = pq.read_table(run / "predictions.parquet")
    wrong = (np.array(table["scores"].to_pylist()).argmax(1) != table["label"].to_numpy()).sum()
    assert sum(group["count"] for group in groups) + made.values["left_out"] == wrong
    assert "more mistakes, of rarer confusions" in section(run, "confused")
    assert (run / "report.html").stat().st_size < 3_000_000


def test_names_of_confused_images_are_no_markup(run_maker: Maker) -> None:
    names = ["<script>x</script>", "b & c"]
    run = run_maker(names, images=60, accuracy=0.2)
    page = write_report(run).read_text(encoding="utf-8")
    assert page.count("<script") == 1
    assert "&lt;script&gt;x&lt;/script&gt; taken for b &amp; c" in page


def test_without_mistakes_or_predictions_there_is_no_such_section(run_maker: Maker) -> None:
    run = run_maker(["a", "b"], images=40, accuracy=1.0)
    table = pq.read_table(run / "predictions.parquet")
    right = np.array(table["scores"].to_pylist()).argmax(1)
    table = table.set_column(1, "label", [right.astype(np.int32)])
    pq.write_table(table, run / "predictions.parquet")
    assert section(run, "confused") == ""
    assert links(run) == (set(), set())
    (run / "predictions.parquet").unlink()
    assert section(run, "confused") == ""
