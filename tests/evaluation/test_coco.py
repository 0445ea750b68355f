"""COCO's figures, against pycocotools and against examples worked out by hand."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from detections import NO_BOXES, found, scene, truth
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from retinue.evaluation.coco import AREAS, coco_figures
from retinue.evaluation.detections import Found, Truth, gathered


class Reference(COCOeval):  # type: ignore[misc]
    """pycocotools, which lacks two rules: difficult objects (its own flag `ignore`, which it
    overwrites) and, from the LVIS code, classes that are not labelled exhaustively."""

    def __init__(self, truth: COCO, results: COCO, open_keys: set[tuple[int, int]]) -> None:
        super().__init__(truth, results, "bbox")
        self.open_keys = open_keys

    def _prepare(self) -> None:
        super()._prepare()
        for rows in self._gts.values():
            for row in rows:
                row["ignore"] = row["iscrowd"] or row["difficult"]

    def evaluateImg(self, image: int, of: int, *args: Any) -> Any:  # noqa: N802
        told = super().evaluateImg(image, of, *args)
        if told is not None and (image, of) in self.open_keys:
            told["dtIgnore"] = told["dtIgnore"].astype(bool) | (told["dtMatches"] == 0)
        return told


def reference(
    founds: list[Found], truths: list[Truth], classes: int, max_boxes: list[int]
) -> dict[str, Any]:
    """Its `precision` (T, R, K, A, M) and `recall` (T, K, A, M)."""
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    open_keys = set()
    for i, (f, t) in enumerate(zip(founds, truths, strict=True)):
        open_keys |= {(i, k) for k in t.not_exhaustive}
        for j, (x1, y1, x2, y2) in enumerate(t.xyxy.astype(float).tolist()):
            area = (x2 - x1) * (y2 - y1) if t.area is None else float(t.area[j])
            flags = [int(flag[j]) if flag is not None else 0 for flag in (t.crowd, t.difficult)]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i, "category_id": int(t.of[j]),
                 "bbox": [x1, y1, x2 - x1, y2 - y1], "area": area, "iscrowd": flags[0],
                 "difficult": flags[1]}
            )  # fmt: skip
        for (x1, y1, x2, y2), score, k in zip(
            f.xyxy.astype(float).tolist(), f.score.tolist(), f.of.tolist(), strict=True
        ):
            results.append({"image_id": i, "category_id": k, "score": score,
                            "bbox": [x1, y1, x2 - x1, y2 - y1]})  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = {
            "images": [{"id": i} for i in range(len(founds))],
            "categories": [{"id": k} for k in range(classes)],
            "annotations": annotations,
        }
        data.createIndex()
        judge = Reference(data, data.loadRes(results), open_keys)
        judge.params.maxDets = max_boxes
        judge.evaluate()
        judge.accumulate()
    told: dict[str, Any] = judge.eval
    return told


@pytest.mark.parametrize(
    ("seed", "classes", "flags", "max_boxes"),
    [
        (0, 4, False, [1, 10, 100]),
        (1, 4, True, [1, 10, 100]),
        (2, 2, True, [1, 5]),
        (3, 7, True, [3]),
    ],
)
def test_figures_are_those_of_pycocotools(
    seed: int, classes: int, flags: bool, max_boxes: list[int]
) -> None:
    founds, truths = scene(40, classes, seed=seed, flags=flags)
    ours = coco_figures(gathered(founds, truths, classes), max_boxes)
    theirs = reference(founds, truths, classes, max_boxes)
    precision, recall = theirs["precision"][..., -1], theirs["recall"]
    assert (precision[:, :, -1] == -1).all()  # the last class has no object
    assert (precision[0, :, 0, 0] > 0).any()
    np.testing.assert_allclose(
        np.nan_to_num(ours.precision, nan=-1), precision.mean(axis=1), atol=1e-9
    )
    np.testing.assert_allclose(np.nan_to_num(ours.recall, nan=-1), recall, atol=1e-9)
    for area, name in enumerate(AREAS):
        part = precision[:, :, :, area]
        assert ours.ap(area=name) == pytest.approx(part[part > -1].mean(), abs=1e-9)
        for most in range(len(max_boxes)):
            part = recall[:, :, area, most]
            assert ours.ar(most, name) == pytest.approx(part[part > -1].mean(), abs=1e-9)
    half = precision[0, :, :, 0]
    assert ours.ap(0) == pytest.approx(half[half > -1].mean(), abs=1e-9)
    assert ours.ap(5, of=0) == pytest.approx(precision[5, :, 0, 0].mean(), abs=1e-9)


def test_areas_that_are_given_tell_sizes() -> None:
    """A box of 100 × 100 pixels around a thin object of 900."""
    thin = Truth(np.array([[0.0, 0, 100, 100]]), np.array([0]), area=np.array([900.0]))
    one = found((0, 0.9, 0, 0, 100, 100))
    told = coco_figures(gathered([one], [thin], 1))
    assert (told.ap(area="small"), told.ap(area="large")) == (pytest.approx(1), None)
    told = coco_figures(gathered([one], [truth((0, 0, 0, 100, 100))], 1))
    assert (told.ap(area="small"), told.ap(area="large")) == (None, pytest.approx(1))


def test_a_box_on_a_difficult_object_counts_neither_way() -> None:
    there = truth((0, 0, 0, 10, 10), (0, 50, 50, 60, 60), difficult=(1,))
    right = (0, 0.5, 0, 0, 10, 10)
    assert _ap50([found(right, (0, 0.9, 50, 50, 60, 60))], [there]) == pytest.approx(1)
    # Two on it: the second is a false one, as difficult is no crowd.
    twice = found(right, (0, 0.9, 50, 50, 60, 60), (0, 0.8, 50, 50, 60, 60))
    assert _ap50([twice], [there]) == pytest.approx(0.5)
    assert _ap50([twice], [truth((0, 0, 0, 10, 10), (0, 50, 50, 60, 60), crowd=(1,))]) == (
        pytest.approx(1)
    )
    assert _ap50([found((0, 0.9, 20, 20, 30, 30), right)], [there]) == pytest.approx(0.5)


def test_a_box_of_a_class_that_is_not_labelled_exhaustively_may_be_right() -> None:
    boxes = found((0, 0.9, 50, 50, 60, 60), (0, 0.5, 0, 0, 10, 10))
    assert _ap50([boxes], [truth((0, 0, 0, 10, 10))]) == pytest.approx(0.5)
    assert _ap50([boxes], [truth((0, 0, 0, 10, 10), not_exhaustive=(0,))]) == pytest.approx(1)
    # In another image it is a mistake still: the first box that counts is that one.
    told = _ap50([boxes, boxes], [truth((0, 0, 0, 10, 10), not_exhaustive=(0,)), truth()])
    assert told == pytest.approx(0.5)


def test_what_was_never_there_and_what_was_never_found() -> None:
    nothing_there = coco_figures(gathered([found((0, 0.9, 0, 0, 9, 9))], [truth()], 2))
    assert (nothing_there.ap(), nothing_there.ar()) == (None, None)
    nothing_found = coco_figures(gathered([NO_BOXES], [truth((1, 0, 0, 9, 9))], 2))
    assert (nothing_found.ap(), nothing_found.ap(of=0), nothing_found.ar()) == (0, None, 0)
    assert coco_figures(gathered([], [], 2)).ap() is None


def _ap50(founds: list[Found], truths: list[Truth]) -> float | None:
    return coco_figures(gathered(founds, truths, 1)).ap(0)
