"""A folder of class folders; or of `train/`, `val/` and `test/` with class folders in each."""

from __future__ import annotations

import os
from pathlib import Path

from retinue.data.options import DataOptions
from retinue.data.sources.listing import (
    SPLITS,
    Listing,
    Reader,
    Record,
    given_path,
    image_files,
    normal,
    relative_name,
    subfolders,
)
from retinue.data.targets.one_class import OneClass
from retinue.errors import UsageError


def _find(options: DataOptions, asked: bool) -> Path | None:
    path = given_path(options)
    return path if asked or path.is_dir() else None


def read_folder(root: Path, options: DataOptions) -> Listing:
    """Images may lie at any depth below their class folder. Raises `UsageError`."""
    if not os.path.isdir(root):
        raise UsageError("not a folder", where=repr(str(root)), mend="give a folder of images")
    folders = subfolders(root)
    splits = _split_folders(root, folders)
    listing = Listing("folder", root, [])
    if splits:
        ignored = [f.name for f in folders if f.name.lower() not in SPLITS]
        if ignored:
            listing.notes.append(f"ignored beside the splits: {', '.join(map(repr, ignored))}")
    for split, folder in splits.items() or {None: root}.items():
        _read_classes(listing, folder, split)
    if not listing.records:
        raise UsageError(
            "no images found",
            where=repr(str(root)),
            mend="put the images into one folder a class, or give a table of paths and labels",
        )
    _compare_splits(listing, splits)
    return listing


def _split_folders(root: Path, folders: list[Path]) -> dict[str | None, Path]:
    """The split folders, if there is one for training."""
    found: dict[str | None, Path] = {}
    for folder in folders:
        split = SPLITS.get(folder.name.lower())
        if split is None:
            continue
        if split in found:
            raise UsageError(
                f"two folders for the split {split!r}: {found[split].name!r} and {folder.name!r}",
                where=repr(str(root)),
                mend="keep one of them",
            )
        found[split] = folder
    # A class may be called "test"; splits are meant only if there is one to train on.
    return found if "train" in found and subfolders(found["train"]) else {}


def _read_classes(listing: Listing, folder: Path, split: str | None) -> None:
    for class_folder in subfolders(folder):
        label = normal(class_folder.name)
        paths = list(image_files(class_folder, errors=listing.errors))
        if not paths:
            listing.empty_classes.append(label if split is None else f"{split}/{label}")
        for path in paths:
            name = relative_name(path, listing.root)
            listing.records.append(Record(path, name, OneClass(label), split))
    loose = list(image_files(folder, recursive=False))
    if loose:
        listing.without_label.extend(loose)
        listing.notes.append(
            f"{len(loose)} images directly in {str(folder)!r} belong to no class and are left out"
        )


def _compare_splits(listing: Listing, splits: dict[str | None, Path]) -> None:
    by_split: dict[str | None, set[str]] = {split: set() for split in splits}
    for record in listing.records:
        if record.split in by_split and record.target is not None:
            by_split[record.split].update(map(str, record.target.names()))
    train = by_split.get("train", set())
    for split, labels in by_split.items():
        unknown = sorted(labels - train)
        if unknown:
            error = UsageError(
                f"{split} has classes that train has no images of: "
                + ", ".join(map(repr, unknown[:10])),
                where=repr(str(splits[split])),
                mend="add training images, or remove these folders",
            )
            listing.errors.append(error)
        absent = sorted(train - labels)
        if absent:
            listing.notes.append(
                f"{split} has no images of: {', '.join(map(repr, absent[:10]))}"
                + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
            )


FOLDER = Reader("folder", _find, read_folder)
