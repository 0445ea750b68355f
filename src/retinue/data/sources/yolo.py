"""YOLO: a text file an image, with a row a box; and a YAML file (or Darknet's `.data`) that says
where they are and what the classes are called.

The label of `…/images/…/a.jpg` is `…/labels/…/a.txt`, or `a.txt` beside it, or the one file of that
name; each image is looked for by itself. One without a label shows nothing, which is said; where
half of them have none, something is wrong, and `data.unlabelled` must say what is meant.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retinue.data.dimensions import dimensions, upright
from retinue.data.options import DataOptions
from retinue.data.sources.annotated import Annotated, fill, no_boxes, note_lost, unreadable
from retinue.data.sources.box_rules import Oddity
from retinue.data.sources.listing import Listing, Reader, given_path
from retinue.data.sources.looking import ending_in, first_file
from retinue.data.sources.pairing import folder_split, pair
from retinue.data.sources.records import NONE, Records
from retinue.data.sources.walking import walk
from retinue.data.sources.words import ORDER, sort_names
from retinue.data.sources.yolo_rows import (
    NO_LABELS,
    Rows,
    looks_like_rows,
    names_near,
    read_rows,
)
from retinue.data.sources.yolo_yaml import Description, describe, description_in
from retinue.errors import UsageError
from retinue.files import expanded
from retinue.text import counted

_SHOWN = 5
_MOST_BARE = 0.5
"""Share of the images that may be without a label before it must be said what is meant."""


def _find(options: DataOptions, asked: bool) -> Path | None:
    path = given_path(options)
    if path.is_file():
        return path if asked or describe(path) is not None else None
    described = description_in(path)
    if described is not None:
        return described
    return (
        path if asked or first_file(path, ending_in(".txt"), looks_like_rows, opened=20) else None
    )


@dataclass(slots=True)
class _Images:
    """All images, each once, by their absolute paths."""

    paths: list[str] = field(default_factory=list)
    splits: list[int] = field(default_factory=list)
    """Positions in `ORDER`, or `NONE`."""


def read_yolo(path: Path, options: DataOptions) -> Listing:
    """Raises `UsageError`."""
    said = describe(path) if path.is_file() else None
    if path.is_file() and said is None:
        raise UsageError(
            "no description of YOLO's kind: it names no train and no val",
            where=repr(str(path)),
            mend="train: images/train",
        )
    root = Path(os.path.abspath(path.parent if path.is_file() else path))
    listing = Listing("yolo", root, Records.of([]))
    if said is not None:
        images = _described(said, listing)
    else:
        folder = root if options.images is None else expanded(options.images).absolute()
        found = walk(folder)
        listing.errors += found.closed
        splits = [folder_split(name) for name in found.images]
        images = _Images(
            [os.path.join(folder, name) for name in found.images],
            [NONE if split is None else ORDER.index(split) for split in splits],
        )
        if any(splits) and not all(splits):
            _leave_out_beside(images, listing)
    if not images.paths:
        raise UsageError("no images", where=repr(str(path)), mend="see the paths in it")
    listing.root = _root(root, images.paths)
    files = [os.path.relpath(p, listing.root).replace(os.sep, "/") for p in images.paths]
    labels = _labels(listing, files, root)
    names, where_names = _names(said, listing, labels)
    rows = {k: _read(listing, label, said) for k, label in labels.items()}
    _note_rows(listing, rows, labels)
    _unlabelled(listing, files, labels, options)
    given = _annotated(listing, files, images.splits, labels, rows, names, where_names, options)
    if not len(given.xyxy):
        for error in listing.errors:
            raise error
        raise no_boxes(listing, counted(len(set(labels.values())), "label file"))
    return fill(listing, given, options)


# --- images ---------------------------------------------------------------------------------------


def _described(said: Description, listing: Listing) -> _Images:
    """Those that the description names. One of several splits is of the first of them."""
    images, known = _Images(), dict[str, int]()
    listing.notes += said.notes
    listing.errors += said.errors
    for code, split in enumerate(ORDER):
        again = 0
        for path in said.images.get(split, ()):
            if path in known:
                again += known[path] != code
                continue
            known[path] = code
            images.paths.append(path)
            images.splits.append(code)
        if again:
            are = counted(again, "image of {} is", "images of {} are").format(split)
            listing.notes.append(f"{are} in another split already: left out there")
    listing.problems += said.problems
    return images


def _leave_out_beside(images: _Images, listing: Listing) -> None:
    beside = [p for p, split in zip(images.paths, images.splits, strict=True) if split == NONE]
    are = counted(len(beside), "image lies", "images lie")
    listing.notes.append(f"{are} beside the folders of the splits: left out, {beside[0]!r}")
    kept = [k for k, split in enumerate(images.splits) if split != NONE]
    images.paths = [images.paths[k] for k in kept]
    images.splits = [images.splits[k] for k in kept]


def _root(folder: Path, paths: Sequence[str]) -> Path:
    """The data set's folder where all images lie in it; else the one that holds them all."""
    own = os.path.join(folder, "")
    if all(path.startswith(own) for path in paths):
        return folder
    return Path(os.path.commonpath([os.path.dirname(path) for path in paths]))


