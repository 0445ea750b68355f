"""Training views are one exact warp; the evaluation view is the published preprocessing."""

from __future__ import annotations

import io
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rows import look, plan_of, sample_of

from retinue.data import geometry
from retinue.data.composers import Composer
from retinue.data.loader import Loader
from retinue.data.options import AugmentOptions
from retinue.data.population import Population
from retinue.data.targets.boxes import Boxes
from retinue.data.targets.one_class import OneClass
from retinue.data.targets.several_labels import SeveralLabels
from retinue.data.views import EvalView, TrainView
from retinue.errors import UsageError
from retinue.inference.tta import refuse_oblong, turned
from retinue.sample import Preprocessing, Sample, Target

picture, encoded = sys.modules["salted"].picture, sys.modules["salted"].encoded
SMALL = Preprocessing(size=(64, 64))


def pixels(height: int, width: int) -> np.ndarray:
    return np.asarray(picture(1, (height, width)))


def sample(height: int, width: int, target: Target | None = None) -> Sample:
    return sample_of(pixels(height, width), target=target)


def two_steps(image: Image.Image, size: int, fraction: float, method: int) -> np.ndarray:
    """Resize the shorter side, then cut out the middle: as torchvision and timm do."""
    side = int(size / fraction)
    w, h = image.size
    shape = (side, int(side * h / w)) if w <= h else (int(side * w / h), side)
    resized = image.resize(shape, method)
    left, top = round((shape[0] - size) / 2), round((shape[1] - size) / 2)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("shape", [(480, 640), (640, 480), (375, 500), (100, 90), (224, 1000)])
def test_crop_equals_resize_then_centre_crop(interpolation: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    noise = np.asarray(picture(1, shape)).astype(int) + rng.integers(-40, 40, (*shape, 3))
    image = noise.clip(0, 255).astype(np.uint8)
    settings = Preprocessing(interpolation=interpolation)
    result = look(EvalView(settings), sample_of(image), size=(224, 224)).image
    method = getattr(Image.Resampling, interpolation.upper())
    expected = two_steps(Image.fromarray(image), 224, 0.875, method)
    assert np.abs(result.astype(int) - expected).max() <= 1


def test_scaled_jpeg_stays_close_to_the_full_decode() -> None:
    rng = np.random.default_rng(0)
    noise = np.asarray(picture(1, (1200, 1600))).astype(int) + rng.normal(0, 12, (1200, 1600, 3))
    content = encoded(Image.fromarray(noise.clip(0, 255).astype(np.uint8)), "JPEG", quality=92)
    result = look(EvalView(Preprocessing()), sample_of(content), size=(224, 224)).image
    expected = two_steps(Image.open(io.BytesIO(content)), 224, 0.875, Image.Resampling.BICUBIC)
    gap = np.abs(result.astype(int) - expected)
    assert gap.mean() < 0.6
    assert gap.max() <= 6


def test_squash_and_letterbox() -> None:
    it = sample(100, 200)
    image = Image.fromarray(pixels(100, 200))
    squash = look(EvalView(replace(SMALL, fit="squash")), it, size=(64, 64)).image
    expected = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC))
    assert np.array_equal(squash, expected)
    view = EvalView(replace(SMALL, fit="letterbox", pad_value=7))
    letterbox = look(view, it, size=(64, 64)).image
    assert (letterbox[:16] == 7).all()
    assert (letterbox[48:] == 7).all()
    middle = np.asarray(image.resize((64, 32), Image.Resampling.BICUBIC))
    assert np.array_equal(letterbox[16:48], middle)


