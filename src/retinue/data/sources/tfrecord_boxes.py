"""TFRecord files of the TensorFlow Object Detection API: images with their boxes, a record each.

Corners are shares of the image's sides: `image/object/bbox/xmin` and so on; classes are named by
`image/object/class/text`, or numbered by `…/class/label` with names in a `label_map.pbtxt`. An
image is read from where it lies in its file when it is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from retinue.data.dimensions import dimensions, upright
from retinue.data.options import DataOptions
from retinue.data.sources.annotated import Annotated, beside_splits, fill, no_boxes, unreadable
from retinue.data.sources.label_names import label_maps, read_label_map, several_label_maps
from retinue.data.sources.listing import Listing, Reader, given_path
from retinue.data.sources.looking import first_file
from retinue.data.sources.member import Member
from retinue.data.sources.pairing import file_split
from retinue.data.sources.records import NONE, Records
from retinue.data.sources.tfrecord import (
    NAMED,
    BadRecord,
    Feature,
    Record,
    example,
    first,
    records,
)
from retinue.data.sources.walking import normal, walk
from retinue.data.sources.words import ORDER, sort_names
from retinue.protobuf import Piece
from retinue.text import counted

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_BOX = "image/object/bbox/"


def _find(options: DataOptions, asked: bool) -> Path | None:
    path = given_path(options)
    if asked or (path.is_file() and _tells_boxes(path)):
        return path
    return path if path.is_dir() and first_file(path, _is_called_so, _tells_boxes) else None


def _is_called_so(name: str) -> bool:
    return NAMED.search(name) is not None


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    others = walk(path).others
    return [path / name for name in others if NAMED.search(name)]


def _tells_boxes(path: Path) -> bool:
    """By its first record."""
    if not NAMED.search(path.name):
        return False
    try:
        one = next(records(path), None)
        return one is not None and any(n.startswith(_BOX) for n in example(one.content))
    except (OSError, BadRecord):
        return False


@dataclass(slots=True)
class _Columns:
    """What the records of all files say."""

    names: list[str] = field(default_factory=list)
    reads: list[Member] = field(default_factory=list)
    shards: list[str] = field(default_factory=list)
    at: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    splits: list[int] = field(default_factory=list)
    image: list[int] = field(default_factory=list)
    shares: list[tuple[float, ...]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    number: list[int] = field(default_factory=list)
    """Of a box within its record, from 1."""
    difficult: list[bool] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    area: list[float] = field(default_factory=list)


def read_tfrecord_boxes(path: Path, options: DataOptions) -> Listing:
    """Raises `UsageError`."""
    root = path if path.is_dir() else path.parent
    listing = Listing("tfrecord_boxes", root, Records.of([]))
    files = _files(path)
    splits = {
        file: file_split(file.relative_to(root).as_posix(), NAMED.sub("", file.name))
        for file in files
    }
    if any(splits.values()) and not all(splits.values()):
        beside = [file for file, split in splits.items() if split is None]
        listing.notes.append(beside_splits(beside, root))
        files = [file for file in files if splits[file] is not None]
    labels = _label_map(listing)
    found = _Columns()
    for file in files:
        split = splits[file]
        code = NONE if split is None else ORDER.index(split)
        try:
            for record in records(file):
                where = f"{str(file)!r} record {record.number}"
                try:
                    if record.error:
                        raise BadRecord(record.error)
                    _add(found, record, file, where, code, labels)
                except BadRecord as error:
                    listing.problems.append(f"{where}: {error}")
        except OSError as error:
            listing.problems.append(unreadable(file, error))
    if not found.shares:
        raise no_boxes(listing, counted(len(files), "TFRecord file"))
    listing.classes = _in_order(found.classes, labels)
    return fill(listing, _annotated(listing, found), options)


def _add(
    found: _Columns, record: Record, file: Path, where: str, split: int, labels: dict[int, str]
) -> None:
    """The image of a record and its boxes. Raises BadRecord."""
    said = example(record.content)
    encoded = first(said, "image/encoded")
    if encoded is None or not encoded.content:
        raise BadRecord("no image in it (image/encoded)")
    corners = [_floats(said, f"{_BOX}{side}") for side in _SIDES]
    count = len(corners[0])
    names = _classes(said, count, labels)
    lengths = [*map(len, corners), len(names)]
    if set(lengths) != {count}:
        counts = ", ".join(map(str, lengths))
        raise BadRecord(f"corners and classes of different numbers: {counts}")
    image = len(found.names)
    title = _text(first(said, "image/filename")) or _text(first(said, "image/source_id"))
    found.names.append(normal(title) or f"{file.name}/{record.number}")
    found.reads.append(Member(str(file), record.offset + encoded.at, len(encoded.content)))
    found.shards.append(str(file))
    found.at.append(where)
    sides = [_floats(said, f"image/{side}")[:1] for side in ("width", "height")]
    width, height = (int(v[0]) if v and 0 < v[0] < 1 << 30 else 0 for v in sides)
    found.sizes.append((width, height))
    found.splits.append(split)
    found.image += [image] * count
    found.shares += list(zip(*corners, strict=True))
    found.classes += names
    found.number += range(1, count + 1)
    for column, key in ((found.difficult, "difficult"), (found.crowd, "is_crowd")):
        flags = _floats(said, f"image/object/{key}")
        column += [bool(flag) for flag in flags] if len(flags) == count else [False] * count
    areas = _floats(said, "image/object/area")
    found.area += areas if len(areas) == count else [float("nan")] * count


def _text(piece: Piece | None) -> str:
    return "" if piece is None else piece.content.decode("utf-8", "backslashreplace").strip()


def _floats(said: dict[str, Feature], key: str) -> list[float]:
    return [float(value) for value in said.get(key, []) if not isinstance(value, Piece)]


def _classes(said: dict[str, Feature], count: int, labels: dict[int, str]) -> list[str]:
    texts = [_text(v) for v in said.get("image/object/class/text", []) if isinstance(v, Piece)]
    if len(texts) == count and all(texts):
        return [normal(" ".join(text.split())) for text in texts]
    values = _floats(said, "image/object/class/label")
    if not all(value.is_integer() for value in values):  # of floats, maybe NaN
        raise BadRecord("classes that are no whole numbers")
    numbers = [int(value) for value in values]
    for number in numbers:
        if labels and number not in labels:
            raise BadRecord(f"class {number}, which the label map does not name")
    return [labels.get(number, str(number)) for number in numbers]


def _label_map(listing: Listing) -> dict[int, str]:
    """Id → name, of the `.pbtxt` beside the records. Raises `UsageError`."""
    maps = label_maps(listing.root)
    if len(maps) > 1:
        listing.notes.append(several_label_maps(maps))
    return read_label_map(maps[0]) if len(maps) == 1 else {}


def _in_order(used: Sequence[str], labels: dict[int, str]) -> list[str]:
    """The classes in the order of the label map, where that names all of them."""
    named = [labels[number] for number in sorted(labels)]
    return named if set(used) <= set(named) else sort_names(set(used))


def _annotated(listing: Listing, found: _Columns) -> Annotated:
    listing.root = listing.root.absolute()
    times = Counter(found.names)
    if len(times) < len(found.names):
        again = counted(len(found.names) - len(times), "image is", "images are")
        listing.notes.append(f"{again} called like another one: they go by file and record")
    names = [
        name if times[name] == 1 else f"{Path(shard).name}/{k}/{name}"
        for k, (name, shard) in enumerate(zip(found.names, found.shards, strict=True))
    ]
    sizes = dimensions(names, found.reads)
    claimed = np.array(found.sizes, np.int64)
    image = np.array(found.image, np.int64)
    told = claimed.min(axis=1, keepdims=True, initial=1) > 0
    sides = np.where(told, claimed, upright(sizes))
    assert listing.classes is not None
    code = {name: k for k, name in enumerate(listing.classes)}
    area = np.array(found.area, np.float64)
    splits = np.array(found.splits, np.int8)
    return Annotated(
        files=names,
        claimed=claimed,
        image_at=lambda k: found.at[k],
        image=image,
        xyxy=np.array(found.shares, np.float64) * np.tile(sides, 2)[image],
        of=np.array([code[name] for name in found.classes], np.int64),
        classes=listing.classes,
        box_at=lambda k: f"{found.at[found.image[k]]} object {found.number[k]}",
        difficult=np.array(found.difficult, bool),
        crowd=np.array(found.crowd, bool),
        area=None if np.isnan(area).all() else area,
        splits=splits if (splits != NONE).any() else None,
        reads=found.reads,
        shards=found.shards,
        found=sizes,
    )


TFRECORD_BOXES = Reader(
    "tfrecord_boxes",
    _find,
    read_tfrecord_boxes,
    heeds=frozenset({"first_pixel"}),
    also=frozenset({"tfrecord"}),
    labels="boxes in TFRecord files",
)
