"""COCO's JSON: `images`, `annotations` and `categories`, a file a split.

Ids may be numbers or text, sparse and in any order: images and classes are counted from 0 inside,
classes in the order of their ids. `iscrowd` regions are many objects: nothing is learnt there, and
nothing found there is a mistake. `area`, where it is given, tells small from large objects in
evaluation. LVIS's `neg_category_ids` and `not_exhaustive_category_ids` tell of which classes an
image may show more than is marked.
"""

from __future__ import annotations

import gc
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retinue.data.options import DataOptions
from retinue.data.sources.annotated import Annotated, fill, from_one_root, no_boxes
from retinue.data.sources.box_rules import Flags, Numbers, Positions
from retinue.data.sources.layout import image_root
from retinue.data.sources.listing import Listing, Reader, given_path
from retinue.data.sources.looking import first_file
from retinue.data.sources.matching import SEVERAL, match
from retinue.data.sources.pairing import folder_split
from retinue.data.sources.records import NONE, Records, as_names, texts_of
from retinue.data.sources.walking import normal, walk
from retinue.data.sources.words import ORDER, sort_names, split_in, yes_or_no
from retinue.documents import NotJson, parse_json
from retinue.errors import UsageError, some
from retinue.files import encoding_of, open_file, read_file
from retinue.text import counted

_SHOWN = 5
_NUMBERS = (int, float)
_ENDS = 1 << 20
_OUTLINES = re.compile(rb'"segmentation"\s*:\s*(?:\[[^"{}]*\]|\{[^{}]*\})')
"""Nine tenths of a file, and nothing that boxes need. Within a text a quote is escaped, so that
this is never one."""


# --- finding --------------------------------------------------------------------------------------


def _find(options: DataOptions, asked: bool) -> Path | None:
    path = given_path(options)
    if path.is_file():
        return path if asked or (path.suffix.lower() == ".json" and _is_coco(path)) else None
    return path if asked or first_file(path, ".json", _is_coco) else None


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


def _files(path: Path) -> dict[Path, str | None]:
    """The files to read, and the split that each is called like. Raises `UsageError` where several
    could be meant."""
    if path.is_file():
        return {path: split_in(path.stem)}
    found: dict[str | None, list[Path]] = {}
    for name in walk(path).others:
        if name.lower().endswith(".json") and _is_coco(path / name):
            split = split_in(Path(name).stem) or folder_split(name)
            found.setdefault(split, []).append(path / name)
    if len(found) > 1:
        found.pop(None, None)
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
        raise UsageError("no JSON file of boxes in this folder", where=repr(str(path)), mend=mend)
    return dict(sorted(chosen.items(), key=lambda item: ORDER.index(item[1] or "train")))


# --- one file -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Contents:
    """What a file holds, by columns; ids are the file's own."""

    path: Path
    image_ids: list[Any] = field(default_factory=list)
    """(n,)"""
    names: list[str] = field(default_factory=list)
    """(n,) the images' files as they are written."""
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """(n,)"""
    negative: list[list[Any] | None] = field(default_factory=list)
    """(n,) LVIS's ids of the classes that the image does not show; None: it does not say."""
    incomplete: list[list[Any]] = field(default_factory=list)
    """(n,) its ids of those of which it may show more than is marked."""
    category_ids: list[Any] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    """The categories' names, in the order of their ids."""
    parents: list[str] = field(default_factory=list)
    """What each is a kind of; empty: it does not say."""
    ids: list[Any] = field(default_factory=list)
    """(m,) of the boxes."""
    image: Positions = field(default_factory=lambda: np.zeros(0, np.int64))
    """(m,) positions of images."""
    of: Positions = field(default_factory=lambda: np.zeros(0, np.int64))
    """(m,) positions of categories."""
    xyxy: Numbers = field(default_factory=lambda: np.zeros((0, 4)))
    """(m, 4)"""
    area: Numbers = field(default_factory=lambda: np.zeros(0))
    """(m,) NaN: it does not say."""
    crowd: Flags = field(default_factory=lambda: np.zeros(0, bool))
    """(m,)"""
    without_box: list[str] = field(default_factory=list)
    """Annotations whose box is empty."""
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_contents(path: Path) -> Contents:
    """What the file at `path` says. Raises `UsageError` where that is no data set at all; entries
    that make no sense become problems."""
    collects = gc.isenabled()
    gc.disable()  # it would go over millions of values, again and again, and free none
    try:
        return _contents(path)
    finally:
        if collects:
            gc.enable()


