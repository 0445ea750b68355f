"""Why a detector finds nothing: what the boxes themselves say where the mean AP is about 0.

Each suspicion is tried out: the boxes are read another way (exchanged axes, another format, another
scale), or their classes are left aside, and where far more objects are found then, that is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from retinue.data.box_sizes import FINEST_STRIDE
from retinue.evaluation.boxes import area, iou
from retinue.evaluation.detections import Detections, Floats, Ints
from retinue.evaluation.matching import nearest, pairs
from retinue.text import shorten

ABOUT_NOTHING = 0.05
"""A mean AP at IoU 0.5 below this is worth a diagnosis."""
_WORTH = 0.2
"""Such a share of the objects has to be found for another reading to be believed …"""
_FEWEST = 5
"""… at least so many, since of two or three some reading finds one by chance …"""
_TIMES = 3
"""… and so many times as many as with the boxes as they are."""


@dataclass(frozen=True, eq=False)
class Scale:
    """What the network sees of an image."""

    input: tuple[int, int] | None = None
    """Height and width of its input, in pixels."""
    anchors: Floats | None = None
    """(a, 2): widths and heights, in pixels of the input."""


def diagnose(
    of: Detections, sizes: Ints, names: Sequence[str], scale: Scale | None = None
) -> list[str]:
    """What is likely wrong, in sentences, the most telling first; without boxes or objects, that.
    `sizes`: (images, 2), width and height of each."""
    if not of.counted.any():
        return ["There are no objects to be found in these images: look at the labels."]
    said = list(_labels(of, sizes))
    if len(of.score):
        best = _best_rows(of)
        as_is = _found_share(of, best, of.xyxy)
        said += _other_readings(of, sizes, best, as_is)
        said += _classes(of, best, names)
        said += _same_everywhere(of, sizes)
        said += _scores(of)
        said += _fit(of)
    else:
        said.append(
            "No box at all was found above the lowest confidence: the network has learnt next to"
            " nothing yet (more steps, a higher optimizer.lr), or it diverged (a lower one), or its"
            " weights are not those that were trained."
        )
    said += _seen(of, sizes, scale or Scale())
    return said or [
        "The boxes lie where no objects are, and no other reading of them fits better: look at the"
        " curves of the training (is the loss still falling? more steps; did it rise? a lower"
        " optimizer.lr) and at a few drawn training batches."
    ]


def _best_rows(of: Detections) -> Ints:
    """Of each image the best boxes, a few more than it has objects."""
    objects = np.bincount(of.true_image[of.counted], minlength=of.images)
    starts = np.searchsorted(of.image, np.arange(of.images))
    rank = np.arange(len(of.image)) - starts[of.image]
    return np.flatnonzero((rank < 3 * objects[of.image] + 3) & (objects[of.image] > 0))


def _covering(of: Detections, rows: Ints, xyxy: Floats) -> tuple[Ints, Floats]:
    """For each object that counts, the one among the boxes `rows`, lying at `xyxy` (d, 4), that
    overlaps it most, whatever its class; and by how much."""
    things = np.flatnonzero(of.counted)
    place, share = nearest(of.true_image[things], of.true_xyxy[things], of.image[rows], xyxy[rows])
    return np.where(place >= 0, rows[place] if len(rows) else -1, -1), share


def _found_share(of: Detections, rows: Ints, xyxy: Floats) -> float:
    """The share of the objects that such boxes overlap by half or more, whatever their classes."""
    return float((_covering(of, rows, xyxy)[1] >= 0.5).mean())


def _labels(of: Detections, sizes: Ints) -> Iterator[str]:
    beyond = np.any(of.true_xyxy[:, 2:] > sizes[of.true_image] + 1.0, axis=1)
    if np.mean(beyond) > 0.1:
        yield (
            f"{np.sum(beyond):,} of {len(of.true_of):,} labelled boxes reach beyond their images:"
            " the labels may be meant for images of another size or orientation, or be corners"
            " where sizes are written; `retinue data check` names them."
        )


def _other_readings(of: Detections, sizes: Ints, rows: Ints, as_is: float) -> Iterator[str]:
    """The reading of the boxes with which the most objects are found, where that is far better."""
    tried = [(_found_share(of, rows, boxes), said) for boxes, said in _readings(of, sizes, rows)]
    if not tried:
        return
    share, said = max(tried, key=lambda one: one[0])
    enough = share * of.counted.sum() > _FEWEST - 0.5
    if enough and share >= _WORTH and share >= _TIMES * as_is:
        yield (
            f"{said}: read that way, {100 * share:.0f} % of the objects are found instead of"
            f" {100 * as_is:.0f} %."
        )


def _readings(of: Detections, sizes: Ints, rows: Ints) -> Iterator[tuple[Floats, str]]:
    """(d, 4) boxes, and what it would mean."""
    x1, y1, x2, y2 = of.xyxy.T
    width, height = sizes[of.image].T.astype(np.float64)
    whole = np.stack([width, height, width, height], axis=1)
    exchanged = of.xyxy[:, [1, 0, 3, 2]]
    corner = np.stack([x1, y1, x1 + x2, y1 + y2], axis=1)
    centre = np.stack([x1 - x2 / 2, y1 - y2 / 2, x1 + x2 / 2, y1 + y2 / 2], axis=1)
    format_of = "The boxes' format is likely wrong, of labels or of answers"
    yield exchanged, f"{format_of}: x and y are exchanged"
    yield corner, f"{format_of}: what is taken for two corners is a corner and a size"
    yield centre, f"{format_of}: what is taken for two corners is a centre and a size"
    yield of.xyxy * whole, f"{format_of}: they are fractions of the image taken for pixels"
    yield centre * whole, f"{format_of}: they are YOLO's fractions of the image taken for corners"
    yield (
        np.stack([width - x2, y1, width - x1, y2], axis=1),
        "The boxes lie mirrored: the image is flipped where the labels are not",
    )
    yield (
        np.stack([x1, height - y2, x2, height - y1], axis=1),
        "The boxes lie upside down: the image's orientation (EXIF) is used for one and not for the"
        " other",
    )
    ratio = _ratios(of, rows)
    if len(ratio):
        factor = float(np.median(ratio))
        yield (
            of.xyxy * factor,
            f"The boxes are those of an image {1 / factor:.2g} times as large as the labels'"
            if factor < 1
            else f"The boxes are {factor:.2g} times too near to the corner and too small, as if"
            " pixels of the network's input were taken for pixels of the image",
        )
        longest = sizes.max(axis=1).astype(np.float64)
        images = np.unique(of.image[rows])
        by_size = float(np.median(ratio / longest[images]))
        yield (
            of.xyxy * (by_size * longest[of.image])[:, None],
            "Pixels of the network's input are taken for pixels of the image: it seems to be"
            f" {1 / by_size:.0f} pixels wide",
        )
    grown = _grown(of, rows)
    if grown is not None:
        boxes, factor = grown
        yield (
            boxes,
            "The boxes lie in the right places but are about"
            f" {max(factor, 1 / factor):.2g} times too {'small' if factor > 1 else 'large'}, as"
            " with anchors of another input size or another network",
        )


def _ratios(of: Detections, rows: Ints) -> Floats:
    """(images with boxes among `rows`,): how far the objects lie from the corner, over how far the
    boxes do, by the mean of all corners' coordinates."""
    counted = of.counted
    images = np.unique(of.image[rows])
    if not len(images):
        return np.zeros(0)
    # The best of each image alone: further ones lie anywhere.
    first = rows[np.unique(of.image[rows], return_index=True)[1]]
    boxes = np.maximum(of.xyxy[first].mean(axis=1), 1e-9)
    sums = np.bincount(
        of.true_image[counted], of.true_xyxy[counted].mean(axis=1), minlength=of.images
    )
    count = np.bincount(of.true_image[counted], minlength=of.images)
    ratios: Floats = (sums / np.maximum(count, 1))[images] / boxes
    return ratios


