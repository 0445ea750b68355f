"""Large images in parts: what is found lies where it is, and is there once."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import bright
import finder
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retinue.errors import UsageError
from retinue.inference.predictor import Predictor, held, load
from retinue.inference.tiles import Tiles, answers_by_tiles, refuse_whole
from retinue.sample import Sample
from retinue.tasks.results import BoxResult
from retinue.tasks.task import Task, register_task


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    path = bright.model(tmp_path_factory.mktemp("model") / "best.safetensors")
    return load(path, device="cpu", engine="torch", workers=0)


def found(predictor: Predictor, image: Any, tiles: Tiles) -> BoxResult:
    (answer,) = answers_by_tiles(predictor, [Sample("a", held(image))], tiles, batch_size=5)
    result = predictor.task.result(answer.finding, "a")
    assert isinstance(result, BoxResult)
    return result


@given(
    st.integers(1, 400), st.integers(1, 400), st.integers(16, 200), st.sampled_from([0, 0.2, 0.5])
)
def test_tiles_cover_everything_and_none_is_a_sliver(
    width: int, height: int, side: int, overlap: float
) -> None:
    whole, *tiles = Tiles(side, overlap).windows((width, height))
    assert whole == (0, 0, width, height)
    assert bool(tiles) == (width > side or height > side)
    for x1, y1, x2, y2 in tiles:
        assert (x2 - x1, y2 - y1) == (min(side, width), min(side, height))
        assert x1 >= 0 <= y1
        assert x2 <= width
        assert y2 <= height
    for axis, length in ((0, width), (1, height)):
        spans = sorted({(window[axis], window[axis + 2]) for window in tiles or [whole]})
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        for (_, end), (start, _) in pairwise(spans):
            assert end - start >= int(side * overlap), "neighbours share what they are to"


def test_tiles_by_hand() -> None:
    assert Tiles(64, 0.25).windows((160, 64)) == [
        (0, 0, 160, 64), (0, 0, 64, 64), (48, 0, 112, 64), (96, 0, 160, 64),
    ]  # fmt: skip
    assert [w[0] for w in Tiles(64, 0.25).windows((150, 64))[1:]] == [0, 48, 86]


@st.composite
def scenes(draw: Any) -> tuple[tuple[int, int], list[tuple[int, int, int, int, int]], int]:
    """A size, up to three rectangles that do not touch, and how the image is stored (EXIF)."""
    size = (draw(st.integers(70, 260)), draw(st.integers(70, 260)))
    boxes: list[tuple[int, int, int, int, int]] = []
    for _ in range(draw(st.integers(1, 3))):
        w, h = draw(st.integers(6, 24)), draw(st.integers(6, 24))
        x, y = draw(st.integers(0, size[0] - w)), draw(st.integers(0, size[1] - h))
        apart = all(x > u2 + 2 or x + w < u1 - 2 or y > v2 + 2 or y + h < v1 - 2
                    for u1, v1, u2, v2, _ in boxes)  # fmt: skip
        if apart:
            boxes.append((x, y, x + w, y + h, draw(st.integers(0, 2))))
    return size, boxes, draw(st.integers(1, 8))


_STORED = {  # EXIF: how the upright picture is to be turned so that it is stored so
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip


def stored(pixels: Any, orientation: int) -> bytes:
    """A PNG with EXIF's orientation, which upright shows `pixels`."""
    image = Image.fromarray(pixels)
    method = _STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    held_in = io.BytesIO()
    (image if method is None else image.transpose(method)).save(held_in, "PNG", exif=exif)
    return held_in.getvalue()


@settings(max_examples=40, deadline=None)
@given(scene=scenes())
def test_what_is_found_in_tiles_is_right_to_half_a_pixel(predictor: Predictor, scene: Any) -> None:
    """Whatever side of a tile it lies on, and however the image is stored."""
    size, boxes, orientation = scene
    image = stored(bright.picture(size, boxes), orientation)
    result = found(predictor, image, Tiles(64, 0.5))
    assert result.size == size
    there = sorted((bright.CLASSES[of], x1, y1, x2, y2) for x1, y1, x2, y2, of in boxes)
    seen = sorted((box.name, *box.xyxy) for box in result.boxes)
    assert [row[0] for row in seen] == [row[0] for row in there]
    off = np.abs(np.array([r[1:] for r in seen]) - np.array([r[1:] for r in there])).max()
    assert off <= 0.5


