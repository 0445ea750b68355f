"""From raw maps to boxes in pixels of the original, right to the half pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from retinue.data import geometry
from retinue.data.framing import eval_matrix
from retinue.data.loader import Loader, in_order
from retinue.data.views import EvalView
from retinue.errors import UsageError
from retinue.sample import Batch, Preprocessing, Sample
from retinue.tasks.detection.anchors import PUBLISHED
from retinue.tasks.detection.decoding import boxes, decode, first_by_score, grid, in_a_row

STRIDES = (8, 16, 32)
NEVER = -30.0
"""A logit of what is not there."""


def _batch(matrices: Sequence[npt.NDArray[np.float64]], sizes: Sequence[tuple[int, int]]) -> Batch:
    n = len(sizes)
    return Batch(
        torch.zeros(n, 3, 8, 8, dtype=torch.uint8),
        [Sample(str(k)) for k in range(n)],
        np.arange(n),
        torch.ones(n),
        np.stack(matrices),
        np.array(sizes, np.int64),
    )


def _empty(n: int, size: tuple[int, int], classes: int) -> list[Tensor]:
    return [torch.full((n, 3 * (5 + classes), size[0] // s, size[1] // s), NEVER) for s in STRIDES]


def _put(
    levels: list[Tensor], image: int, box: Sequence[float], of: int, *, logit: float = 30.0
) -> None:
    """Makes the coarsest level say `box`, in pixels of the input, of class `of`."""
    x, y = (box[0] + box[2]) / 2 / 32, (box[1] + box[3]) / 2 / 32
    column, row = min(int(x), levels[2].shape[3] - 1), min(int(y), levels[2].shape[2] - 1)
    w, h = PUBLISHED[2][0]

    def back(p: float) -> float:
        p = min(max(p, 1e-6), 1 - 1e-6)
        return math.log(p / (1 - p))

    said = levels[2][image, :, row, column]
    said[0], said[1] = back(x - column), back(y - row)
    said[2], said[3] = math.log((box[2] - box[0]) / w), math.log((box[3] - box[1]) / h)
    said[4] = logit
    said[5 + of] = 30.0


def test_a_prediction_by_hand() -> None:
    """σ(0) = ½ in cell (2, 1) of stride 16 is at 40, 24; exp(ln 2)·62 = 124 by exp(0)·45."""
    levels = [torch.zeros(1, 3 * 6, 32 // s * 4, 64 // s * 4) for s in STRIDES]
    where = grid(levels, PUBLISHED, STRIDES)
    first = where.counts[0]
    place = first + (1 * levels[1].shape[3] + 2) * 3 + 1
    levels[1][0, 6 + 2, 1, 2] = math.log(2)
    placed = boxes(in_a_row(levels, PUBLISHED), where)[0]
    assert placed[place].tolist() == pytest.approx([40 - 62, 24 - 22.5, 40 + 62, 24 + 22.5])
    # Darknet's scale_x_y of 2: from half a cell before to half a cell behind.
    levels[1][0, 6, 1, 2] = 50.0
    where = grid(levels, PUBLISHED, STRIDES, (1, 2, 1))
    placed = boxes(in_a_row(levels, PUBLISHED), where)[0]
    assert placed[place, [0, 2]].tolist() == pytest.approx([56 - 62, 56 + 62])
    one = torch.tensor([[place]])
    raw = in_a_row(levels, PUBLISHED)
    assert boxes(raw[:, place : place + 1], where, one)[0, 0].tolist() == placed[place].tolist()


def test_there_are_as_many_predictions_as_published() -> None:
    where = grid(_empty(1, (416, 416), 20), PUBLISHED, STRIDES)
    assert len(where) == 10647
    assert where.counts == [8112, 2028, 507]


def test_channels_last_maps_are_read_the_same() -> None:
    levels = [torch.randn(2, 3 * 7, 64 // s, 96 // s) for s in STRIDES]
    last = [level.contiguous(memory_format=torch.channels_last) for level in levels]
    assert torch.equal(in_a_row(levels, PUBLISHED), in_a_row(last, PUBLISHED))


def test_maps_that_do_not_go_with_the_anchors_are_refused() -> None:
    levels = _empty(1, (64, 64), 2)
    with pytest.raises(UsageError, match="3 levels with 2 rows of anchors"):
        grid(levels, PUBLISHED[:2], STRIDES)
    with pytest.raises(UsageError, match="21 channels with 2 anchors"):
        grid(levels, [level[:2] for level in PUBLISHED], STRIDES)


_SIDE = st.integers(20, 4100)


@given(
    width=_SIDE,
    height=_SIDE,
    tall=st.sampled_from([320, 416]),
    wide=st.sampled_from([416, 640]),
    fit=st.sampled_from(["letterbox", "squash"]),
    element=st.integers(0, 7),
    share=st.tuples(*[st.floats(0.02, 0.98)] * 4),
)
def test_boxes_come_back_to_the_half_pixel(
    width: int,
    height: int,
    tall: int,
    wide: int,
    fit: str,
    element: int,
    share: tuple[float, float, float, float],
) -> None:
    """Of an upright original, whatever way its canvas came to be: letterboxed or squashed, then
    turned and flipped. The box that the network sees there leads back to the object."""
    x1, x2 = sorted(share[:2])
    y1, y2 = sorted(share[2:])
    x2, y2 = max(x2, x1 + 0.01), max(y2, y1 + 0.01)
    truth = np.array([x1 * width, y1 * height, x2 * width, y2 * height])
    preprocessing = Preprocessing(size=(tall, wide), fit=fit)  # type: ignore[arg-type]
    matrix = eval_matrix(preprocessing, (width, height))
    matrix = geometry.dihedral(element, (tall, wide)) @ matrix
    size = (wide, tall) if element % 2 else (tall, wide)
    corners = geometry.apply(matrix, truth[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2))
    seen = [*corners.min(axis=0), *corners.max(axis=0)]
    levels = _empty(1, size, 2)
    _put(levels, 0, seen, 1)
    batch = _batch([geometry.inverse(matrix)], [(width, height)])
    (found,) = decode(levels, batch, anchors=PUBLISHED, strides=STRIDES, confidence=0.5)
    assert found.of.tolist() == [1]
    assert found.size == (width, height)
    # Half a pixel of the original, plus what float32 cannot tell of the network's input.
    assert np.abs(found.xyxy[0] - truth).max() <= 0.5


@pytest.mark.parametrize(("width", "height", "side"), [(3775, 1571, 1280), (4075, 4024, 416)])
def test_the_way_back_uses_the_padding_that_was_used(width: int, height: int, side: int) -> None:
    matrix = eval_matrix(Preprocessing(size=(side, side), fit="letterbox"), (width, height))
    truth = np.array([[0, 0], [width, height]], np.float64)
    seen = geometry.apply(matrix, truth)
    levels = _empty(1, (side, side), 1)
    _put(levels, 0, seen.ravel().tolist(), 0)
    batch = _batch([geometry.inverse(matrix)], [(width, height)])
    (found,) = decode(levels, batch, anchors=PUBLISHED, strides=STRIDES, confidence=0.5)
    assert np.abs(found.xyxy[0] - [0, 0, width, height]).max() <= 0.5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(300, 120), (97, 211)])
def test_what_lies_in_a_turned_photograph_is_found_in_its_upright_pixels(
    orientation: int, size: tuple[int, int], tmp_path: Path
) -> None:
    """A white rectangle, in a file that EXIF turns: where the batch shows it, a prediction there
    leads back to its corners in the upright photograph."""
    width, height = size
    truth = np.array([0.25 * width, 0.3 * height, 0.75 * width, 0.9 * height]).round()
    upright = np.zeros((height, width, 3), np.uint8)
    x1, y1, x2, y2 = truth.astype(int).tolist()
    upright[y1:y2, x1:x2] = 255
    image = Image.fromarray(upright)
    # How the pixels are stored so that the orientation turns them upright (EXIF 2.3, tag 274).
    stored = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    for step in stored.get(orientation, []):
        image = image.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "turned.png"
    image.save(file, exif=exif)
    view = EvalView(Preprocessing(size=(256, 320), fit="letterbox", pad_value=0))
    (batch,) = Loader(view, workers=0).batches(in_order([Sample(str(file))], 1, (256, 320)))
    assert batch.original_size.tolist() == [[width, height]]
    shown = batch.images[0, 0].numpy().astype(np.float64) / 255
    # To fractions of pixels: how much of a row and of a column through the middle is white.
    ys, xs = np.flatnonzero(shown.max(axis=1) > 0.01), np.flatnonzero(shown.max(axis=0) > 0.01)
    across, down = shown[(ys[0] + ys[-1]) // 2], shown[:, (xs[0] + xs[-1]) // 2]
    middle_x, middle_y = (
        float((line * (np.arange(len(line)) + 0.5)).sum() / line.sum()) for line in (across, down)
    )
    half_w, half_h = across.sum() / 2, down.sum() / 2
    levels = _empty(1, (256, 320), 1)
    _put(
        levels,
        0,
        [middle_x - half_w, middle_y - half_h, middle_x + half_w, middle_y + half_h],
        0,
    )
    (found,) = decode(levels, batch, anchors=PUBLISHED, strides=STRIDES, confidence=0.5)
    assert np.abs(found.xyxy[0] - truth).max() <= 0.5


def test_a_box_can_have_several_classes_or_its_best_alone() -> None:
    levels = _empty(1, (64, 64), 3)
    _put(levels, 0, [10, 10, 40, 40], 1, logit=0.0)
    levels[2][0, 5 + 2, 0, 0] = 1.0
    batch = _batch([np.eye(3)], [(64, 64)])
    several = decode(levels, batch, anchors=PUBLISHED, strides=STRIDES, confidence=0.1)[0]
    assert several.of.tolist() == [1, 2]
    assert several.score.tolist() == pytest.approx([0.5, 0.5 / (1 + math.exp(-1))])
    (best,) = decode(
        levels,
        batch,
        anchors=PUBLISHED,
        strides=STRIDES,
        confidence=0.1,
        several_classes=False,
    )
    assert best.of.tolist() == [1]


def test_boxes_are_cut_at_the_border_and_dropped_beside_the_image() -> None:
    """A letterboxed 64×32 image lies between 16 and 48 of the input's height."""
    matrix = eval_matrix(Preprocessing(size=(64, 64), fit="letterbox"), (64, 32))
    levels = _empty(2, (64, 64), 1)
    _put(levels, 0, [-10, 10, 20, 40], 0)
    _put(levels, 1, [10, 2, 30, 15], 0)
    batch = _batch([geometry.inverse(matrix)] * 2, [(64, 32)] * 2)
    cut, beside = decode(levels, batch, anchors=PUBLISHED, strides=STRIDES, confidence=0.5)
    assert cut.xyxy[0].tolist() == pytest.approx([0, 0, 20, 24], abs=1e-4)
    assert len(beside) == 0
    assert beside.xyxy.shape == (0, 4)


