"""What becomes of each kind of box, by hand and at random."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.data.sources.box_rules import first_pixel_of, judge


def judged(*boxes: tuple[float, ...], first_pixel: int = 0, size: tuple[int, int] = (100, 50)):
    xyxy = np.array(boxes, float).reshape(-1, 4)
    zeros = np.zeros(len(xyxy), np.int64)
    return judge(
        xyxy, zeros, zeros, np.array([size]), lambda k: f"box {k}", first_pixel=first_pixel
    )


@pytest.mark.parametrize(
    ("box", "word"),
    [
        ((5, 5, 4, 9), "box 1: an inverted box, 5, 5, 4, 9 as x1, y1, x2, y2"),
        ((5, 9, 9, 5), "inverted"),
        ((np.nan, 1, 2, 3), "which is no place"),
        ((1, 1, np.inf, 3), "which is no place"),
        ((1, 1, 1e9, 3), "which is no place"),
        ((100, 5, 110, 9), "outside its image of 100 × 50 pixels"),
        ((-9, 5, 0, 9), "outside its image"),
        ((5, 50, 9, 60), "outside its image"),
    ],
)
def test_problems(box: tuple[float, ...], word: str) -> None:
    result = judged((1, 1, 9, 9), box)
    assert result.kept.tolist() == [True, False]
    assert len(result.problems) == 1
    assert word in result.problems[0]


def test_what_is_left_out_or_clipped_is_named() -> None:
    result = judged(
        (1, 1, 9, 9),
        (5, 5, 5, 9),
        (1, 1, 9, 9),
        (-3, 5, 9, 50.004),
        (90, 40, 104.5, 50),
        (2, 2, 3, 9),
    )
    assert result.problems == []
    assert result.kept.tolist() == [True, False, False, True, True, True]
    assert result.xyxy[3].tolist() == [0, 5, 9, 50]
    assert result.xyxy[4].tolist() == [90, 40, 100, 50]
    assert {odd.what: (odd.items, odd.quiet) for odd in result.oddities} == {
        "boxes without area": (["box 1"], False),
        "boxes that stand there twice": (["box 2"], False),
        "boxes that reach beyond their image": (["box 3 (by 3 px)", "box 4 (by 4.5 px)"], False),
        "boxes of one pixel or less": (["box 5"], True),
    }
    assert judged((1, 1, 9, 50.004)).oddities == []


def test_a_box_in_an_image_of_unknown_size_is_used() -> None:
    assert judged((500, 500, 900, 900), size=(0, 0)).kept.all()


def test_first_pixel() -> None:
    assert judged((1, 1, 100, 50), first_pixel=1).xyxy.tolist() == [[0, 0, 100, 50]]
    assert first_pixel_of(np.array([[1.0, 2, 5, 5]])) == (1, "")
    assert first_pixel_of(np.array([[0.0, 2, 5, 5]]))[0] == 0
    assert first_pixel_of(np.array([[0.0, 2, 5, 5], [1, 1, 3, 3], [1, 2, 3, 4]]))[0] == 1


@given(st.lists(st.tuples(*[st.floats(-50, 150)] * 4), max_size=12))
def test_what_is_kept_lies_in_its_image_and_nothing_is_lost_in_silence(
    boxes: list[tuple[float, float, float, float]],
) -> None:
    result = judged(*boxes)
    kept = result.xyxy[result.kept]
    assert (kept >= 0).all()
    assert (kept <= [100, 50, 100, 50]).all()
    assert (kept[:, 2:] >= kept[:, :2]).all()
    told = len(result.problems) + sum(
        len(odd.items) for odd in result.oddities if "left out" in odd.detail
    )
    assert (~result.kept).sum() == told


# Photographs that are stored turned
