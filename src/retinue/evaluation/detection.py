"""Figures of a detector: pure functions on arrays, as `metrics.json` has them.

A figure that is not defined (of a class without objects, say) is None, never NaN, so that it
survives JSON; it does not pull a mean down. Objects that are difficult or a crowd are not counted,
and boxes on them are no mistakes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retinue.data.box_sizes import LARGE, MAX_BOXES, SMALL
from retinue.evaluation import intervals
from retinue.evaluation.coco import AREAS, SIZES, coco_figures
from retinue.evaluation.detections import Detections, Found, Truth, gathered
from retinue.evaluation.matching import Matches, match
from retinue.evaluation.precision_recall import (
    Curve,
    Point,
    average_precision,
    average_precision_07,
    best_f1,
    curves,
    log_average_miss_rate,
    mean,
    pooled,
)
from retinue.evaluation.remarks import class_rows, of_absent, of_never
from retinue.figures import Figure

__all__ = ["Found", "Truth", "declared", "declared_among", "figures", "remark", "undefined"]

IOU = 0.5
"""From where on a box has found an object, but for the means over several IoUs."""
_RECALL = "mean recall with {n:,} of a class in an image"
_SIZES = {
    "small": f"below {SMALL}² pixels",
    "medium": f"from {SMALL}² to {LARGE}² pixels",
    "large": f"from {LARGE}² pixels on",
}


def declared(classes: Sequence[str], max_boxes: int = MAX_BOXES) -> list[Figure]:
    """What `figures` measures and a training can watch, the most telling first. `arN` is named by
    its N, the last one being `max_boxes`."""
    told = [
        ("map50", "mAP50", "COCO's average precision at IoU 0.5, mean of the classes"),
        ("map50_95", "mAP50:95", "mean over IoU 0.5, 0.55 … 0.95"),
        ("map75", "mAP75", "at IoU 0.75: boxes that fit well"),
        ("voc_ap50", "VOC AP50", "area under precision and recall, as VOC 2010"),
        ("voc07_ap50", "VOC07 AP50", "mean precision at 11 recalls, as VOC 2007"),
        ("f1", "F1", "of all boxes, at the confidence where it is highest"),
        ("precision", "Precision", "at that confidence"),
        ("recall", "Recall", "at that confidence"),
        *((f"map_{size}", f"mAP of {size} objects", of) for size, of in _SIZES.items()),
        *((f"ar{n}", f"AR{n}", _RECALL.format(n=n)) for n in counts_of_boxes(max_boxes)),
    ]
    missed = "log-average over 0.01 to 1 false boxes an image"
    return [
        *(
            Figure(name, title, "fraction", note=note, of="objects" if name == "recall" else "")
            for name, title, note in told
        ),
        Figure("miss_rate", "Miss rate", "fraction", less_is_better=True, note=missed),
    ]


OF_CLASSES = (
    Figure("ap50", "AP50", "fraction"),
    Figure("ap50_95", "AP50:95", "fraction"),
    Figure("voc_ap50", "VOC AP50", "fraction"),
    Figure("f1", "F1", "fraction"),
    Figure("precision", "Precision", "fraction"),
    Figure("recall", "Recall", "fraction"),
    Figure("miss_rate", "Miss rate", "fraction", less_is_better=True),
)
"""What judges a class in a row of `per_class`, the most telling first."""


def declared_among(names: Sequence[str], classes: Sequence[str]) -> list[Figure]:
    """`declared`, for the figures `names` that were measured: they tell the N of `arN`."""
    most = max((int(name[2:]) for name in names if re.fullmatch(r"ar[1-9]\d*", name)), default=1)
    return [figure for figure in declared(classes, most) if figure.name in names]


def counts_of_boxes(max_boxes: int) -> list[int]:
    """COCO's 1, 10 and 100 with `max_boxes` for the last."""
    return [n for n in (1, 10) if n < max_boxes] + [max_boxes]


def figures(
    found: Sequence[Found],
    truth: Sequence[Truth],
    names: Sequence[str],
    *,
    max_boxes: int = MAX_BOXES,
) -> dict[str, Any]:
    """All figures of the boxes `found` in the images of `truth`: plain JSON values, fractions
    between 0 and 1.

    Beside the declared ones: `images`, `objects`, `ar_small`, `ar_medium`, `ar_large`, `confidence`
    (where F1 is highest), `max_boxes`, `most_objects` (of one image), `per_class`, and `intervals`
    (95 %, of the means of AP).
    """
    return figures_of(gathered(found, truth, len(names)), names, max_boxes=max_boxes)