def test_the_best_are_kept_where_there_are_too_many() -> None:
    levels = [torch.randn(1, 3 * 25, 64 // s, 64 // s) for s in STRIDES]
    batch = _batch([np.eye(3)], [(64, 64)])
    (some,) = decode(levels, batch, anchors=PUBLISHED, strides=STRIDES, most=50)
    (every,) = decode(levels, batch, anchors=PUBLISHED, strides=STRIDES, most=10**6)
    assert len(some) == 50
    assert some.score.tolist() == sorted(every.score.tolist(), reverse=True)[:50]


def test_of_equals_the_first_are_kept() -> None:
    score = np.array([0.5, 0.9, 0.5, 0.5, 0.1], np.float32)
    assert first_by_score(score, 3).tolist() == [1, 0, 2]
    assert first_by_score(score, 9).tolist() == [1, 0, 2, 3, 4]
    assert first_by_score(np.array([0.5, np.nan, 0.9, 0.7], np.float32), 2).tolist() == [1, 2]


@pytest.mark.parametrize("channel", [0, 2, 4, 6])
def test_what_is_no_number_is_handed_on(channel: int) -> None:
    """So that it is refused, not lost among what is not there."""
    levels = _empty(1, (64, 64), 2)
    _put(levels, 0, [10, 10, 40, 40], 1)
    levels[2][0, channel, 0, 0] = torch.nan
    batch = _batch([np.eye(3)], [(64, 64)])
    (found,) = decode(levels, batch, anchors=PUBLISHED, strides=STRIDES)
    assert not (np.isfinite(found.xyxy).all() and np.isfinite(found.score).all())


def test_sizes_beyond_all_measure_stay_finite() -> None:
    levels = _empty(1, (64, 64), 1)
    _put(levels, 0, [10, 10, 40, 40], 0)
    levels[2][0, 2, 0, 0] = torch.inf
    batch = _batch([np.eye(3)], [(64, 64)])
    (found,) = decode(levels, batch, anchors=PUBLISHED, strides=STRIDES)
    assert found.xyxy[0].tolist() == pytest.approx([0, 10, 64, 40], abs=1e-4)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3]), st.booleans())
