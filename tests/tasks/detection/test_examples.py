"""Pictures on a detector's page: examples, and labels to look at again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from detection_runs import NAMES, SIZE, run_of
from pages import section_of

from retinue.data.targets.boxes import Boxes
from retinue.page.pictures import pictures_table
from retinue.page.record import read_run
from retinue.report.html import render
from retinue.sample import Sample
from retinue.tasks.detection.candidates import Candidates
from retinue.tasks.detection.meter import DetectionMeter


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(read_run(run_of(tmp_path_factory.mktemp("page") / "run")))


def test_examples_are_drawn_twice_the_worst_first(page: str) -> None:
    part = page.split('<section id="examples">')[1].split("</section>")[0]
    assert part.count("<img") == 2 * (2 + 5)
    assert "First the 2 images with the most mistakes of 8" in section_of(page, "examples")
    assert part.index("0.png") < part.index("7.png") < part.index("3.png")
    assert "2 right, 1 wrong" in section_of(page, "examples")


def test_suspects_with_thumbnails(page: str) -> None:
    part = page.split('<section id="suspects">')[1].split("</section>")[0]
    assert "cat, or dog?" in part
    assert "a cat without a label?" in part
    assert part.count("<img") == 2
    assert "2 labels that the detector speaks against" in section_of(page, "suspects")


def test_photographs_that_are_gone_are_said_to_be(tmp_path: Path) -> None:
    page = render(read_run(run_of(tmp_path / "run", photographs=False, images=3)))
    assert "is left out" not in page
    assert "file not found" in section_of(page, "examples")


def test_images_that_lie_in_no_file_are_kept_for_the_page(tmp_path: Path) -> None:
    """As of a shard: those that the page shows, and no others."""
    meter = DetectionMeter(NAMES[:1], tables=True)
    light = np.full((SIZE[1], SIZE[0], 3), 200, dtype=np.uint8)
    for k in range(20):
        boxes = Boxes.made([[5, 5, 40, 40]], [0])
        found = Candidates(boxes.xyxy, np.array([0.9], np.float32), np.zeros(1, np.int64), SIZE)
        meter.update([found], [Sample(f"test/{k:02}.png", lambda: light, boxes)])
    tables = meter.tables()
    assert 0 < tables["pictures"].num_rows < 20
    (tmp_path / "metrics.json").write_text(json.dumps({**meter.compute(), "task": "detection"}))
    for name, table in tables.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
    page = render(read_run(tmp_path))
    part = page.split('<section id="examples">')[1].split("</section>")[0]
    assert "file not found" not in part
    assert part.count("<img") == 2 * tables["pictures"].num_rows


def test_a_picture_that_cannot_be_read_has_no_row() -> None:
    def gone() -> bytes:
        raise OSError("gone")

    assert pictures_table({"a": gone, "b": lambda: b"no image"}).num_rows == 0