def _grown(of: Detections, rows: Ints) -> tuple[Floats, float] | None:
    """The boxes with their sides times what would make those next to an object as large as it, and
    that factor; None where nothing lies near."""
    things = np.flatnonzero(of.counted)
    middle = (of.xyxy[:, :2] + of.xyxy[:, 2:]) / 2
    half = (of.xyxy[:, 2:] - of.xyxy[:, :2]) / 2
    true_middle = (of.true_xyxy[:, :2] + of.true_xyxy[:, 2:]) / 2
    side = np.sqrt(np.maximum(area(of.xyxy), 1e-9))
    true_side = np.sqrt(np.maximum(area(of.true_xyxy), 1e-9))
    factors: list[Floats] = []
    for thing, box in pairs(of.true_image[things], of.image[rows]):
        thing, box = things[thing], rows[box]
        away = np.abs(middle[box] - true_middle[thing]).max(axis=1)
        near = away < 0.2 * np.maximum(side[box], true_side[thing])
        factors.append((true_side[thing] / side[box])[near])
    every = np.concatenate(factors) if factors else np.zeros(0)
    if not len(every):
        return None
    factor = float(np.median(every))
    return np.concatenate([middle - factor * half, middle + factor * half], axis=1), factor


def _classes(of: Detections, rows: Ints, names: Sequence[str]) -> Iterator[str]:
    """Whether the boxes are right and their classes wrong, and which class is called which."""
    if of.classes < 2:
        return
    box, share = _covering(of, rows, of.xyxy)
    true, well = of.true_of[np.flatnonzero(of.counted)], share >= 0.5
    alike = _same_class(of, rows)
    if well.mean() < _WORTH or well.mean() < _TIMES * alike:
        return
    said = (
        f"The boxes lie right for {100 * well.mean():.0f} % of the objects, but with the right"
        f" class for only {100 * alike:.0f} %: "
    )
    table = np.zeros((of.classes, of.classes), dtype=np.int64)
    np.add.at(table, (true[well], of.of[box[well]]), 1)
    shown = np.flatnonzero(table.sum(axis=1) > 0)
    taken_for = table[shown].argmax(axis=1)
    steady = table[shown, taken_for].sum() / table.sum()
    if steady >= 0.6 and len(set(taken_for.tolist())) == len(shown) > 1:
        order = np.argsort(-table[shown, taken_for], kind="stable")[:3]
        told = [
            f"“{shorten(names[shown[k]], 30)}” is called “{shorten(names[taken_for[k]], 30)}”"
            for k in order
            if shown[k] != taken_for[k]
        ]
        yield (
            f"{said}the classes stand in another order than when it was trained"
            f" ({', '.join(told)}). Give the class list that belongs to the weights or the labels."
        )
    elif len(set(taken_for.tolist())) == 1:
        only = shorten(names[taken_for[0]], 30)
        yield f"{said}everything is called “{only}”; the classes are not learnt yet."
    else:
        yield f"{said}the classes are not learnt yet, or the labels' class list is another one."


