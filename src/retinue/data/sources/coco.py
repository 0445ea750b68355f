"""COCO's JSON: `images`, `annotations` and `categories`, a file a split.

Ids may be numbers or text, sparse and in any order: images and classes are counted from 0 inside,
classes in the order of their ids. `iscrowd` regions are many objects: nothing is learnt there, and
nothing found there is a mistake. `area`, where it is given, tells small from large objects in
evaluation. LVIS's `neg_category_ids` and `not_exhaustive_category_ids` tell of which classes an
image may show more than is marked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retinue.data.options import DataOptions
from retinue.data.sources.annotated import (
    Annotated,
    beside_splits,
    fill,
    from_one_root,
    no_boxes,
    unreadable,
)
from retinue.data.sources.coco_json import Contents, Ids, read_contents
from retinue.data.sources.layout import image_root
from retinue.data.sources.listing import Listing, Reader, given_path
from retinue.data.sources.looking import ending_in, first_file
from retinue.data.sources.matching import SEVERAL, match
from retinue.data.sources.pairing import file_split
from retinue.data.sources.records import NONE, Records, as_names, texts_of
from retinue.data.sources.walking import normal, walk
from retinue.data.sources.words import ORDER, split_in
from retinue.errors import UsageError, some
from retinue.files import encoding_of, open_file
from retinue.text import counted

_SHOWN = 5
_ENDS = 1 << 20


# --- finding --------------------------------------------------------------------------------------


def _find(options: DataOptions, asked: bool) -> Path | None:
    path = given_path(options)
    if path.is_file():
        return path if asked or (path.suffix.lower() == ".json" and _is_coco(path)) else None
    return path if asked or first_file(path, ending_in(".json"), _is_coco) else None


def _is_coco(path: Path) -> bool:
    """By both ends of the file: a large one is not read for it."""
    with open_file(path) as file:
        start = file.read(_ENDS)
        file.seek(max(os.fstat(file.fileno()).st_size - _ENDS, 0))
        ends = start + file.read(_ENDS)
    ends = ends.replace(b"\0", b"") if encoding_of(start[:64]) != "utf-8-sig" else ends
    if not re.match(rb"[\s\xef\xbb\xbf\xff\xfe]*\{", ends):
        return False
    return b'"images"' in ends and (b'"categories"' in ends or b'"category_id"' in ends)


def _files(path: Path, listing: Listing) -> dict[Path, str | None]:
    """The files to read, and the split that each is called like; one that cannot be opened is one
    of the listing's problems. Raises `UsageError` where several could be meant."""
    if path.is_file():
        return {path: split_in(path.stem)}
    found: dict[str | None, list[Path]] = {}
    for name in walk(path).others:
        if not name.lower().endswith(".json"):
            continue
        try:
            tells_boxes = _is_coco(path / name)
        except OSError as error:
            listing.problems.append(unreadable(path / name, error))
            continue
        if tells_boxes:
            split = file_split(name, Path(name).stem)
            found.setdefault(split, []).append(path / name)
    if len(found) > 1 and (beside := found.pop(None, [])):
        listing.notes.append(beside_splits(beside, path))
    chosen: dict[Path, str | None] = {}
    for split, files in found.items():
        # Beside them lie key points and captions of the same images.
        best = [f for f in files if f.name.startswith("instances")] or files
        if len(best) > 1:
            names = some([repr(str(f.relative_to(path))) for f in best], _SHOWN, between=", ")
            raise UsageError(
                f"one JSON file of boxes{f' for {split}' if split else ''} was expected, found"
                f" {names}",
                where=repr(str(path)),
                mend="give the file itself as data=PATH",
            )
        chosen[best[0]] = split
    if not chosen:
        mend = "give the file itself as data=PATH"
        where = listing.problems[0] if listing.problems else repr(str(path))
        raise UsageError("no JSON file of boxes in this folder", where=where, mend=mend)
    return dict(sorted(chosen.items(), key=lambda item: ORDER.index(item[1] or "train")))


# --- the data set ---------------------------------------------------------------------------------


