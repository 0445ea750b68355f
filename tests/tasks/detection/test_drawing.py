"""Boxes drawn on pictures."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.tasks.detection.drawing import (
    Mark,
    colour_of,
    draw_boxes,
    draw_marks,
    letter_size,
    line_width,
)
from retinue.tasks.results import Box

RED = (255, 0, 0)


def grey(width: int = 200, height: int = 150) -> np.ndarray:
    return np.full((height, width, 3), 90, dtype=np.uint8)


def changed(image: np.ndarray, drawn: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels that differ."""
    rows, columns = np.nonzero((image != drawn).any(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_a_copy_is_drawn_on_where_the_box_is() -> None:
    image = grey()
    drawn = draw_marks(image, [Mark((50.0, 40.0, 120.0, 100.0), "", RED)])
    assert (image == 90).all()
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    # The box's own pixels, and a dark line around them.
    assert changed(image, drawn) == (49, 39, 121, 101)
    red = np.nonzero((drawn == RED).all(axis=2))
    assert (red[1].min(), red[0].min(), red[1].max(), red[0].max()) == (50, 40, 119, 99)
    assert (drawn[42:98, 52:118] == 90).all()


@pytest.mark.parametrize(
    "xyxy", [(0, 0, 60, 40), (150, 0, 200, 40), (150, 110, 200, 150), (0, 110, 40, 150),
             (-30, -30, 20, 20), (190, 140, 260, 260), (0, 0, 200, 150)]
)  # fmt: skip
def test_a_label_lies_inside_the_picture_as_a_whole(xyxy: tuple[float, ...]) -> None:
    """It is the one of a box in the middle, pixel by pixel."""
    image, middle = grey(), (60, 80, 90, 100)
    bare, free = (draw_marks(image, [Mark(middle, text, RED)]) for text in ("", "cat 90 %"))
    left, top, right, bottom = changed(bare, free)
    assert (bottom, left) == (80, 60)
    label = free[top:bottom, left:right]
    drawn = draw_marks(image, [Mark(xyxy, "cat 90 %", RED)])
    windows = np.lib.stride_tricks.sliding_window_view(drawn, label.shape)
    assert (windows == label).all(axis=(3, 4, 5)).sum() == 1


@pytest.mark.parametrize("place", [(0, 0, 60, 40), (160, 30, 200, 90)])
@pytest.mark.parametrize("pair", [("人", "猫"), ("cat", "dog"), ("a", "a\u0301")])
def test_different_names_give_different_pixels(
    pair: tuple[str, str], place: tuple[float, float, float, float]
) -> None:
    one, two = (draw_boxes(grey(), [Box(name, 0.9, place)], list(pair)[:0]) for name in pair)
    same_colour = [draw_marks(grey(), [Mark(place, name, RED)]) for name in pair]
    assert (same_colour[0] != same_colour[1]).any()
    assert (one != two).any()


def test_lines_and_letters_follow_the_size_of_the_picture() -> None:
    assert [line_width(size) for size in [(64, 64), (640, 480), (4000, 3000)]] == [1, 2, 15]
    assert [letter_size(size) for size in [(64, 64), (640, 480), (4000, 3000)]] == [10, 12, 74]
    large = draw_marks(grey(2000, 1500), [Mark((500, 400, 1200, 1000), "", RED)])
    assert (large[700, 500:508] == RED).all()


def test_the_best_box_lies_on_top() -> None:
    boxes = [Box("cat", 0.9, (20, 60, 100, 100)), Box("dog", 0.5, (20, 60, 100, 100))]
    drawn = draw_boxes(grey(), boxes, ["cat", "dog"])
    assert tuple(drawn[80, 20]) == colour_of("cat", ["cat", "dog"])
    assert (drawn == draw_boxes(grey(), boxes[::-1], ["cat", "dog"])).all()


def test_colours_are_stable_and_apart() -> None:
    names = [f"class {k}" for k in range(80)]
    colours = [colour_of(name, names) for name in names]
    assert len(set(colours)) == 80
    assert colours == [colour_of(name, names) for name in names]
    assert colour_of("cat") == colour_of("cat") != colour_of("dog")
    for near, far in pairwise(colours):
        assert sum(abs(a - b) for a, b in zip(near, far, strict=True)) > 90


def test_letters_are_read_on_every_colour() -> None:
    """WCAG asks for a contrast of 4.5."""
    names = [f"class {k}" for k in range(200)]
    for name in names:
        colour = colour_of(name, names)
        drawn = draw_marks(grey(300, 100), [Mark((10, 60, 290, 90), "MMMM", colour)])
        linear = [np.where((p := part / 255) <= 0.04045, p / 12.92, ((p + 0.055) / 1.055) ** 2.4)
                  for part in colour]  # fmt: skip
        bright = float(np.dot([0.2126, 0.7152, 0.0722], linear))
        ink = 0.0 if (drawn == 0).all(axis=2).any() else 1.0
        assert (max(bright, ink) + 0.05) / (min(bright, ink) + 0.05) >= 4.4


@given(
    st.lists(st.floats(-1e4, 1e4), min_size=4, max_size=4),
    st.sampled_from([(1, 1), (3, 200), (200, 3), (32, 32), (333, 101)]),
    st.sampled_from(["", "x", "a rather long name of a class", "人 99 %"]),
)
def test_any_box_on_any_picture(xyxy: list[float], size: tuple[int, int], text: str) -> None:
    image = grey(*size)
    drawn = draw_marks(image, [Mark(xyxy, text, RED)])
    assert drawn.shape == image.shape
    outside = xyxy[0] >= size[0] or xyxy[1] >= size[1] or xyxy[2] <= 0 or xyxy[3] <= 0
    if outside or xyxy[2] < xyxy[0] or xyxy[3] < xyxy[1]:
        assert (drawn == image).all()
    else:
        assert (drawn != image).any()


def test_a_box_on_the_border_ends_with_the_picture() -> None:
    drawn = draw_marks(grey(), [Mark((150, 100, 200, 150), "", RED)])
    assert (drawn[100:150, 199] == RED).all()
    assert (drawn[149, 150:200] == RED).all()
