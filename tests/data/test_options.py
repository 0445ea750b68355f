"""What the options say of themselves, and which contradictions they refuse."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from retinue.data.options import (
    AugmentOptions,
    MixingOptions,
    SamplerOptions,
    ShardsOptions,
    ShuffledOptions,
    SideRange,
    SplitOptions,
)

SEVERAL = [
    {"splice": 0.1},
    {"mosaic": 0.1},
    {"copy_paste": 0.1},
    {"blend": 0.1},
    {"zoom_paste": True, "zoom": (0.8, 1.2)},
]


@pytest.mark.parametrize(
    ("given", "shares"),
    [
        ({}, (0.8, 0.1, 0.1)),
        ({"test": 0}, (0.9, 0.1, 0)),
        ({"val": 0.3}, (0.6, 0.3, 0.1)),
        ({"val": 0, "test": 0}, (1, 0, 0)),
        ({"train": 0.5, "val": 0.5, "test": 0}, (0.5, 0.5, 0)),
    ],
)
def test_what_is_not_said_of_a_split_is_learnt_from(
    given: dict[str, float], shares: tuple[float, float, float]
) -> None:
    split = SplitOptions(**given)
    assert (split.train, split.val, split.test) == pytest.approx(shares)


@pytest.mark.parametrize("given", [{"train": 0.9}, {"val": 0.6, "test": 0.4}, {"val": 1}])
def test_shares_of_splits_that_make_no_whole_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="must add up to 1"):
        SplitOptions(**given)


def test_what_an_augmentation_does() -> None:
    plain = AugmentOptions(horizontal_flip=0)
    assert not plain.mixes_pixels
    assert not plain.composes_several
    assert not plain.draws
    for name in ("mixup", "cutmix"):
        mixing = AugmentOptions(horizontal_flip=0, mixing=MixingOptions(**{name: 0.1}))
        assert mixing.mixes_pixels
        assert mixing.draws
        assert not mixing.composes_several
    masked = AugmentOptions(horizontal_flip=0, mixing=MixingOptions(quarter_mask=0.1))
    assert not masked.mixes_pixels
    assert not masked.composes_several
    assert masked.draws
    for drawn in ({"jitter": 0.1}, {"fit_scale": (1.0, 1.0)}):
        assert AugmentOptions(horizontal_flip=0, **drawn).draws
    # How mixing would be done draws nothing where it is never done.
    assert not AugmentOptions(horizontal_flip=0, mixing=MixingOptions(probability=0.5)).draws


@pytest.mark.parametrize("options", SEVERAL)
def test_what_needs_several_samples(options: dict[str, object]) -> None:
    several = AugmentOptions(horizontal_flip=0, **options)
    assert several.composes_several
    assert several.draws
    assert not several.mixes_pixels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splice": 1.1}, "splice"),
        ({"mosaic": -0.1}, "mosaic"),
        ({"copy_paste": 2}, "copy_paste"),
        ({"splice": 0.5, "mosaic": 0.4, "copy_paste": 0.2}, "add up to more than 1, but do to 1.1"),
        ({"mosaic": 0.9, "blend": 0.2}, "add up to more than 1, but do to 1.1"),
        ({"jitter": 1.0}, "jitter"),
        ({"fit_scale": (2.0, 0.5)}, "fit_scale: the first value must not exceed the second"),
        ({"fit_scale": (0.0, 0.5)}, "fit_scale"),
        ({"jitter": 0.3, "crop_scale": (0.1, 1.0)}, "give the one or the others"),
        ({"fit_scale": (1.0, 1.0), "crop_scale": (0.1, 1.0)}, "give the one or the others"),
        ({"zoom_paste": True}, "zoom_paste has no effect"),
        ({"zoom_paste": True, "zoom": (1.0, 1.5)}, "zoom_paste has no effect"),
    ],
)
def test_contradictions(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AugmentOptions(**options)


def test_probabilities_may_fill_everything() -> None:
    assert AugmentOptions(splice=0.1, mosaic=0.7, copy_paste=0.2).composes_several


def test_samplers_are_told_apart_by_name() -> None:
    read = TypeAdapter(SamplerOptions).validate_python
    assert read({"name": "shuffled"}) == ShuffledOptions()
    assert read({"name": "shards", "window": 5}) == ShardsOptions(window=5)
    for wrong in ({"name": "shuffled", "window": 5}, {"name": "sorted"}, {"window": 5}):
        with pytest.raises(ValidationError):
            read(wrong)


def test_a_range_of_sides_goes_up() -> None:
    assert SideRange(min=64, max=64).step == 32
    with pytest.raises(ValidationError, match="min must not exceed max"):
        SideRange(min=96, max=64)
