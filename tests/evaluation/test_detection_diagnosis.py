"""What is told of a detector that finds nothing: each cause is made, and has to be named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from detections import NO_BOXES

from retinue.evaluation.detection import figures
from retinue.evaluation.detection_diagnosis import ABOUT_NOTHING, Scale, diagnose
from retinue.evaluation.detections import Found, Truth, gathered

NAMES = ["cat", "dog", "bird", "fish"]
Arrays = np.ndarray
Change = Callable[[Arrays, Arrays, np.random.Generator], Arrays]
"""Of boxes (n, 4) and the width, height, width, height of each one's image."""


def split(
    change: Change = lambda boxes, whole, rng: boxes,
    *,
    images: int = 40,
    classes: Callable[[Arrays, np.random.Generator], Arrays] = lambda of, rng: of,
    score: tuple[float, float] = (0.5, 0.9),
    clutter: int = 2,
    objects: int = 3,
    side: tuple[float, float] = (40, 160),
    square: bool = False,
) -> tuple[list[Found], list[Truth], Arrays]:
    """Boxes that fit by about 0.9, before `change`, and `clutter` further ones an image."""
    rng = np.random.default_rng(0)
    founds, truths, sizes = [], [], []
    for _ in range(images):
        size = np.array([640, 640] if square else rng.integers(400, 900, 2))
        whole = np.tile(size, 2)
        n = int(rng.integers(1, objects + 1))
        sides = rng.uniform(*side, (n, 2))
        corner = rng.uniform(0, 1, (n, 2)) * (size - sides)
        boxes = np.concatenate([corner, corner + sides], axis=1)
        of = rng.integers(0, 4, n)
        near = change(boxes + rng.normal(0, 0.015, (n, 4)) * np.tile(sides, 2), whole, rng)
        sides = rng.uniform(*side, (clutter, 2))
        corner = rng.uniform(0, 1, (clutter, 2)) * (size - sides)
        far = np.concatenate([corner, corner + sides], axis=1)
        founds.append(
            Found(
                np.concatenate([near, far]),
                np.concatenate([rng.uniform(*score, n), rng.uniform(0, score[0], clutter)]),
                np.concatenate([classes(of, rng), rng.integers(0, 4, clutter)]),
            )
        )
        truths.append(Truth(boxes, of))
        sizes.append(size)
    return founds, truths, np.array(sizes)


def told(
    founds: list[Found], truths: list[Truth], sizes: Arrays, scale: Scale | None = None
) -> list[str]:
    return diagnose(gathered(founds, truths, 4), sizes, NAMES, scale)


def exchanged(boxes: Arrays, whole: Arrays, rng: np.random.Generator) -> Arrays:
    return boxes[:, [1, 0, 3, 2]]


def corner_and_size(boxes: Arrays, whole: Arrays, rng: np.random.Generator) -> Arrays:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def centre_and_size(boxes: Arrays, whole: Arrays, rng: np.random.Generator) -> Arrays:
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def fractions(boxes: Arrays, whole: Arrays, rng: np.random.Generator) -> Arrays:
    return boxes / whole


def yolos_fractions(boxes: Arrays, whole: Arrays, rng: np.random.Generator) -> Arrays:
    return centre_and_size(boxes, whole, rng) / whole


def mirrored(boxes: Arrays, whole: Arrays, rng: np.random.Generator) -> Arrays:
    width = whole[0]
    return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)


def upside_down(boxes: Arrays, whole: Arrays, rng: np.random.Generator) -> Arrays:
    height = whole[1]
    return np.stack([boxes[:, 0], height - boxes[:, 3], boxes[:, 2], height - boxes[:, 1]], axis=1)


def of_the_input(boxes: Arrays, whole: Arrays, rng: np.random.Generator) -> Arrays:
    return boxes * 208 / whole.max()


def halved(boxes: Arrays, whole: Arrays, rng: np.random.Generator) -> Arrays:
    return boxes / 2


def shrunk(boxes: Arrays, whole: Arrays, rng: np.random.Generator) -> Arrays:
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 6
    return np.concatenate([middle - half, middle + half], axis=1)


def grown(boxes: Arrays, whole: Arrays, rng: np.random.Generator) -> Arrays:
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * 1.25
    return np.concatenate([middle - half, middle + half], axis=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (exchanged, "x and y are exchanged"),
        (corner_and_size, "is a corner and a size"),
        (centre_and_size, "is a centre and a size"),
        (fractions, "they are fractions of the image taken for pixels"),
        (yolos_fractions, "YOLO's fractions"),
        (mirrored, "mirrored"),
        (upside_down, "upside down"),
        (of_the_input, "it seems to be 208 pixels"),
        (halved, "2 times too near to the corner"),
        (shrunk, "3 times too small"),
        (grown, "2.5 times too large"),
    ],
)
def test_boxes_that_have_to_be_read_another_way(change: Change, words: str) -> None:
    founds, truths, sizes = split(change)
    assert figures(founds, truths, NAMES)["map50"] < ABOUT_NOTHING
    said = told(founds, truths, sizes)
    assert words in said[0], said
    assert "% of the objects are found instead of" in said[0]


