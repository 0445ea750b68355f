"""Each source of a row is painted in its region, and its target is told as it shows there; what
`see` tells without reading is what `render` tells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import look, same, sample_of

from retinue.data import geometry
from retinue.data.options import AugmentOptions, MixingOptions
from retinue.data.population import Population
from retinue.data.targets.boxes import Boxes
from retinue.data.targets.one_class import OneClass
from retinue.data.targets.several_labels import SeveralLabels
from retinue.data.views import EvalView, TrainView
from retinue.sample import Preprocessing, Sample, Target

SMALL = Preprocessing(size=(64, 64))
PEOPLE = Population.of("aaaaaa")
BLACK = replace(SMALL, fit="letterbox", pad_value=0)


def marked(k: int, shape: tuple[int, int], box: tuple[int, int, int, int]) -> Sample:
    """Image `k` is red to its own degree; the box, of class `k`, is green as well."""
    image = np.zeros((*shape, 3), np.uint8)
    image[..., 0] = 50 * (k + 1)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2, 1] = 255
    return sample_of(image, f"{k}", Boxes.made([box], [k]))


SMALL_BOX = (140, 90, 160, 110)
SOURCES = [
    marked(0, (200, 300), (100, 60, 190, 150)),
    marked(1, (240, 180), (30, 30, 120, 200)),
    marked(2, (160, 160), (50, 70, 130, 110)),
    marked(3, (100, 320), (110, 20, 210, 80)),
]


def check_where_everything_is(
    view: TrainView, row: list[Sample], key: int, own: set[int], within: float = 1.01
) -> int:
    """Every source paints its region alone, and its box is where its green pixels are, `within` so
    many pixels. `own`: the sources that the target speaks of. Counts the boxes that were looked
    at."""
    looked = look(view, *row, key=key, size=(96, 128))
    composition = view.composer.compose(looked.sizes, key=key, epoch=0, size=(96, 128))
    red, green = looked.image[..., 0].astype(int), looked.image[..., 1] > 127
    assert isinstance(looked.target, Boxes)
    assert set(looked.target.of) <= own
    boxes = dict(zip(looked.target.of, looked.target.xyxy, strict=True))
    whole, top = geometry.Region(0, 0, 128, 96), np.full((96, 128), -1)
    for placement in composition.placements:
        region = placement.region
        if isinstance(region, np.ndarray):
            top[geometry.inside(region, whole)] = placement.source
        else:
            x1, y1, x2, y2 = region or whole
            top[y1:y2, x1:x2] = placement.source
    for placement in composition.placements:
        k = placement.source
        mine = top == k
        # Its own red, or black where it does not reach, or a mean of both at its edge.
        assert (red[mine] <= 50 * (k + 1) + 1).all()
        assert k not in own or np.isin(red[mine], (0, 50 * (k + 1))).mean() > 0.8
        shown, bright = (mine & green).sum(), np.argwhere(mine & green)
        size = geometry.area(geometry.apply(placement.matrix, outline(SOURCES[k])))
        if k in boxes:
            (y1, x1), (y2, x2) = bright.min(0), bright.max(0) + 1
            assert np.abs(boxes[k] - (x1, y1, x2, y2)).max() <= within
        elif k in own:
            assert shown < 0.2 * size + 20
    back = next(p for p in composition.placements if p.source == 0).matrix
    assert np.allclose(looked.to_original @ back, np.eye(3))
    assert looked.original_size == looked.sizes[0]
    return len(boxes)


def outline(sample: Sample) -> np.ndarray:
    assert isinstance(sample.target, Boxes)
    x1, y1, x2, y2 = sample.target.xyxy[0]
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64)


def test_a_mosaic_shows_each_source_with_its_boxes_in_its_quarter() -> None:
    options = AugmentOptions(mosaic=1, quarter_turns=True, vertical_flip=0.5, zoom=(0.7, 1.3))
    view = TrainView(options, BLACK, 0, PEOPLE)
    found = [check_where_everything_is(view, SOURCES, key, {0, 1, 2, 3}) for key in range(30)]
    assert sum(found) > 60


def test_a_splice_shows_each_source_with_its_boxes_on_its_side() -> None:
    view, straight, slanted = TrainView(AugmentOptions(splice=1), BLACK, 0, PEOPLE), 0, 0
    for key in range(30):
        composition = view.composer.compose([(300, 200), (180, 240)], key=key, epoch=0)
        if not isinstance(composition.placements[0].region, np.ndarray):
            straight += check_where_everything_is(view, SOURCES[:2], key, {0, 1})
        else:  # where the diagonal cuts a box to a point, no pixel's centre lies at its tip
            slanted += check_where_everything_is(view, SOURCES[:2], key, {0, 1}, 2.5)
    assert straight > 10
    assert slanted > 10


def test_what_shows_behind_an_image_brings_its_boxes() -> None:
    """By hand: an image of 64 × 64 shrunk to half its size, so to 16–48 of the canvas, lies on
    another one. A box of that one is hidden, one shows in part, one as a whole."""
    options = AugmentOptions(zoom_paste=True, zoom=(0.5, 0.5))
    view = TrainView(options, replace(SMALL, crop_fraction=1.0), 0, PEOPLE)
    front = sample_of(np.zeros((64, 64, 3), np.uint8), "front", Boxes.made([[8, 8, 24, 40]], [0]))
    behind = Boxes.made([[20, 20, 40, 44], [0, 20, 26, 30], [50, 2, 62, 60]], [1, 2, 3])
    back = sample_of(np.zeros((64, 64, 3), np.uint8), "back", behind)
    seen = look(view, front, back, size=(64, 64)).target
    assert isinstance(seen, Boxes)
    found = dict(zip(seen.of, seen.xyxy.tolist(), strict=True))
    assert found == {0: [20, 20, 28, 36], 2: [0, 20, 26, 30], 3: [50, 2, 62, 60]}
    # What is no place stays the image's own, as published.
    labels = [replace(s, target=OneClass(k, 2)) for k, s in enumerate((front, back))]
    assert look(view, *labels, size=(64, 64)).target == OneClass(0, 2)


def test_scenery_has_its_boxes_where_it_shows() -> None:
    options = AugmentOptions(zoom_paste=True, zoom=(0.4, 0.8), rotation=20.0)
    view = TrainView(options, BLACK, 0, PEOPLE)
    upright = TrainView(options.model_copy(update={"rotation": 0.0}), BLACK, 0, PEOPLE)
    found = 0
    for key in range(20):
        looked = look(view, *SOURCES[:2], key=key, size=(96, 128))
        assert isinstance(looked.target, Boxes)
        assert set(looked.target.of) <= {0, 1}
        # The other image shows around the first one.
        assert (looked.image[..., 0] == 100).mean() > 0.1
        alone = [SOURCES[0], replace(SOURCES[1], target=None)]
        found += check_where_everything_is(upright, alone, key, {0})
        # Nothing is known of the image itself: what lies behind it says nothing either.
        unknown = replace(SOURCES[0], target=None)
        assert look(view, unknown, SOURCES[1], key=key, size=(96, 128)).target is None
    assert found > 10


def test_a_pasted_rectangle_brings_its_boxes() -> None:
    view, found, hidden = TrainView(AugmentOptions(copy_paste=1), BLACK, 0, PEOPLE), 0, 0
    row = [replace(SOURCES[0], target=Boxes.made([SMALL_BOX], [0])), SOURCES[1]]
    for key in range(60):
        looked = look(view, *row, key=key, size=(96, 128))
        assert isinstance(looked.target, Boxes)
        composition = view.composer.compose(looked.sizes, key=key, epoch=0, size=(96, 128))
        own, pasted = composition.placements
        x1, y1, x2, y2 = pasted.region
        part = looked.image[y1:y2, x1:x2]
        assert (part[..., 0] <= 101).all()
        for box in looked.target.xyxy[[of == 1 for of in looked.target.of]]:
            (top, left), (bottom, right) = (
                np.argwhere(part[..., 1] > 127).min(0),
                np.argwhere(part[..., 1] > 127).max(0) + 1,
            )
            assert np.abs(box - (left + x1, top + y1, right + x1, bottom + y1)).max() <= 1.01
            found += 1
        # A box of the image itself is told as far as the rectangle leaves enough of it in sight.
        a, b, c, d = geometry.boxes_through(own.matrix, np.array([SMALL_BOX]))[0]
        shared = max(min(c, x2) - max(a, x1), 0) * max(min(d, y2) - max(b, y1), 0)
        assert (0 in looked.target.of) == (shared < 0.9 * (c - a) * (d - b))
        hidden += 0 not in looked.target.of
    assert found > 10
    assert hidden > 3


def test_a_blend_shows_both_and_their_boxes() -> None:
    """By hand: 200 over 100 is 150; beside it, and beyond it, each alone, then grey."""
    options = AugmentOptions(blend=1, horizontal_flip=0)
    view = TrainView(options, replace(SMALL, fit="letterbox", pad_value=7), 0, PEOPLE)
    wide = sample_of(np.full((32, 64, 3), 100, np.uint8), "wide", Boxes.made([[8, 4, 24, 20]], [0]))
    tall = sample_of(np.full((64, 32, 3), 200, np.uint8), "tall", Boxes.made([[0, 0, 32, 9]], [1]))
    looked = look(view, wide, tall, size=(64, 64))
    expected = np.full((64, 64), 7.0)
    expected[16:48] = 100
    expected[:, 16:48] = (expected[:, 16:48] + 200) / 2
    assert np.abs(looked.image - expected[..., None]).max() <= 0.5
    assert looked.target == Boxes.made([[8, 20, 24, 36], [16, 0, 48, 9]], [0, 1])
    # A class is told by halves; of what nothing is known, nothing is.
    labels = [replace(s, target=OneClass(k, 2)) for k, s in enumerate((wide, tall))]
    both = look(view, *labels, size=(64, 64)).target
    assert isinstance(both, OneClass)
    assert both.shares == (0.5, 0.5)
    assert look(view, wide, replace(tall, target=None), size=(64, 64)).target == Boxes.made(
        [[8, 20, 24, 36]], [0]
    )


def test_both_images_of_a_blend_are_varied() -> None:
    options = AugmentOptions(blend=1, jitter=0.3, fit_scale=(0.25, 2.0))
    composer = TrainView(options, BLACK, 0, PEOPLE).composer
    pairs = [composer.compose([(300, 200)] * 2, key=key, epoch=0).placements for key in range(40)]
    assert len({p.matrix.tobytes() for pair in pairs for p in pair}) == 80
    flipped = [[p.matrix[0, 0] < 0 for p in pair] for pair in pairs]
    assert {tuple(pair) for pair in flipped} == {(a, b) for a in (0, 1) for b in (0, 1)}


@pytest.mark.parametrize("kind", ["splice", "mosaic", "copy_paste"])
def test_classes_of_a_row_have_the_shares_of_its_pixels(kind: str) -> None:
    view = TrainView(AugmentOptions(**{kind: 1.0}), SMALL, 0, PEOPLE)
    row = [
        sample_of(np.full((70 + k, 90, 3), 50 * (k + 1), np.uint8), f"{k}", OneClass(k, 4))
        for k in range(4 if kind == "mosaic" else 2)
    ]
    for key in range(20):
        looked = look(view, *row, key=key, size=(64, 64))
        assert isinstance(looked.target, OneClass)
        pixels = [(looked.image[..., 0] == 50 * (k + 1)).mean() for k in range(4)]
        # A diagonal runs through whole pixels.
        assert np.allclose(looked.target.shares, pixels, atol=0.01)


def test_where_not_all_is_known_nothing_is_told() -> None:
    """What an image without a label shows may be anything; one that is only seen through what is
    left open (`zoom_paste`) has no share in it."""
    image = np.zeros((40, 40, 3), np.uint8)
    view = TrainView(AugmentOptions(mosaic=1), SMALL, 0, PEOPLE)
    unknown = [sample_of(image)] * 4
    assert look(view, *unknown, size=(64, 64)).target is None
    rose = sample_of(image, target=OneClass(1, 3))
    assert look(view, *unknown[:3], rose, size=(64, 64)).target is None
    assert look(view, *[rose] * 4, size=(64, 64)).target == OneClass(1, 3)
    pasted = TrainView(AugmentOptions(zoom=(0.5, 0.6), zoom_paste=True), SMALL, 0, PEOPLE)
    assert look(pasted, rose, unknown[0], size=(64, 64)).target == OneClass(1, 3)


KINDS = ("splice", "mosaic", "copy_paste", "blend")
chances = st.sampled_from([0.0, 0.3, 1.0])


@st.composite
def augmentations(draw: st.DrawFn) -> AugmentOptions:
    alone = [{}, *({kind: 1.0} for kind in KINDS)]
    several = draw(st.sampled_from([*alone, dict.fromkeys(KINDS, 0.25)]))
    fits = draw(st.booleans())
    zoom = draw(st.sampled_from([None, (0.3, 0.9), (0.5, 2.0)]))
    return AugmentOptions(
        **several,
        crop_scale=None if fits else draw(st.sampled_from([None, (0.2, 1.0)])),
        jitter=0.3 if fits else 0.0,
        fit_scale=draw(st.sampled_from([None, (0.25, 2.0)])) if fits else None,
        horizontal_flip=draw(chances),
        vertical_flip=draw(chances),
        quarter_turns=draw(st.booleans()),
        rotation=draw(st.sampled_from([0.0, 30.0])),
        shear=draw(st.sampled_from([0.0, 10.0])),
        translate=draw(st.sampled_from([0.0, 0.3])),
        zoom=zoom,
        zoom_paste=zoom is not None and draw(st.booleans()),
        mixing=MixingOptions(quarter_mask=draw(chances)),
        border=draw(st.sampled_from(["reflect", "fill"])),
    )


sides = st.integers(1, 40)


@settings(max_examples=150, deadline=None)
@given(
    options=augmentations(),
    fit=st.sampled_from(["crop", "squash", "letterbox"]),
    size=st.tuples(st.integers(4, 40), st.integers(4, 40)),
    shapes=st.lists(st.tuples(sides, sides), min_size=6, max_size=6),
    kind=st.sampled_from(["boxes", "class", "labels", "none"]),
    trains=st.booleans(),
    key=st.integers(0, 1000),
    seed=st.integers(0, 1000),
)
def test_what_is_seen_without_looking_is_what_rendering_tells(
    options: AugmentOptions,
    fit: str,
    size: tuple[int, int],
    shapes: list[tuple[int, int]],
    kind: str,
    trains: bool,
    key: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)

    def target() -> Target | None:
        if kind == "none" or rng.random() < 0.2:
            return None
        if kind == "class":
            return OneClass(int(rng.integers(4)), 4)
        if kind == "labels":
            return SeveralLabels(tuple(np.flatnonzero(rng.random(4) < 0.5).tolist()), 4)
        corners = np.sort(rng.uniform(0, 40, (3, 2, 2)), axis=1).reshape(3, 4)
        return Boxes.made(corners, rng.integers(4, size=3).tolist())

    data = [
        sample_of(rng.integers(0, 256, (*shape, 3), dtype=np.uint8), f"{k}", target())
        for k, shape in enumerate(shapes)
    ]
    preprocessing = Preprocessing(size=(33, 17), fit=fit)
    train = TrainView(options, preprocessing, 1, PEOPLE)
    view: TrainView | EvalView = train if trains else EvalView(preprocessing)
    cast = view.cast(key % 6, key=key, epoch=2)
    assert cast[0] == key % 6
    row = [data[position] for position in cast]
    looked = look(view, *row, key=key, epoch=2, size=size)
    assert looked.sizes == [shapes[p][::-1] for p in cast]
    unread = [Sample(s.key, pytest.fail, s.target) for s in row]
    seen = view.see(unread, looked.sizes, key=key, epoch=2, size=size)
    assert same(seen, looked.seen)
    assert looked.original_size == shapes[cast[0]][::-1]


@settings(max_examples=150, deadline=None)
@given(
    options=augmentations(),
    fit=st.sampled_from(["crop", "squash", "letterbox"]),
    size=st.tuples(st.integers(48, 96), st.integers(48, 96)),
    shapes=st.lists(st.tuples(st.integers(40, 120), st.integers(40, 120)), min_size=4, max_size=4),
    places=st.lists(st.tuples(*[st.floats(0, 0.5)] * 2, *[st.floats(0.3, 0.5)] * 2), min_size=4,
                    max_size=4),
    key=st.integers(0, 1000),
)  # fmt: skip
def test_a_box_is_told_where_its_pixels_are(
    options: AugmentOptions,
    fit: str,
    size: tuple[int, int],
    shapes: list[tuple[int, int]],
    places: list[tuple[float, float, float, float]],
    key: int,
) -> None:
    """Image k has a bright rectangle in channel k, of class k; whatever is drawn."""
    row = []
    for k, ((height, width), (x, y, wide, high)) in enumerate(zip(shapes, places, strict=True)):
        box = [round(x * width), round(y * height)]
        box += [box[0] + round(wide * width), box[1] + round(high * height)]
        image = np.zeros((height, width, 3), np.uint8)
        if k < 3:
            image[box[1] : box[3], box[0] : box[2], k] = 255
        row.append(sample_of(image, f"{k}", Boxes.made([box], [k])))
    options = options.model_copy(update={"mixing": MixingOptions()})
    how = Preprocessing(size=size, fit=fit, pad_value=0)
    view = TrainView(options, how, 1, Population.of("aaaa", places=True))
    cast = view.cast(0, key=key, epoch=0)
    looked = look(view, *row[: len(cast)], key=key, size=size)
    assert isinstance(looked.target, Boxes)
    told = dict(zip(looked.target.of, looked.target.xyxy, strict=True))
    composition = view.composer.compose(looked.sizes, key=key, epoch=0, size=size)
    blended = composition.placements[-1].opacity < 1
    half = np.full(size, 127)  # A rectangle's rim has half of what its inside has:
    if blended:  # where another lies over it, or under it, that is less.
        white = np.full((*shapes[1], 3), 255, np.uint8)
        over = look(view, row[0], sample_of(white, "1", row[1].target), key=key, size=size)
        half[over.image[..., 1] > 63] = 63
    for number, placement in enumerate(composition.placements):
        k, later = placement.source, composition.placements[number + 1 :]
        # What is covered in part keeps its outline; the parts of a mosaic lie side by side.
        covered = options.copy_paste or options.zoom_paste or options.splice
        if k > 2 or (later and covered and not blended):
            continue
        bright = np.argwhere(looked.image[..., k] > half)
        if k in told:
            # The tips of slanted rectangles, and of what a diagonal cuts, are less than a pixel.
            matrix, tip = placement.matrix, isinstance(placement.region, np.ndarray) and not blended
            within = 3.0 if matrix[0, 1] or matrix[1, 0] or tip else 1.01
            (x1, y1), (x2, y2) = told[k][:2], told[k][2:]
            if min(x2 - x1, y2 - y1) < 2:
                # A sliver fills no pixel: its rim is not bright, if anything of it is.
                inside = (bright + 1 >= (y1 - within, x1 - within)) & (
                    bright <= (y2 + within, x2 + within)
                )
                assert inside.all()
                continue
            (top, left), (bottom, right) = bright.min(0), bright.max(0) + 1
            assert np.abs(told[k] - (left, top, right, bottom)).max() <= within
        else:
            whole = geometry.area(geometry.apply(placement.matrix, outline(row[k])))
            assert len(bright) <= 0.1 * whole + 10
