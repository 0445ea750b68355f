"""Which prediction learns what, against a search through all of them."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from retinue.data.targets.boxes import Boxes
from retinue.tasks.detection import assignment
from retinue.tasks.detection.anchors import PUBLISHED
from retinue.tasks.detection.assignment import Matches, Targets
from retinue.tasks.detection.decoding import Grid, boxes, grid

STRIDES = (8, 16, 32)
SIZE = (64, 96)
Box = tuple[float, float, float, float]
Place = tuple[int, int, int, int]
"""Level, anchor, row and column."""

_FRACTION = st.floats(0, 1, width=32)
_BOX = st.tuples(
    _FRACTION, _FRACTION, st.floats(0.0078125, 1, width=32), st.floats(0.0078125, 1, width=32)
)
_IMAGE = st.lists(_BOX.map(lambda b: _placed(*b)), max_size=8)


def _placed(x: float, y: float, wide: float, tall: float) -> Box:
    """A box whose centre lies on the canvas, and which may be twice as large."""
    x, y, wide, tall = x * 96, y * 64, wide * wide * 192, tall * tall * 128
    return (x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2)


def _grid(classes: int = 2) -> Grid:
    levels = [torch.zeros(1, 3 * (5 + classes), SIZE[0] // s, SIZE[1] // s) for s in STRIDES]
    return grid(levels, PUBLISHED, STRIDES)


def _targets(images: list[list[Box]]) -> Targets:
    made = [Boxes.made(list(image), [0] * len(image)) for image in images]
    return Targets.of_batch(Boxes.collate(made))


def _place(index: int) -> Place:
    for level, stride in enumerate(STRIDES):
        rows, columns = SIZE[0] // stride, SIZE[1] // stride
        if index < rows * columns * 3:
            cell, anchor = divmod(index, 3)
            return (level, anchor, *divmod(cell, columns))
        index -= rows * columns * 3
    raise AssertionError


def _found(matches: Matches) -> list[dict[Place, int]]:
    """Of each image: place → object."""
    found = []
    for place, item, matched in zip(*(part.tolist() for part in matches), strict=True):
        pairs = [(p, o) for p, o, m in zip(place, item, matched, strict=True) if m]
        assert len({p for p, _ in pairs}) == len(pairs), "a prediction is matched twice"
        found.append({_place(p): o for p, o in pairs})
    return found


def _fit(box: Box, anchor: tuple[float, float]) -> float:
    w, h = np.float32(box[2]) - np.float32(box[0]), np.float32(box[3]) - np.float32(box[1])
    common = min(w, anchor[0]) * min(h, anchor[1])
    return float(common / (w * h + anchor[0] * anchor[1] - common))


def _fits(box: Box) -> list[float]:
    return [_fit(box, anchor) for level in PUBLISHED for anchor in level]


def _cell(box: Box, level: int) -> tuple[int, int]:
    b = np.array(box, np.float32)
    x, y = (b[0] + b[2]) / 2 / STRIDES[level], (b[1] + b[3]) / 2 / STRIDES[level]
    rows, columns = SIZE[0] // STRIDES[level], SIZE[1] // STRIDES[level]
    return min(max(int(y // 1), 0), rows - 1), min(max(int(x // 1), 0), columns - 1)


def _fairest(claims: dict[Place, list[int]], image: list[Box], found: dict[Place, int]) -> None:
    """Every claimed prediction has one of those that claim it, and none fits it better."""
    assert set(found) == set(claims)
    for (level, anchor, row, column), item in found.items():
        rivals = claims[level, anchor, row, column]
        assert item in rivals

        def rank(k: int, shape: tuple[float, float] = PUBLISHED[level][anchor]) -> float:
            return _fit(image[k], shape)

        assert rank(item) >= max(map(rank, rivals)) - 1e-5


@given(st.lists(_IMAGE, min_size=1, max_size=3))
def test_the_best_anchor_in_the_objects_cell(images: list[list[Box]]) -> None:
    found = _found(assignment.best(_targets(images), _grid()))
    for image, one in zip(images, found, strict=True):
        claims: dict[Place, list[int]] = {}
        for k, box in enumerate(image):
            fits = _fits(box)
            best = max(range(9), key=lambda a: (fits[a], -a))
            if sorted(fits)[-1] - sorted(fits)[-2] < 1e-6:
                return  # as good as alike: either is right
            level, anchor = divmod(best, 3)
            claims.setdefault((level, anchor, *_cell(box, level)), []).append(k)
        _fairest(claims, image, one)


@given(st.lists(_IMAGE, min_size=1, max_size=2), st.booleans(), st.sampled_from([1.5, 4.0]))
def test_all_anchors_by_ratio_and_cells_beside(
    images: list[list[Box]], neighbours: bool, most: float
) -> None:
    found = _found(assignment.ratio(_targets(images), _grid(), most=most, neighbours=neighbours))
    for image, one in zip(images, found, strict=True):
        claims: dict[Place, list[int]] = {}
        beside: dict[Place, list[int]] = {}
        for k, box in enumerate(image):
            b = np.array(box, np.float32)
            w, h, fits = b[2] - b[0], b[3] - b[1], _fits(box)
            if sorted(fits)[-1] - sorted(fits)[-2] < 1e-6:
                return
            for number in range(9):
                level, anchor = divmod(number, 3)
                aw, ah = PUBLISHED[level][anchor]
                factor = max(w / aw, aw / w, h / ah, ah / h)
                if abs(factor - most) < 1e-4:
                    return
                if not (factor < most or number == int(np.argmax(fits))):
                    continue
                row, column = _cell(box, level)
                claims.setdefault((level, anchor, row, column), []).append(k)
                x = (b[0] + b[2]) / 2 / STRIDES[level] - column
                y = (b[1] + b[3]) / 2 / STRIDES[level] - row
                for dx, dy in ((-1 if x < 0.5 else 1, 0), (0, -1 if y < 0.5 else 1)):
                    near = (row + dy, column + dx)
                    tall, wide = SIZE[0] // STRIDES[level], SIZE[1] // STRIDES[level]
                    if neighbours and 0 <= near[0] < tall and 0 <= near[1] < wide:
                        beside.setdefault((level, anchor, *near), []).append(k)
        # Whose centre lies there goes before those from beside.
        for place, items in beside.items():
            claims.setdefault(place, items)
        _fairest(claims, image, one)


def _raw(n: int, classes: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, len(_grid(classes)), 5 + classes, generator=rng)


def _iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


@settings(max_examples=40)
@given(st.lists(_IMAGE, min_size=1, max_size=2), st.integers(0, 99))
def test_dynamic_matches_are_the_cheapest(images: list[list[Box]], seed: int) -> None:
    classes, where = 2, _grid()
    raw = _raw(len(images), classes, seed)
    placed = boxes(raw, where)
    targets = _targets(images)
    found = _found(assignment.dynamic(targets, where, placed, raw))
    said = raw.double().sigmoid()
    for k, image in enumerate(images):
        price: dict[Place, dict[int, float]] = {}
        for item in range(len(image)):
            box = targets.xyxy[k, item].double().tolist()
            if min(box[2] - box[0], box[3] - box[1]) < 0.1:
                return
            middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            costs, ious = [], []
            for p in range(len(where)):
                level, _, row, column = _place(p)
                x, y = (column + 0.5) * STRIDES[level], (row + 0.5) * STRIDES[level]
                inside = box[0] < x < box[2] and box[1] < y < box[3]
                apart = max(abs(x - middle[0]), abs(y - middle[1])) / STRIDES[level]
                if abs(apart - 2.5) < 1e-4:
                    return
                if not inside and apart >= 2.5:
                    continue
                iou = max(_iou(placed[k, p].double().tolist(), box), 1e-8)
                score = [math.sqrt(said[k, p, 4] * said[k, p, 5 + c]) for c in range(classes)]
                cost = -math.log(score[0]) - math.log(1 - score[1]) - 3 * math.log(iou)
                costs.append((cost + 1e5 * (not (inside and apart < 2.5)), p))
                ious.append(iou)
            total = sum(sorted(ious)[-10:])
            if abs(total - round(total)) < 1e-4:
                return
            for cost, p in sorted(costs)[: max(int(total), 1)]:
                price.setdefault(_place(p), {})[item] = cost
        assert set(found[k]) == set(price)
        for place, item in found[k].items():
            cheapest = min(price[place].values())
            assert price[place][item] <= cheapest + max(1e-4 * abs(cheapest), 1e-3)


@settings(max_examples=30)
@given(st.lists(_IMAGE, min_size=1, max_size=2), st.integers(0, 99), st.booleans())
def test_negatives_are_what_neither_is_nor_nearly_is_an_object(
    images: list[list[Box]], seed: int, same_level: bool
) -> None:
    where = _grid()
    placed = boxes(_raw(len(images), 2, seed), where)
    targets = _targets(images)
    matches = assignment.best(targets, where)
    found = assignment.negatives(
        matches, targets, where, placed, ignore_above=0.5, same_level=same_level
    )
    taken = _found(matches)
    for k, image in enumerate(images):
        own = [int(np.argmax(_fits(box))) // 3 for box in image]
        for p in range(len(where)):
            ious = [
                _iou(placed[k, p].tolist(), targets.xyxy[k, item].tolist())
                for item in range(len(image))
                if not same_level or own[item] == _place(p)[0]
            ]
            if any(abs(iou - 0.5) < 1e-4 for iou in ious):
                continue
            wanted = _place(p) not in taken[k] and not any(iou > 0.5 for iou in ious)
            assert found[k, p].item() == wanted


def test_what_is_not_to_be_learnt_claims_nothing() -> None:
    """The first has the very size of the anchor, and would win."""
    anchor = (0.0, 0.0, 30.0, 61.0)
    other = (1.0, 1.0, 30.0, 60.0)
    collated = Boxes.collate([Boxes.made([anchor, other], [0, 1], difficult=[True, False])])
    for matches in (
        assignment.best(Targets.of_batch(collated), _grid()),
        assignment.ratio(Targets.of_batch(collated), _grid(), most=4, neighbours=True),
    ):
        assert set(_found(matches)[0].values()) == {1}


def test_of_equal_fits_the_smaller_object_is_learnt_and_then_the_first() -> None:
    """Twice the anchor's area and half of it agree alike with it: by 1/2."""
    large, small = (-15.0, 0.0, 45.0, 61.0), (7.5, 0.0, 22.5, 61.0)
    where = _grid()
    targets = _targets([[large, small], [small, large], [small, small]])
    size = (targets.xyxy[..., 2:] - targets.xyxy[..., :2]).unsqueeze(2)
    assert assignment.size_iou(size, where.table.size)[..., 3].unique().tolist() == [0.5]
    found = _found(assignment.ratio(targets, where, most=2.5, neighbours=False))
    place = (1, 0, *_cell(small, 1))
    assert [one[place] for one in found] == [1, 0, 0]
