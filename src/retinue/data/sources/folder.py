"""A folder of class folders; or of `train/`, `val/` and `test/` with class folders in each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from retinue.data.options import DataOptions
from retinue.data.sources.layout import SplitFolders, split_folders, within
from retinue.data.sources.listing import Listing, Reader, given_path
from retinue.data.sources.matching import composed
from retinue.data.sources.records import NONE, Records, as_names
from retinue.data.sources.walking import (
    about_others,
    about_runs,
    holds_answers,
    is_run,
    normal,
    subfolders,
    walk,
)
from retinue.data.sources.words import ORDER, nearly_alike, split_of
from retinue.data.targets.one_class import OneClass
from retinue.errors import UsageError, some
from retinue.text import counted

_SHOWN = 10


def _find(options: DataOptions, asked: bool) -> Path | None:
    path = given_path(options)
    return path if asked or path.is_dir() else None


def read_folder(path: Path, options: DataOptions) -> Listing:
    """Images may lie at any depth below their class folder. Raises `UsageError`."""
    if not os.path.isdir(path):
        raise UsageError("not a folder", where=repr(str(path)), mend="give a folder of images")
    if is_run(path):
        raise UsageError(
            "this is what a training or an evaluation left, and no data",
            where=repr(str(path)),
            mend="give the folder or table of the pictures",
        )
    root = within(path)
    splits = split_folders(root)
    listing = Listing("folder", root, Records.of([]))
    if root != path:
        listing.notes.append(f"the data is in {str(root)!r}, the one folder there")
    if splits.classes:
        of: dict[str | None, Path] = dict(splits.of.items())
        beside = [f.name for f in subfolders(root) if split_of(f.name) is None]
        if beside:
            listing.notes.append(f"ignored beside the splits: {', '.join(map(repr, beside))}")
    else:
        of = {None: root}
        _refuse_flat_splits(root, splits, options)
    found = _Found()
    listing.notes += about_runs(root)
    for split, folder in of.items():
        _read_classes(listing, folder, split, found)
    if not found.files:
        for error in listing.errors:
            raise error
        raise _nothing_found(listing)
    listing.notes += nearly_alike(found.labels)
    listing.records = found.records(root)
    _compare_splits(listing, of)
    return listing


class _Found:
    """The images of all classes and splits, one after the other."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.labels: dict[str, int] = {}
        self._runs: list[tuple[int, int, int]] = []

    def add(self, label: str, split: str | None, files: list[str]) -> None:
        code = self.labels.setdefault(label, len(self.labels))
        self._runs.append((code, NONE if split is None else ORDER.index(split), len(files)))
        self.files += files

    def records(self, root: Path) -> Records:
        codes, splits, counts = np.array(self._runs, np.int64).T
        files = as_names(self.files)
        return Records(
            names=composed(files),
            targets=[OneClass(label) for label in self.labels],
            target=np.repeat(codes, counts),
            root=root,
            files=files,
            split=np.repeat(splits, counts).astype(np.int8),
        )


def _read_classes(listing: Listing, folder: Path, split: str | None, found: _Found) -> None:
    for class_folder in subfolders(folder):
        label = normal(class_folder.name)
        inside = class_folder.relative_to(listing.root).as_posix()
        images, others, closed = walk(class_folder)
        listing.errors += closed
        if not images and holds_answers(class_folder):
            listing.notes.append(f"passed over: {inside!r}, where answers of a model were written")
            continue
        if not images:
            listing.empty_classes.append(label if split is None else f"{split}/{label}")
        found.add(label, split, [f"{inside}/{name}" for name in images])
        listing.not_images += [f"{inside}/{name}" for name in others]
    loose, others, _ = walk(folder, recursive=False)
    if split is not None:
        listing.not_images += [
            (folder / name).relative_to(listing.root).as_posix() for name in others
        ]
    if loose:
        listing.without_label += [folder / name for name in loose]
        listing.notes.append(
            f"{counted(len(loose), 'image')} directly in {str(folder)!r} left out: of no class"
        )


def _refuse_flat_splits(root: Path, splits: SplitFolders, options: DataOptions) -> None:
    """Raises `UsageError` for `train/` and `test/` that hold pictures and no classes."""
    names = [folder.name for folder in splits.of.values()]
    if not names or not splits.alone or set(names) <= set(options.classes or ()):
        return
    if any(walk(folder).images for folder in splits.of.values()):
        raise UsageError(
            f"there are pictures in {' and '.join(f'{name}/' for name in names)}, but no class"
            " folders in them, and no table that says what they show",
            where=repr(str(root)),
            mend=f"sort them into {names[0]}/CLASS/, or add a table of paths and labels"
            f" (data.classes=[{','.join(names)}] takes these for the classes)",
        )


def _nothing_found(listing: Listing) -> UsageError:
    """What is there instead, and what is missing."""
    loose, others, _ = walk(listing.root, recursive=False)
    others += listing.not_images
    there = []
    if loose:
        lie = counted(len(loose), "picture lies", "pictures lie")
        there.append(f"{lie} directly in it, and no class folder")
    if listing.empty_classes:
        count = len(listing.empty_classes)
        there.append("an empty folder" if count == 1 else f"{count:,} folders without any")
    there += about_others(listing.root, others)
    return UsageError(
        "no images found" + (f" in class folders: {'; '.join(there)}" if there else ""),
        where=repr(str(listing.root)),
        mend="put the images into one folder a class, or give a table of paths and labels",
    )


def _compare_splits(listing: Listing, splits: Mapping[str | None, Path]) -> None:
    records = listing.records
    given = records.splits()
    by_split: dict[str, set[str]] = {}
    for split in filter(None, splits):
        codes = np.unique(records.target[given == ORDER.index(split)]).tolist()
        by_split[split] = {str(n) for k in codes for n in records.targets[k].names()}
    train = by_split.get("train")
    if train is None:
        return
    for split, labels in by_split.items():
        unknown = sorted(labels - train)
        if unknown:
            error = UsageError(
                f"{split} has classes that train has no images of: "
                + some(list(map(repr, unknown)), _SHOWN, between=", "),
                where=repr(str(splits[split])),
                mend="add training images, or remove these folders",
                details=list(map(repr, unknown)) if len(unknown) > _SHOWN else (),
            )
            listing.errors.append(error)
        absent = sorted(train - labels)
        if absent:
            listing.notes.append(
                f"{split} has no images of: {some(list(map(repr, absent)), _SHOWN, between=', ')}"
            )


FOLDER = Reader("folder", _find, read_folder)
