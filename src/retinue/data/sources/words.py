"""What people call things: the splits, yes and no, a label that is missing, a class by a number.

One vocabulary for folders, tables and written-down splits.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from decimal import Decimal

ORDER = ("train", "val", "test")
"""The splits, as we call them."""

_SPLITS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development", "eval"), "val"),
    **dict.fromkeys(("evaluation", "publictest"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "privatetest"), "test"),
}
_BESIDE = r"(set|data|dataset|split|images?|imgs?|pictures|photos|files)"
_YES = {"1", "1.0", "true", "yes", "t", "y"}
_NO = {"0", "0.0", "false", "no", "f", "n", ""}
_MISSING = {"", "nan", "NaN", "NAN", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "Null"}
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")


def split_of(word: str) -> str | None:
    """`train`, `val` or `test` for what people call them in any case, `Training Set`, `valid` and
    `test_images` among it; None for everything else."""
    plain = re.sub(r"[\W_]+", "", word.casefold())
    for text in (plain, re.sub(f"{_BESIDE}$", "", plain), re.sub(f"^{_BESIDE}", "", plain)):
        if text in _SPLITS:
            return _SPLITS[text]
    return None


def split_in(name: str) -> str | None:
    """The split that one word in the name of a file is called like: `train` of `train_labels` and
    of `instances_train2017`; None where no word is, or words of two splits are."""
    words = re.split(r"[\W_]+", name)
    found = {split_of(word) or split_of(word.rstrip("0123456789")) for word in words if word}
    splits = found - {None}
    return splits.pop() if len(splits) == 1 else None


def yes_or_no(word: str) -> bool | None:
    """What a cell of a yes-or-no column says; None for what is neither."""
    plain = word.strip().lower()
    return True if plain in _YES else False if plain in _NO else None


def is_missing(label: str, classes: Collection[str] = ()) -> bool:
    """Whether a label says that there is none: an empty cell, or what programs write for it. One of
    the `classes` that were asked for is none of them. (`None` and `none` are names.)"""
    return label in _MISSING and label not in classes


def nearly_alike(names: Iterable[str]) -> Iterator[str]:
    """What to say of classes whose names are apart by capitals or blanks alone."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[" ".join(name.casefold().split())].append(name)
    for several in alike.values():
        if len(several) > 1:
            yield f"classes apart by capitals or blanks alone: {', '.join(map(repr, several))}"


def name_by_value(labels: Collection[str]) -> dict[str, str]:
    """Label → name of its class. If all are plain numbers and some have a decimal point (as a
    program writes whole numbers beside missing ones), a number is one class however it is written:
    `3.0` and `3` are `3`. Otherwise each label is its class's name."""
    if any("." in label for label in labels) and all(map(_NUMBER.fullmatch, labels)):
        return {label: _shortest(label) for label in labels}
    return {label: label for label in labels}


def _shortest(number: str) -> str:
    short = number.rstrip("0").rstrip(".") if "." in number else number
    return "0" if short == "-0" else short


def sort_names(names: Iterable[str]) -> list[str]:
    """By code points; by value when all are numbers."""
    unique = set(names)
    if all(re.fullmatch(r"-?\d+(\.\d+)?", name) for name in unique):
        return sorted(unique, key=lambda name: (Decimal(name), name))
    return sorted(unique)
