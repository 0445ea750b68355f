"""Shards of classified images, TFRecord's and WebDataset's alike: from their indexes to a listing.

An image is read from where it lies when it is needed; what is held of each is a few dozen bytes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retinue.data.on_demand import Repeated
from retinue.data.options import FeatureOptions
from retinue.data.sources.annotated import beside_splits, unreadable
from retinue.data.sources.label_names import LabelNames, name_numbers, read_label_names
from retinue.data.sources.listing import Listing
from retinue.data.sources.member import Members
from retinue.data.sources.pairing import file_split
from retinue.data.sources.records import NONE, Names, Records, as_names, glued
from retinue.data.sources.shard_index import Scan, indexes
from retinue.data.sources.walking import normal, walk
from retinue.data.sources.words import ORDER, nearly_alike, sort_names, split_of
from retinue.data.targets.one_class import OneClass
from retinue.errors import UsageError, some
from retinue.text import counted

_NO_LABEL = -(1 << 62)
_NUMBERED = re.compile(r"[-_](\d{1,9})-of-(\d{1,9})")
_MOST = 100_000
"""Shards of one series that are looked for."""
_SHOWN = 5
_MOST_TEXTS = 3
"""Of what stands beside one label, to see whether it is its name."""


def shard_files(path: Path, called_so: Callable[[str], bool]) -> list[Path]:
    """`path`, or the files below it that are called like shards."""
    if path.is_file():
        return [path]
    return [path / name for name in walk(path).others if called_so(name.rsplit("/", 1)[-1])]


def _beside_shards(path: Path) -> list[str]:
    """What to say of images that lie beside shards and are not read."""
    images = len(walk(path).images) if path.is_dir() else 0
    if not images:
        return []
    are = counted(images, "image beside the shards is", "images beside the shards are")
    return [f"{are} not read: data.format=folder reads them"]


def read_shards(
    listing: Listing,
    files: Sequence[Path],
    scan: Scan,
    how: Sequence[object],
    features: FeatureOptions,
    stem: Callable[[str], str],
) -> Listing:
    """`listing` with the examples of `files`. `scan`, `how`: see `indexes`; `stem`: a file's name
    without what tells its kind. Raises `UsageError`."""
    root, listing.each_problem = listing.root, "example"
    files, splits = _divided(listing, files, stem)
    names = [file.relative_to(root).as_posix() for file in files]
    tables: list[pa.Table] = []
    of: list[int] = []
    for k, found in enumerate(indexes(files, scan, how)):
        if isinstance(found, OSError):
            listing.problems.append(unreadable(files[k], found))
            continue
        tables.append(found)
        of.append(k)
    counts = [len(table) for table in tables]
    listing.notes += _missing(names)
    if empty := [names[k] for k, count in zip(of, counts, strict=True) if not count]:
        are = "this shard is" if len(empty) == 1 else "these shards are"
        listing.notes.append(f"{are} empty: {some(empty, _SHOWN, between=', ')}")
    code = np.repeat(np.array(of, np.int32), counts)
    table = pa.concat_tables(tables).combine_chunks() if tables else None
    if table is None or not len(table):
        raise _nothing(listing, files)
    bad = np.flatnonzero(table["problem"].is_valid().to_numpy())
    numbers = table["number"].to_numpy()

    def place(k: int) -> str:
        return f"{str(files[code[k]])!r} example {numbers[k]}"

    listing.problems += [
        f"{place(k)}: {table['problem'][k].as_py().decode()}" for k in bad.tolist()
    ]
    classes, target = _classes(listing, table, features, place)
    target[bad] = NONE
    kept = np.flatnonzero(target != NONE)
    if not len(kept):
        raise _nothing(listing, files)
    table, code = table.take(pa.array(kept)), code[kept]
    split = np.array([NONE if s is None else ORDER.index(s) for s in splits], np.int8)
    shard = Repeated([str(file.absolute()) for file in files], code)
    listing.records = Records(
        names=_titles(listing, table, names, code),
        targets=[OneClass(name) for name in classes],
        target=target[kept],
        root=root,
        files=pa.nulls(len(kept), pa.large_binary()),
        split=split[code] if (split != NONE).any() else None,
        read=Members(
            shard,
            table["offset"].to_numpy(),
            table["length"].to_numpy(),
            table["checksum"].to_numpy(),
        ),
        shard=shard,
    )
    present = {classes[k] for k in np.unique(target[kept]).tolist()}
    listing.classes = classes
    listing.empty_classes = [name for name in classes if name not in present]
    listing.notes += nearly_alike(present)
    listing.notes += _beside_shards(root)
    listing.notes.insert(0, f"{counted(len(kept), 'example')} in {counted(len(files), 'shard')}")
    return listing


def _missing(names: Sequence[str]) -> list[str]:
    """What to say of shards that are not there, by the numbers in the others' names."""
    found: dict[tuple[str, int], set[int]] = {}
    for name in names:
        if match := _NUMBERED.search(name):
            whole = (name[: match.start()], int(match[2]))
            found.setdefault(whole, set()).add(int(match[1]))
    notes = []
    for (series, count), numbers in found.items():
        if count - len(numbers) in range(1, count):
            absent = [str(k) for k in range(min(count, _MOST)) if k not in numbers]
            shown = some(absent, _SHOWN, between=", ")
            notes.append(f"of {series}-…-of-{count} there are {len(numbers)} shards, not {shown}")
    return notes


