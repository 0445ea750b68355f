"""Dividing images into train, val and test: by hash, so that it can be repeated anywhere."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from retinue.data.options import ColumnOptions
from retinue.data.sources.cells import read_cells
from retinue.data.sources.columns import find_columns
from retinue.data.sources.records import NONE, Names, Records, glued, texts_of
from retinue.data.sources.words import ORDER
from retinue.errors import UsageError
from retinue.files import expanded
from retinue.text import counted

Codes = npt.NDArray[np.int8]
"""Positions in `ORDER`, `NONE` among them."""
Positions = npt.NDArray[np.int64]


def draw_splits(records: Records, shares: Mapping[str, float], seed: int) -> Codes:
    """The split of each record, for `shares` that add up to 1, the last one taking what remains.

    Within each class and stratum, images (groups, as a whole) are ranked by a hash of the seed and
    their name; the first ones go to the first split, and so on. Sizes are exact over all, and
    as even as whole images allow within each stratum.
    """
    codes = np.array([ORDER.index(split) for split in shares], np.int8)
    return codes[draw_parts(records, list(shares.values()), seed)]


def draw_folds(records: Records, folds: int, seed: int) -> Positions:
    """The fold of each record, from 0: as even within each class and stratum as whole images and
    groups allow, for one seed always the same ones."""
    return draw_parts(records, [1 / folds] * folds, seed)


def draw_parts(records: Records, shares: Sequence[float], seed: int) -> Positions:
    """The part of each record, as `draw_splits` has it: a position in `shares`."""
    names, unit, size = _units(records)
    labels, stratum = _strata(records, unit, len(names))
    rank = np.frombuffer(b"".join(_ranks(seed, names)), ">u8").reshape(-1, 4)
    order = np.lexsort((*rank.T[::-1], stratum))
    bounds = np.searchsorted(stratum[order], np.arange(len(labels) + 1))
    members = {k: order[bounds[k] : bounds[k + 1]] for k in range(len(labels))}
    left = Fraction(1)
    sizes = {k: int(size[units].sum()) for k, units in members.items()}
    result = np.full(len(names), NONE, np.int64)
    for part, amount in enumerate(shares[:-1]):
        share = Fraction(amount).limit_denominator(10**6)
        for k, quota in _quotas(sizes, share / left, seed, labels).items():
            taken = _taken(members[k], size, quota)
            result[taken] = part
            sizes[k] -= int(size[taken].sum())
            members[k] = members[k][result[members[k]] == NONE]
        left -= share
    result[result == NONE] = len(shares) - 1
    return result[unit]


def _units(records: Records) -> tuple[list[bytes], Positions, Positions]:
    """What goes into one split as a whole, images of one name or one group: the key of each unit,
    the unit of each record, and how many records each has."""
    keys = glued(b"file\0", records.names)
    if records.group is not None:
        keys = pc.coalesce(glued(b"group\0", records.group), keys)
    units = keys.dictionary_encode()
    unit = units.indices.to_numpy().astype(np.int64)
    return units.dictionary.to_pylist(), unit, np.bincount(unit, minlength=len(units.dictionary))


def _strata(
    records: Records, unit: Positions, count: int
) -> tuple[list[tuple[str, str]], Positions]:
    """All pairs of class and stratum, sorted, and the one that each unit is counted to: that of
    most of its records, of several the first."""
    strata_of = [target.stratum() for target in records.targets]
    said = sorted({"", *strata_of})
    code = {text: k for k, text in enumerate(said)}
    own = np.array([*(code[text] for text in strata_of), code[""]], np.int64)
    classes = own[records.target]  # the last one is that of none
    if records.stratum is None:
        strata, further = [""], np.zeros(len(records), np.int64)
    else:
        words = records.stratum.dictionary_encode()
        texts = texts_of(words.dictionary)
        strata = sorted(texts)
        at = {text: k for k, text in enumerate(strata)}
        place = np.array([at[text] for text in texts], np.int64)
        further = place[words.indices.to_numpy()]
    pairs, pair = np.unique(classes * len(strata) + further, return_inverse=True)
    labels = [(said[p // len(strata)], strata[p % len(strata)]) for p in pairs.tolist()]
    both, counts = np.unique(unit * len(pairs) + pair, return_counts=True)
    units, of_both = both // len(pairs), both % len(pairs)
    best = np.lexsort((of_both, -counts, units))
    _, first = np.unique(units[best], return_index=True)
    return labels, of_both[best][first]


def _taken(ranked: Positions, size: Positions, quota: int) -> Positions:
    """The units that fill the quota, in their order."""
    if quota <= 0:
        return ranked[:0]
    sizes = size[ranked]
    if (sizes == 1).all():
        return ranked[:quota]
    taken, count = [], 0
    for unit, here in zip(ranked.tolist(), sizes.tolist(), strict=True):
        # A group that would overshoot by more than half of itself is left to the others.
        if count < quota and count + here / 2 <= quota:
            taken.append(unit)
            count += here
    return np.array(taken, np.int64)


def _ranks(seed: int, keys: Iterable[bytes]) -> Iterable[bytes]:
    start = hashlib.sha256(f"{seed}\0".encode())
    for key in keys:
        digest = start.copy()
        digest.update(key)
        yield digest.digest()


def _quotas(
    sizes: Mapping[int, int], share: Fraction, seed: int, labels: Sequence[tuple[str, str]]
) -> dict[int, int]:
    """Whole numbers that add up to the rounded total: largest remainders are rounded up."""
    wanted = {k: size * share for k, size in sizes.items()}
    quotas = {k: int(value) for k, value in wanted.items()}
    missing = round(sum(sizes.values()) * share) - sum(quotas.values())
    # Equal remainders (many small classes) are settled by hash, too, not by the alphabet.
    keys = ["\0".join(label).encode("utf-8", "surrogateescape") for label in labels]
    rank = dict(enumerate(_ranks(seed, keys)))
    by_remainder = sorted(wanted, key=lambda k: (quotas[k] - wanted[k], rank[k]))
    for k in by_remainder[: max(missing, 0)]:
        quotas[k] += 1
    return quotas


# --- written down ---------------------------------------------------------------------------------


def read_splits(file: str) -> tuple[Names, Codes]:
    """Relative paths and the split of each, from a written-down table. Raises `UsageError`."""
    try:
        cells = read_cells(expanded(file))
        columns = find_columns(cells, ColumnOptions(), ("path", "split"))
    except UsageError as error:
        where = ", ".join(filter(None, ("key data.split.file", error.where)))
        raise UsageError(error.what, where=where, mend=error.mend) from None
    splits, errors = columns.splits()
    for wrong in errors:
        raise wrong
    assert splits is not None
    if (none := np.flatnonzero(splits == NONE)).size:
        where = columns.cells.at(int(columns.cells.lines[none[0]]))
        have = counted(none.size, "row has", "rows have")
        raise UsageError(f"{have} no split", where=where, mend="give each one")
    return columns.of("path"), splits


def write_splits(path: Path, rows: Iterable[tuple[str, str, str, str]]) -> None:
    """A csv of (path, label, split, target), readable by `read_splits`."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(("path", "label", "split", "target"))
        writer.writerows(rows)