def test_classes_in_another_order() -> None:
    founds, truths, sizes = split(classes=lambda of, rng: (of + 1) % 4)
    assert figures(founds, truths, NAMES)["map50"] < ABOUT_NOTHING
    said = told(founds, truths, sizes)
    assert "in another order" in said[0]
    assert "“cat” is called “dog”" in said[0] or "“fish” is called “cat”" in said[0]
    assert len(said) == 1


def test_classes_that_are_not_learnt() -> None:
    founds, truths, sizes = split(classes=lambda of, rng: np.where(of == 3, 0, 3), clutter=0)
    assert "class list is another one" in told(founds, truths, sizes)[0]
    founds, truths, sizes = split(classes=lambda of, rng: np.full_like(of, 3))
    truths = [Truth(t.xyxy[t.of < 3], t.of[t.of < 3]) for t in truths]
    assert "everything is called “fish”" in told(founds, truths, sizes)[0]


def test_nothing_found_and_nothing_there() -> None:
    _, truths, sizes = split()
    assert "No box at all" in told([NO_BOXES] * 40, truths, sizes)[0]
    nothing = Truth(np.zeros((0, 4)), np.zeros(0, np.int64))
    assert "no objects to be found" in told([NO_BOXES], [nothing], sizes[:1])[0]
    assert "no objects to be found" in told([], [], sizes[:0])[0]


def test_hardly_any_confidence() -> None:
    founds, truths, sizes = split(score=(0.01, 0.03))
    assert any("scores 3.0 %" in one for one in told(founds, truths, sizes))


def test_right_boxes_that_score_less_than_wrong_ones() -> None:
    founds, truths, sizes = split(clutter=30)
    founds = [Found(f.xyxy, 1 - f.score, f.of) for f in founds]
    said = told(founds, truths, sizes)
    assert any("score no more than wrong ones" in one for one in said), said


def test_the_same_answer_for_every_image() -> None:
    _, truths, sizes = split()
    fixed = [Found(s[[0, 1, 0, 1]][None] * [0.4, 0.4, 0.6, 0.6], np.array([0.9]), np.array([0]))
             for s in sizes]  # fmt: skip
    assert any("at the same place in every image" in one for one in told(fixed, truths, sizes))


def test_boxes_that_lie_near_but_do_not_fit() -> None:
    def loose(boxes: Arrays, whole: Arrays, rng: np.random.Generator) -> Arrays:
        aside = np.tile((boxes[:, 2:] - boxes[:, :2]) * rng.choice([-0.3, 0.3], (len(boxes), 2)), 2)
        return boxes + aside

    founds, truths, sizes = split(loose)
    assert any("they lie near but do not fit" in one for one in told(founds, truths, sizes))


def test_labels_that_reach_beyond_their_images() -> None:
    founds, truths, sizes = split(images=10)
    assert "reach beyond their images" in told(founds, truths, sizes // 3)[0]


def test_objects_that_are_too_small_and_anchors_of_another_shape() -> None:
    rng = np.random.default_rng(0)
    noise = lambda boxes, whole, _: rng.uniform(0, 300, boxes.shape)  # noqa: E731
    founds, truths, sizes = split(noise, side=(4, 9))
    scale = Scale((416, 416), np.array([[300.0, 300.0], [200.0, 40.0]]))
    said = " ".join(told(founds, truths, sizes, scale))
    assert "vanish in the finest level" in said
    assert "416 × 416" in said
    assert "No anchor is shaped like these objects" in said
    founds, truths, sizes = split(noise)
    scale = Scale((640, 640), np.array([[80.0, 80.0], [60.0, 110.0], [110.0, 60.0]]))
    said = " ".join(told(founds, truths, sizes, scale))
    assert "vanish" not in said
    assert "No anchor" not in said


def test_boxes_anywhere_are_not_explained_away() -> None:
    founds, truths, sizes = split(lambda boxes, whole, rng: rng.uniform(0, 400, boxes.shape))
    (said,) = told(founds, truths, sizes)
    assert "no other reading of them fits better" in said


def test_of_a_few_objects_chance_is_not_explained() -> None:
    """Of ten readings, one of which is fitted to the objects, some finds one of two by chance."""
    rng = np.random.default_rng(0)
    explained = 0
    for _ in range(40):
        founds, truths = [], []
        for _ in range(2):
            corner = rng.uniform(0, 40, (30, 2))
            boxes = np.concatenate([corner, corner + rng.uniform(2, 24, (30, 2))], axis=1)
            founds.append(Found(boxes, rng.uniform(0, 0.02, 30), rng.integers(0, 4, 30)))
            truths.append(Truth(np.array([[0.0, 0, 20, 20]]), np.array([0])))
        said = told(founds, truths, np.array([[64, 48], [64, 48]]))
        explained += any("read that way" in line for line in said)
    assert explained == 0
