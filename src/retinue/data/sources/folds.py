"""Cross-validation: train and val together in folds, and one of them held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from retinue.data.options import DataOptions, SplitOptions
from retinue.data.sources.listing import Readers
from retinue.data.sources.recognise import read_listing
from retinue.data.sources.records import NONE, Records, texts_of
from retinue.data.sources.splits import Positions, draw_folds, draw_splits
from retinue.data.sources.words import ORDER, sort_names
from retinue.errors import UsageError, suggest
from retinue.text import counted, few, no_file_name

MOST = 100
"""Folds of a table; each is a training."""


def fold_names(options: DataOptions, readers: Readers) -> list[str]:
    """What the folds that `options` ask for are called, in their order. Of folds that a table
    gives, the table is read. Raises UsageError."""
    folds = options.split.folds
    if isinstance(folds, int):
        return _counted(folds)
    _, listing = read_listing(options, readers)
    return folds_of(listing.records, options.split)


def folds_of(records: Records, split: SplitOptions) -> list[str]:
    """What the folds that `split` asks for are called, in their order. Raises UsageError."""
    if isinstance(split.folds, int):
        return _counted(split.folds)
    return _given(_without_test(records, split)[0])[0]


def _counted(folds: int) -> list[str]:
    return [str(number + 1) for number in range(folds)]


def held_out(records: Records, split: SplitOptions, notes: list[str]) -> tuple[Records, str]:
    """The records of all folds, val being the one that `split` names and train the others; and how
    they were divided, in words. What else is to be said is added to the `notes`.

    Raises:
        UsageError: no fold is named, or one that there is not; too few images.
    """
    kept, test = _without_test(records, split)
    if test:
        notes.append(f"{counted(test, 'test image')} left out: no fold has them")
    if split.folds == "given":
        names, fold = _given(kept)
    else:
        assert split.folds is not None
        names = _counted(split.folds)
        fold = draw_folds(kept, split.folds, split.seed)
    if split.fold is None:
        raise UsageError(
            "which of the folds is judged is not said",
            where="key data.split.fold",
            mend=f"set data.split.fold={names[0]}; training on all, one after the other, is what"
            " `retinue train` does with folds alone",
        )
    if split.fold not in names:
        raise UsageError(
            f"the data has no fold {split.fold!r}",
            where="key data.split.fold",
            mend=suggest(split.fold, names) or f"it has {few(names)}",
        )
    sizes = np.bincount(fold, minlength=len(names))
    for name, size in zip(names, sizes.tolist(), strict=True):
        if not size:
            raise UsageError(
                f"fold {name} has no images: there are {len(kept)} for {len(names)} folds",
                where="key data.split.folds",
                mend="take fewer folds" + ("" if kept.group is None else ", or smaller groups"),
            )
    held = fold == names.index(split.fold)
    codes = np.where(held, ORDER.index("val"), ORDER.index("train")).astype(np.int8)
    drawn = f" (seed {split.seed})" if split.folds != "given" else ""
    return replace(kept, split=codes), f"fold {split.fold} of {len(names)} held out{drawn}"


def _without_test(records: Records, split: SplitOptions) -> tuple[Records, int]:
    """What is divided into folds, and how many images are not: those of the test split, which is
    drawn where the data brings none, the same that it is without folds."""
    codes = records.splits()
    if split.given == "ignore" or not (codes != NONE).any():
        shares = {"test": split.test, "val": 1 - split.test}
        codes = draw_splits(records, {k: v for k, v in shares.items() if v > 0}, split.seed)
    divided = np.flatnonzero(codes != ORDER.index("test"))
    return records.take(divided), len(records) - len(divided)


def _given(records: Records) -> tuple[list[str], Positions]:
    """The folds that the data names, and that of each record. Raises UsageError."""
    where = "key data.split.folds"
    if records.fold is None or records.fold.null_count == len(records):
        raise UsageError(
            "the data names no folds: it is no table with a column called fold",
            where=where,
            mend="name the column, data.columns.fold=COLUMN, or say how many: folds=5",
        )
    if missing := int(records.fold.null_count):
        have = counted(missing, "row has", "rows have")
        raise UsageError(f"{have} no fold", where=where, mend="give each one")
    coded = records.fold.dictionary_encode()
    texts: Sequence[str] = texts_of(coded.dictionary)
    names = sort_names(set(texts))
    if not 2 <= len(names) <= MOST:
        raise UsageError(
            f"the data names {counted(len(names), 'fold')}: {few(names)}",
            where=where,
            mend=f"give 2 to {MOST}",
        )
    for name in names:  # folders are called by them
        if problem := no_file_name(name):
            raise UsageError(f"the fold {name!r} has a name {problem}", where=where)
    if len({name.casefold() for name in names}) < len(names):
        raise UsageError(f"two folds have one name but for case: {few(names)}", where=where)
    place = pa.array([names.index(text) for text in texts], pa.int64())
    return names, place.take(coded.indices).to_numpy()
