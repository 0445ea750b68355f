"""Zones and lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.errors import UsageError
from retinue.inference.counting import Count, Places, crossing, inside, read_places
from retinue.inference.extras import Shown
from retinue.inference.predictor import held
from retinue.sample import Sample
from retinue.tasks.results import Box, BoxResult, FrameResult

L_SHAPE = np.array([[0, 0], [30, 0], [30, 10], [10, 10], [10, 30], [0, 30]], float)


@pytest.mark.parametrize(
    ("point", "expected"),
    [((5, 5), True), ((25, 5), True), ((5, 25), True), ((20, 20), False), ((-1, 5), False),
     ((31, 5), False), ((5, 31), False), ((10.1, 10.1), False), ((9.9, 10.1), True)],
)  # fmt: skip
def test_a_zone_may_have_a_dent(point: tuple[float, float], expected: bool) -> None:
    assert inside(point, L_SHAPE) is expected
    assert inside(point, L_SHAPE[::-1].copy()) is expected


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=3, max_size=8),
    st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
def test_inside_is_what_winding_by_halves_says(
    corners: list[tuple[int, int]], point: tuple[int, int]
) -> None:
    """Against the angles that the corners turn by around the point; odd turns are inside."""
    array = np.array(corners, float)
    x, y = point[0] + 0.5, point[1] + 0.25
    seen = np.arctan2(array[:, 1] - y, array[:, 0] - x)
    turns = np.roll(seen, -1) - seen
    turned = ((turns + np.pi) % (2 * np.pi) - np.pi).sum() / (2 * np.pi)
    on_a_side = np.isclose(np.abs((turns + np.pi) % (2 * np.pi) - np.pi), np.pi).any()
    if not on_a_side:
        assert inside((x, y), array) is bool(round(turned) % 2)


LINE = np.array([[10, 50], [90, 50]], float)  # from left to right: its right is below


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ((50, 40), (50, 60), "right"), ((50, 60), (50, 40), "left"),
        ((50, 40), (50, 45), None), ((5, 40), (5, 60), None), ((95, 60), (95, 40), None),
        ((0, 40), (20, 60), "right"), ((0, 45), (9, 70), None), ((50, 50), (50, 50), None),
        ((9, 49), (12, 52), "right"), ((50, 50), (50, 60), "right"), ((50, 40), (50, 50), None),
        ((50, 60), (50, 50), "left"), ((50, 50), (50, 40), None),
    ],
)  # fmt: skip
def test_a_line_is_crossed_between_its_ends(
    before: tuple[float, float], now: tuple[float, float], expected: str | None
) -> None:
    assert crossing(before, now, LINE) == expected


def frame(number: int, *boxes: tuple[str, float, float, int | None]) -> FrameResult:
    """Class, centre x and y, track, of squares of 20 pixels."""
    found = [Box(name, 0.9, (x - 10, y - 10, x + 10, y + 10), t) for name, x, y, t in boxes]
    return FrameResult("clip.mp4", BoxResult("clip.mp4", found, tracked=True), number, number / 25)


SHOWN = Shown(Sample("clip.mp4#0", held(np.zeros((100, 200, 3), np.uint8))))


def counted(
    frames: Sequence[FrameResult], places: Places, followed: bool = True
) -> list[dict[str, object]]:
    count = Count(["car", "bus"], places, followed=followed)
    for one in frames:
        count.add(one, SHOWN)
    told = count.totals()
    assert set(told) == {"videos"}
    videos: list[dict[str, object]] = told["videos"]
    return videos


GATE = Places.model_validate(
    {
        "zones": {"top": [[0, 0], [200, 0], [200, 50], [0, 50]]},
        "lines": {"gate": [[10, 50], [90, 50]]},
    }
)


def test_things_are_counted_once_and_unconfirmed_ones_never() -> None:
    frames = [
        frame(0, ("car", 50, 30, None), ("bus", 150, 30, None)),
        frame(1, ("car", 50, 40, 1), ("bus", 150, 40, 2)),
        frame(2, ("car", 50, 60, 1), ("bus", 150, 60, 2), ("car", 60, 60, None)),
        frame(3, ("car", 50, 45, 1), ("bus", 150, 40, 2), ("car", 60, 40, None)),
        frame(4, ("car", 50, 70, 1), ("car", 50, 20, 3)),
    ]
    (video,) = counted(frames, GATE)
    assert video == {
        "path": "clip.mp4",
        "frames": 5,
        "most": {"car": 2, "bus": 1},
        "things": {"car": 2, "bus": 1},
        "zones": {"top": {"car": 2, "bus": 1}},
        "lines": {"gate": {"car": {"right": 2, "left": 1}}},  # the bus went past its end
    }


def test_numbers_begin_anew_with_a_video() -> None:
    count = Count(["car"], GATE, followed=True)
    for _ in range(2):
        for number, y in enumerate((40, 60)):
            count.add(frame(number, ("car", 50, y, 1)), SHOWN)
        count.ended()
    first, second = count.totals()["videos"]
    assert first == second
    assert first["lines"] == {"gate": {"car": {"right": 1, "left": 0}}}


def test_without_tracks_sightings_are_told_by_their_most() -> None:
    zones = GATE.model_copy(update={"lines": {}})
    frames = [frame(n, *[("car", 50, 20, None)] * n) for n in (1, 3, 2)]
    (video,) = counted(frames, zones, followed=False)
    assert video == {
        "path": "clip.mp4", "frames": 3, "most": {"car": 3}, "zones": {"top": {"car": 3}},
    }  # fmt: skip
    with pytest.raises(UsageError, match="needs tracking"):
        Count(["car"], GATE)


def test_a_thing_may_be_where_it_stands() -> None:
    values = {"zones": {"low": [[0, 0.5], [1, 0.5], [1, 1], [0, 1]]}, "relative": True}
    one = [frame(0, ("car", 50, 45, 1))]  # centre at 45, feet at 55, of 100
    (centre,) = counted(one, Places.model_validate(values))
    (bottom,) = counted(one, Places.model_validate({**values, "point": "bottom"}))
    assert (centre["zones"], bottom["zones"]) == ({"low": {}}, {"low": {"car": 1}})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("zones: [1", "neither YAML nor JSON"),
        ("- 1", "neither zones nor lines"),
        ("{}", "neither zones nor lines"),
        ("zones: {a: [[0, 0], [1, 1]]}", "'a' has 2 corners"),
        ("lines: {a: [[1, 1], [1, 1]]}", "'a' has no length"),
        ("zone: {}", "unknown key 'zone', .*did you mean 'zones'"),
        ("lines: {a: [[1, 1]]}", "lines.a"),
        ("zones: {a: [[0, 0], [1, 1], [.nan, 1]]}", "zones.a"),
        ("zones: {a: [[0, 0], [1, 1], [x, 1]]}", "zones.a"),
        ("point: top", "'top' is not allowed, .*key point, point: centre, or bottom"),
        ("relative: [1]", "key relative, relative: true, or false"),
        (
            "zones: {1: [[0, 0], [1, 0], [1, 1]]}",
            "1 is not allowed, .*write names in quotes",
        ),
        ("zones:\n  a: []\n  a: []", "found duplicate key.*'?a'?.* line 3"),
        ("zones:\n\ta: []", "cannot start any token.* line 2"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "zones.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        read_places(path)
    assert str(path) in str(caught.value)


def test_a_file_of_either_kind_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("zones:\n  tür: [[0, 0], [1, 0], [1, 1.5]]\n", "utf-16")
    (tmp_path / "a.json").write_text('{"lines": {"gate": [[0, 0], [1, 0]]}, "point": "bottom"}')
    assert read_places(tmp_path / "a.yaml").zones == {"tür": [(0, 0), (1, 0), (1, 1.5)]}
    assert read_places(tmp_path / "a.json").lines == {"gate": ((0, 0), (1, 0))}
