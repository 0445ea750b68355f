from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retinue.data.options import DataOptions
from retinue.data.sources import digits, open_dataset
from retinue.data.targets.boxes import Boxes

FILE = digits.DIGITS.find(DataOptions(format="digits"), True)
assert FILE is not None


def _file() -> Path:
    assert FILE is not None
    return FILE


def test_it_is_found_by_its_name() -> None:
    dataset = open_dataset(DataOptions(path="digits"), {"digits": digits.DIGITS})
    assert dataset.classes == tuple("0123456789")
    assert {split: len(rows) for split, rows in dataset.splits.items()} == digits.CANVASES
    sample = dataset.splits["test"][7]
    assert sample.read is not None
    image = sample.read()
    assert isinstance(image, np.ndarray)
    assert (image.shape, image.dtype) == ((192, 192, 3), np.uint8)
    np.testing.assert_array_equal(image, sample.read())


def test_no_digit_is_in_two_splits() -> None:
    shown = {
        split: {g.number for k in range(count) for g in digits.scattered(_file(), split, k)}
        for split, count in digits.CANVASES.items()
    }
    assert not shown["train"] & shown["val"]
    assert not shown["test"] & (shown["train"] | shown["val"])
    assert max(shown["train"]) < min(shown["val"]) < max(shown["val"]) < min(shown["test"])


@pytest.mark.parametrize("number", range(6))
def test_a_box_is_around_the_ink_of_its_digit(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the digit, only what lies in its box looks different."""
    glyphs = digits.scattered(_file(), "train", number)
    whole = digits.paint(_file(), "train", number).astype(int)
    monkeypatch.setattr(digits, "scattered", lambda *of: glyphs[:-1])
    less = digits.paint(_file(), "train", number).astype(int)
    changed = np.abs(whole - less).max(axis=2) > 60
    rows, columns = np.nonzero(changed)
    x1, y1, x2, y2 = glyphs[-1].box
    assert len(rows) > 20
    assert columns.min() >= x1 - 1
    assert columns.max() + 1 <= x2 + 1
    assert rows.min() >= y1 - 1
    assert rows.max() + 1 <= y2 + 1
    # And its sides touch the ink.
    assert max(columns.min() - x1, rows.min() - y1, x2 - columns.max(), y2 - rows.max()) <= 3


def test_boxes_are_on_the_canvas_and_none_hides_another() -> None:
    listing = digits.DIGITS.read(_file(), DataOptions(format="digits"))
    counts = []
    for target in listing.records.targets:
        assert isinstance(target, Boxes)
        counts.append(len(target.of))
        assert (target.xyxy >= 0).all()
        assert (target.xyxy <= digits.SIDE).all()
        size = target.xyxy[:, 2:] - target.xyxy[:, :2]
        assert (size > 3).all()
    assert min(counts) >= 1
    assert max(counts) == 7


def test_one_by_one_they_are_those_of_scikit_learn() -> None:
    bunch = pytest.importorskip("sklearn.datasets").load_digits()
    dataset = open_dataset(DataOptions(path="digits"), {"digits": digits.ONE_BY_ONE})
    assert dataset.classes == tuple("0123456789")
    counts = {split: len(rows) for split, rows in dataset.splits.items()}
    assert counts == {"train": 1257, "val": 180, "test": 360}
    samples = [sample for split in counts for sample in dataset.splits[split]]
    for sample, ink, digit in zip(samples, bunch.images, bunch.target, strict=True):
        assert sample.target.of == digit  # the classes are in the digits' order
        image = sample.read()
        assert image.shape == (8, 8, 3)
        np.testing.assert_array_equal(image, np.round(ink[..., None] * 255 / 16).repeat(3, 2))