def _same_class(of: Detections, rows: Ints) -> float:
    things = np.flatnonzero(of.counted)
    _, share = nearest(of.true_keys[things], of.true_xyxy[things], of.keys[rows], of.xyxy[rows])
    return float((share >= 0.5).mean())


def _same_everywhere(of: Detections, sizes: Ints) -> Iterator[str]:
    first = np.unique(of.image, return_index=True)[1]
    whole = np.concatenate([sizes, sizes], axis=1)[of.image[first]]
    places = of.xyxy[first] / np.maximum(whole, 1)
    true = of.true_xyxy / np.maximum(np.concatenate([sizes, sizes], axis=1)[of.true_image], 1)
    if len(first) >= 5 and places.std(axis=0).max() < 0.02 < true.std(axis=0).max():
        yield (
            "The best box lies at the same place in every image: the network does not look at them."
            " That is what a diverged training does (a lower optimizer.lr, clip_norm), or images"
            " that were not prepared as in training."
        )


def _scores(of: Detections) -> Iterator[str]:
    best = float(of.score.max())
    if best < 0.1:
        yield (
            f"The most confident of all boxes scores {100 * best:.1f} %: the network has hardly"
            " begun to learn (more steps, or a higher optimizer.lr), or its weights were not"
            " loaded; at a usual confidence nothing would be drawn."
        )
    things = np.flatnonzero(of.counted)
    _, share = nearest(of.keys, of.xyxy, of.true_keys[things], of.true_xyxy[things])
    right = share >= 0.5
    everywhere = _same_class(of, np.arange(len(of.score)))
    if everywhere >= 0.5 and right.any() and not right.all():
        low, high = (float(np.median(of.score[part])) for part in (right, ~right))
        if low <= high:
            yield (
                f"{100 * everywhere:.0f} % of the objects are found by some box, but right boxes"
                f" score no more than wrong ones ({low:.3f} and {high:.3f}, medians): objectness or"
                " classes are not learnt yet, or scores are read from the wrong channel."
            )


def _fit(of: Detections) -> Iterator[str]:
    things = np.flatnonzero(of.counted)
    _, share = nearest(of.true_keys[things], of.true_xyxy[things], of.keys, of.xyxy)
    middle = float(np.median(share))
    if 0.2 <= middle < 0.5:
        yield (
            f"The best box of an object overlaps it by an IoU of {middle:.2f} (median), short of"
            " 0.5: they lie near but do not fit. Longer training helps, and anchors for these"
            " objects (anchors: auto)."
        )


def _seen(of: Detections, sizes: Ints, scale: Scale) -> Iterator[str]:
    """What the input's size and the anchors make of the objects."""
    if scale.input is None:
        return
    rows = np.flatnonzero(of.counted)
    width, height = sizes[of.true_image[rows]].T
    factor = np.minimum(
        scale.input[0] / np.maximum(height, 1), scale.input[1] / np.maximum(width, 1)
    )
    sides = (of.true_xyxy[rows, 2:] - of.true_xyxy[rows, :2]) * factor[:, None]
    small = float((sides.min(axis=1) < FINEST_STRIDE).mean())
    if small >= 0.5:
        yield (
            f"{100 * small:.0f} % of the objects are less than {FINEST_STRIDE} pixels wide or high"
            f" at an input of {scale.input[1]} × {scale.input[0]} pixels: they vanish in the finest"
            " level. Take a larger input, or cut the images into tiles."
        )
    if scale.anchors is not None and len(scale.anchors):
        shapes = np.concatenate([np.zeros_like(sides), sides], axis=1)
        anchors = np.concatenate([np.zeros_like(scale.anchors), scale.anchors], axis=1)
        best = iou(shapes[:, None], anchors[None]).max(axis=1)
        if float(np.median(best)) < 0.4:
            yield (
                f"No anchor is shaped like these objects (IoU {np.median(best):.2f} with the"
                " nearest, median): anchors: auto chooses fitting ones, and a training has to begin"
                " anew with them."
            )