def read_coco(path: Path, options: DataOptions) -> Listing:
    """Raises `UsageError`."""
    root = path if path.is_dir() else path.parent
    listing = Listing("coco", root, Records.of([]))
    files = _files(path, listing).items()
    parts = [_placed(read_contents(file), split, options, listing) for file, split in files]
    listing.root, prefixes = from_one_root([part.root for part in parts])
    classes: dict[str, int] = {}
    for part in parts:
        said = part.contents
        for name, number in zip(said.classes, said.category_ids, strict=True):
            listing.class_ids.setdefault(name, number)
        for name in _without_parent(said, listing):
            classes.setdefault(name, len(classes))
    listing.classes = list(classes)
    given = _joined(listing, parts, prefixes, classes)
    if not len(given.xyxy):
        for error in listing.errors:
            raise error
        if not listing.problems:
            _refuse_without_boxes(parts)
        raise no_boxes(listing, "the annotations")
    return fill(listing, given, options)


def _refuse_without_boxes(parts: Sequence[_Placed]) -> None:
    """Raises `UsageError` where there are annotations, none of them with a box."""
    without = [at for part in parts for at in part.contents.without_box]
    if without:
        count = counted(len(without), "annotation has", "annotations have")
        mend = "outlines (segmentation) alone are not read: add their bbox"
        raise UsageError(f"{count} no box, and no other has", where=without[0], mend=mend)


@dataclass(frozen=True, eq=False)
class _Placed:
    """A file whose images are found."""

    contents: Contents
    split: str | None
    root: Path
    files: list[str]
    """The images that there are, each once, from the root."""
    image: npt.NDArray[np.int64]
    """(n,) positions in `files` of the file's images; `NONE`: it is not there."""


def _placed(
    contents: Contents, split: str | None, options: DataOptions, listing: Listing
) -> _Placed:
    listing.notes += contents.notes
    listing.problems += contents.problems
    names = as_names(contents.names)
    files = image_root(contents.path, names, options, around=True, split=split or "train")
    found = match(names, files)
    for k in np.flatnonzero(found.position < 0).tolist():
        name = contents.names[k]
        at = f"{str(contents.path)!r} image id {contents.image_ids[k]}"
        if found.position[k] == SEVERAL:
            what = some([repr(found.files.path(i)) for i in found.candidates[k]], _SHOWN)
            listing.problems.append(f"{at}: {name!r} can be any of {what}")
        else:
            near = found.near(name) if len(listing.missing) < _SHOWN else ""
            listing.missing.append(name)
            what = f"no image {name!r} in {str(found.files.root)!r}"
            listing.problems.append(f"{at}: {what}" + (f" (there is {near!r})" if near else ""))
    listing.errors += found.files.closed
    there = np.flatnonzero(found.position >= 0)
    beside = found.files.images_beside(found.position[there])
    if beside:
        listing.without_label += beside
        listing.without_label_become = (
            "no entry in `images`: left out; one without annotations says that there is no object"
        )
        have = counted(len(beside), "image has", "images have")
        listing.notes.append(
            f"{have} no entry in {contents.path.name}: left out, {beside[0].name!r} the first"
        )
    place, first, sort = np.unique(found.position[there], return_index=True, return_inverse=True)
    order = np.argsort(first)
    image = np.full(len(names), NONE, np.int64)
    image[there] = np.argsort(order)[sort]
    if len(place) < len(there):
        again = counted(len(there) - len(place), "entry is", "entries are")
        listing.notes.append(f"{again} of an image that another one is of: their boxes are joined")
    return _Placed(
        contents, split, found.files.root, texts_of(found.files.paths(place[order])), image
    )


def _without_parent(contents: Contents, listing: Listing) -> list[str]:
    """The classes, but for one that is nothing but what all others are kinds of: Roboflow writes
    such a one first."""
    used = set(contents.of.tolist())
    for k, name in enumerate(contents.classes):
        others = {p for n, p in enumerate(contents.parents) if n != k}
        if k not in used and others == {name}:
            listing.notes.append(f"{name!r} is the supercategory of all others, and no class")
            return [other for other in contents.classes if other != name]
    return contents.classes


