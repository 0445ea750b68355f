"""PASCAL VOC: an XML file an image, as the challenge's development kit and labelImg write it.

The layouts: a development kit (`VOC2007/Annotations`, `JPEGImages`, `ImageSets/Main`, of one year
or several), whose lists divide it; folders called `train`, `val` and `test` with images and XML
files in them or below; or any folder of both, which is divided as `data.split` says. An XML file
and its image are called alike.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from retinue.data.formats import meant_as_image
from retinue.data.options import DataOptions
from retinue.data.sources.annotated import Annotated, fill, no_boxes, note_lost, unreadable
from retinue.data.sources.listing import Listing, Reader, given_path
from retinue.data.sources.lists import Lists, read_lists
from retinue.data.sources.looking import ending_in, first_file
from retinue.data.sources.markup import NotXml, read_xml
from retinue.data.sources.pairing import folder_split, pair
from retinue.data.sources.records import NONE, Records
from retinue.data.sources.walking import normal, walk
from retinue.data.sources.words import ORDER, yes_or_no
from retinue.errors import UsageError, some
from retinue.files import expanded, open_file
from retinue.text import counted

_SHOWN = 5
_HEAD = 4096
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def _find(options: DataOptions, asked: bool) -> Path | None:
    path = given_path(options)
    if not path.is_dir():
        if asked:
            what, mend = "not a folder", "give the folder of the XML files and images"
            raise UsageError(what, where=repr(str(path)), mend=mend)
        return None
    return path if asked or first_file(path, ending_in(".xml"), _is_annotation) else None


def _is_annotation(path: Path) -> bool:
    with open_file(path) as file:
        head = file.read(_HEAD)
    return b"<annotation" in head.replace(b"\0", b"")


@dataclass(slots=True)
class Parsed:
    """What an XML file says."""

    filename: str = ""
    size: tuple[int, int] = (0, 0)
    """Width and height; 0: it does not say."""
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    """The number of the object that each box is of, from 1."""
    problems: list[str] = field(default_factory=list)


def parse_annotation(path: Path) -> Parsed:
    """Its children in any order. What is wrong with an object becomes a problem; NotXml or OSError
    for what cannot be read at all."""
    root = read_xml(path)
    if root.tag != "annotation":
        raise NotXml(f"its root is <{root.tag}> and not <annotation>")
    found = Parsed(filename=_text(root, "filename"))
    found.size = (_pixels(root, "size/width"), _pixels(root, "size/height"))
    for number, thing in enumerate(root.iter("object"), 1):
        name = normal(" ".join(_text(thing, "name").split()))
        boxes = thing.findall("bndbox")
        if not name:
            found.problems.append(f"object {number} has no <name>")
        elif not boxes:
            found.problems.append(f"object {number}, {name!r}, has no <bndbox>")
        for box in boxes if name else ():
            corners = [_number(_text(box, corner)) for corner in _CORNERS]
            if any(map(math.isnan, corners)):
                wrong = _CORNERS[[math.isnan(value) for value in corners].index(True)]
                said = _text(box, wrong)
                found.problems.append(
                    f"object {number}, {name!r}: <{wrong}> is "
                    + (f"{said[:40]!r}, no number" if said else "missing")
                )
                continue
            found.boxes.append((corners[0], corners[1], corners[2], corners[3]))
            found.names.append(name)
            found.difficult.append(bool(yes_or_no(_text(thing, "difficult"))))
            found.objects.append(number)
    return found


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _pixels(element: ElementTree.Element, path: str) -> int:
    value = _number(_text(element, path))
    return int(value) if 0 < value < 1 << 30 else 0


# --- the data set ---------------------------------------------------------------------------------


def read_voc(path: Path, options: DataOptions) -> Listing:
    """Images without an XML file are left out, and counted. Raises `UsageError`."""
    listing = Listing("voc", path, Records.of([]))
    images, others, closed = walk(path)
    listing.errors += closed
    root = path
    if options.images is not None:
        # They lie elsewhere: both are named from the folder that holds both.
        root, images, others = _elsewhere(path, options.images, others)
        listing.root = root
    labels = [name for name in others if name.lower().endswith(".xml")]
    listing.not_images += [name for name in others if meant_as_image(name)]
    parsed = [_parsed(root, label, listing) for label in labels]
    paired = pair(labels, images, lambda k: "" if (said := parsed[k]) is None else said.filename)
    usable: dict[int, int] = {}
    for k, label in enumerate(labels):
        said = parsed[k]
        if said is None:
            continue
        if k in paired.lost:
            listing.missing.append(label)
            told = f" (it says {said.filename!r})" if said.filename else ""
            listing.problems.append(f"{_at(root, label)}: no image is called so{told}")
            continue
        several = paired.torn.get(k) or paired.image[k]
        exact = [i for i in several if os.path.basename(images[i]) == said.filename]
        if len(several) > 1 and len(exact) != 1:
            shown = some([repr(images[i]) for i in several], _SHOWN, between=", ")
            listing.problems.append(f"{_at(root, label)}: it can be of any of {shown}")
            continue
        image = exact[0] if len(several) > 1 else several[0]
        if image in usable:
            other = labels[usable[image]]
            listing.problems.append(
                f"{_at(root, label)}: {images[image]!r} has its boxes from {other!r} already"
            )
            continue
        usable[image] = k
    lost = {
        i for i, k in usable.items() if (said := parsed[k]) and said.problems and not said.boxes
    }
    note_lost(listing, [images[i] for i in sorted(lost)])
    if paired.loosely:
        k = paired.loosely[0]
        files = counted(len(paired.loosely), "XML file is", "XML files are")
        listing.notes.append(
            f"{files} not called like their images: {labels[k]!r} is of"
            f" {images[paired.image[k][0]]!r}"
        )
    if options.unlabelled == "background":
        usable = {k: usable.get(k, NONE) for k in range(len(images))}
    _note_unlabelled(listing, images, usable)
    chosen, splits = _divided(listing, root, images, sorted(usable.keys() - lost))
    given = _annotated(root, images, labels, parsed, [(i, usable[i]) for i in chosen])
    given.splits = splits
    _refuse_nothing(listing, given, labels)
    return fill(listing, given, options)


def _at(root: Path, label: str) -> str:
    return repr(str(root / label))


def _elsewhere(path: Path, images: str, others: list[str]) -> tuple[Path, list[str], list[str]]:
    """The folder that holds both labels and images, and both from there."""
    there = expanded(images)
    if not there.is_dir():
        raise UsageError("no such folder", where=f"key data.images, {images!r}")
    try:
        root = Path(os.path.commonpath([path.absolute(), there.absolute()]))
    except ValueError:
        raise UsageError("on another drive than the labels", where="key data.images") from None
    inside = [
        "" if (part := os.path.relpath(folder.absolute(), root)) == "." else f"{part}/"
        for folder in (path, there)
    ]
    own, other = (prefix.replace(os.sep, "/") for prefix in inside)
    return root, [other + name for name in walk(there).images], [own + name for name in others]


def _parsed(root: Path, label: str, listing: Listing) -> Parsed | None:
    """What an XML file says; a problem, and None, where it is none of VOC's."""
    try:
        found = parse_annotation(root / label)
    except NotXml as error:
        listing.problems.append(f"{_at(root, label)}: {error}")
        return None
    except OSError as error:
        listing.problems.append(unreadable(root / label, error))
        return None
    listing.problems += [f"{_at(root, label)}: {problem}" for problem in found.problems]
    return found