@pytest.mark.parametrize("fit", ["crop", "squash", "letterbox"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_upright(fit: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = picture(4, (90, 150))
    stored = Image.fromarray(
        np.ascontiguousarray(
            geometry.render(
                [
                    geometry.Entry(
                        np.asarray(upright),
                        geometry.inverse(
                            geometry.orient(
                                orientation, (90, 150) if orientation >= 5 else (150, 90)
                            )
                        ),
                    )
                ],
                (150, 90) if orientation >= 5 else (90, 150),
            )
        )
    )
    view = EvalView(replace(SMALL, fit=fit))
    plain = look(view, sample_of(encoded(upright, "PNG")), size=(64, 64)).image
    lying = look(view, sample_of(encoded(stored, "PNG", exif=exif)), size=(64, 64))
    assert np.abs(lying.image.astype(int) - plain).max() <= 1
    assert lying.original_size == (150, 90)


@pytest.mark.parametrize("orientation", range(8))
def test_test_time_orientations(orientation: int) -> None:
    it = sample(80, 120, Boxes.made([[20, 10, 70, 60]], [0]))
    (plain,) = Loader(EvalView(SMALL), workers=0).batches([plan_of([it], size=(64, 64))])
    batch = turned(plain, orientation)
    image = plain.images[0].permute(1, 2, 0).numpy()
    expected = image[:, ::-1] if orientation & 4 else image
    found = batch.images[0].permute(1, 2, 0).numpy()
    assert np.array_equal(found, np.rot90(expected, -(orientation & 3)))
    # The box as the turned canvas shows it leads back to where it was drawn.
    box = plain.targets["xyxy"][0].numpy()
    there = geometry.boxes_through(geometry.dihedral(orientation, (64, 64)), box)
    back = geometry.boxes_through(batch.to_original[0], there)
    assert np.allclose(back, geometry.boxes_through(plain.to_original[0], box), atol=1e-3)


def test_quarter_turns_need_a_square() -> None:
    with pytest.raises(UsageError, match="square"):
        refuse_oblong([1], (64, 96))


@pytest.mark.parametrize("fit", ["crop", "squash", "letterbox"])
@pytest.mark.parametrize("shape", [(60, 96), (64, 64)])
def test_to_original_and_boxes(fit: str, shape: tuple[int, int]) -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    image[80:120, 130:190] = 255
    boxes = np.array([[130, 80, 190, 120], [0, 0, 3, 3]], np.float32)
    it = sample_of(image, target=Boxes.made(boxes, [1, 0]))
    view = EvalView(Preprocessing(size=shape, fit=fit, pad_value=0))
    item = look(view, it, size=shape)
    assert isinstance(item.target, Boxes)
    bright = np.argwhere(item.image[..., 0] > 127)
    top, left = bright.min(0)
    bottom, right = bright.max(0) + 1
    assert np.abs(item.target.xyxy[0] - (left, top, right, bottom)).max() <= 1
    back = geometry.boxes_through(item.to_original, item.target.xyxy[:1])
    assert np.allclose(back, boxes[:1], atol=1e-3)
    # Cut away by the crop, the second box is dropped with its label.
    assert item.target.of == ((1,) if fit == "crop" else (1, 0))


WILD = AugmentOptions(
    crop_scale=(0.2, 1.0),
    vertical_flip=0.5,
    quarter_turns=True,
    rotation=25,
    shear=10,
    translate=0.1,
    zoom=(0.7, 1.4),
)


def test_views_depend_on_their_keys_only() -> None:
    view, it = TrainView(WILD, SMALL, 3), sample(80, 120)
    first = look(view, it, key=4, epoch=2, size=(64, 64)).image
    look(view, it, key=9, epoch=2, size=(64, 64))
    assert np.array_equal(look(view, it, key=4, epoch=2, size=(64, 64)).image, first)
    for other in ({"key": 5, "epoch": 2}, {"key": 4, "epoch": 3}):
        assert not np.array_equal(look(view, it, **other, size=(64, 64)).image, first)
    other_seed = TrainView(WILD, SMALL, 4)
    assert not np.array_equal(look(other_seed, it, key=4, epoch=2, size=(64, 64)).image, first)


def test_switching_on_one_thing_leaves_the_others() -> None:
    matrix = Composer(AugmentOptions(), SMALL, 0).matrix((120, 80), key=1, epoch=1)
    shifted = Composer(AugmentOptions(translate=0.2), SMALL, 0).matrix((120, 80), key=1, epoch=1)
    assert np.allclose(shifted[:, :2], matrix[:, :2])
    assert not np.allclose(shifted, matrix)


def test_training_without_options_shows_what_evaluation_shows() -> None:
    plain = AugmentOptions(horizontal_flip=0)
    for size in ((80, 120), (300, 170)):
        it = sample(*size)
        train = look(TrainView(plain, SMALL, 0), it, size=(64, 64))
        bilinear = EvalView(replace(SMALL, interpolation="bilinear"))
        evaluated = look(bilinear, it, size=(64, 64))
        assert np.allclose(train.to_original, evaluated.to_original)
        assert np.abs(train.image.astype(int) - evaluated.image).mean() < 2


@pytest.mark.parametrize("key", range(8))
def test_training_boxes_follow_pixels(key: int) -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    image[100:200, 150:260] = 255
    it = sample_of(image, target=Boxes.made([[150, 100, 260, 200]], [0]))
    options = replace_options(rotation=0.0, shear=0.0, border="fill")
    item = look(TrainView(options, replace(SMALL, pad_value=0), 0), it, key=key, size=(64, 64))
    bright = np.argwhere(item.image[..., 0] > 127)
    assert isinstance(item.target, Boxes)
    assert len(bright) or not len(item.target.of)
    if len(item.target.of):
        top, left = bright.min(0)
        bottom, right = bright.max(0) + 1
        assert np.abs(item.target.xyxy[0] - (left, top, right, bottom)).max() <= 1


def replace_options(**changes: object) -> AugmentOptions:
    return WILD.model_copy(update=changes)


def test_crops_have_the_asked_area_and_ratio() -> None:
    composer = Composer(AugmentOptions(crop_scale=(0.3, 0.5), horizontal_flip=0), SMALL, 0)
    areas, ratios, flipped = [], [], 0
    for key in range(200):
        item = geometry.inverse(composer.matrix((400, 300), key=key, epoch=0))
        x1, y1, x2, y2 = geometry.boxes_through(item, np.array([[0, 0, 64, 64]]))[0]
        assert min(x1, y1) >= -1e-3
        assert x2 <= 400.001
        assert y2 <= 300.001
        areas.append((x2 - x1) * (y2 - y1) / 120_000)
        ratios.append((x2 - x1) / (y2 - y1))
        flipped += item[0, 0] < 0
    assert 0.29 < min(areas) < 0.33
    assert 0.47 < max(areas) < 0.51
    assert 0.74 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.35
    assert flipped == 0


def test_crop_of_an_image_that_is_too_long() -> None:
    composer = Composer(AugmentOptions(crop_scale=(0.9, 1)), SMALL, 0)
    matrix = geometry.inverse(composer.matrix((4000, 100), key=0, epoch=0))
    box = geometry.boxes_through(matrix, np.array([[0, 0, 64, 64]]))[0]
    assert np.allclose(box[3] - box[1], 100, atol=0.1)
    assert np.allclose(box[2] - box[0], 100 * 4 / 3, atol=0.1)


def test_flips_come_as_often_as_asked() -> None:
    composer = Composer(AugmentOptions(horizontal_flip=0.25), SMALL, 0)
    flips = [composer.matrix((64, 64), key=k, epoch=0)[0, 0] < 0 for k in range(800)]
    assert 0.2 < np.mean(flips) < 0.3


def test_jpeg_scale_is_part_of_the_matrix() -> None:
    """Half-decoded and fully decoded sources give the same picture at the same place."""
    image = picture(9, (1000, 1400))
    array, jpeg = np.asarray(image), encoded(image, "JPEG", quality=95)
    view = TrainView(replace_options(crop_scale=(0.8, 1.0)), SMALL, 0)
    for key in range(6):
        exact = look(view, sample_of(array), key=key, size=(64, 64)).image
        scaled = look(view, sample_of(jpeg), key=key, size=(64, 64)).image
        assert np.abs(exact.astype(int) - scaled).max() <= 6


@pytest.mark.parametrize("view", [TrainView(WILD, SMALL, 0), EvalView(SMALL)])
def test_writes_in_place_and_takes_one_pixel(view: TrainView | EvalView) -> None:
    out = np.zeros((64, 64, 3), np.uint8)
    it = sample_of(np.full((1, 1, 3), 9, np.uint8))
    seen, sizes = view.render([it], key=0, epoch=0, size=(64, 64), out=out)
    assert (out == 9).all()
    assert seen.original_size == (1, 1)
    assert sizes == [(1, 1)]


def test_views_see_through_the_preprocessing() -> None:
    """What lies behind transparency, and how many bits grey has."""
    clear = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    deep = Image.fromarray(np.full((64, 64), 2048, np.uint16))
    how = replace(Preprocessing(size=(32, 32)), background=(10, 20, 30), depth=12)
    still = AugmentOptions(horizontal_flip=0)
    for view in (EvalView(how), TrainView(still, how, 0)):
        for image, seen in ((clear, [10, 20, 30]), (deep, [128] * 3)):
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            out = np.empty((32, 32, 3), np.uint8)
            view.render([Sample("it", buffer.getvalue)], key=0, epoch=0, size=(32, 32), out=out)
            assert (out == seen).all()


@pytest.mark.parametrize("unknown", range(4))
def test_a_mosaic_of_which_not_all_is_known_has_no_label(unknown: int) -> None:
    """What shows of an image without a label may be anything; of boxes, each says its own."""
    view = TrainView(AugmentOptions(mosaic=1), SMALL, 0, Population.of(["0"] * 4))
    sizes = [(50, 40)] * 4

    def seen(targets: list[Target | None]) -> Target | None:
        samples = [Sample(str(k), target=target) for k, target in enumerate(targets)]
        return view.see(samples, sizes, key=0, epoch=0, size=(64, 64)).target

    labels: list[Target | None] = [OneClass(k, 4) for k in range(4)]
    mixed = seen(labels)
    assert isinstance(mixed, OneClass)
    assert mixed.shares is not None
    labels[unknown] = None
    assert seen(labels) is None
    several: list[Target | None] = [SeveralLabels((k,), 4) for k in range(4)]
    several[unknown] = None
    assert seen(several) is None
