"""Regions tile the canvas, shares are pixels, and a plain view is what it always was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_view import training_view
from rows import look, sample_of

from retinue.data import geometry
from retinue.data.composers import Composer, Composition
from retinue.data.geometry import Entry, Region
from retinue.data.options import AugmentOptions, MixingOptions
from retinue.data.population import Population
from retinue.data.views import TrainView
from retinue.sample import Preprocessing

SMALL = Preprocessing(size=(64, 64))
PEOPLE = Population.of("aaaabbbbbbbc")
PLAIN = AugmentOptions(horizontal_flip=0)

sides = st.integers(1, 500)
sources = st.tuples(sides, sides)
sizes = st.tuples(st.integers(8, 90), st.integers(8, 90))
fits = st.sampled_from(["crop", "squash", "letterbox"])
keys = st.integers(0, 10_000)


def composed(
    options: AugmentOptions,
    originals: list[tuple[int, int]],
    *,
    key: int = 0,
    size: tuple[int, int] = (64, 64),
    fit: str = "crop",
) -> Composition:
    preprocessing = Preprocessing(size=size, fit=fit)
    return Composer(options, preprocessing, 0, PEOPLE).compose(originals, key=key, epoch=1)


def painted(composition: Composition, size: tuple[int, int]) -> np.ndarray:
    """Which source paints each pixel, −1 none; a pixel painted twice is a failure."""
    box = Region(0, 0, size[1], size[0])
    owner = np.full(size, -1)
    for placement in composition.placements:
        region = placement.region
        if isinstance(region, np.ndarray):
            mask = geometry.inside(region, box)
        else:
            x1, y1, x2, y2 = region or box
            mask = np.zeros(size, bool)
            mask[y1:y2, x1:x2] = True
        assert (owner[mask] == -1).all()
        owner[mask] = placement.source
    return owner


# One image

WILD = AugmentOptions(
    crop_scale=(0.2, 1.0),
    vertical_flip=0.5,
    quarter_turns=True,
    rotation=25,
    shear=10,
    translate=0.1,
    zoom=(0.7, 1.4),
)


@settings(max_examples=60, deadline=None)
@given(source=sources, size=sizes, fit=fits, key=keys, cropped=st.booleans(), wild=st.booleans())
def test_a_plain_view_is_the_training_view_to_the_bit(
    source: tuple[int, int],
    size: tuple[int, int],
    fit: str,
    key: int,
    cropped: bool,
    wild: bool,
) -> None:
    options = WILD if wild else AugmentOptions()
    options = options.model_copy(update={"crop_scale": (0.2, 1.0) if cropped else None})
    preprocessing = Preprocessing(size=size, fit=fit)
    expected = training_view(options, preprocessing, source, key)
    for composer in (
        Composer(options, preprocessing, 5),
        Composer(options, replace(preprocessing, size=(31, 33)), 5),
    ):
        composition = composer.compose([source], key=key, epoch=3, size=size)
        (placement,) = composition.placements
        assert np.array_equal(placement.matrix, expected)
        assert (placement.source, placement.region, placement.share) == (0, None, 1.0)
        assert composer.cast(7, key, 3) == (7,)
        assert not composition.painted
        assert composition.border == ("fill" if fit == "letterbox" and not cropped else "reflect")


def test_a_plain_view_frozen() -> None:
    """A recipe's figures rest on these numbers."""
    composer = Composer(WILD, SMALL, 0)
    matrix = composer.compose([(400, 300)], key=3, epoch=2).placements[0].matrix
    assert np.allclose(matrix, FROZEN, atol=1e-9)


FROZEN = [
    [0.457028640677, 0.124996817948, -68.926188886739],
    [0.078197217421, -0.385320168792, 67.945540788026],
    [0.0, 0.0, 1.0],
]


