"""What a declared figure says about values."""

import math

import pytest

from retinue.errors import RetinueError
from retinue.figures import Figure, plain, refuse_not_finite, small_splits, uncertainty, wilson

SHARE = Figure("top1", "Top-1 accuracy", "fraction", of="images")
LOSS = Figure("loss", "Loss", "nats", less_is_better=True)


def test_better_looks_at_the_direction() -> None:
    assert SHARE.better(0.9, 0.8)
    assert not SHARE.better(0.8, 0.9)
    assert LOSS.better(0.1, 0.2)
    assert not LOSS.better(0.2, 0.1)
    for figure in (SHARE, LOSS):
        assert not figure.better(0.5, 0.5)
        assert figure.better(0.5, None)
        assert figure.better(0.5, math.nan)
        assert not figure.better(None, 0.5)
        for value in (math.nan, math.inf, -math.inf):
            assert figure.better(0.5, value)
            assert not figure.better(value, None)
            assert not figure.better(value, 0.5)


@pytest.mark.parametrize(
    ("unit", "value", "text", "longer"),
    [("fraction", 0.87243, "87.2 %", "87.24 %"), ("nats", 0.3451, "0.345", "0.3451"),
     ("", 12.0, "12.000", "12.0000"), ("pixels", 3.12, "3.120 px", "3.1200 px"),
     ("seconds", 0.5, "0.500 s", "0.5000 s"), ("count", 1024, "1,024", "1,024")],
)  # fmt: skip
def test_a_value_is_shown_with_its_unit(unit, value, text, longer) -> None:
    figure = Figure("x", "X", unit)
    assert figure.shown(value) == text
    assert figure.shown(value, digits=4) == longer
    for nothing in (None, math.nan, math.inf):
        assert figure.shown(nothing) == "–"


def test_only_a_plain_share_has_an_interval() -> None:
    assert SHARE.interval({"top1": 81 / 263, "images": 263}) == wilson(81, 263)
    assert SHARE.interval({"top1": None, "images": 263}) is None
    assert SHARE.interval({"top1": 0.5}) is None
    assert SHARE.interval({"top1": math.nan, "images": 10}) is None
    assert SHARE.interval({"top1": 0.5, "images": math.inf}) is None
    assert SHARE.interval({"top1": 0.5, "images": 0}) is None
    assert LOSS.interval({"loss": 0.5, "images": 10}) is None


def test_an_undeclared_figure_has_a_plain_title() -> None:
    assert plain("map50_95") == Figure("map50_95", "Map50 95")
    assert plain("rmse").unit == ""
    assert plain("loss").less_is_better
    assert not plain("top1").less_is_better


def test_wilson_interval_of_a_published_example() -> None:
    # Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_wilson_of_nothing_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_a_figure_that_is_not_finite_is_refused_by_its_name() -> None:
    fine = {"top1": 0.5, "images": 3, "auc": None, "per_class": [{"name": "nan", "f1": 1.0}]}
    refuse_not_finite(fine, "val", mend="do this")
    for found, name in (
        ({**fine, "loss": math.nan}, "loss"),
        ({**fine, "per_class": [{"f1": 0.5}, {"f1": math.inf}]}, r"per_class\.1\.f1"),
    ):
        with pytest.raises(RetinueError, match=f"figure {name} is (nan|inf), val split, do this"):
            refuse_not_finite(found, "val", mend="do this")


def test_a_split_is_small_by_the_width_of_its_interval() -> None:
    assert uncertainty(2) == pytest.approx(0.405, abs=1e-3)
    assert uncertainty(0) == 0.5
    assert uncertainty(92) > 0.1 > uncertainty(93)
    assert small_splits({"train": 2, "val": 93, "test": 93}, picks=True) == []
    assert small_splits({"train": 14, "val": 0}, picks=True) == []
    (test,) = small_splits({"train": 12, "test": 2}, picks=True)
    assert test == (
        "the test split has 2 images: a share of them may be off by 41 percentage points either way"
        " (95 % interval), so its figures say next to nothing; more images would help, or where it"
        " is drawn a larger data.split.test"
    )
    (val,) = small_splits({"val": 1}, picks=True)
    assert val.startswith("the val split has 1 image: ")
    assert "it is chance which epoch is kept as the best; " in val
    assert "partly chance" in small_splits({"val": 50}, picks=True)[0]
    assert "its figures say little; " in small_splits({"val": 50}, picks=False)[0]