def _joined(
    listing: Listing, parts: Sequence[_Placed], prefixes: Sequence[str], classes: dict[str, int]
) -> Annotated:
    """All files as one. Raises `UsageError` for an image of two splits."""
    files: dict[str, int] = {}
    splits: list[int] = []
    sizes: list[tuple[int, int]] = []
    at: list[str] = []
    unsure: list[tuple[str, ...]] = []
    again: list[str] = []
    columns: dict[str, list[npt.NDArray[Any]]] = {
        name: [] for name in ("image", "xyxy", "of", "crowd", "area", "part", "row", "spoilt")
    }
    for number, (part, prefix) in enumerate(zip(parts, prefixes, strict=True)):
        said = part.contents
        code = NONE if part.split is None else ORDER.index(part.split)
        own = np.full(len(part.files), NONE, np.int64)
        of_image = np.array([classes.get(name, NONE) for name in said.classes], np.int64)
        open_classes = _open_classes(said)
        for k, position in enumerate(part.image.tolist()):
            if position < 0 or own[position] >= 0:
                continue
            name = prefix + part.files[position]
            if name in files:
                if splits[files[name]] != code:
                    raise UsageError(
                        f"{name!r} stands in two splits",
                        where=f"{str(said.path)!r} image id {said.image_ids[k]}",
                        mend="leave it in one of them",
                    )
                own[position] = files[name]
                again.append(f"{name!r} ({str(said.path)!r} image id {said.image_ids[k]})")
                continue
            own[position] = files[name] = len(files)
            listing.image_ids[normal(name)] = said.image_ids[k]
            splits.append(code)
            sizes.append(said.sizes[k])
            at.append(f"{str(said.path)!r} image id {said.image_ids[k]}")
            unsure.append(open_classes[k])
        place = part.image[said.image]
        kept = np.flatnonzero(place >= 0)
        columns["image"].append(own[place[kept]])
        columns["xyxy"].append(said.xyxy[kept])
        columns["of"].append(of_image[said.of[kept]])
        columns["crowd"].append(said.crowd[kept])
        columns["area"].append(said.area[kept])
        columns["part"].append(np.full(len(kept), number))
        columns["row"].append(kept)
        spoilt = part.image[said.spoilt]
        columns["spoilt"].append(own[spoilt[spoilt >= 0]])
    if again:
        images = counted(len(again), "image is", "images are")
        listing.notes.append(f"{images} listed twice, with the objects of both: {some(again, 3)}")
    joined = {name: np.concatenate(values) for name, values in columns.items()}

    def box_at(k: int) -> str:
        said = parts[int(joined["part"][k])].contents
        return f"{str(said.path)!r} annotation {said.ids[int(joined['row'][k])]}"

    without = [where for part in parts for where in part.contents.without_box]
    if without:
        names = some(without, _SHOWN)
        listing.notes.append(f"annotations without a box: {len(without):,}, left out: {names}")
    return Annotated(
        files=list(files),
        claimed=np.array(sizes, np.int64).reshape(-1, 2),
        image_at=lambda k: at[k],
        image=joined["image"],
        xyxy=joined["xyxy"],
        of=joined["of"],
        classes=list(classes),
        box_at=box_at,
        crowd=joined["crowd"],
        spoilt=joined["spoilt"],
        area=joined["area"] if not np.isnan(joined["area"]).all() else None,
        splits=np.array(splits, np.int8) if any(code != NONE for code in splits) else None,
        not_exhaustive=unsure if any(unsure) else None,
    )


def _open_classes(said: Contents) -> list[tuple[str, ...]]:
    """(n,) the classes of which each image may show more than is marked."""
    if not any(negative is not None for negative in said.negative) and not any(said.incomplete):
        return [()] * len(said.names)
    categories = Ids(said.category_ids)
    marked: list[set[int]] = [set() for _ in said.names]
    for image, of in zip(said.image.tolist(), said.of.tolist(), strict=True):
        marked[image].add(of)
    found = []
    for k, negative in enumerate(said.negative):
        more = {categories[number] for number in said.incomplete[k]}
        if negative is not None:
            known = marked[k] | {categories[number] for number in negative}
            more |= {position for position in range(len(said.classes)) if position not in known}
        found.append(tuple(said.classes[position] for position in sorted(more) if position >= 0))
    return found


COCO = Reader("coco", _find, read_coco, labels="boxes in COCO's JSON")