def test_pixels_are_those_of_the_training_view() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    item = look(TrainView(WILD, SMALL, 0), sample_of(image), key=4, epoch=1, size=SMALL.size)
    composition = Composer(WILD, SMALL, 0).compose([(70, 50)], key=4, epoch=1)
    (placement,) = composition.placements
    result = geometry.render(
        [Entry(image, placement.matrix)], SMALL.size, border=composition.border
    )
    assert np.array_equal(result, item.image)


def test_how_much_of_the_original_is_needed() -> None:
    (placement,) = composed(PLAIN, [(640, 480)]).placements
    # 64 / 0.875 = 73 pixels for the shorter side.
    assert placement.needed((640, 480)) == (73, 98)


# The quarter mask


def test_quarter_mask() -> None:
    options = AugmentOptions(mixing=MixingOptions(quarter_mask=0.5))
    composer = Composer(options, Preprocessing(size=(9, 13), mean=(0.485, 0.456, 0.406)), 0)
    found: dict[Region, int] = {}
    for key in range(800):
        for region, colour in composer.compose([(20, 30)], key=key, epoch=0).painted:
            assert colour == (124, 116, 104)
            found[region] = found.get(region, 0) + 1
    assert set(found) == {
        Region(0, 0, 6, 4),
        Region(6, 0, 13, 4),
        Region(0, 4, 6, 9),
        Region(6, 4, 13, 9),
    }
    assert 340 < sum(found.values()) < 460
    assert min(found.values()) > 65


def test_only_one_image_is_masked() -> None:
    mask = MixingOptions(quarter_mask=1)
    for options in ({"splice": 1}, {"mosaic": 1}, {"copy_paste": 1}):
        assert not composed(AugmentOptions(**options, mixing=mask), [(50, 40)] * 4).painted
    pasted = AugmentOptions(zoom_paste=True, zoom=(0.5, 0.5), mixing=mask)
    assert len(composed(pasted, [(50, 40)] * 2).painted) == 1


# Zoom-paste


@settings(max_examples=60, deadline=None)
@given(source=st.tuples(sources, sources), size=sizes, fit=fits, key=keys)
def test_zoom_paste_fills_what_the_image_leaves(
    source: tuple[tuple[int, int], tuple[int, int]], size: tuple[int, int], fit: str, key: int
) -> None:
    options = AugmentOptions(zoom=(0.3, 1.5), rotation=20, zoom_paste=True)
    preprocessing = Preprocessing(size=size, fit=fit)
    composer = Composer(options, preprocessing, 0, PEOPLE)
    plain = Composer(options.model_copy(update={"zoom_paste": False}), preprocessing, 0)
    before = plain.compose(source[:1], key=key, epoch=1).placements[0].matrix
    composition = composer.compose(source, key=key, epoch=1)
    own = composition.placements[-1]
    assert np.array_equal(own.matrix, before)
    assert (own.source, own.share) == (0, 1)
    corners = np.array([[0, 0], [size[1], 0], [size[1], size[0]], [0, size[0]]], np.float64)
    pose = composer._zoom(composer._pose(key, 1, "pose"))
    assert len(composer.cast(3, key, 1)) == (2 if pose < 1 else 1)
    if len(composition.placements) == 1:
        shown = geometry.clip(outline(own.matrix, source[0]), size)
        assert pose >= 1 or np.isclose(geometry.area(shown), size[0] * size[1])
        return
    behind = composition.placements[0]
    assert (behind.source, behind.share, behind.region) == (1, 0, None)
    # The other one covers the whole canvas, and the image's part is where the image is.
    where = geometry.apply(geometry.inverse(behind.matrix), corners)
    assert (where >= -1e-6).all()
    assert (where <= np.array(source[1]) + 1e-6).all()
    mask = geometry.inside(own.region, Region(0, 0, size[1], size[0]))
    y, x = np.nonzero(np.ones(size, bool))
    inside = geometry.apply(geometry.inverse(own.matrix), np.stack([x, y], 1) + 0.5)
    inside = ((inside >= 0) & (inside <= np.array(source[0]))).all(axis=1).reshape(size)
    assert (mask != inside).sum() <= 2  # centres within rounding of a side


