"""Which box belongs to which object, against examples worked out by hand and a loop over pairs."""

from __future__ import annotations

import numpy as np
import pytest
from detections import NO_BOXES, found, scene, truth
from hypothesis import given
from hypothesis import strategies as st

from retinue.evaluation import matching
from retinue.evaluation.boxes import iou
from retinue.evaluation.detections import best_first, gathered
from retinue.evaluation.matching import NOBODY, match, nearest, pairs


def test_the_best_scored_box_finds_the_object_and_others_are_duplicates() -> None:
    of = gathered(
        [found((0, 0.6, 0, 0, 10, 10), (0, 0.9, 0, 0, 10, 8), (0, 0.5, 0, 0, 10, 4))],
        [truth((0, 0, 0, 10, 10))], 1,
    )  # fmt: skip
    told = match(of)
    assert of.score.tolist() == [0.9, 0.6, 0.5]
    assert told.overlap.tolist() == pytest.approx([0.8, 1.0, 0.4])
    assert told.object.tolist() == [0, 0, 0]
    assert told.right.tolist() == [True, False, False]
    assert not told.ignored.any()
    assert match(of, iou=0.9).right.tolist() == [False, True, False]


def test_a_box_looks_at_one_object_alone() -> None:
    """The devkit's rule: the second box overlaps the left object more, which is taken; COCO's would
    give it the right one."""
    of = gathered(
        [found((0, 0.9, 0, 0, 10, 10), (0, 0.8, 1, 0, 11, 10))],
        [truth((0, 0, 0, 10, 10), (0, 3, 0, 13, 10))], 1,
    )  # fmt: skip
    assert match(of).right.tolist() == [True, False]


def test_classes_and_images_are_apart() -> None:
    of = gathered(
        [found((1, 0.9, 0, 0, 10, 10)), found((0, 0.8, 0, 0, 10, 10))],
        [truth((0, 0, 0, 10, 10)), truth()], 2,
    )  # fmt: skip
    told = match(of)
    assert told.object.tolist() == [NOBODY, NOBODY]
    assert not told.right.any()


def test_difficult_crowds_and_what_is_not_exhaustive() -> None:
    there = truth(
        (0, 0, 0, 10, 10), (0, 50, 50, 90, 90), (0, 20, 20, 30, 30),
        difficult=(0,), crowd=(1,), not_exhaustive=(1,),
    )  # fmt: skip
    of = gathered(
        [found((0, 0.9, 0, 0, 10, 10), (0, 0.8, 50, 50, 54, 54), (0, 0.7, 45, 50, 52, 60),
               (0, 0.6, 20, 20, 30, 30), (1, 0.5, 0, 0, 5, 5), (0, 0.4, 20, 20, 30, 29))],
        [there], 2,
    )  # fmt: skip
    told = match(of)
    # On the difficult one; wholly in the crowd; 2/7 in the crowd; found; of an open class; twice.
    assert told.ignored.tolist() == [True, True, False, False, True, False]
    assert told.right.tolist() == [False, False, False, True, False, False]
    assert of.counted.tolist() == [False, False, True]
    assert of.objects.tolist() == [1, 0]


@given(st.integers(0, 10_000), st.sampled_from([1, 7, 1 << 20]))
def test_nearest_is_what_a_loop_finds(seed: int, chunk: int) -> None:
    founds, truths = scene(5, 3, seed=seed)
    of = gathered(founds, truths, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "_CHUNK", chunk)
        place, value = nearest(of.keys, of.xyxy, of.true_keys, of.true_xyxy)
        listed = [(int(b), int(g)) for bs, gs in pairs(of.keys, of.true_keys)
                  for b, g in zip(bs, gs, strict=True)]  # fmt: skip
    every = []
    for b in range(len(of.score)):
        best, at = 0.0, NOBODY
        for g in range(len(of.true_of)):
            if of.image[b] == of.true_image[g] and of.of[b] == of.true_of[g]:
                every.append((b, g))
                overlap = float(iou(of.xyxy[b], of.true_xyxy[g]))
                if overlap > best:
                    best, at = overlap, g
        assert (place[b], value[b]) == (at, best)
    assert listed == every


def test_boxes_lie_image_by_image_with_the_best_first() -> None:
    of = gathered(
        [found((0, 0.1, 0, 0, 1, 1), (1, 0.7, 0, 0, 2, 2)), NO_BOXES,
         found((0, 0.3, 0, 0, 3, 3), (1, 0.3, 0, 0, 4, 4))],
        [truth(), truth(), truth((1, 0, 0, 4, 4))], 2,
    )  # fmt: skip
    assert of.image.tolist() == [0, 0, 2, 2]
    assert of.xyxy[:, 3].tolist() == [2, 1, 3, 4]
    assert (of.images, of.true_image.tolist(), of.area.tolist()) == (3, [2], [16])


def test_images_that_are_not_the_same_and_classes_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="1 images were looked at, and 2"):
        gathered([NO_BOXES], [truth(), truth()], 1)
    with pytest.raises(ValueError, match="class 3, of 2"):
        gathered([found((3, 0.5, 0, 0, 1, 1))], [truth()], 2)
    with pytest.raises(ValueError, match="class -1, of 2"):
        gathered([NO_BOXES], [truth((-1, 0, 0, 1, 1))], 2)
    assert np.array_equal(gathered([], [], 2).objects, [0, 0])


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=60),
    st.sampled_from([1, 70_000]),
)
def test_the_order_of_scores_is_that_of_a_stable_sort(
    rows: list[tuple[int, int]], apart: int
) -> None:
    score = np.array([s for s, _ in rows], dtype=np.float64)
    group = np.array([g for _, g in rows], dtype=np.int64) * apart
    assert best_first(score).tolist() == np.argsort(-score, kind="stable").tolist()
    assert best_first(score, group).tolist() == np.lexsort((-score, group)).tolist()


@pytest.mark.parametrize("largest", [0, 1 << 22])
def test_keys_are_found_with_and_without_a_table_of_all(
    monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    monkeypatch.setattr(matching, "_LARGEST_INDEX", largest)
    keys, true_keys = np.array([5, 0, 9, 5, 7]), np.array([7, 5, 2, 5])
    found = [
        (int(b), int(g)) for bs, gs in pairs(keys, true_keys) for b, g in zip(bs, gs, strict=True)
    ]
    assert found == [(0, 1), (0, 3), (3, 1), (3, 3), (4, 0)]
