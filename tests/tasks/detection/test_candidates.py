"""What a detector says of one image, picked and joined."""

from __future__ import annotations

import numpy as np
import pytest

from retinue.tasks.detection.candidates import Candidates


def some(*scores: float, size: tuple[int, int] = (64, 48)) -> Candidates:
    k = len(scores)
    boxes = np.arange(4 * k, dtype=np.float32).reshape(k, 4)
    return Candidates(boxes, np.array(scores, np.float32), np.arange(k, dtype=np.int64), size)


def test_they_are_picked_by_places_and_by_flags() -> None:
    three = some(0.1, 0.2, 0.3)
    for picked in (np.array([2, 0]), np.array([True, False, True])):
        left = three[picked]
        assert (len(left), left.size) == (2, (64, 48))
        order = [2, 0] if picked.dtype == np.int64 else [0, 2]
        assert left.of.tolist() == order
        assert left.xyxy.tolist() == three.xyxy[order].tolist()
        assert left.score.tolist() == three.score[order].tolist()


def test_those_of_several_views_are_joined_in_their_order() -> None:
    joined = Candidates.joined([some(0.5), Candidates.none((64, 48)), some(0.9, 0.8)])
    assert joined.score.tolist() == pytest.approx([0.5, 0.9, 0.8])
    assert joined.xyxy.shape == (3, 4)
    assert (joined.xyxy.dtype, joined.of.dtype) == (np.float32, np.int64)
    assert len(Candidates.joined([Candidates.none((1, 1))])) == 0


def test_those_of_another_image_are_refused() -> None:
    with pytest.raises(ValueError, match="images of 2 sizes"):
        Candidates.joined([some(0.5), some(0.5, size=(48, 64))])