def _note_unlabelled(listing: Listing, images: Sequence[str], usable: dict[int, int]) -> None:
    without = [listing.root / name for k, name in enumerate(images) if usable.get(k, NONE) == NONE]
    if without:
        listing.without_label += without
        have = counted(len(without), "image has", "images have")
        become = "taken to show no object" if NONE in usable.values() else "left out"
        listing.without_label_become = f"no XML file: {become}"
        listing.notes.append(f"{have} no XML file: {become}, {without[0].name!r} the first")


def _refuse_nothing(listing: Listing, given: Annotated, labels: Sequence[str]) -> None:
    if len(given.xyxy):
        return
    for error in listing.errors:
        raise error
    raise no_boxes(listing, counted(len(labels), "XML file"))


def _annotated(
    root: Path,
    images: Sequence[str],
    labels: Sequence[str],
    parsed: Sequence[Parsed | None],
    chosen: Sequence[tuple[int, int]],
) -> Annotated:
    said = [(k, (parsed[k] if k != NONE else None) or Parsed()) for _, k in chosen]
    files = [images[i] for i, _ in chosen]
    classes = sorted({name for _, found in said for name in found.names})
    code = {name: k for k, name in enumerate(classes)}
    of_label = np.array([k for k, _ in said], np.int64)
    counts = [len(found.boxes) for _, found in said]
    image = np.repeat(np.arange(len(said)), counts)
    numbers = [number for _, found in said for number in found.objects]
    corners = [box for _, found in said for box in found.boxes]
    return Annotated(
        files=files,
        claimed=np.array([found.size for _, found in said], np.int64).reshape(-1, 2),
        image_at=lambda k: _at(root, labels[at] if (at := of_label[k]) != NONE else files[k]),
        image=image,
        xyxy=np.array(corners, np.float64).reshape(-1, 4),
        of=np.array([code[name] for _, found in said for name in found.names], np.int64),
        classes=classes,
        box_at=lambda k: f"{_at(root, labels[of_label[image[k]]])} object {numbers[k]}",
        difficult=np.array([flag for _, found in said for flag in found.difficult], bool),
        counted_by_pixels=True,
    )