def outline(matrix: np.ndarray, source: tuple[int, int]) -> np.ndarray:
    w, h = source
    return geometry.apply(matrix, np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float64))


# Several images


def kind_of(composition: Composition) -> str:
    """What kind of image it is, by how its sources lie."""
    first, *others = composition.placements
    if len(others) == 1:
        return "copy_paste" if first.region is None else "splice"
    return {0: "plain", 3: "mosaic"}[len(others)]


@settings(max_examples=80, deadline=None)
@given(source=st.tuples(sources, sources), size=sizes, fit=fits, key=keys)
def test_splices_tile_the_canvas(
    source: tuple[tuple[int, int], tuple[int, int]], size: tuple[int, int], fit: str, key: int
) -> None:
    wild = WILD.model_copy(update={"splice": 1.0})
    composition = composed(wild, list(source), key=key, size=size, fit=fit)
    owner = painted(composition, size)
    assert kind_of(composition) == "splice"
    assert set(np.unique(owner)) == {0, 1}
    check_shares(composition, owner)
    for placement in composition.placements:
        # No other augmentation: as evaluation sees it.
        plain = composed(PLAIN, [source[placement.source]], size=size, fit=fit)
        assert np.array_equal(placement.matrix, plain.placements[0].matrix)


def check_shares(composition: Composition, owner: np.ndarray) -> None:
    """To within a row of pixels along a diagonal, and exactly otherwise."""
    assert sum(p.share for p in composition.placements) == pytest.approx(1, abs=1e-12)
    for placement in composition.placements:
        slack = max(owner.shape) if isinstance(placement.region, np.ndarray) else 1e-6
        assert abs((owner == placement.source).sum() - placement.share * owner.size) <= slack


def test_the_four_ways_of_splicing() -> None:
    ways: dict[str, int] = {}
    cuts, first = [], 0
    for key in range(400):
        composition = composed(AugmentOptions(splice=1), [(80, 80)] * 2, key=key)
        owner = painted(composition, (64, 64))
        first += composition.placements[0].source == 0
        if isinstance(composition.placements[0].region, np.ndarray):
            falling = owner[1, 60] != owner[60, 1]
            way = "\\" if falling else "/"
        else:
            way = "beside" if owner[1, 1] != owner[1, 62] else "below"
            cuts.append(int((owner == owner[1, 1]).any(axis=0 if way == "beside" else 1).sum()))
        ways[way] = ways.get(way, 0) + 1
    assert set(ways) == {"\\", "/", "beside", "below"}
    assert min(ways.values()) > 70
    assert 160 < first < 240
    assert min(cuts) in (16, 17)
    assert max(cuts) in (47, 48)