# --- labels ---------------------------------------------------------------------------------------


def _labels(listing: Listing, files: Sequence[str], root: Path) -> dict[int, str]:
    """Image → its label file, both from the root."""
    texts = _texts(listing, files, root)
    there = set(texts)
    found: dict[int, str] = {}
    for k, file in enumerate(files):
        stem = os.path.splitext(file)[0]
        for place in (*_in_labels(stem), stem):
            if f"{place}.txt" in there:
                found[k] = f"{place}.txt"
                break
    taken = set(found.values())
    left = [text for text in texts if text not in taken]
    bare = [k for k in range(len(files)) if k not in found]
    if left and bare:
        _by_name(listing, files, bare, left, found)
    _without_image(listing, files, texts, found)
    shared: dict[str, list[int]] = defaultdict(list)
    for k, text in found.items():
        shared[text].append(k)
    names = [
        f"{text} of {', '.join(files[k] for k in several)}"
        for text, several in shared.items()
        if len(several) > 1
    ]
    if names:
        odd = Oddity("label files of several images", names, "the same boxes are taken for each")
        listing.oddities.append(odd)
    return found


def _texts(listing: Listing, files: Sequence[str], root: Path) -> list[str]:
    """All text files that may be labels, from the root: of the data set's folder, of those of the
    images, and of the `labels` that belong to these."""
    folders = {os.path.dirname(file) for file in files}
    wanted = folders | {place for folder in folders for place in _in_labels(f"{folder}/")}
    found: dict[str, None] = {}
    for folder in sorted({place.rstrip("/") for place in wanted}):
        try:
            names = sorted(os.listdir(listing.root / folder))
        except OSError:
            continue
        prefix = f"{folder}/" if folder else ""
        found |= {prefix + name: None for name in names if _may_be_label(name)}
    across = os.path.relpath(root, listing.root).replace(os.sep, "/")
    prefix = "" if across == "." else f"{across}/"
    found |= {prefix + name: None for name in walk(root).others if _may_be_label(name)}
    return list(found)


def _may_be_label(name: str) -> bool:
    lower = name.rsplit("/", 1)[-1].lower()
    return lower.endswith(".txt") and lower not in NO_LABELS and not lower.startswith(".")


def _in_labels(path: str) -> list[str]:
    """`path` with `labels` in the place of a folder called `images` (or as VOC calls it), the last
    one first."""
    parts = path.split("/")
    places = [k for k, part in enumerate(parts[:-1]) if part in ("images", "JPEGImages")]
    return ["/".join([*parts[:k], "labels", *parts[k + 1 :]]) for k in reversed(places)]


def _by_name(
    listing: Listing,
    files: Sequence[str],
    bare: Sequence[int],
    left: Sequence[str],
    found: dict[int, str],
) -> None:
    """Label files that lie elsewhere and are called like an image that has none."""
    paired = pair(left, [files[k] for k in bare])
    chosen = {
        label: images
        for label, images in paired.image.items()
        if looks_like_rows(listing.root / left[label])
    }
    for label, images in chosen.items():
        for image in images:
            found.setdefault(bare[image], left[label])
    if chosen:
        label, images = next(iter(chosen.items()))
        have = counted(len(chosen), "label file was", "label files were")
        listing.notes.append(
            f"{have} found by name alone: {left[label]!r} for {files[bare[images[0]]]!r}"
        )


def _without_image(
    listing: Listing, files: Sequence[str], texts: Sequence[str], found: Mapping[int, str]
) -> None:
    """Label files that lie among those of images, and are none's."""
    taken = set(found.values())
    folders = {os.path.dirname(text) for text in taken}
    lost = [t for t in texts if t not in taken and os.path.dirname(t) in folders]
    if not lost:
        return
    # A list may name some of the images of a folder only.
    places = {os.path.dirname(file) for file in files}
    there = {
        os.path.splitext(name)[0]
        for folder in places
        for name in walk(listing.root / folder, recursive=False).images
    }
    for text in lost:
        if os.path.splitext(os.path.basename(text))[0] in there:
            continue
        if looks_like_rows(listing.root / text):
            listing.missing.append(text)
            where = repr(str(listing.root / text))
            listing.problems.append(f"{where}: no image is called so")


def _read(listing: Listing, label: str, said: Description | None) -> Rows:
    where = repr(str(listing.root / label))
    try:
        rows = read_rows(listing.root / label, points=said is not None and said.points)
    except OSError as error:
        listing.problems.append(unreadable(listing.root / label, error))
        return Rows(problems=[str(error)])
    listing.problems += [f"{where} {problem}" for problem in rows.problems]
    return rows


def _note_rows(listing: Listing, rows: Mapping[int, Rows], labels: Mapping[int, str]) -> None:
    for name, what in (
        ("confidences", "a sixth column, taken for a confidence and passed over"),
        ("outlines", "corners of an outline, of which the box around them is taken"),
    ):
        having = [k for k, found in rows.items() if getattr(found, name)]
        if having:
            count = sum(getattr(rows[k], name) for k in having)
            have = counted(count, "row has", "rows have")
            listing.notes.append(f"{have} {what}: {labels[having[0]]!r} the first")