def _divided(
    listing: Listing, root: Path, images: Sequence[str], usable: Sequence[int]
) -> tuple[list[int], npt.NDArray[np.int8] | None]:
    """Those of the images `usable` that are used, and the split of each; None: the data does not
    say."""
    lists = read_lists(root, images)
    if lists is not None:
        return _by_lists(listing, lists, images, usable)
    splits = [folder_split(images[k]) for k in usable]
    if not any(splits):
        return list(usable), None
    beside = [images[k] for k, split in zip(usable, splits, strict=True) if split is None]
    if beside:
        are = counted(len(beside), "image lies", "images lie")
        listing.notes.append(f"{are} beside the folders of the splits: left out, {beside[0]!r}")
    codes = [ORDER.index(split) for split in splits if split is not None]
    chosen = [k for k, split in zip(usable, splits, strict=True) if split is not None]
    return chosen, np.array(codes, np.int8)


def _by_lists(
    listing: Listing, lists: Lists, images: Sequence[str], usable: Sequence[int]
) -> tuple[list[int], npt.NDArray[np.int8]]:
    listing.notes += lists.notes
    listing.problems += lists.problems
    there = set(usable)
    bare = [k for k in lists.split if k not in there]
    if bare:
        have = counted(len(bare), "listed image has", "listed images have")
        listing.notes.append(f"{have} no boxes to read: left out, {images[min(bare)]!r}")
    chosen = [k for k in usable if k in lists.split]
    if len(chosen) < len(usable):
        first = next(images[k] for k in usable if k not in lists.split)
        are = counted(len(usable) - len(chosen), "image is", "images are")
        listing.notes.append(f"{are} in none of the lists: left out, {first!r}")
    return chosen, np.array([lists.split[k] for k in chosen], np.int8)


VOC = Reader(
    "voc",
    _find,
    read_voc,
    heeds=frozenset({"first_pixel", "unlabelled"}),
    labels="boxes in PASCAL VOC's XML",
)
