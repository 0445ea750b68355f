"""The matrix algebra, and that pixels and boxes follow it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.data import geometry
from retinue.data.geometry import Entry, Paint, Region, render

numbers = st.floats(-50, 50)
factors = st.floats(0.3, 3)
angles = st.floats(-180, 180)
steps = st.one_of(
    st.builds(geometry.translate, numbers, numbers),
    st.builds(geometry.scale, factors, factors),
    st.builds(geometry.rotate, angles),
    st.builds(geometry.shear, st.floats(-60, 60)),
    st.builds(lambda a, x, y: geometry.about(geometry.rotate(a), x, y), angles, numbers, numbers),
    st.builds(
        geometry.orient, st.integers(1, 8), st.tuples(st.integers(1, 90), st.integers(1, 90))
    ),
)
points = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5).map(np.array)


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@settings(deadline=None)
@given(st.lists(steps, min_size=1, max_size=5), points)
def test_composing_is_applying_in_turn(matrices: list[np.ndarray], where: np.ndarray) -> None:
    composed = geometry.identity()
    expected = where
    for matrix in matrices:
        composed = matrix @ composed
        expected = geometry.apply(matrix, expected)
    assert np.allclose(geometry.apply(composed, where), expected, atol=1e-6)
    back = geometry.apply(geometry.inverse(composed), expected)
    assert np.allclose(back, where, atol=1e-4)


def test_known_answers() -> None:
    point = np.array([[3.0, 1.0]])
    assert geometry.apply(geometry.translate(1, 2), point).tolist() == [[4, 3]]
    assert geometry.apply(geometry.scale(2, 3), point).tolist() == [[6, 3]]
    # Clockwise on the screen: right becomes down.
    assert np.allclose(geometry.apply(geometry.rotate(90), np.array([[1.0, 0.0]])), [[0, 1]])
    assert np.allclose(geometry.apply(geometry.shear(45), point), [[4, 1]])
    assert geometry.apply(geometry.crop((10, 20, 30, 60), (80, 100)), [[20, 40]]).tolist() == [
        [50, 40]
    ]


@pytest.mark.parametrize("orientation", range(8))
def test_dihedral_group_is_exact_on_pixels(orientation: int) -> None:
    image = textured(20, 30)
    expected = image[:, ::-1] if orientation & 4 else image
    expected = np.rot90(expected, -(orientation & 3))
    matrix = geometry.dihedral(orientation, (20, 30))
    result = render([Entry(image, matrix)], expected.shape[:2])
    assert np.array_equal(result, expected)


def test_identity_and_whole_shifts_are_exact() -> None:
    image = textured(21, 33)
    assert np.array_equal(render([Entry(image, geometry.identity())], (21, 33)), image)
    shifted = render([Entry(image, geometry.translate(4, -3))], (21, 33), fill=9)
    assert np.array_equal(shifted[:18, 4:], image[3:, :29])
    assert (shifted[18:] == 9).all()
    assert (shifted[:, :4] == 9).all()


@settings(max_examples=40, deadline=None)
@given(
    box=st.tuples(
        st.integers(20, 60), st.integers(20, 60), st.integers(30, 90), st.integers(30, 90)
    ),
    zoom=st.tuples(st.floats(0.08, 2.5), st.floats(0.08, 2.5)),
    shift=st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
    orientation=st.integers(1, 8),
)
def test_boxes_follow_pixels(
    box: tuple[int, ...],
    zoom: tuple[float, float],
    shift: tuple[float, float],
    orientation: int,
) -> None:
    x, y, w, h = box
    image = np.zeros((200, 200, 3), dtype=np.uint8)
    image[y : y + h, x : x + w] = 255
    matrix = (
        geometry.translate(*shift)
        @ geometry.scale(*zoom)
        @ geometry.orient(orientation, (200, 200))
    )
    size = (300, 320)
    canvas = render([Entry(image, matrix)], size, fill=0)[..., 0].astype(float) / 255
    mapped = geometry.boxes_through(matrix, np.array([[x, y, x + w, y + h]]))[0]
    mapped = mapped.clip(0, [size[1], size[0]] * 2)
    # Sums of partly covered pixels measure the extent. Bilinear sampling at up to half the size is
    # off by at most a quarter of a pixel at each edge.
    if (mapped[2:] - mapped[:2]).min() < 6:
        return
    middle_y, middle_x = int((mapped[1] + mapped[3]) / 2), int((mapped[0] + mapped[2]) / 2)
    row, column = canvas[middle_y], canvas[:, middle_x]
    assert abs(row.sum() - (mapped[2] - mapped[0])) < 0.55
    assert abs(column.sum() - (mapped[3] - mapped[1])) < 0.55
    centre_x = (row * (np.arange(size[1]) + 0.5)).sum() / row.sum()
    centre_y = (column * (np.arange(size[0]) + 0.5)).sum() / column.sum()
    assert abs(centre_x - (mapped[0] + mapped[2]) / 2) < 0.3
    assert abs(centre_y - (mapped[1] + mapped[3]) / 2) < 0.3


def test_boxes_lie_around_rotated_corners() -> None:
    matrix = geometry.about(geometry.rotate(45), 50, 50)
    box = geometry.boxes_through(matrix, np.array([[40.0, 40, 60, 60]]))[0]
    half = 10 * np.sqrt(2)
    assert np.allclose(box, [50 - half, 50 - half, 50 + half, 50 + half], atol=1e-4)
    assert geometry.boxes_through(matrix, np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize("factor", [2, 3, 5, 9])
def test_shrinking_averages_areas(factor: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20 * factor, 30 * factor, 3), dtype=np.uint8)
    result = render([Entry(image, geometry.scale(1 / factor))], (20, 30))
    expected = image.reshape(20, factor, 30, factor, 3).mean(axis=(1, 3))
    assert np.abs(result - expected).max() <= 1


def test_shrinking_a_checkerboard_leaves_no_moire() -> None:
    image = np.indices((600, 600)).sum(0) % 2 * np.uint8(255)
    image = np.repeat(image[..., None].astype(np.uint8), 3, axis=2)
    matrix = geometry.about(geometry.rotate(20), 50, 50) @ geometry.scale(100 / 600)
    result = render([Entry(image, matrix)], (100, 100), border="reflect")
    assert np.abs(result[20:80, 20:80].astype(int) - 127).max() < 12


@settings(max_examples=40, deadline=None)
@given(
    angle=angles, zoom=st.floats(0.25, 1.5), shift=st.tuples(st.floats(-40, 40), st.floats(-40, 40))
)
def test_averaging_only_what_is_seen_shows_the_same(
    angle: float, zoom: float, shift: tuple[float, float]
) -> None:
    """Reflections reach into parts of the source that the canvas does not show directly."""
    image = textured(240, 360)
    matrix = geometry.translate(*shift) @ geometry.scale(zoom) @ geometry.rotate(angle)
    pad = 720
    wide = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REFLECT)
    result = render([Entry(image, matrix)], (60, 80), border="reflect")
    reference = render([Entry(wide, matrix @ geometry.translate(-pad, -pad))], (60, 80))
    assert np.abs(result.astype(int) - reference).max() <= 8


@settings(max_examples=60, deadline=None)
@given(
    box=st.tuples(st.integers(0, 90), st.integers(0, 70), st.integers(8, 200), st.integers(8, 160)),
    size=st.tuples(st.integers(16, 60), st.integers(16, 60)),
    mirrored=st.tuples(st.booleans(), st.booleans()),
)
def test_whole_boxes_are_shown_as_by_the_general_warp(
    box: tuple[int, ...], size: tuple[int, int], mirrored: tuple[bool, bool]
) -> None:
    x, y, w, h = box
    if x + w > 290 or y + h > 230:
        return
    matrix = geometry.crop((x, y, x + w, y + h), size)
    flip = geometry.scale(-1 if mirrored[0] else 1, -1 if mirrored[1] else 1)
    matrix = geometry.about(flip, size[1] / 2, size[0] / 2) @ matrix
    image = textured(230, 290)
    # The least possible rotation leads around the short cut.
    nearly = geometry.rotate(1e-7) @ matrix
    result = render([Entry(image, matrix)], size, border="reflect").astype(int)
    reference = render([Entry(image, nearly)], size, border="reflect")
    assert np.abs(result - reference)[1:-1, 1:-1].max() <= 10


def test_half_size_is_the_average_of_four() -> None:
    image = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    expected = image.reshape(40, 2, 60, 2, 3).mean(axis=(1, 3))
    result = render([Entry(image, geometry.scale(0.5))], (40, 60))
    assert np.abs(result - expected).max() <= 0.5


def test_regions_paint_only_their_part() -> None:
    left, right = np.full((8, 8, 3), 10, np.uint8), np.full((8, 8, 3), 200, np.uint8)
    entries = [
        Entry(left, geometry.scale(2), Region(0, 0, 6, 16)),
        Entry(right, geometry.scale(2), Region(6, 4, 16, 16)),
        Entry(right, geometry.scale(2), Region(3, 3, 3, 9)),
    ]
    canvas = render(entries, (16, 16), border="reflect", fill=77)
    assert (canvas[:, :6] == 10).all()
    assert (canvas[4:, 6:] == 200).all()
    assert (canvas[:4, 6:] == 77).all()


def test_region_shows_what_the_whole_canvas_would() -> None:
    image = textured(50, 70)
    matrix = geometry.about(geometry.rotate(30), 30, 20)
    whole = render([Entry(image, matrix)], (40, 60))
    part = render([Entry(image, matrix, Region(11, 7, 50, 31))], (40, 60), fill=114)
    assert np.abs(part[7:31, 11:50].astype(int) - whole[7:31, 11:50]).max() <= 1


def test_perspective() -> None:
    matrix = np.array([[1, 0, 0], [0, 1, 0], [0.002, 0, 1.0]])
    image = textured(60, 60)
    canvas = render([Entry(image, matrix)], (60, 60))
    there = geometry.apply(matrix, np.array([[30.5, 30.5]]))[0]
    x, y = int(there[0]), int(there[1])
    assert np.abs(canvas[y, x].astype(int) - image[30, 30]).max() < 30


def test_renders_in_place() -> None:
    batch = np.zeros((3, 10, 12, 3), dtype=np.uint8)
    image = textured(10, 12)
    result = render([Entry(image, geometry.identity())], (10, 12), out=batch[1])
    assert np.shares_memory(result, batch)
    assert np.array_equal(batch[1], image)
    assert not batch[[0, 2]].any()


def polygon(*corners: tuple[float, float]) -> np.ndarray:
    return np.array(corners, dtype=np.float64)


SQUARE = polygon((0, 0), (8, 0), (8, 8), (0, 8))


def test_known_areas_and_clips() -> None:
    triangle = polygon((0, 0), (4, 0), (0, 3))
    assert geometry.area(triangle) == 6
    assert geometry.area(triangle[::-1]) == 6
    assert geometry.area(np.zeros((0, 2))) == 0
    # Of a diamond around the canvas's corner, a quarter lies on the canvas.
    diamond = polygon((-4, 0), (0, -4), (4, 0), (0, 4))
    quarter = geometry.clip(diamond, (10, 10))
    assert geometry.area(quarter) == 8
    assert {tuple(corner) for corner in quarter.tolist()} == {(0, 0), (4, 0), (0, 4)}
    assert geometry.clip(diamond - 9, (10, 10)).shape == (0, 2)
    assert geometry.area(geometry.clip(SQUARE * 3 - 5, (6, 7))) == 42
    assert np.array_equal(geometry.clip(SQUARE, (8, 8)), SQUARE)


@settings(deadline=None)
@given(
    st.lists(st.tuples(numbers, numbers), min_size=3, max_size=8),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_clipping_keeps_what_lies_on_the_canvas(
    corners: list[tuple[float, float]], size: tuple[int, int]
) -> None:
    points = np.array(corners, np.float32) + 0.0  # OpenCV stumbles over −0.0 beside 0.0
    hull = cv2.convexHull(points).reshape(-1, 2).astype(np.float64)
    clipped = geometry.clip(hull, size)
    box = Region(0, 0, size[1], size[0])
    differing = np.argwhere(geometry.inside(hull, box) != geometry.inside(clipped, box))
    for row, column in differing:  # only centres within rounding of a side
        centre = (float(column) + 0.5, float(row) + 0.5)
        outline = hull.astype(np.float32)
        assert abs(cv2.pointPolygonTest(outline, centre, measureDist=True)) < 1e-4
    assert geometry.area(clipped) <= min(geometry.area(hull), size[0] * size[1]) + 1e-6


def test_known_parts_in_common() -> None:
    triangle = polygon((0, 0), (8, 0), (0, 8))
    for other in (triangle, triangle[::-1], np.roll(triangle, 1, axis=0)):
        assert geometry.area(geometry.common(SQUARE / 2, other)) == 16  # its corner on the side
        assert geometry.area(geometry.common(SQUARE, other)) == 32
        assert geometry.area(geometry.common(SQUARE / 2 + 4, other)) == 0
        # Of the square 2–6, the corner beyond x + y = 8 is cut off.
        part = geometry.common(SQUARE / 2 + 2, other)
        assert {tuple(c) for c in part.tolist()} == {(2, 2), (6, 2), (2, 6)}
    assert geometry.common(SQUARE, polygon((0, 0), (4, 4), (8, 8))).shape == (0, 2)
    assert geometry.common(SQUARE, (5, 2, 12, 3)).tolist() == [[5, 3], [5, 2], [8, 2], [8, 3]]
    # Two covers, 4 × 8 and 8 × 4, share a quarter of the square; the third is under both.
    covers = [(0, 0, 4, 8), SQUARE * (1, 0.5), (0, 0, 4, 4)]
    assert geometry.visible_area(SQUARE, covers) == 16
    assert geometry.visible_area(SQUARE, []) == 64
    assert geometry.visible_area(np.zeros((0, 2)), covers) == 0


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000))
def test_what_polygons_have_in_common_are_the_pixels_in_both(seed: int) -> None:
    rng = np.random.default_rng(seed)
    box = Region(0, 0, 60, 50)

    def hull() -> np.ndarray:
        points = rng.uniform(-10, 70, (rng.integers(3, 7), 2)).astype(np.float32)
        return cv2.convexHull(points).reshape(-1, 2).astype(np.float64)

    one, two, three = hull(), hull(), hull()
    both = geometry.common(one, two)
    ours, theirs = geometry.inside(both, box), geometry.inside(one, box) & geometry.inside(two, box)
    assert (ours != theirs).sum() <= 2  # only centres within rounding of a side
    grid = Region(-20, -20, 80, 80)
    left = geometry.inside(one, grid) & ~geometry.inside(two, grid) & ~geometry.inside(three, grid)
    assert abs(geometry.visible_area(one, [two, three]) - left.sum()) < 40


def test_which_pixels_a_polygon_contains() -> None:
    mask = geometry.inside(polygon((0, 0), (4, 0), (0, 4)), Region(0, 0, 4, 4))
    # The slanted side runs through the centres of the pixels (0, 3), (1, 2) …
    assert mask.astype(int).tolist() in (
        [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]],
        [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]],
    )
    assert geometry.inside(SQUARE, Region(-2, 5, 10, 11)).sum() == 8 * 3
    assert not geometry.inside(polygon((0, 0), (4, 4), (8, 8)), Region(0, 0, 8, 8)).any()


@settings(deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    middle=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    halves=st.booleans(),
    reverse=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_polygons_that_tile_the_canvas_tile_its_pixels(
    size: tuple[int, int],
    middle: tuple[float, float],
    halves: bool,
    reverse: list[bool],
) -> None:
    h, w = size
    x, y = middle[0] * w, middle[1] * h
    if halves:  # through the centres of pixels
        x, y = int(x) + 0.5, int(y) + 0.5
    corners = [(0, 0), (w, 0), (w, h), (0, h)]
    parts = [polygon(corners[k - 1], corners[k], (x, y)) for k in range(4)]
    parts = [part[::-1] if back else part for part, back in zip(parts, reverse, strict=True)]
    count = sum(geometry.inside(part, Region(0, 0, w, h)).astype(int) for part in parts)
    assert (count == 1).all()


def test_a_polygon_shows_what_the_whole_canvas_would_and_leaves_the_rest() -> None:
    image = textured(50, 70)
    for matrix in (geometry.about(geometry.rotate(30), 30, 20), geometry.scale(0.8)):
        whole = render([Entry(image, matrix)], (40, 60))
        part = polygon((-10, -5), (50, 8), (31, 36.5))
        under = textured(40, 60, seed=5)
        below = Entry(under, geometry.identity())
        out = np.zeros((2, 40, 60, 3), np.uint8)
        canvas = render([below, Entry(image, matrix, part)], (40, 60), out=out[0])
        mask = geometry.inside(part, Region(0, 0, 60, 40))
        assert 300 < mask.sum() < 1000
        assert np.abs(canvas[mask].astype(int) - whole[mask]).max() <= 1
        assert np.array_equal(canvas[~mask], under[~mask])
        assert np.shares_memory(canvas, out)
        assert not out[1].any()


def test_a_polygon_around_a_rectangle_is_that_rectangle() -> None:
    image = textured(90, 70)
    box = Region(5, 7, 31, 22)
    corners = polygon((5, 7), (31, 7), (31, 22), (5, 22))
    for matrix in (geometry.scale(0.3), geometry.rotate(10) @ geometry.scale(0.7)):
        expected = render([Entry(image, matrix, box)], (30, 40), border="reflect")
        result = render([Entry(image, matrix, corners)], (30, 40), border="reflect")
        assert np.array_equal(result, expected)


def test_colours_are_painted_in_turn() -> None:
    image = np.full((8, 8, 3), 10, np.uint8)
    red, blue, green = (200, 1, 2), (3, 4, 150), (5, 90, 6)
    canvas = render(
        [
            Entry(image, geometry.identity()),
            Paint(Region(4, 4, 8, 8), red),
            Paint(polygon((4, 4), (6, 4), (6, 6), (4, 6)), blue),
        ],
        (8, 8),
    )
    assert (canvas[6:, 4:] == red).all()
    assert (canvas[4:6, 4:6] == blue).all()
    assert (canvas[:4] == 10).all()
    assert (canvas[:, :4] == 10).all()
    assert (render([Paint(None, green)], (3, 4)) == green).all()


@pytest.mark.parametrize("degrees", [0.0, 20.0, 90.0])
@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("lying", [True, False])
def test_images_longer_than_opencv_warps(degrees: float, smooth: bool, lying: bool) -> None:
    """Before OpenCV 5, a side above 32,766 is more than a warp takes."""
    long = textured(40, 70_000)
    piece = geometry.translate(-60_000, -10)
    if lying:
        long, piece = long.transpose(1, 0, 2).copy(), geometry.translate(-10, -60_000)
    matrix = geometry.about(geometry.rotate(degrees), 16, 16) @ geometry.scale(1.3) @ piece
    result = render([Entry(long, matrix)], (32, 32), smooth=smooth, border="reflect")
    around = np.s_[:, 59_900:60_100] if not lying else np.s_[59_900:60_100]
    moved = matrix @ (geometry.translate(0, 59_900) if lying else geometry.translate(59_900, 0))
    expected = render([Entry(long[around], moved)], (32, 32), smooth=smooth, border="reflect")
    assert np.abs(result.astype(int) - expected).max() <= 1


def test_all_of_a_very_long_image_is_seen() -> None:
    long = np.repeat(textured(1, 100)[:, :, :], 500, axis=1)
    matrix = geometry.about(geometry.rotate(0.001), 40, 1) @ geometry.scale(0.0016, 2)
    for smooth in (True, False):
        result = render([Entry(long, matrix)], (2, 80), smooth=smooth, border="reflect").astype(int)
        expected = cv2.resize(long, (80, 2), interpolation=cv2.INTER_AREA)
        assert np.abs(result - expected).mean() < 12
