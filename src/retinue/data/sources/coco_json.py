"""What a JSON file of COCO's kind says: its images, boxes and categories, by columns."""

from __future__ import annotations

import gc
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retinue.data.sources.box_rules import Flags, Numbers, Positions
from retinue.data.sources.records import NONE
from retinue.data.sources.walking import normal
from retinue.data.sources.words import sort_names, yes_or_no
from retinue.documents import NotJson, parse_json, repeated_keys
from retinue.errors import UsageError, some
from retinue.files import read_file
from retinue.text import counted, shorten

_SHOWN = 5
_WIDEST = 60
"""Characters of a value that is shown."""
_NUMBERS = (int, float)
_READ = {"images": ["file_name"], "annotations": ["image_id", "bbox"], "categories": []}
"""The lists, and those keys of their entries that hardly anything else has."""
_OUTLINES = re.compile(rb'"segmentation"\s*:\s*(?:\[[^"{}]*\]|\{[^{}]*\})')
"""Nine tenths of a file, and nothing that boxes need. Within a text a quote is escaped, so that
this is never one."""


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
    spoilt: Positions = field(default_factory=lambda: np.zeros(0, np.int64))
    """Images with an annotation that is not among the boxes."""
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
    data, again = _parsed(path)
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
    found.problems += [f"{where}: {doubt}" for doubt in again]
    _add_categories(found, categories)
    _add_images(found, images)
    _add_annotations(found, annotations)
    return found


def _parsed(path: Path) -> tuple[Any, list[str]]:
    """What the file holds, and what it says twice."""
    where = repr(str(path))
    try:
        content = read_file(path)
    except OSError as error:
        what = f"cannot read it: {error.strerror or error}"
        raise UsageError(what, where=where) from None
    for text in (_OUTLINES.sub(b'"segmentation":0', content), content):
        try:
            data = parse_json(text, foreign=True)
            return data, [] if _once(text, data) else _said_again(text)
        except NotJson as error:
            reason = error
    mend = "save it as UTF-8" if "utf" in str(reason) else "was it cut off?"
    if " line " not in str(reason) and "utf" not in str(reason):
        mend = "a data set has no such thing: take it out"
    raise UsageError(f"this is not JSON that is read ({reason})", where=where, mend=mend)


def _once(text: bytes, data: Any) -> bool:
    """Whether no key that is read can stand twice in its object: the text has it no oftener than
    what was made of it. Of most files this is all that is looked at: it is a thousandth of the time
    of reading them."""
    if not isinstance(data, dict):
        return True
    for name, keys in _READ.items():
        if text.count(b'"%s"' % name.encode()) > 1:
            return False
        entries = data.get(name)
        held = [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
        for key in keys:
            if text.count(b'"%s"' % key.encode()) > sum(key in entry for entry in held):
                return False
    return True


def _said_again(text: bytes) -> list[str]:
    """The objects that have a key twice, in words."""
    said = []
    for key, values in repeated_keys(text):
        of = f" of id {values['id']!r}" if "id" in values else ""
        said.append(f"the key {key!r} stands twice in the object{of}: leave one of them")
    return said


def _add_categories(found: Contents, categories: list[Any]) -> None:
    named = []
    for k, entry in enumerate(categories):
        given = entry.get("name") if isinstance(entry, dict) else None
        name = "" if given is None else normal(" ".join(str(given).split()))
        if not name or not _is_id(entry.get("id")):
            found.problems.append(f"{str(found.path)!r}: category {k + 1} has no id or no name")
            continue
        named.append((entry["id"], name, entry))
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
        if not _is_id(number) or not isinstance(name, str) or not name.strip():
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
        found.negative.append(_ids(negative) if isinstance(negative, list) else None)
        found.incomplete.append(_ids(incomplete))


def _is_id(value: Any) -> bool:
    """Whether something can be found by it, and written again: a text or a finite number."""
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _ids(values: Any) -> list[Any]:
    """Those of a list that can be ids."""
    given = values if isinstance(values, list) else []
    return [number for number in given if not isinstance(number, list | dict)]


def _pixels(value: Any) -> int:
    try:
        number = float(value)  # a text, too
    except (TypeError, ValueError, OverflowError):
        return 0
    return int(number) if 0 < number < 1 << 30 else 0


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
    xywh = np.full((len(boxes), 4), np.nan)
    rows = np.flatnonzero(known & boxed)
    xywh[rows] = _numbers([boxes[k] for k in rows.tolist()])
    for k in rows[np.isnan(xywh[rows]).any(axis=1)].tolist():
        if not _four_numbers(boxes[k]):
            said = shorten(repr(boxes[k]), _WIDEST)
            found.problems.append(f"{at} {ids[k]}: its bbox is {said}, not four numbers of pixels")
            known[k] = False
    rows = np.flatnonzero(known & boxed)
    found.spoilt = np.unique(image[(image >= 0) & ~(known & boxed)])
    xywh, kept = xywh[rows], rows.tolist()
    found.ids = [ids[k] for k in kept]
    found.image, found.of = image[rows], of[rows]
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
    whole = _array(boxes)
    if whole is not None and whole.shape[1:] == (4,):
        return whole
    rows = np.full((len(boxes), 4), np.nan)
    for k, box in enumerate(boxes):
        row = _array(box)
        if row is not None and row.shape == (4,):
            rows[k] = row
    return rows


def _four_numbers(box: Any) -> bool:
    """Whether it says so itself, be it that some are NaN; a whole number of 400 digits is none."""
    if type(box) is not list or len(box) != 4:
        return False
    return all(type(v) is float or (type(v) is int and abs(v) < 1 << 1000) for v in box)


def _array(values: Any) -> npt.NDArray[np.float64] | None:
    """None where they are no numbers, or not as many everywhere."""
    try:
        return np.array(values, np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