def _unlabelled(
    listing: Listing, files: list[str], labels: Mapping[int, str], options: DataOptions
) -> None:
    """What becomes of images without a label file."""
    bare = [files[k] for k in range(len(files)) if k not in labels]
    if not bare:
        return
    share = len(bare) / len(files)
    have = counted(len(bare), "image has", "images have")
    listing.without_label += [listing.root / name for name in bare]
    if options.unlabelled == "auto" and share >= _MOST_BARE:
        listing.errors.append(
            UsageError(
                f"{share:.0%} of the images have no label file, {bare[0]!r} the first",
                where=repr(str(listing.root)),
                mend="put each where its image is, with `labels` for `images` in its path;"
                " data.unlabelled=background says that they show no object,"
                " data.unlabelled=leave_out uses the others alone",
            )
        )
    else:
        left_out = options.unlabelled == "leave_out"
        become = "left out" if left_out else "taken to show no object"
        listing.without_label_become = f"no label file: {become}"
        listing.notes.append(f"{have} no label file: {become}, {bare[0]!r} the first")


# --- classes and boxes ----------------------------------------------------------------------------


def _names(
    said: Description | None, listing: Listing, labels: Mapping[int, str]
) -> tuple[dict[int, str] | None, str]:
    """Id → name, and where they stand; None: there are no names."""
    if said is not None and said.names is not None:
        return said.names, said.where_names
    folders = sorted({listing.root / os.path.dirname(label) for label in labels.values()})
    above = sorted({folder.parent for folder in folders})
    near = names_near([listing.root, *folders, *above])
    if near is None:
        listing.notes.append("no names of classes: they are called by their numbers")
        return None, ""
    listing.notes.append(f"names of the classes from {str(near[0])!r}")
    return near[1], repr(str(near[0]))


def _annotated(
    listing: Listing,
    files: list[str],
    splits: Sequence[int],
    labels: Mapping[int, str],
    rows: Mapping[int, Rows],
    names: dict[int, str] | None,
    where_names: str,
    options: DataOptions,
) -> Annotated:
    if options.unlabelled == "leave_out":
        kept = [k for k in range(len(files)) if k in labels]
    else:
        kept = list(range(len(files)))
    kept = _known(listing, files, kept, rows)
    found = dimensions([str(listing.root / files[k]) for k in kept])
    sides = upright(found).astype(np.float64)
    names = names if names is not None else _numbered(rows)
    classes = [names[number] for number in sorted(names)]
    code = {number: k for k, number in enumerate(sorted(names))}
    listing.classes = classes
    columns: dict[str, list[Any]] = {"image": [], "xywh": [], "of": [], "line": []}
    for position, k in enumerate(kept):
        said = rows.get(k)
        if said is None or not sides[position].all():
            continue  # of an image that cannot be read nothing can be said in pixels
        for of, shares, line in zip(said.of, said.xywh, said.lines, strict=True):
            if of not in code:
                where = f"{str(listing.root / labels[k])!r} line {line}"
                last = max(code, default=-1)
                listing.problems.append(
                    f"{where}: class {of}, but the last one is {last} in {where_names}"
                )
                continue
            for name, value in zip(columns, (position, shares, code[of], line), strict=True):
                columns[name].append(value)
    image = np.array(columns["image"], np.int64)
    xywh = np.array(columns["xywh"], np.float64).reshape(-1, 4)
    corners = np.concatenate([xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, :2] + xywh[:, 2:] / 2], axis=1)
    # What is nothing wide stays so, whatever is rounded.
    corners[:, 2:] = np.where(xywh[:, 2:] == 0, corners[:, :2], corners[:, 2:])
    lines = columns["line"]

    def box_at(k: int) -> str:
        return f"{str(listing.root / labels[kept[image[k]]])!r} line {lines[k]}"

    given = np.array([splits[k] for k in kept], np.int8)
    return Annotated(
        files=[files[k] for k in kept],
        claimed=np.zeros((len(kept), 2), np.int64),
        image_at=lambda k: files[kept[k]],
        image=image,
        xyxy=corners * np.tile(sides, 2)[image],
        of=np.array(columns["of"], np.int64),
        classes=classes,
        box_at=box_at,
        splits=given if (given != NONE).any() else None,
        found=found,
        sized=False,
    )


def _known(
    listing: Listing, files: Sequence[str], kept: Sequence[int], rows: Mapping[int, Rows]
) -> list[int]:
    """Those of `kept` of whose labels anything can be used, if there are any."""
    lost = {k for k, found in rows.items() if found.problems and not found.of}
    note_lost(listing, [files[k] for k in kept if k in lost])
    return [k for k in kept if k not in lost]


def _numbered(rows: Mapping[int, Rows]) -> dict[int, str]:
    used = {of for found in rows.values() for of in found.of}
    return {int(name): name for name in sort_names(map(str, used))}


YOLO = Reader(
    "yolo", _find, read_yolo, heeds=frozenset({"unlabelled"}), labels="boxes in YOLO's text"
)