def _contents(path: Path) -> Contents:
    data = _parsed(path)
    where = repr(str(path))
    lists: list[list[Any]] = []
    for key in ("images", "annotations", "categories"):
        value = data.get(key) if isinstance(data, dict) else None
        if not isinstance(value, list):
            raise UsageError(
                f"no list of {key} in it",
                where=where,
                mend="a file of COCO's kind has images, annotations and categories",
            )
        lists.append(value)
    images, annotations, categories = lists
    found = Contents(path)
    _add_categories(found, categories)
    _add_images(found, images)
    _add_annotations(found, annotations)
    return found


def _parsed(path: Path) -> Any:
    where = repr(str(path))
    try:
        content = read_file(path)
    except OSError as error:
        what = f"cannot read it: {error.strerror or error}"
        raise UsageError(what, where=where) from None
    for text in (_OUTLINES.sub(b'"segmentation":0', content), content):
        try:
            return parse_json(text, foreign=True)
        except NotJson as error:
            reason = error
    mend = "was it cut off?" if b"utf" not in str(reason).encode() else "save it as UTF-8"
    raise UsageError(f"this is not JSON ({reason})", where=where, mend=mend)


def _add_categories(found: Contents, categories: list[Any]) -> None:
    named = []
    for k, entry in enumerate(categories):
        if not isinstance(entry, dict) or "id" not in entry or not entry.get("name"):
            found.problems.append(f"{str(found.path)!r}: category {k + 1} has no id or no name")
            continue
        named.append((entry["id"], normal(" ".join(str(entry["name"]).split())), entry))
    order = sort_names({str(number) for number, _, _ in named})
    place = {text: k for k, text in enumerate(order)}
    named.sort(key=lambda item: place[str(item[0])])
    for number, name, entry in named:
        found.category_ids.append(number)
        found.classes.append(name)
        found.parents.append(normal(str(entry.get("supercategory") or "")))
    doubled = [name for name, times in Counter(found.classes).items() if times > 1]
    if doubled:
        found.notes.append(f"categories of one name are one class: {some(doubled, _SHOWN)}")


def _add_images(found: Contents, images: list[Any]) -> None:
    at = f"{str(found.path)!r}: image"
    known: set[str] = set()
    for k, entry in enumerate(images):
        number = entry.get("id") if isinstance(entry, dict) else None
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if number is None or not isinstance(name, str) or not name.strip():
            found.problems.append(f"{at} {k + 1} has no id or no file_name")
            continue
        if str(number) in known:
            found.problems.append(f"{at} id {number} again")
            continue
        known.add(str(number))
        found.image_ids.append(number)
        found.names.append(name.strip())
        found.sizes.append((_pixels(entry.get("width")), _pixels(entry.get("height"))))
        negative, incomplete = (
            entry.get(key) for key in ("neg_category_ids", "not_exhaustive_category_ids")
        )
        found.negative.append(negative if isinstance(negative, list) else None)
        found.incomplete.append(incomplete if isinstance(incomplete, list) else [])


def _pixels(value: Any) -> int:
    ok = isinstance(value, int | float) and 0 < value < 1 << 30
    return int(value) if ok else 0


class Ids(dict[Any, int]):
    """Id → position; a number is found by its text, and the reverse."""

    def __init__(self, ids: Iterable[Any]) -> None:
        super().__init__()
        for k, number in enumerate(ids):
            if isinstance(number, int | str):
                self.setdefault(number, k)
            self.setdefault(str(number), k)

    def __missing__(self, number: Any) -> int:
        return self.get(str(number), NONE)