def _divided(
    listing: Listing, files: Sequence[Path], stem: Callable[[str], str]
) -> tuple[list[Path], list[str | None]]:
    """The files that are read, and the split that each is called like."""
    root = listing.root
    splits = [file_split(f.relative_to(root).as_posix(), stem(f.name)) for f in files]
    if any(splits) and not all(splits):
        beside = [file for file, split in zip(files, splits, strict=True) if split is None]
        listing.notes.append(beside_splits(beside, root))
    chosen = [
        (file, split)
        for file, split in zip(files, splits, strict=True)
        if split is not None or not any(splits)
    ]
    return [file for file, _ in chosen], [split for _, split in chosen]


def _nothing(listing: Listing, files: Sequence[Path]) -> UsageError:
    what = f"no example that can be used in {counted(len(files), 'shard')}"
    if listing.problems:
        return UsageError(what, where=listing.problems[0], mend="write the shards anew")
    return UsageError(what, where=repr(str(listing.root)), mend="is it the folder of the shards?")


def _titles(
    listing: Listing, table: pa.Table, names: Sequence[str], code: npt.NDArray[np.int32]
) -> Names:
    """What each image is called: by its file's name where it has one of its own, else by its shard
    and number."""
    given = table["name"].combine_chunks()
    texts = as_names(list(names)).take(pa.array(code))
    number = table["number"].cast(pa.string()).cast(pa.large_binary()).combine_chunks()
    counts = pc.value_counts(given.drop_null())
    again = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if len(again):
        where = pc.is_in(given, value_set=again)
        more = int(pc.sum(where).as_py()) - len(again)
        are = counted(more, "image is", "images are")
        listing.notes.append(f"{are} called like another one: they go by shard and number")
        given = pc.if_else(where, glued(texts, b"/", number, b"/", given), given)
    return pc.coalesce(given, glued(texts, b"/", number))


def _classes(
    listing: Listing,
    table: pa.Table,
    features: FeatureOptions,
    place: Callable[[int], str],
) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The classes in their order, and the position among them of each row, or `NONE`. Rows whose
    number is none of a class become problems."""
    label = table["label"].fill_null(_NO_LABEL).to_numpy()
    words = table["text"].combine_chunks().dictionary_encode()
    word = words.indices.fill_null(NONE).to_numpy().astype(np.int64)
    texts = words.dictionary.to_pylist()
    said = [normal(text.decode("utf-8", "backslashreplace").strip()) for text in texts]
    numbered = label != _NO_LABEL
    if not numbered.any():
        classes = sort_names(set(said))
        at = {name: k for k, name in enumerate(classes)}
        own = np.array([*(at[text] for text in said), NONE], np.int64)
        return classes, own[word]
    numbers, inverse = np.unique(label, return_inverse=True)
    first = features.first_label
    named = name_numbers(
        _beside(numbers, inverse, word, said),
        _label_names(listing),
        None if first == "auto" else first,
        listing.notes,
    )
    position = {name: k for k, name in enumerate(named.classes)}
    own = np.array(
        [position[named.of[n]] if n in named.of else NONE for n in numbers.tolist()], np.int64
    )
    target = own[inverse]
    for k in np.flatnonzero(numbered & (target == NONE)).tolist():
        listing.problems.append(f"{place(k)}: {named.wrong[int(label[k])]}")
    for k in np.flatnonzero(~numbered & table["problem"].is_null().to_numpy()).tolist():
        listing.problems.append(f"{place(k)}: a name for a class, where others have numbers")
    return named.classes, target


def _label_names(listing: Listing) -> LabelNames | None:
    """Those beside the shards; of `train/` alone, also those beside that folder."""
    found = read_label_names(listing.root, listing.notes)
    if found is None and split_of(listing.root.name):
        return read_label_names(listing.root.parent, listing.notes)
    return found


def _beside(
    numbers: npt.NDArray[np.int64],
    inverse: npt.NDArray[np.int64],
    word: npt.NDArray[np.int64],
    said: Sequence[str],
) -> dict[int, Counter[str]]:
    """Number → what stands beside it, the most frequent few."""
    found: dict[int, Counter[str]] = {n: Counter() for n in numbers.tolist() if n != _NO_LABEL}
    pairs, counts = np.unique(
        inverse[word != NONE] * max(len(said), 1) + word[word != NONE], return_counts=True
    )
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        number, text = int(numbers[pair // len(said)]), said[pair % len(said)]
        if text and number in found and len(found[number]) < _MOST_TEXTS:
            found[number][text] += count
    return found
