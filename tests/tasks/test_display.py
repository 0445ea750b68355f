"""Results in notebooks, and as what other libraries take."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import absent
import numpy as np
import pytest
from PIL import Image

from retinue.api import Predictions
from retinue.errors import RetinueError, UsageError
from retinue.tasks.results import Box, BoxResult, ClassResult, FrameResult, LabelsResult
from retinue.training.session import Run

ODD = "<script>alert(1)</script> & \"猫\"\n'x'"
BOXES = [Box("dog", 0.75, (10.0, 20.0, 40.0, 60.0)), Box(ODD, 0.5, (0.0, 0.0, 5.0, 5.0), track=3)]


@pytest.fixture
def photo(tmp_path: Path) -> str:
    path = tmp_path / "photo <1>.png"
    Image.new("RGB", (100, 80), "red").save(path)
    return str(path)


class Tags(HTMLParser):
    """Balanced, and what tags there are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in ("img",):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_result_shows_its_picture_and_its_answers(photo: str) -> None:
    shown = ClassResult(photo, [("rose", 0.9), (ODD, 0.1)])._repr_html_()
    tags = Tags(shown)
    assert tags.seen.count("img") == 1
    assert "data:image/jpeg;base64," in shown
    assert {"script", "link", "style", "iframe"} & set(tags.seen) == set()
    assert "90.0%" in tags.text
    assert "alert(1)" in tags.text  # as text
    assert "http" not in shown


def test_what_was_found_is_drawn_where_it_is(photo: str) -> None:
    shown = BoxResult(photo, BOXES)._repr_html_()
    tags = Tags(shown)
    assert tags.seen.count("rect") == 2
    assert 'viewBox="0 0 100 80"' in shown  # the original's pixels, whatever the picture's size
    assert 'x="10.0" y="20.0" width="30.0" height="40.0"' in shown


@pytest.mark.parametrize("path", ["gone.jpg", "", "a\0b", "x" * 5000])
def test_without_its_picture_the_answer_is_shown(path: str) -> None:
    tags = Tags(LabelsResult(path, [("a", 0.6)], (0.6, 0.1))._repr_html_())
    assert "img" not in tags.seen
    assert "60.0%" in tags.text


def test_of_nothing_found_that_is_said(photo: str) -> None:
    assert "nothing found" in Tags(BoxResult(photo, [])._repr_html_()).text


def test_the_file_of_a_video_is_not_taken_for_a_picture(photo: str) -> None:
    frame = FrameResult(photo, BoxResult(photo, BOXES), 12, 0.5)
    assert "<img" not in frame._repr_html_()
    assert "photo &lt;1&gt;.png#12" in frame._repr_html_()


def test_many_results_show_the_first_and_count_the_others(photo: str) -> None:
    results: list[Any] = [ClassResult(photo, [("a", 1.0)])] * 30
    done = Predictions(30, {"b.jpg": "cut"}, [], results)
    tags = Tags(done._repr_html_())
    assert tags.seen.count("img") == 24
    assert "30 images, 1 skipped" in tags.text
    assert "and 6 more" in tags.text


def test_a_training_shows_its_figures_with_their_intervals() -> None:
    figures = {"task": "classification", "split": "test", "images": 200, "top1": 0.875,
               "loss": 0.4, "intervals": {"loss": [0.3, 0.5]}}  # fmt: skip
    tags = Tags(Run(Path("runs/<b>"), figures, None)._repr_html_())
    assert "runs/<b>" in tags.text  # as text
    assert "test split, 200 images" in tags.text
    assert "87.5 %82.2–91.4 %" in tags.text.replace("\n", "")  # Wilson's, worked out by hand
    assert "0.300–0.500" in tags.text
    assert "no figures yet" in Run(Path("x"), {}, None)._repr_html_()


# --- other libraries -----------------------------------------------------------------------------


def test_a_table_has_the_columns_and_rows_of_the_csv() -> None:
    pytest.importorskip("pandas", reason="needs pandas")
    many = Predictions(2, {}, [], [BoxResult("a.jpg", BOXES[:1]), BoxResult("b.jpg", [])])
    table = many.to_pandas()
    assert list(table.columns) == ["path", "name", "score", "x1", "y1", "x2", "y2"]
    assert table.iloc[0].tolist() == ["a.jpg", "dog", 0.75, 10.0, 20.0, 40.0, 60.0]
    assert table["path"].tolist() == ["a.jpg", "b.jpg"]
    assert len(ClassResult("a.jpg", [("rose", 0.9), ("x", 0.1)]).to_pandas()) == 1


def test_results_that_went_to_files_are_not_an_empty_table() -> None:
    with pytest.raises(UsageError, match="went to files"):
        Predictions(5, {}, [Path("out/predictions.csv")], []).to_pandas()


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pandas", "supervision"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RetinueError, match="pip install pandas"):
        ClassResult("a", [("x", 1.0)]).to_pandas()
    with pytest.raises(RetinueError, match="pip install supervision"):
        BoxResult("a", BOXES).to_supervision()


def test_boxes_become_detections(monkeypatch: pytest.MonkeyPatch) -> None:
    sv = absent.supervision(monkeypatch)
    found = BoxResult("a.jpg", BOXES).to_supervision(["cat", "dog", ODD])
    assert isinstance(found, sv.Detections)
    np.testing.assert_array_equal(found.xyxy, [[10, 20, 40, 60], [0, 0, 5, 5]])
    assert found.class_id.tolist() == [1, 2]
    assert found.tracker_id.tolist() == [-1, 3]
    assert found.data["class_name"].tolist() == ["dog", ODD]
    empty = BoxResult("a.jpg", []).to_supervision()
    assert empty.xyxy.shape == (0, 4)
    assert BoxResult("a.jpg", BOXES[:1]).to_supervision().tracker_id is None
    with pytest.raises(RetinueError, match="not among the 1 class"):
        BoxResult("a.jpg", BOXES).to_supervision(["cat"])


def test_classes_become_classifications(monkeypatch: pytest.MonkeyPatch) -> None:
    absent.supervision(monkeypatch)
    made = ClassResult("a", [("rose", 0.75), ("lily", 0.25)]).to_supervision(["lily", "rose"])
    assert made.class_id.tolist() == [1, 0]
    assert made.confidence.tolist() == [0.75, 0.25]