def _add_annotations(found: Contents, annotations: list[Any]) -> None:
    at = f"{str(found.path)!r} annotation"
    entries = [entry for entry in annotations if isinstance(entry, dict)]
    if len(entries) < len(annotations):
        first = next(k for k, entry in enumerate(annotations) if not isinstance(entry, dict))
        found.problems.append(f"{at} {first + 1} is no object")
    ids = [entry.get("id") for entry in entries]
    image, of = (
        _looked_up(known, [entry.get(key) for entry in entries])
        for known, key in ((found.image_ids, "image_id"), (found.category_ids, "category_id"))
    )
    lost: dict[str, list[str]] = {}
    for k in np.flatnonzero((image < 0) | (of < 0)).tolist():
        key = "image_id" if image[k] < 0 else "category_id"
        lost.setdefault(f"{key} {entries[k].get(key)!r}", []).append(str(ids[k]))
    for what, numbers in lost.items():
        of_them = f"annotation {some(numbers, _SHOWN, between=', ')}"
        found.problems.append(f"{str(found.path)!r}: no such {what}, {of_them}")
    boxes = [entry.get("bbox") for entry in entries]
    boxed = np.array([bool(b) and (type(b) is not list or b[2:] != [0, 0]) for b in boxes], bool)
    known = (image >= 0) & (of >= 0)
    found.without_box += [f"{at} {ids[k]}" for k in np.flatnonzero(known & ~boxed).tolist()]
    rows = np.flatnonzero(known & boxed)
    kept = rows.tolist()
    found.ids = [ids[k] for k in kept]
    found.image, found.of = image[rows], of[rows]
    xywh = _numbers([boxes[k] for k in kept])
    found.xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    found.crowd = np.array([_flag(entries[k].get("iscrowd")) for k in kept], bool)
    found.area = np.array([_area(entries[k].get("area")) for k in kept], np.float64)
    doubled = [n for n, times in Counter(map(str, found.ids)).items() if times > 1]
    if doubled:
        stand = counted(len(doubled), "annotation id stands", "annotation ids stand")
        shown = some(doubled, _SHOWN, between=", ")
        found.notes.append(f"{stand} in {found.path.name} more than once: {shown}")


def _looked_up(known: Sequence[Any], ids: list[Any]) -> npt.NDArray[np.int64]:
    """The position of each of the `ids`, or `NONE`."""
    place = Ids(known)
    try:
        return np.array([place[number] for number in ids], np.int64)
    except TypeError:  # lists are no ids
        return np.array([place[str(number)] for number in ids], np.int64)


def _area(value: Any) -> float:
    return value if type(value) in _NUMBERS and value > 0 else math.nan


def _flag(value: Any) -> bool:
    return bool(yes_or_no(value)) if isinstance(value, str) else bool(value)


def _numbers(boxes: list[Any]) -> npt.NDArray[np.float64]:
    """(m, 4); NaN where a box is no four numbers."""
    try:
        return np.array(boxes, np.float64).reshape(len(boxes), 4)
    except (ValueError, TypeError, OverflowError):
        rows = np.full((len(boxes), 4), np.nan)
        for k, box in enumerate(boxes):
            try:
                rows[k] = np.array(box, np.float64)
            except (ValueError, TypeError, OverflowError):
                continue
        return rows


# --- the data set ---------------------------------------------------------------------------------


def read_coco(path: Path, options: DataOptions) -> Listing:
    """Raises `UsageError`."""
    root = path if path.is_dir() else path.parent
    listing = Listing("coco", root, Records.of([]))
    files = _files(path).items()
    parts = [_placed(read_contents(file), split, options, listing) for file, split in files]
    listing.root, prefixes = from_one_root([part.root for part in parts])
    classes: dict[str, int] = {}
    for part in parts:
        for name in _without_parent(part.contents, listing):
            classes.setdefault(name, len(classes))
    listing.classes = list(classes)
    given = _joined(listing, parts, prefixes, classes)
    if not len(given.xyxy):
        for error in listing.errors:
            raise error
        raise no_boxes(listing, "the annotations")
    return fill(listing, given, options)


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
            listing.notes.append(f"{name!r} is what all categories are kinds of, and no class")
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
    columns: dict[str, list[npt.NDArray[Any]]] = {
        name: [] for name in ("image", "xyxy", "of", "crowd", "area", "part", "row")
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
                raise UsageError(
                    f"{name!r} stands in two splits",
                    where=f"{str(said.path)!r} image id {said.image_ids[k]}",
                    mend="leave it in one of them",
                )
            own[position] = files[name] = len(files)
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


COCO = Reader("coco", _find, read_coco)
