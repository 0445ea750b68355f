"""Numbers for things through a video."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.tasks.detection import tracking
from retinue.tasks.detection.candidates import Candidates
from retinue.tasks.detection.tracking import ByteTrack, Following, assigned
from retinue.tasks.results import BoxResult

SIZE = (640, 480)


def found(*rows: Sequence[float]) -> Candidates:
    """x, y of the centre of a square of 40 pixels, score, class."""
    array = np.array(rows, np.float64).reshape(-1, 4)
    half = 20
    xyxy = np.concatenate([array[:, :2] - half, array[:, :2] + half], axis=1)
    return Candidates(
        xyxy.astype(np.float32), array[:, 2].astype(np.float32), array[:, 3].astype(np.int64), SIZE
    )


def through(frames: Sequence[Candidates], **more: Any) -> list[list[int]]:
    tracks = ByteTrack(**more)
    return [tracks.update(frame, np.full(len(frame), 0.5, np.float32)).tolist() for frame in frames]


def test_a_thing_has_a_number_from_its_second_frame_on() -> None:
    assert through([found((100 + 5 * n, 80, 0.9, 0)) for n in range(4)]) == [[0], [1], [1], [1]]


def test_what_is_there_in_one_frame_alone_is_nothing() -> None:
    frames = [
        found((100, 80, 0.9, 0), (400, 300, 0.95, 0) if n == 2 else (100, 80, 0.05, 0))
        for n in range(5)
    ]
    assert [numbers[0] for numbers in through(frames)] == [0, 1, 1, 1, 1]
    assert [numbers[1] for numbers in through(frames)] == [0] * 5
    again = [*frames, found((100, 80, 0.9, 0), (250, 250, 0.9, 0)),
             found((100, 80, 0.9, 0), (250, 250, 0.9, 0))]  # fmt: skip
    assert through(again)[-1] == [1, 2], "no number is lost to it"


def test_two_that_pass_each_other_keep_their_numbers() -> None:
    """On one line they would be mistaken; at constant speed the filter knows better."""
    frames = [found((100 + 12 * n, 200, 0.9, 0), (500 - 12 * n, 215, 0.9, 0)) for n in range(34)]
    numbers = through(frames)
    assert numbers[1] == [1, 2]
    assert all(pair == [1, 2] for pair in numbers[1:])


def test_what_is_hidden_for_a_while_keeps_its_number() -> None:
    frames = [found((100 + 4 * n, 80, 0.9, 0)) if not 10 <= n < 20 else found() for n in range(30)]
    numbers = through(frames)
    assert numbers[25] == [1]
    assert through(frames, patience=5)[25] == [2]


def test_what_is_half_hidden_is_known_by_unsure_detections() -> None:
    scores = [0.9] * 5 + [0.2] * 10 + [0.9] * 3
    frames = [found((100 + 4 * n, 80, score, 0)) for n, score in enumerate(scores)]
    assert through(frames) == [[0], *([[1]] * 17)]
    alone = through([found((100, 80, 0.3, 0))] * 5)
    assert alone == [[0]] * 5, "unsure ones begin nothing"
    assert through([found((100, 80, 0.05, 0) if n > 2 else (100, 80, 0.9, 0)) for n in range(5)])[
        3:
    ] == [[0], [0]], "what scores next to nothing is nothing"


def test_classes_are_kept_apart() -> None:
    frames = [found((100, 80, 0.9, n % 2)) for n in range(6)]
    assert through(frames) == [[0]] * 6
    both = [found((100, 80, 0.9, 0), (100, 80, 0.8, 1))] * 3
    assert through(both) == [[0, 0], [1, 2], [1, 2]]


def test_a_model_that_is_right_from_a_low_score_on_is_followed_as_well() -> None:
    least = np.array([0.5, 0.2, 0.2, 0.2, 0.9, 0.0], np.float32)
    score = np.array([0.3, 0.1, 0.2, 0.6, 0.95, 0.4], np.float32)
    np.testing.assert_allclose(
        tracking.even(score, least), [0.3, 0.25, 0.5, 0.75, 0.75, 0.7], rtol=1e-5
    )
    frames = [found((100 + 4 * n, 80, 0.1 if n in (3, 4) else 0.4, 0)) for n in range(8)]
    tracks = ByteTrack()
    numbers = [tracks.update(frame, np.array([0.2], np.float32)).tolist() for frame in frames]
    assert numbers == [[0], *([[1]] * 7)]


def test_nothing_at_all() -> None:
    assert through([found(), found((9, 9, 0.9, 0)), found()]) == [[], [0], []]


def test_numbers_begin_anew_with_each_video_and_are_the_same() -> None:
    rng = np.random.default_rng(0)
    frames = [
        found(*[(x + 6 * n, y, s, 0) for x, y, s in zip(
            (50, 200, 350), (60, 200, 400), rng.uniform(0.3, 1, 3), strict=True)])
        for n in range(20)
    ]  # fmt: skip
    assert through(frames) == through(frames)
    assert max(map(max, through(frames))) == 3


COSTS = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, np.inf]
costs = st.integers(1, 4).flatmap(
    lambda n: st.integers(1, 4).flatmap(
        lambda m: st.lists(
            st.lists(st.sampled_from(COSTS), min_size=m, max_size=m),
            min_size=n, max_size=n,
        )
    )
)  # fmt: skip


@given(costs, st.sampled_from([0.3, 0.6, 0.8]))
def test_assignment_is_the_best_there_is(rows: list[list[float]], most: float) -> None:
    """Against all matchings: the sum of costs where each that stays alone with another costs
    `most`."""
    cost = np.array(rows)
    got = list(zip(*(part.tolist() for part in assigned(cost, most)), strict=True))
    assert len({row for row, _ in got}) == len({column for _, column in got}) == len(got)
    assert all(cost[pair] <= most for pair in got)
    tall = cost if cost.shape[0] <= cost.shape[1] else cost.T
    n, m = tall.shape
    best = min(
        sum(min(tall[row, column], most) for row, column in enumerate(columns))
        for columns in permutations(range(m), n)
    )
    assert sum(cost[pair] for pair in got) + most * (n - len(got)) == pytest.approx(best)


def test_the_filter_by_the_book() -> None:
    """Kalman's equations written out, with an inverse."""
    rng = np.random.default_rng(1)
    mean, covariance = tracking.begun(np.array([100.0, 50.0, 0.5, 80.0]))
    assert np.sqrt(np.diag(covariance)).tolist() == pytest.approx([8, 8, 1e-2, 8, 5, 5, 1e-5, 5])
    f, h = np.eye(8), np.eye(4, 8)
    f[:4, 4:] = np.eye(4)
    for _ in range(5):
        high = mean[3]
        q = np.diag(np.square([high / 20, high / 20, 1e-2, high / 20,
                               high / 160, high / 160, 1e-5, high / 160]))  # fmt: skip
        expected, spread = f @ mean, f @ covariance @ f.T + q
        got, wide = tracking.foreseen(mean[None], covariance[None])
        np.testing.assert_allclose(got[0], expected)
        np.testing.assert_allclose(wide[0], spread)
        high = expected[3]
        r = np.diag(np.square([high / 20, high / 20, 1e-1, high / 20]))
        z = expected[:4] + rng.normal(0, 2, 4) * [1, 1, 0.01, 1]
        k = spread @ h.T @ np.linalg.inv(h @ spread @ h.T + r)
        mean, covariance = tracking.corrected(got[0], wide[0], z)
        np.testing.assert_allclose(mean, expected + k @ (z - h @ expected))
        np.testing.assert_allclose(covariance, (np.eye(8) - k @ h) @ spread, atol=1e-9)


