"""Boxes end where the image, its region or what covers them does; and are named and batched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.data import geometry
from retinue.data.targets.boxes import Boxes
from retinue.errors import UsageError

CANVAS = (100, 100)
BOXES = Boxes.made(
    [[10, 20, 30, 60], [40, 10, 90, 20], [0, 0, 5, 5]],
    ["cat", "dog", "cat"],
    difficult=[True, False, False],
    crowd=[False, True, False],
    not_exhaustive=["fish", "dog"],
)


def test_boxes_are_checked_and_cannot_be_written_to() -> None:
    assert BOXES.xyxy.dtype == np.float32
    assert BOXES.difficult.tolist() == [True, False, False]
    for array in (BOXES.xyxy, BOXES.difficult, BOXES.crowd):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    for wrong in (
        {"of": ["a"], "xyxy": np.zeros((2, 4))},
        {"of": ["a"], "xyxy": [[0, 0, 1, 1]], "crowd": [True, False]},
        {"of": ["a"], "xyxy": [[0, 0, 1, np.nan]]},
        {"of": ["a"], "xyxy": [[0, 0, np.inf, 1]]},
    ):
        with pytest.raises(ValueError, match="box"):
            Boxes.made(**wrong)


def test_making_boxes_leaves_what_they_are_made_of_alone() -> None:
    given_ = np.array([[0, 0, 8, 8]], np.float32)
    boxes = Boxes.made(given_, ["a"])
    given_[0, 0] = 5
    assert boxes.xyxy[0, 0] == 0


def test_boxes_are_named_and_get_their_indices() -> None:
    assert BOXES.names() == ("cat", "dog")
    assert BOXES.mentioned() == ("cat", "dog", "fish")
    assert BOXES.stratum() == "cat"
    assert Boxes.made([[0, 0, 1, 1]] * 2, ["b", "a"]).stratum() == "a"  # as many of each
    assert Boxes.made([], []).stratum() == ""
    whole = BOXES.remap({"dog": 1, "cat": 0, "fish": 2})
    assert (whole.of, whole.not_exhaustive) == ((0, 1, 0), (2, 1))
    assert np.array_equal(whole.xyxy, BOXES.xyxy)
    part = BOXES.remap({"dog": 7})
    assert part == Boxes.made([[40, 10, 90, 20]], [7], crowd=[True], not_exhaustive=[7])
    assert whole.remap({0: 5, 2: 6}) == Boxes.made(
        [[10, 20, 30, 60], [0, 0, 5, 5]], [5, 5], difficult=[True, False], not_exhaustive=[6]
    )
    # An image without any of the objects teaches what they do not look like.
    assert BOXES.remap({"ant": 0}) == Boxes.made([], [])


def test_boxes_go_where_the_image_goes() -> None:
    boxes = Boxes.made([[10, 20, 30, 60], [40, 10, 90, 20]], [0, 1])
    mirrored = geometry.translate(100, 0) @ geometry.scale(-1, 1)
    assert boxes.through(mirrored, CANVAS).xyxy.tolist() == [[70, 20, 90, 60], [10, 10, 60, 20]]
    # A quarter turn clockwise of a canvas 100 high: x becomes 100 − y, y becomes x.
    turned = boxes.through(geometry.dihedral(1, CANVAS), CANVAS)
    assert turned.xyxy.tolist() == [[40, 10, 80, 30], [80, 40, 90, 90]]
    # The upright rectangle around what a rotation by 45° makes of a square.
    square = Boxes.made([[40, 40, 60, 60]], [0])
    slanted = square.through(geometry.about(geometry.rotate(45), 50, 50), CANVAS)
    reach = 10 * np.sqrt(2)
    assert np.allclose(slanted.xyxy, [[50 - reach, 50 - reach, 50 + reach, 50 + reach]], atol=1e-4)


def test_boxes_end_where_the_canvas_ends() -> None:
    """Of the first, a half is left; of the second a tenth, which is not enough; of the third a
    little more than that."""
    boxes = Boxes.made(
        [[-10, 0, 10, 10], [-9, 20, 1, 30], [-8.9, 40, 1.1, 50], [-50, 60, -10, 70]],
        [0, 1, 2, 3],
        difficult=[False, True, True, False],
        crowd=[True, True, False, True],
    )
    seen = boxes.through(geometry.identity(), CANVAS)
    assert seen.of == (0, 2)
    assert np.allclose(seen.xyxy, [[0, 0, 10, 10], [0, 40, 1.1, 50]])
    assert seen.difficult.tolist() == [False, True]
    assert seen.crowd.tolist() == [True, False]


def test_boxes_end_where_their_region_ends() -> None:
    boxes = Boxes.made([[0, 0, 40, 40], [30, 30, 90, 60], [70, 70, 90, 90]], [0, 1, 2])
    seen = boxes.through(geometry.translate(10, 5), CANVAS, (20, 0, 60, 50))
    # Moved to 10–50 × 5–45 and to 40–100 × 35–65: cut to the region; the third is outside.
    assert seen.of == (0, 1)
    assert seen.xyxy.tolist() == [[20, 5, 50, 45], [40, 35, 60, 50]]
    # A region that reaches beyond the canvas shows no more than that.
    wide = boxes.through(geometry.translate(60, 0), CANVAS, (-50, -50, 500, 500))
    assert wide.xyxy.tolist() == [[60, 0, 100, 40], [90, 30, 100, 60]]


def test_boxes_that_something_covers_are_dropped_and_others_keep_their_outline() -> None:
    """Of the first, 6/100 stay in sight, of the second 0.2, of the third everything."""
    boxes = Boxes.made([[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]], [0, 1, 2])
    covers = [(0, 0, 10, 9.4), (18, 20, 28, 90), (60, 50, 70, 60)]
    seen = boxes.through(geometry.identity(), CANVAS, None, covers)
    assert seen == Boxes.made([[20, 20, 30, 30], [50, 50, 60, 60]], [1, 2])
    # What the canvas cuts off is not covered once more.
    over = Boxes.made([[-10, 0, 10, 10]], [0]).through(
        geometry.identity(), CANVAS, None, [(-10, 0, 4, 10)]
    )
    assert over == Boxes.made([[0, 0, 10, 10]], [0])


UPPER_RIGHT = np.array([[0, 0], [100, 0], [100, 100]], np.float64)
"""The half of the canvas above its falling diagonal."""


def test_boxes_end_where_a_polygon_ends() -> None:
    """By hand: of a box across the diagonal stays what lies to the right of x = y."""
    boxes = Boxes.made(
        [
            [50, 10, 90, 30],  # above it
            [10, 50, 30, 90],  # below it
            [20, 30, 50, 60],  # across: the triangle (30, 30), (50, 30), (50, 50)
            [0, 40, 100, 60],  # across: the trapezium (40, 40), (100, 40), (100, 60), (60, 60)
            [0, 40, 50, 90],  # across: of 2500 the triangle (40, 40), (50, 40), (50, 50), 50: gone
        ],
        [0, 1, 2, 3, 4],
    )
    for region in (UPPER_RIGHT, UPPER_RIGHT[::-1]):
        seen = boxes.through(geometry.identity(), CANVAS, region)
        assert seen == Boxes.made(
            [[50, 10, 90, 30], [30, 30, 50, 50], [40, 40, 100, 60]], [0, 2, 3]
        )
    # The other half covers what this one does not show, so that all the same is left in sight.
    lower_left = np.array([[0, 0], [100, 100], [0, 100]], np.float64)
    under = boxes.through(geometry.identity(), CANVAS, None, [lower_left])
    assert under.of == seen.of
    assert under.xyxy.tolist() == [boxes.xyxy[k].tolist() for k in (0, 2, 3)]


def test_what_is_left_of_a_turned_box() -> None:
    """A square on its corner, of half a diagonal 20, in the middle of the left side: the right half
    of it is left, 20 wide and 40 high."""
    turn = geometry.about(geometry.rotate(45), 0, 50)
    half = 10 * np.sqrt(2)
    boxes = Boxes.made([[-half, 50 - half, half, 50 + half]], [0])
    assert np.allclose(boxes.through(turn, CANVAS).xyxy, [[0, 30, 20, 70]], atol=1e-4)
    # Of the diamond's tip beyond x = 16, 16 of 800 show; beyond x = 10, 100.
    assert boxes.through(turn, CANVAS, (16, 0, 100, 100)).of == ()
    tip = boxes.through(turn, CANVAS, (10, 0, 100, 100))
    assert np.allclose(tip.xyxy, [[10, 40, 20, 60]], atol=1e-4)


def test_what_is_covered_twice_is_not_covered_more() -> None:
    boxes = Boxes.made([[0, 0, 10, 10]], [0])
    covers = [(0, 0, 10, 8), (0, 0, 10, 8)]
    assert boxes.through(geometry.identity(), CANVAS, None, covers) == boxes


@settings(max_examples=60, deadline=None)
@given(
    box=st.tuples(*[st.integers(0, 99) for _ in range(4)]),
    region=st.tuples(*[st.integers(0, 100) for _ in range(4)]),
    orientation=st.integers(0, 7),
)
def test_boxes_through_a_region_are_the_pixels_that_show(
    box: tuple[int, ...], region: tuple[int, ...], orientation: int
) -> None:
    x1, x2 = sorted((box[0], box[2]))
    y1, y2 = sorted((box[1], box[3]))
    x2, y2 = x2 + 1, y2 + 1
    image = np.zeros((*CANVAS, 3), np.uint8)
    image[y1:y2, x1:x2] = 255
    left, right = sorted((region[0], region[2]))
    top, bottom = sorted((region[1], region[3]))
    part = geometry.Region(left, top, right, bottom)
    matrix = geometry.dihedral(orientation, CANVAS)
    canvas = geometry.render([geometry.Entry(image, matrix, part)], CANVAS, fill=0, smooth=False)
    bright = np.argwhere(canvas[..., 0] > 127)
    seen = Boxes.made([[x1, y1, x2, y2]], [0]).through(matrix, CANVAS, part)
    if len(bright) > 0.1 * (x2 - x1) * (y2 - y1):
        (top, left), (bottom, right) = bright.min(0), bright.max(0) + 1
        assert np.allclose(seen.xyxy, [[left, top, right, bottom]], atol=1e-3)
    else:
        assert seen.of == ()


@settings(max_examples=200, deadline=None)
@given(
    boxes=st.lists(st.tuples(*[st.integers(-500, 1500).map(lambda k: k / 10)] * 4), max_size=4),
    region=st.none() | st.tuples(*[st.integers(-10, 110)] * 4),
    mirrored=st.booleans(),
)
def test_upright_boxes_are_cut_as_any_others(
    boxes: list[tuple[float, ...]], region: tuple[int, ...] | None, mirrored: bool
) -> None:
    """Said as a polygon, a region is cut at corner by corner."""
    sides = [(*np.minimum(b[:2], b[2:]), *np.maximum(b[:2], b[2:])) for b in boxes]
    target = Boxes.made(sides, list(range(len(sides))))
    matrix = geometry.translate(90, 3) @ geometry.scale(-0.8 if mirrored else 0.8, 1.5)
    if region is not None:
        region = (*np.minimum(region[:2], region[2:]), *np.maximum(region[:2], region[2:]))
    ours = target.through(matrix, CANVAS, region)
    polygon = geometry.corners((0, 0, 100, 100) if region is None else region)
    theirs = target.through(matrix, CANVAS, polygon)
    near = [k for k, share in enumerate(_shares(target, matrix, region)) if abs(share - 0.1) < 1e-6]
    assert [k for k in ours.of if k not in near] == [k for k in theirs.of if k not in near]
    if ours.of == theirs.of:
        assert np.allclose(ours.xyxy, theirs.xyxy, atol=1e-3)


def _shares(target: Boxes, matrix: np.ndarray, region: tuple[int, ...] | None) -> list[float]:
    """How much of each is left."""
    shares = []
    x1, y1, x2, y2 = region or (0, 0, 100, 100)
    for a, b, c, d in geometry.boxes_through(matrix, target.xyxy).tolist():
        w = max(min(c, x2, 100) - max(a, x1, 0), 0)
        h = max(min(d, y2, 100) - max(b, y1, 0), 0)
        shares.append(w * h / max((c - a) * (d - b), 1e-12))
    return shares


def test_a_mosaic_of_boxes_has_them_all() -> None:
    parts = [
        (Boxes.made([[k, k, k + 5, k + 5]] * k, [k] * k, not_exhaustive=[9, k]), 0.25)
        for k in range(4)
    ]
    mixed = Boxes.mix(parts)
    assert mixed.of == (1, 2, 2, 3, 3, 3)
    assert mixed.xyxy[:, 0].tolist() == [1, 2, 2, 3, 3, 3]
    assert mixed.not_exhaustive == (9, 0, 1, 2, 3)
    hidden = Boxes.mix([(parts[1][0], 1.0), (parts[3][0], 0.0)])
    assert hidden == parts[1][0]
    marked = Boxes.made([[0, 0, 1, 1]], [0], difficult=[True], crowd=[True])
    both = Boxes.mix([(parts[1][0], 0.5), (marked, 0.5)])
    assert (both.difficult.tolist(), both.crowd.tolist()) == ([False, True], [False, True])


def test_boxes_in_a_batch() -> None:
    targets = [
        Boxes.made([[0, 1, 2, 3], [4, 5, 6, 7]], [4, 5], difficult=[False, True]),
        None,
        Boxes.made([], []),
        Boxes.made([[8, 8, 9, 9]], [6], crowd=[True]),
    ]
    collated = Boxes.collate(targets)
    blank = [0.0] * 4
    assert collated["xyxy"].tolist() == [
        [[0, 1, 2, 3], [4, 5, 6, 7]], [blank, blank], [blank, blank], [[8, 8, 9, 9], blank],
    ]  # fmt: skip
    assert collated["of"].tolist() == [[4, 5], [0, 0], [0, 0], [6, 0]]
    assert collated["present"].tolist() == [[1, 1], [0, 0], [0, 0], [1, 0]]
    assert collated["difficult"].tolist() == [[0, 1], [0, 0], [0, 0], [0, 0]]
    assert collated["crowd"].tolist() == [[0, 0], [0, 0], [0, 0], [1, 0]]
    assert collated["xyxy"].dtype == torch.float32
    assert collated["of"].dtype == torch.int64
    assert collated["present"].dtype == torch.bool
    assert collated["known"].tolist() == [target is not None for target in targets]
    assert collated["not_exhaustive"].shape == (4, 0)
    for nothing in ([None], [Boxes.made([], []), None]):
        assert Boxes.collate(nothing)["xyxy"].shape == (len(nothing), 0, 4)


def test_what_is_not_exhaustively_labelled_in_a_batch() -> None:
    partly = Boxes.made([[0, 0, 1, 1]], [2], not_exhaustive=[0, 3])
    collated = Boxes.collate([None, partly, Boxes.made([], [], not_exhaustive=[5]), BOXES_OF_ONE])
    assert collated["not_exhaustive"].tolist() == [[-1, -1], [0, 3], [5, -1], [-1, -1]]
    assert collated["not_exhaustive"].dtype == torch.int64


BOXES_OF_ONE = Boxes.made([[0, 0, 1, 1]], [0])


def test_boxes_are_not_mixed_by_shares() -> None:
    collated = Boxes.collate([Boxes.made([[0, 0, 1, 1]], [0])])
    with pytest.raises(UsageError, match=r"augment\.mixing"):
        Boxes.mix_batch(collated, torch.zeros(1).long(), torch.ones(1))
