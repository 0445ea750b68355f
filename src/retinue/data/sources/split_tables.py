"""One table for each split, as `train.csv` and `val.csv` are, read as one data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retinue.data.sources.listing import Listing
from retinue.data.sources.records import NONE, Records, glued, texts_of
from retinue.data.sources.words import ORDER
from retinue.errors import UsageError


def joined(folder: Path, tables: Mapping[str, tuple[Path, Listing]]) -> Listing:
    """The listings of the tables in `folder`, by split. All rows of a table are of its split: one
    that says otherwise is an error, and an image that an earlier table has a problem."""
    roots = {listing.root for _, listing in tables.values()}
    root = roots.pop() if len(roots) == 1 else folder
    whole = Listing("table", root, Records.of([]))
    parts: list[Records] = []
    classes = {tuple(listing.classes) for _, listing in tables.values() if listing.classes}
    if len(classes) > 1:
        raise UsageError(
            "the tables have columns of other classes",
            where=", ".join(repr(str(table)) for table, _ in tables.values()),
            mend="give them the same columns in the same order, or name them: data.classes=[A,B]",
        )
    whole.classes = list(classes.pop()) if classes else None
    for split, (table, listing) in tables.items():
        whole.notes += [
            note if table.name in note else f"{table.name}: {note}" for note in listing.notes
        ]
        whole.problems += listing.problems
        whole.errors += listing.errors
        whole.missing += listing.missing
        whole.without_label += listing.without_label
        records = _of_split(_below(root, listing.records), split, table, whole.errors)
        parts.append(_without_known(records, parts, table, whole.problems))
    whole.records = Records.joined(parts)
    return whole


def _below(root: Path, records: Records) -> Records:
    """The same from `root`, which is theirs or a folder around it."""
    if records.root == root:
        return records
    before = f"{records.root.relative_to(root).as_posix()}/".encode()
    assert records.files is not None
    return replace(
        records,
        root=root,
        names=glued(before, records.names),
        files=glued(before, records.files),
    )


def _of_split(records: Records, split: str, table: Path, errors: list[UsageError]) -> Records:
    code = ORDER.index(split)
    others = np.unique(records.splits())
    for other in others[(others != NONE) & (others != code)].tolist():
        errors.append(
            UsageError(
                f"the table is called like the split {split!r}, and has rows of {ORDER[other]!r}",
                where=repr(str(table)),
                mend="data.columns.split=null goes by the tables' names",
            )
        )
    return replace(records, split=np.full(len(records), code, np.int8))


def _without_known(
    records: Records, parts: Sequence[Records], table: Path, problems: list[str]
) -> Records:
    """Without the images that `parts` have."""
    known = np.zeros(len(records), bool)
    for part in parts:
        known |= pc.is_in(records.names, value_set=part.names).to_numpy(zero_copy_only=False)
    if not known.any():
        return records
    for name in texts_of(records.names.filter(pa.array(known))):
        problems.append(f"{str(table)!r}: {name!r} again, as in the table of another split")
    return records.take(np.flatnonzero(~known))