def test_of_two_tracks_of_one_thing_the_older_stays() -> None:
    # 1 is lost where 2 begins a little later and comes to lie where 1 is thought to be
    frames = [found((100, 80, 0.9, 0))] * 6 + [found()] * 2 + [found((100, 80, 0.9, 0))] * 3
    assert through(frames)[-1] == [1]


def test_results_have_numbers_and_what_is_unsure_only_if_it_is_known() -> None:
    following = Following(("a", "b"), [0.5, 0.8], lambda finding, least: finding)
    frames = [found((100, 80, 0.9, 0), (300, 80, 0.7, 1))] * 3 + [
        found((100, 80, 0.3, 0), (300, 80, 0.9, 1))
    ]
    results = [following.result(frame, "clip.mp4") for frame in frames]
    seen = []
    for result in results:
        assert isinstance(result, BoxResult)
        assert result.tracked
        assert result.size == SIZE
        seen.append([(box.name, round(box.score, 1), box.track) for box in result.boxes])
    assert seen == [
        [("a", 0.9, None)], [("a", 0.9, 1)], [("a", 0.9, 1)], [("a", 0.3, 1), ("b", 0.9, None)],
    ]  # fmt: skip


def test_a_crowd_is_followed_in_time() -> None:
    """Of 100 things that walk about, next to none changes its number."""
    rng = np.random.default_rng(2)
    at = np.stack(np.meshgrid(np.arange(10) * 60 + 40, np.arange(10) * 45 + 30), -1).reshape(-1, 2)
    speed = rng.normal(0, 1, at.shape)
    frames = []
    for n in range(30):
        where = at + speed * n
        order = rng.permutation(100)
        frames.append((order, found(*[(x, y, 0.9, 0) for x, y in where[order]])))
    tracks = ByteTrack()
    numbers = np.zeros((30, 100), int)
    for n, (order, frame) in enumerate(frames):
        numbers[n, order] = tracks.update(frame, np.full(100, 0.5, np.float32))
    changed = (numbers[1:-1] != numbers[2:]).sum()
    assert changed <= 6