def test_a_shifted_tile_is_seen_by_the_test(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sabotage: with the way back of each tile a pixel off, the boxes are."""
    from retinue.inference import tiles

    image = bright.picture((200, 100), [(100, 30, 120, 50, 1)])
    assert found(predictor, image, Tiles(64, 0.5)).boxes[0].xyxy == pytest.approx(
        (100, 30, 120, 50), abs=0.1
    )
    right = tiles.translate
    monkeypatch.setattr(tiles, "translate", lambda x, y: right(x + 1, y))
    assert found(predictor, image, Tiles(64, 0.5)).boxes[0].xyxy[0] == pytest.approx(101, abs=0.1)


def test_what_is_larger_than_a_tile_is_found_in_the_whole(predictor: Predictor) -> None:
    image = bright.picture((320, 320), [(40, 60, 280, 250, 0), (2, 2, 12, 12, 2)])
    result = found(predictor, image, Tiles(64, 0.25))
    boxes = {box.name: box.xyxy for box in result.boxes}
    assert boxes["red"] == pytest.approx((40, 60, 280, 250), abs=2.5)  # the whole is shrunk to ⅕
    assert boxes["蓝"] == pytest.approx((2, 2, 12, 12), abs=0.1)
    assert len(result.boxes) == 2


def test_a_small_image_is_looked_at_once(predictor: Predictor) -> None:
    image = bright.picture((64, 48), [(10, 10, 20, 20, 0)])
    (plain,) = predictor.predict([image])
    assert found(predictor, image, Tiles(64)) == BoxResult("a", plain.boxes, (64, 48))  # type: ignore[union-attr]


def test_what_cannot_be_read_is_passed_over(predictor: Predictor) -> None:
    samples = [Sample("bad.png", held(b"")), Sample("b", held(bright.picture((90, 90), [])))]
    first, second = answers_by_tiles(predictor, samples, Tiles(64))
    assert (first.sample.key, first.reason) == ("bad.png", "zero bytes")
    assert second.reason == ""


def test_a_task_that_cannot_join_is_refused_in_words(predictor: Predictor) -> None:
    @register_task
    class Parted(finder.Find):
        name: ClassVar[str] = "parted"
        merge = Task.merge

    with pytest.raises(UsageError, match=r"'parted' cannot join .* leave tiles out"):
        refuse_whole(Parted(["a"], Parted.options_type()))
    refuse_whole(predictor.task)


@pytest.mark.parametrize(
    ("side", "overlap", "words"), [(8, 0.2, "too small"), (64, 1.0, "0 to 0.9"), (64, -0.1, "0.9")]
)
def test_odd_tiles_are_refused(side: int, overlap: float, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Tiles(side, overlap)


def test_views_and_tiles_go_together(tmp_path: Path) -> None:
    path = bright.model(tmp_path / "best.safetensors")
    turned = load(path, device="cpu", engine="torch", workers=1, tta="dihedral")
    image = bright.picture((150, 90), [(70, 20, 91, 44, 1), (140, 80, 150, 90, 2)])
    boxes = {box.name: box.xyxy for box in found(turned, image, Tiles(64, 0.5)).boxes}
    assert boxes["green"] == pytest.approx((70, 20, 91, 44), abs=0.5)
    assert boxes["蓝"] == pytest.approx((140, 80, 150, 90), abs=0.5)


@pytest.mark.parametrize(
    ("size", "side", "box"),
    [
        ((3775, 1571), 1280, (3000, 1200, 3300, 1450)),
        ((4075, 4024), 416, (3500, 3600, 4000, 3900)),
        ((1001, 333), 96, (700, 40, 900, 300)),
    ],
)
def test_the_way_back_takes_the_padding_that_there_was(
    tmp_path: Path, size: tuple[int, int], side: int, box: tuple[int, int, int, int]
) -> None:
    """Sizes at which rounding the letterbox another way is 3 and 10 pixels off."""
    path = bright.model(tmp_path / "best.safetensors", size=(side, side))
    (result,) = load(path, device="cpu", engine="torch", workers=0).predict(
        [bright.picture(size, [(*box, 1)])]
    )
    assert isinstance(result, BoxResult)
    assert result.boxes[0].xyxy == pytest.approx(box, abs=max(size) / side / 8)
