"""Tiles cover the image without slivers, and are seen as images of their own would be, but for what
shows around them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rows import look, sample_of

from retinue.data import geometry
from retinue.data.options import AugmentOptions
from retinue.data.population import Population
from retinue.data.targets.boxes import Boxes
from retinue.data.tiles import tiled, windows
from retinue.data.views import EvalView, TrainView
from retinue.sample import Preprocessing, Sample

OBJECTS = Population.of("aaaa", places=True)


def test_windows_by_hand() -> None:
    assert windows((500, 300), 640, 0.2) == [(0, 0, 500, 300)]
    assert windows((640, 640), 640, 0.2) == [(0, 0, 640, 640)]
    # Steps of 512; the last one ends where the image does.
    assert windows((1000, 641), 640, 0.2) == [
        (0, 0, 640, 640), (360, 0, 1000, 640), (0, 1, 640, 641), (360, 1, 1000, 641),
    ]  # fmt: skip
    assert windows((1200, 100), 640, 0.2) == [
        (0, 0, 640, 100), (512, 0, 1152, 100), (560, 0, 1200, 100),
    ]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    size=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    side=st.integers(16, 200),
    overlap=st.floats(0, 0.9),
)
def test_tiles_cover_the_image_and_share_what_they_should(
    size: tuple[int, int], side: int, overlap: float
) -> None:
    found = windows(size, side, overlap)
    assert len(set(found)) == len(found)
    for axis, length in enumerate(size):
        spans = sorted({(w[axis], w[axis + 2]) for w in found})
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        assert {end - start for start, end in spans} == {min(side, length)}
        for (_, end), (start, _) in pairwise(spans):
            assert end - start >= round(overlap * side) - 1


def test_the_tiles_of_images_are_samples(tmp_path: object) -> None:
    target = Boxes.made([[5, 5, 9, 9]], [0])
    large = sample_of(np.zeros((30, 50, 3), np.uint8), "large", target, weight=2.0)
    small = sample_of(np.zeros((20, 32, 3), np.uint8), "small")

    def unreadable() -> bytes:
        return b"no image"

    broken = Sample("broken", unreadable)
    found = tiled([large, small, broken], 32, 0.0)
    assert [(s.key, s.part) for s in found] == [
        ("large", None), ("large", (0, 0, 32, 30)), ("large", (18, 0, 50, 30)),
        ("small", None), ("broken", None),
    ]  # fmt: skip
    assert all(s.target == target and s.weight == 2.0 for s in found[:3])
    alone = tiled([large, small, broken], 32, 0.0, whole=False)
    assert [s.part for s in alone] == [(0, 0, 32, 30), (18, 0, 50, 30), None, None]


def _scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


BOXES = Boxes.made([[30, 20, 60, 50], [70, 40, 130, 90], [5, 90, 20, 110]], [0, 1, 2])
PART = (40, 30, 104, 94)
"""It cuts the first two, and does not show the third."""


def test_a_tile_is_judged_as_an_image_of_its_own() -> None:
    scene = _scene(120, 160)
    x1, y1, x2, y2 = PART
    whole = replace(sample_of(scene, target=BOXES), part=PART)
    cut = sample_of(
        np.ascontiguousarray(scene[y1:y2, x1:x2]),
        target=BOXES.through(geometry.translate(-x1, -y1), (64, 64)),
    )
    for fit, size in (("letterbox", (48, 80)), ("squash", (40, 56)), ("crop", (64, 64))):
        view = EvalView(Preprocessing(size=size, fit=fit, pad_value=128))
        ours, theirs = look(view, whole, size=size), look(view, cut, size=size)
        # At the border of the tile the filter sees what lies beyond it.
        difference = np.abs(ours.image.astype(int) - theirs.image)
        assert np.median(difference) <= 1
        assert difference.mean() < 4
        assert isinstance(ours.target, Boxes)
        assert isinstance(theirs.target, Boxes)
        assert ours.target.of == theirs.target.of
        assert np.allclose(ours.target.xyxy, theirs.target.xyxy, atol=1e-3)
        back = geometry.translate(x1, y1) @ theirs.to_original
        assert np.allclose(ours.to_original, back)
        assert ours.original_size == (160, 120)


@pytest.mark.parametrize(
    "options",
    [
        {"jitter": 0.3, "fit_scale": (0.25, 2.0)},
        {"mosaic": 1.0},
        {"blend": 1.0, "jitter": 0.3},
        {"rotation": 15.0, "zoom": (0.6, 1.5)},
    ],
)
def test_a_tile_is_varied_as_an_image_of_its_own(options: dict[str, object]) -> None:
    """The same draws; the boxes of the tile lie where they would lie in an image cut out of it, and
    where something of its neighbours shows, theirs are told, too."""
    scene = _scene(120, 160)
    x1, y1, x2, y2 = PART
    whole = replace(sample_of(scene, target=BOXES), part=PART)
    to_part = geometry.translate(-x1, -y1)
    cut = sample_of(
        np.ascontiguousarray(scene[y1:y2, x1:x2]), target=BOXES.through(to_part, (64, 64))
    )
    view = TrainView(
        AugmentOptions(**options), Preprocessing(size=(64, 64), fit="letterbox"), 3, OBJECTS
    )
    for key in range(12):
        ours = look(view, *[whole] * 4, key=key, size=(64, 64))
        theirs = look(view, *[cut] * 4, key=key, size=(64, 64))
        assert np.allclose(ours.to_original, geometry.translate(x1, y1) @ theirs.to_original)
        # Where the tile itself shows, the pixels are the same.
        shows = theirs.image != 114
        assert np.median(np.abs(ours.image.astype(int) - theirs.image)[shows]) <= 1
        assert isinstance(ours.target, Boxes)
        unread = [replace(whole, read=pytest.fail)] * 4
        seen = view.see(unread, ours.sizes, key=key, epoch=0, size=(64, 64))
        assert seen.target == ours.target
        # A box inside of the tile is where it would be.
    inner = Boxes.made([[50, 40, 80, 70]], [0])
    for key in range(12):
        ours = look(view, *[replace(whole, target=inner)] * 4, key=key, size=(64, 64)).target
        alone = inner.through(to_part, (64, 64))
        theirs_target = look(view, *[replace(cut, target=alone)] * 4, key=key, size=(64, 64)).target
        assert isinstance(ours, Boxes)
        assert isinstance(theirs_target, Boxes)
        assert ours.of == theirs_target.of
        assert np.allclose(ours.xyxy, theirs_target.xyxy, atol=1e-3)