@settings(max_examples=80, deadline=None)
@given(
    source=st.lists(sources, min_size=4, max_size=4),
    size=sizes,
    fit=fits,
    key=keys,
    turns=st.booleans(),
    slanted=st.booleans(),
)
def test_mosaics_tile_the_canvas(
    source: list[tuple[int, int]],
    size: tuple[int, int],
    fit: str,
    key: int,
    turns: bool,
    slanted: bool,
) -> None:
    options = AugmentOptions(mosaic=1, quarter_turns=turns, rotation=30 if slanted else 0)
    composition = composed(options, source, key=key, size=size, fit=fit)
    owner = painted(composition, size)
    assert kind_of(composition) == "mosaic"
    assert sorted(p.source for p in composition.placements) == [0, 1, 2, 3]
    assert (owner >= 0).all()
    check_shares(composition, owner)
    x, y = composition.placements[0].region[2:]
    assert size[1] * 0.25 - 0.5 <= x <= size[1] * 0.75 + 0.5
    assert size[0] * 0.25 - 0.5 <= y <= size[0] * 0.75 + 0.5
    for placement in composition.placements:
        region, original = placement.region, source[placement.source]
        room = np.array([region.x2 - region.x1, region.y2 - region.y1])
        middle = np.array([[region.x1 + region.x2, region.y1 + region.y2]]) / 2
        w, h = original
        # In its own proportions: neither squeezed nor sheared.
        linear = placement.matrix[:2, :2]
        scale = np.sqrt(abs(np.linalg.det(linear)))
        assert np.allclose(linear @ linear.T, scale**2 * np.eye(2))
        if slanted:
            continue
        low, high = np.split(
            geometry.boxes_through(placement.matrix, np.array([[0, 0, w, h]]))[0], 2
        )
        # It covers one axis wholly; along the other it touches the centre or covers it, too.
        tolerance = 1e-3 * max(1, *(high - low))
        spans = high - low
        assert (spans >= room - tolerance).any()
        assert np.prod(np.minimum(spans, room)) > 0
        if not turns:
            fit_scale, cover = sorted(room / original)
            assert fit_scale * 0.999 <= scale <= cover * 1.001
        start, end = np.array(region[:2]), np.array(region[2:])
        for axis, centre in enumerate((x, y)):
            if spans[axis] > room[axis]:
                assert low[axis] <= start[axis] + tolerance
                assert high[axis] >= end[axis] - tolerance
            elif middle[0, axis] < centre:
                assert abs(high[axis] - centre) <= tolerance
            else:
                assert abs(low[axis] - centre) <= tolerance


def test_a_mosaic_zooms_and_shows_its_own_image_anywhere() -> None:
    corners, scales = set(), []
    for key in range(60):
        options = AugmentOptions(mosaic=1, zoom=(0.5, 2))
        composition = composed(options, [(100, 100)] * 4, key=key)
        own = next(p for p in composition.placements if p.source == 0)
        corners.add((own.region.x1 > 0, own.region.y1 > 0))
        room = min(own.region.x2 - own.region.x1, own.region.y2 - own.region.y1)
        scales.append(abs(own.matrix[0, 0]) * 100 / room)
    assert len(corners) == 4
    assert min(scales) < 0.8
    assert max(scales) > 1.5


@settings(max_examples=80, deadline=None)
@given(source=st.tuples(sources, sources), size=sizes, fit=fits, key=keys)
def test_copy_paste(
    source: tuple[tuple[int, int], tuple[int, int]], size: tuple[int, int], fit: str, key: int
) -> None:
    options = WILD.model_copy(update={"copy_paste": 1.0})
    composition = composed(options, list(source), key=key, size=size, fit=fit)
    own, pasted = composition.placements
    assert np.array_equal(
        own.matrix, composed(WILD, [source[0]], key=key, size=size, fit=fit).placements[0].matrix
    )
    assert (own.source, own.region, pasted.source) == (0, None, 1)
    x1, y1, x2, y2 = pasted.region
    assert 0 <= x1 < x2 <= size[1]
    assert 0 <= y1 < y2 <= size[0]
    area = (x2 - x1) * (y2 - y1) / (size[0] * size[1])
    assert pasted.share == area
    assert own.share == 1 - area
    # Neither scaled nor turned against how it is seen itself, and all of it image.
    seen = composed(PLAIN, [source[1]], size=size, fit=fit).placements[0].matrix
    assert np.array_equal(pasted.matrix[:2, :2], seen[:2, :2])
    back = geometry.boxes_through(geometry.inverse(pasted.matrix), np.array([pasted.region]))
    slack = 1e-3 + 0.5 / min(seen[0, 0], seen[1, 1])  # a letterbox ends within half a pixel
    assert (back[0, :2] >= -slack).all()
    assert (back[0, 2:] <= np.array(source[1]) + slack).all()


