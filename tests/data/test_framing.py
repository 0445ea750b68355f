"""A fitted image is YOLOv3's published one, to a pixel of the canvas, and goes back exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import look, sample_of

from retinue.data import geometry
from retinue.data.framing import eval_matrix, fitted
from retinue.data.options import AugmentOptions
from retinue.data.population import Population
from retinue.data.targets.boxes import Boxes
from retinue.data.views import EvalView, TrainView
from retinue.sample import Preprocessing

YOLO = Preprocessing(size=(416, 416), fit="letterbox", pad_value=128)
OBJECTS = Population.of("aaaa", places=True)


def published(
    source: tuple[int, int], side: int, jitter: tuple[float, float], scale: float, place: np.ndarray
) -> np.ndarray:
    """Left, top, right and bottom of the whole image on a square canvas, before they are rounded:
    the shorter of the two sides follows from the longer one and the changed aspect ratio."""
    ratio = source[0] / source[1] * jitter[0] / jitter[1]
    if ratio < 1:
        high = scale * side
        wide = high * ratio
    else:
        wide = scale * side
        high = wide / ratio
    # uniform(0, side − wide), in whichever order the two stand
    left, top = place[0] * (side - wide), place[1] * (side - high)
    return np.array([left, top, left + wide, top + high])


sides = st.integers(1, 3000)
factors = st.floats(0.7, 1.3)
shares = st.floats(0, 1)


@settings(max_examples=300, deadline=None)
@given(
    source=st.tuples(sides, sides),
    side=st.integers(1, 640),
    jitter=st.tuples(factors, factors),
    scale=st.floats(0.25, 2),
    place=st.tuples(shares, shares),
)
def test_a_fitted_image_lies_where_the_published_recipe_puts_it(
    source: tuple[int, int],
    side: int,
    jitter: tuple[float, float],
    scale: float,
    place: tuple[float, float],
) -> None:
    how = replace(YOLO, size=(side, side))
    matrix, window = fitted(how, source, jitter[0] / jitter[1], scale, place)
    x1, y1, x2, y2 = published(source, side, jitter, scale, np.array(place))
    # It covers what of that is on the canvas, in whole pixels, one at least.
    shown = np.clip((x1, y1, x2, y2), 0, side)
    off = np.abs(np.subtract(window, shown))
    for axis, length in enumerate((x2 - x1, y2 - y1)):
        assert off[axis::2].max() <= (0.5 if length >= 1 else 1.5) + 1e-6
    assert 0 <= window.x1 < window.x2 <= side
    assert 0 <= window.y1 < window.y2 <= side
    # What is seen there is that part of the image, to a pixel of the canvas or of the image.
    back = geometry.boxes_through(geometry.inverse(matrix), np.array([window]))[0]
    assert (back >= -1e-3).all()
    assert (back <= np.array([*source, *source]) + 1e-3).all()
    per_x, per_y = source[0] / (x2 - x1), source[1] / (y2 - y1)
    part = (shown - (x1, y1, x1, y1)) * (per_x, per_y, per_x, per_y)
    assert (np.abs(back - part) <= np.tile((max(per_x, 1), max(per_y, 1)), 2) + 1e-3).all()


def test_a_fitted_image_by_hand() -> None:
    """Of 200 × 100, on a canvas of 64 × 64, as it is: 64 × 32. Half of that, 32 × 16, in the lower
    right corner, in the middle; four times as large, 256 × 128, its left end."""
    square = replace(YOLO, size=(64, 64))
    _, window = fitted(square, (200, 100), 1.0, 0.5, (1.0, 0.5))
    assert window == (32, 24, 64, 40)
    matrix, window = fitted(square, (200, 100), 1.0, 4.0, (0.0, 1.0))
    assert window == (0, 0, 64, 64)
    corners = geometry.boxes_through(geometry.inverse(matrix), np.array([[0, 0, 64, 64]]))[0]
    assert np.allclose(corners, [0, 50, 50, 100])
    # Twice as wide for its height: 64 × 16. Where evaluation squashes it, it is square at first.
    _, window = fitted(square, (200, 100), 2.0, 1.0, (0.0, 0.0))
    assert window == (0, 0, 64, 16)
    _, window = fitted(replace(square, fit="squash"), (200, 100), 1.0, 1.0, (0.3, 0.8))
    assert window == (0, 0, 64, 64)
    _, window = fitted(replace(square, fit="squash"), (200, 100), 2.0, 1.0, (0.0, 0.5))
    assert window == (0, 16, 64, 48)


@pytest.mark.parametrize("fit", ["letterbox", "squash", "crop"])
def test_what_is_drawn_has_the_published_ranges(fit: str) -> None:
    options = AugmentOptions(jitter=0.3, fit_scale=(0.25, 2.0), horizontal_flip=0)
    composer = TrainView(options, replace(YOLO, fit=fit), 0, OBJECTS).composer
    source, ratio = (640, 480), 1.0 if fit == "squash" else 4 / 3
    stretches, sizes, lefts = [], [], []
    for key in range(3000):
        (placement,) = composer.compose([source], key=key, epoch=0).placements
        along_x, along_y = placement.matrix[0, 0] * 640, placement.matrix[1, 1] * 480
        stretches.append(along_x / along_y / ratio)
        sizes.append(max(along_x, along_y) / 416)
        left = placement.matrix[0, 2]
        if along_x < 400:
            lefts.append(left / (416 - along_x))
    # Of width and height, each times uniform 0.7 … 1.3.
    assert 0.53 < min(stretches) < 0.6
    assert 1.7 < max(stretches) < 1.9
    quartiles = np.quantile(stretches, [0.25, 0.5, 0.75])
    rng = np.random.default_rng(0)
    expected = np.quantile(np.divide(*rng.uniform(0.7, 1.3, (2, 100_000))), [0.25, 0.5, 0.75])
    assert np.allclose(quartiles, expected, atol=0.04)
    # Uniform, so their mean is the middle; the longer side is the canvas's times that.
    assert np.allclose([min(sizes), max(sizes), np.mean(sizes)], [0.25, 2, 1.125], atol=0.03)
    assert np.allclose([min(lefts), max(lefts), np.mean(lefts)], [0, 1, 0.5], atol=0.03)


def test_beyond_a_fitted_image_it_is_grey() -> None:
    options = AugmentOptions(jitter=0.3, fit_scale=(0.25, 0.9))
    white = sample_of(
        np.full((90, 120, 3), 255, np.uint8), target=Boxes.made([[0, 0, 120, 90]], [0])
    )
    for fit in ("letterbox", "squash"):
        view = TrainView(options, replace(YOLO, fit=fit), 0)
        for key in range(20):
            looked = look(view, white, key=key, size=(96, 128))
            assert isinstance(looked.target, Boxes)
            x1, y1, x2, y2 = map(int, looked.target.xyxy[0])
            expected = np.full((96, 128), 128)
            expected[y1:y2, x1:x2] = 255
            assert (looked.image == expected[..., None]).all()


@pytest.mark.parametrize(
    "options",
    [
        {"zoom": (0.4, 0.6), "rotation": 20.0},
        {"translate": 0.5},
        {"mosaic": 1.0, "zoom": (0.3, 0.5)},
        {"jitter": 0.2, "rotation": 30.0},
    ],
)
def test_nothing_is_reflected_that_is_marked(options: dict[str, object]) -> None:
    """Beyond the edge of an image its objects would be seen again, and nothing would tell."""
    white = sample_of(np.full((64, 64, 3), 255, np.uint8), target=Boxes.made([[0, 0, 64, 64]], [0]))
    how = Preprocessing(size=(64, 64), crop_fraction=1.0, pad_value=128)
    grey = {"marked": 0, "unmarked": 0}
    for key in range(20):
        for name, population in (("marked", OBJECTS), ("unmarked", Population.of("aaaa"))):
            view = TrainView(AugmentOptions(**options), how, 0, population)
            image = look(view, *[white] * 4, key=key, size=(64, 64)).image
            grey[name] += (image == 128).sum()
    assert grey["marked"] > 20 * 64
    assert "jitter" in options or grey["unmarked"] == 0


def test_a_population_knows_whether_its_samples_have_places() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    marked = sample_of(image, target=Boxes.made([[0, 0, 1, 1]], [0]))
    assert not Population.of_samples([sample_of(image)]).places
    assert Population.of_samples([sample_of(image), marked]).places


@settings(max_examples=200, deadline=None)
@given(
    source=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    side=st.integers(1, 40).map(lambda k: 32 * k),
    point=st.tuples(shares, shares),
)
def test_the_way_back_from_a_letterbox_is_exact(
    source: tuple[int, int], side: int, point: tuple[float, float]
) -> None:
    """Within half a pixel of the original, wherever the padding was rounded."""
    check_way_back(source, side, point)


@pytest.mark.parametrize(("source", "side"), [((3775, 1571), 1280), ((4075, 4024), 416)])
@pytest.mark.parametrize("point", [(0.0, 0.0), (1.0, 1.0), (0.5, 0.25), (0.0, 1.0)])
def test_the_way_back_where_others_lose_pixels(
    source: tuple[int, int], side: int, point: tuple[float, float]
) -> None:
    check_way_back(source, side, point)


def check_way_back(source: tuple[int, int], side: int, point: tuple[float, float]) -> None:
    how = replace(YOLO, size=(side, side))
    width, height = source
    there = np.array([[point[0] * width, point[1] * height]])
    sample = sample_of(np.zeros((1, 1, 3), np.uint8))
    seen = EvalView(how).see([sample], [source], size=(side, side))
    on_input = geometry.apply(eval_matrix(how, source), there)
    assert np.abs(geometry.apply(seen.to_original, on_input) - there).max() < 1e-6
    # The corners of the image lie on whole pixels: the very ones that are painted.
    corners = geometry.apply(eval_matrix(how, source), np.array([[0, 0], [width, height]]))
    assert np.abs(corners - corners.round()).max() < 1e-6
    assert seen.original_size == source


def test_a_letterbox_is_painted_where_its_matrix_says() -> None:
    """A white image, and what of the input is not grey."""
    for source, side in (((3775, 1571), 640), ((407, 402), 64), ((3, 500), 64)):
        image = np.full((source[1], source[0], 3), 255, np.uint8)
        looked = look(
            EvalView(replace(YOLO, size=(side, side))), sample_of(image), size=(side, side)
        )
        rows, columns = np.nonzero(looked.image[..., 0] == 255)
        painted = np.array([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]])
        there = geometry.apply(looked.to_original, painted.astype(float))
        assert np.allclose(there, [[0, 0], source], atol=1e-6)


@pytest.mark.parametrize("options", [None, {"jitter": 0.3, "fit_scale": (0.25, 2.0)}])
def test_at_every_size_the_boxes_are_in_its_own_pixels(options: dict[str, object] | None) -> None:
    """The same draws at 64, 96 and 416: the same picture, larger, to a pixel of each."""
    target = Boxes.made([[30, 20, 90, 70], [100, 40, 180, 130]], [0, 1])
    sample = sample_of(np.zeros((140, 190, 3), np.uint8), target=target)
    view = EvalView(YOLO) if options is None else TrainView(AugmentOptions(**options), YOLO, 0)
    for key in range(10):
        seen = {
            side: view.see([sample], [(190, 140)], key=key, epoch=0, size=(side, side))
            for side in (64, 96, 416)
        }
        large = seen[416].target
        assert isinstance(large, Boxes)
        for side, at in seen.items():
            assert isinstance(at.target, Boxes)
            if at.target.of == large.of:  # a sliver may be left at one size alone
                assert np.abs(at.target.xyxy / side - large.xyxy / 416).max() <= 1 / side
            assert at.target.xyxy.max(initial=0) <= side
