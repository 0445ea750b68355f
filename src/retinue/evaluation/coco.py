"""COCO's average precision and recall, by faster-coco-eval: equal to pycocotools to rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retinue.data.box_sizes import LARGE, SMALL
from retinue.evaluation.detections import Detections, Floats

SIZES = {"small": (0, SMALL**2), "medium": (SMALL**2, LARGE**2), "large": (LARGE**2, 1e10)}
"""From which area to which, in square pixels, both included."""
AREAS = ("all", *SIZES)
"""Objects of any size, and of each of these."""
_BEYOND = 1e11
"""An area outside of all ranges, `all` among them (up to 1e10): COCO's rule ignores such an object
and whatever box matches it, which is just what PASCAL asks of a difficult one. Its own flag
`ignore` is overwritten by `iscrowd` in pycocotools."""


@dataclass(frozen=True, eq=False)
class CocoFigures:
    """NaN where there is no object."""

    precision: Floats
    """(10 IoUs from 0.5 to 0.95, classes, 4 `AREAS`): means over 101 recalls, of up to
    `max_boxes[-1]` boxes of a class in an image."""
    recall: Floats
    """(10 IoUs, classes, 4 areas, `max_boxes`)"""

    def ap(self, iou: int | None = None, area: str = "all", of: int | None = None) -> float | None:
        """The mean over IoUs (or that of number `iou`), and over classes that have objects (or of
        class `of`)."""
        return _mean(self.precision[:, :, AREAS.index(area)], iou, of)

    def ar(self, most: int = -1, area: str = "all") -> float | None:
        """The mean of the highest recall with the `most`-th number of boxes."""
        return _mean(self.recall[:, :, AREAS.index(area), most], None, None)


def coco_figures(of: Detections, max_boxes: Sequence[int] = (1, 10, 100)) -> CocoFigures:
    """`max_boxes`: COCO's `maxDets`, from few to many: the best so many boxes of a class in an
    image count, the last number being that of the precision."""
    from faster_coco_eval import COCO, COCOeval_faster

    images, annotations, categories = _data_set(of)
    truth = COCO({"images": images, "annotations": annotations, "categories": categories})
    found = COCO({"images": images, "annotations": _results(of), "categories": categories})
    # LVIS' rules differ in what `not_exhaustive` says alone, as every class is a negative here.
    judge = COCOeval_faster(truth, found, "bbox", lvis_style=len(of.not_exhaustive) > 0)
    judge.params.maxDets = list(max_boxes)
    if not of.images or not of.classes:
        shape = (len(judge.params.iouThrs), of.classes, len(AREAS))
        return CocoFigures(np.full(shape, np.nan), np.full((*shape, len(max_boxes)), np.nan))
    judge.evaluate()
    precision = np.asarray(judge.eval["precision"], dtype=np.float64)[..., -1].mean(axis=1)
    recall = np.asarray(judge.eval["recall"], dtype=np.float64)
    return CocoFigures(*(np.where(part < 0, np.nan, part) for part in (precision, recall)))


def _data_set(of: Detections) -> tuple[list[Any], list[Any], list[Any]]:
    """Images, annotations and categories, numbered from 1, as 0 means none to COCO's code."""
    classes = list(range(1, of.classes + 1))
    images: list[dict[str, Any]] = [{"id": i} for i in range(1, of.images + 1)]
    if len(of.not_exhaustive):
        for image in images:
            image |= {"neg_category_ids": classes, "not_exhaustive_category_ids": []}
        for key in of.not_exhaustive.tolist():
            images[key // of.classes]["not_exhaustive_category_ids"].append(key % of.classes + 1)
    areas = np.where(of.difficult & ~of.crowd, _BEYOND, of.area)
    columns = (of.true_image, of.true_of, _corner_and_size(of.true_xyxy), areas, of.crowd)
    annotations = [
        {
            "id": k,
            "image_id": image + 1,
            "category_id": name + 1,
            "bbox": box,
            "area": area,
            "iscrowd": int(crowd),
        }
        for k, (image, name, box, area, crowd) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), 1
        )
    ]
    categories = [{"id": k, "name": str(k), "frequency": "f"} for k in classes]
    return images, annotations, categories


def _results(of: Detections) -> list[dict[str, Any]]:
    boxes = _corner_and_size(of.xyxy)
    areas = boxes[:, 2] * boxes[:, 3]
    columns = (of.image, of.of, boxes, areas, of.score)
    return [
        {
            "id": k,
            "image_id": image + 1,
            "category_id": name + 1,
            "bbox": box,
            "area": area,
            "score": score,
            "iscrowd": 0,
        }
        for k, (image, name, box, area, score) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), 1
        )
    ]


def _corner_and_size(xyxy: Floats) -> Floats:
    return np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)


def _mean(values: Floats, iou: int | None, of: int | None) -> float | None:
    """`values` (IoUs, classes)."""
    chosen = values if iou is None else values[iou : iou + 1]
    chosen = chosen if of is None else chosen[:, of : of + 1]
    defined = chosen[~np.isnan(chosen)]
    return float(defined.mean()) if len(defined) else None