def test_how_large_pasted_rectangles_are() -> None:
    shares = [
        composed(AugmentOptions(copy_paste=1), [(80, 60)] * 2, key=key).placements[1].share
        for key in range(200)
    ]
    assert 1 / 16 - 0.01 < min(shares) < 0.08
    assert 0.23 < max(shares) < 1 / 4 + 0.01


# Who takes part


def test_the_cast_of_a_splice_is_of_one_class() -> None:
    composer = Composer(AugmentOptions(splice=1), SMALL, 0, PEOPLE)
    partners: dict[int, set[int]] = {p: set() for p in range(12)}
    for position in range(12):
        for key in range(100):
            own, *others = composer.cast(position, key, 0)
            assert own == position
            partners[position] |= set(others)
    for position in range(4):
        assert partners[position] == set(range(4)) - {position}
    for position in range(4, 11):
        assert partners[position] == set(range(4, 11)) - {position}
    assert partners[11] == set()  # alone in its class


@pytest.mark.parametrize(
    ("options", "others"),
    [
        ({"mosaic": 1}, 3),
        ({"copy_paste": 1}, 1),
        ({"zoom_paste": True, "zoom": (0.5, 0.9)}, 1),
    ],
)
def test_others_are_drawn_from_everywhere(options: dict[str, object], others: int) -> None:
    composer = Composer(AugmentOptions(**options), SMALL, 0, PEOPLE)
    counts = np.zeros(12)
    for key in range(600):
        own, *drawn = composer.cast(5, key, 0)
        assert own == 5
        assert len(drawn) == others
        np.add.at(counts, drawn, 1)
    assert counts[5] == 0
    expected = 600 * others / 11
    assert ((counts[counts > 0] - expected) ** 2 / expected).sum() < 30  # chi², 10 degrees
    assert composer.cast(5, 1, 0) == composer.cast(5, 1, 0)
    assert any(composer.cast(5, key, 0) != composer.cast(5, key, 1) for key in range(9))


def test_a_sample_without_others_is_shown_alone() -> None:
    alone = Population.of("a")
    for options in (
        AugmentOptions(splice=1),
        AugmentOptions(copy_paste=1),
        AugmentOptions(zoom_paste=True, zoom=(0.5, 0.5)),
    ):
        composer = Composer(options, SMALL, 0, alone)
        assert composer.cast(0, 0, 0) == (0,)
        (placement,) = composer.compose([(50, 40)], key=0, epoch=0).placements
        assert (placement.region, placement.share) == (None, 1)
    mosaic = Composer(AugmentOptions(mosaic=1), SMALL, 0, alone)
    assert mosaic.cast(0, 0, 0) == (0, 0, 0, 0)


def test_kinds_come_as_often_as_asked() -> None:
    options = AugmentOptions(splice=0.5, mosaic=0.2, copy_paste=0.1)
    composer = Composer(options, SMALL, 0, PEOPLE)
    kinds: dict[str, int] = {}
    cast = {"plain": 1, "splice": 2, "mosaic": 4, "copy_paste": 2}
    for key in range(1000):
        members = composer.cast(1, key, 0)
        kind = kind_of(composer.compose([(30, 30)] * len(members), key=key, epoch=0))
        assert len(members) == cast[kind]
        kinds[kind] = kinds.get(kind, 0) + 1
    for kind, share in (("splice", 0.5), ("mosaic", 0.2), ("copy_paste", 0.1), ("plain", 0.2)):
        assert abs(kinds[kind] / 1000 - share) < 0.05


def test_several_images_need_a_population() -> None:
    with pytest.raises(ValueError, match="population"):
        Composer(AugmentOptions(mosaic=0.1), SMALL, 0)


@pytest.mark.parametrize("fit", ["crop", "letterbox"])
def test_a_letterbox_stays_grey(fit: str) -> None:
    border = "fill" if fit == "letterbox" else "reflect"
    for options in ({"splice": 1}, {"mosaic": 1}, {"copy_paste": 1}):
        assert composed(AugmentOptions(**options), [(50, 40)] * 4, fit=fit).border == border
