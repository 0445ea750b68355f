"""Candidates of a large image's parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from retinue.tasks.detection.candidates import Candidates
from retinue.tasks.detection.decoding import evidence
from retinue.tasks.detection.tiling import joined

SIZE = (300, 100)
WINDOWS = [(0, 0, 300, 100), *((x, 0, x + 100, 100) for x in (0, 80, 160, 200))]


def found(*rows: Sequence[float]) -> Candidates:
    """x1, y1, x2, y2, score, class."""
    array = np.array(rows, np.float64).reshape(-1, 6)
    return Candidates(
        array[:, :4].astype(np.float32), array[:, 4].astype(np.float32),
        array[:, 5].astype(np.int64), SIZE,
    )  # fmt: skip


def left(*views: Candidates) -> list[list[float]]:
    kept = joined(views, WINDOWS[: len(views)])
    return [[*box, of] for box, of in zip(kept.xyxy.tolist(), kept.of.tolist(), strict=True)]


def test_a_part_goes_where_the_whole_is_seen() -> None:
    """One thing from 85 to 115: its left half ends with the first tile."""
    views = [found(), found((85, 10, 100, 40, 0.9, 0)), found((85, 10, 115, 40, 0.6, 0))]
    assert left(*views) == [[85, 10, 115, 40, 0]]


def test_a_part_stays_where_nothing_else_shows_it() -> None:
    unsure = [found((85, 10, 115, 40, 0.2, 0)), found((85, 10, 100, 40, 0.9, 0))]
    other = [found((85, 10, 115, 40, 0.9, 1)), found((85, 10, 100, 40, 0.9, 0))]
    beside = [found((60, 10, 88, 40, 0.9, 0)), found((85, 10, 100, 40, 0.9, 0))]
    for views in (unsure, other, beside):
        assert [85, 10, 100, 40, 0] in left(*views)


def test_where_the_image_ends_nothing_is_cut() -> None:
    views = [found((0, 0, 200, 100, 0.9, 0)), found((0, 0, 50, 99.9, 0.9, 0))]
    assert len(left(*views)) == 2
    views = [found((150, 0, 300, 100, 0.9, 0)), found(), found(), found(),
             found((250, 20, 300, 80, 0.9, 0))]  # fmt: skip
    assert len(left(*views)) == 2


def test_of_thousands_the_same_goes_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    views = []
    for x1, y1, x2, y2 in WINDOWS:
        low = rng.uniform((x1, y1), (x2 - 30, y2 - 30), (300, 2))
        high = np.minimum(low + rng.uniform(5, 60, (300, 2)), (x2, y2))
        rest = np.stack([rng.uniform(0, 1, 300), rng.integers(0, 3, 300)], 1)
        views.append(found(*np.concatenate([low, high, rest], 1)))
    kept = joined(views, WINDOWS)
    every = Candidates.joined(views)
    window = np.repeat(np.array(WINDOWS), 300, axis=0)
    cut = np.zeros(len(every), bool)
    for k, ((a, b, c, d), (x1, y1, x2, y2)) in enumerate(zip(every.xyxy, window, strict=True)):
        near_x, near_y = 0.01 * (x2 - x1), 0.01 * (y2 - y1)
        before = (x1 > 0 and a <= x1 + near_x) or (y1 > 0 and b <= y1 + near_y)
        cut[k] = before or (x2 < 300 and c >= x2 - near_x) or (y2 < 100 and d >= y2 - near_y)
    assert 50 < cut.sum() < 1000
    expected = []
    for k in range(len(every)):
        a, b, c, d = every.xyxy[k]
        gone = False
        for j in np.flatnonzero(~cut) if cut[k] else ():
            e, f, g, h = every.xyxy[j]
            shared = max(min(c, g) - max(a, e), 0) * max(min(d, h) - max(b, f), 0)
            if (every.of[j] == every.of[k] and shared >= 0.6 * (c - a) * (d - b)
                    and every.score[j] >= 0.5 * every.score[k]):  # fmt: skip
                gone = True
                break
        if not gone:
            expected.append(k)
    np.testing.assert_array_equal(kept.xyxy, every.xyxy[expected])


def test_evidence_is_the_best_of_a_cell_over_all_levels() -> None:
    """Two levels, two anchors, two classes; all logits −9 but for what is set."""
    fine, coarse = torch.full((1, 14, 4, 4), -9.0), torch.full((1, 14, 2, 2), -9.0)
    fine[0, 7 + 4, 1, 2], fine[0, 7 + 6, 1, 2] = 9.0, 0.0  # second anchor, second class: ½
    coarse[0, 4, 1, 0], coarse[0, 5, 1, 0] = 9.0, 9.0
    (seen,) = evidence([fine, coarse], [2, 2])
    assert seen.shape == (4, 4)
    expected = np.zeros((4, 4))
    expected[1, 2] = 0.5
    expected[2:, :2] = 1
    np.testing.assert_allclose(seen, expected, atol=1e-3)