@settings(max_examples=20, deadline=None)
def test_arrays_are_read_as_tensors_are(seed: int, classes: int, several: bool) -> None:
    rng = np.random.default_rng(seed)
    maps = [rng.normal(0, 4, (2, 3 * (5 + classes), 64 // s, 96 // s)).astype(np.float32)
            for s in STRIDES]  # fmt: skip
    maps[0][0, :, 0, 0] = rng.choice([-1e4, 1e4, 88.0, -104.0], maps[0].shape[1])  # exp's ends
    batch = _batch([geometry.scale(1.5, 2), np.eye(3)], [(150, 120), (96, 64)])
    found = [
        decode(levels, batch, anchors=PUBLISHED, strides=STRIDES, scale_xy=(1.05, 1.0, 2.0),
               confidence=0.3, several_classes=several)
        for levels in ([torch.from_numpy(one) for one in maps], maps)
    ]  # fmt: skip
    for ours, theirs in zip(*found, strict=True):
        assert len(ours.score) == len(theirs.score)
        # Of scores that differ in their last bit either may be the first: each has its nearest.
        rows = [
            np.column_stack([one.xyxy / 100, 10 * one.score, 100 * one.of])
            for one in (ours, theirs)
        ]
        apart = np.abs(rows[0][:, None] - rows[1]).max(2)
        assert sorted(apart.argmin(1)) == list(range(len(apart)))
        assert apart.min(1).max(initial=0) < 1e-5


def test_arrays_that_are_no_numbers_are_handed_on() -> None:
    maps = [level.numpy() for level in _empty(1, (64, 64), 2)]
    maps[1][0, :5, 1, 1] = [0, 0, 0, 0, np.nan]
    (found,) = decode(maps, _batch([np.eye(3)], [(64, 64)]), anchors=PUBLISHED, strides=STRIDES)
    assert not np.isfinite(found.score).all()