def figures_of(
    of: Detections,
    names: Sequence[str],
    *,
    max_boxes: int = MAX_BOXES,
    matches: Matches | None = None,
    answers: tuple[Detections, Matches] | None = None,
) -> dict[str, Any]:
    """`figures` of what is gathered already, and matched at `IOU` perhaps. `answers`: what F1,
    precision, recall and confidence are of, where answers are suppressed otherwise than the boxes
    whose ranks are judged."""
    matches = matches or match(of, IOU)
    by_class = curves(of, matches)
    answers = answers or (of, matches)
    answered = by_class if answers[0] is of else curves(*answers)
    coco = coco_figures(of, counts_of_boxes(max_boxes))
    rows = per_class(of, by_class, answered, names)
    for k, row in enumerate(rows):
        row["ap50"], row["ap50_95"] = coco.ap(0, of=k), coco.ap(of=k)
    best = best_f1(pooled(*answers))
    found: dict[str, Any] = {
        "images": of.images,
        "objects": int(of.counted.sum()),
        "map50": coco.ap(0),
        "map50_95": coco.ap(),
        "map75": coco.ap(5),
    }
    found |= {f"map_{size}": coco.ap(area=size) for size in AREAS[1:]}
    found |= {f"ar{n}": coco.ar(k) for k, n in enumerate(counts_of_boxes(max_boxes))}
    found |= {f"ar_{size}": coco.ar(area=size) for size in AREAS[1:]}
    found["voc_ap50"] = mean([row["voc_ap50"] for row in rows])
    found["voc07_ap50"] = mean([average_precision_07(curve) for curve in by_class])
    found |= _told(best)
    found["confidence"] = found.pop("threshold")
    found["miss_rate"] = mean([row["miss_rate"] for row in rows])
    found["max_boxes"] = max_boxes
    found["most_objects"] = int(np.bincount(of.true_image[of.counted], minlength=1).max())
    found["per_class"] = rows
    each = {
        "map50": [coco.ap(0, of=k) for k in range(of.classes)],
        "map50_95": [coco.ap(of=k) for k in range(of.classes)],
        "map75": [coco.ap(5, of=k) for k in range(of.classes)],
        "voc_ap50": [row["voc_ap50"] for row in rows],
        "voc07_ap50": [average_precision_07(curve) for curve in by_class],
    }
    spans = {
        name: intervals.of_mean_ap(list(zip(aps, of.objects.tolist(), strict=True)))
        for name, aps in each.items()
    }
    found["intervals"] = {name: list(span) for name, span in spans.items() if span is not None}
    return found


def per_class(
    of: Detections, by_class: Sequence[Curve], answered: Sequence[Curve], names: Sequence[str]
) -> list[dict[str, Any]]:
    """`name, objects, found` (how many boxes), `ap50, ap50_95` (COCO's, to be filled in),
    `voc_ap50`, `precision, recall, f1` and `threshold` where the F1 of what is `answered` is
    highest, `miss_rate`; None for a class without objects."""
    found = np.bincount(of.of, minlength=of.classes).tolist()
    return [
        {
            "name": name,
            "objects": curve.objects,
            "found": found[k],
            "ap50": None,
            "ap50_95": None,
            "voc_ap50": average_precision(curve),
            **_told(best_f1(answered[k])),
            "miss_rate": log_average_miss_rate(curve, of.images),
        }
        for k, (name, curve) in enumerate(zip(names, by_class, strict=True))
    ]


def undefined(
    truth: Sequence[Truth], names: Sequence[str], max_boxes: int = MAX_BOXES
) -> dict[str, str]:
    """The figures that are None whatever was found in the images of `truth`: name and why."""
    of = gathered([_NOTHING] * len(truth), truth, len(names))
    areas = of.area[of.counted]
    if not len(areas):
        why = "none of its images has an object of the classes that is to be found"
        return {figure.name: why for figure in declared(names, max_boxes)}
    return {
        f"map_{size}": f"it has no {size} object ({_SIZES[size]})"
        for size, (low, high) in SIZES.items()
        if not ((areas >= low) & (areas <= high)).any()
    }


def remark(values: Mapping[str, Any]) -> str:
    """What the figures `values` (of `metrics.json`) leave out, in sentences; empty where there is
    nothing."""
    rows = class_rows(values)
    blind = [row for row in rows if row.get("objects") and row.get("found") == 0]
    said = of_absent(rows, "objects", ("has no objects", "have no objects"))
    said += of_never(blind, "found")
    most, limit = values.get("most_objects"), values.get("max_boxes")
    if isinstance(most, int) and isinstance(limit, int) and most > limit:
        said.append(
            f"An image has {most:,} objects, but only the best {limit:,} boxes of an image count:"
            f" not all can be found; task_options.judged_boxes={most} would let them."
        )
    why = values.get("diagnosis")
    if isinstance(why, list) and why and all(isinstance(one, str) for one in why):
        said.append(f"Why mAP50 is about 0: {why[0]}")
    return " ".join(said)


def _told(best: Point | None) -> dict[str, float | None]:
    if best is None:
        return dict.fromkeys(("precision", "recall", "f1", "threshold"))
    return {
        "precision": best.precision,
        "recall": best.recall,
        "f1": best.f1,
        "threshold": best.threshold,
    }


_NOTHING = Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.int64))
