"""TFRecord files of classified images: `tf.train.Example` with an encoded image and its class.

Known are the features of TF-Slim (`image/encoded`, `image/class/label` …), and plain ones (`image`,
`label` …) as in TensorFlow Datasets; others are named by `data.features`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from retinue.data.formats import looks_like_image
from retinue.data.options import DataOptions, FeatureOptions
from retinue.data.sources.listing import Listing, Reader, given_path
from retinue.data.sources.looking import first_file
from retinue.data.sources.records import Records
from retinue.data.sources.shard_index import LARGEST_LABEL, Example, broken, located
from retinue.data.sources.shards import read_shards, shard_files
from retinue.data.sources.tfrecord import (
    NAMED,
    BadRecord,
    Feature,
    example,
    first,
    is_compressed,
    records,
)
from retinue.data.sources.walking import normal
from retinue.errors import UsageError, some, suggest
from retinue.protobuf import Piece
from retinue.text import few

KNOWN = {
    "image": ("image/encoded", "image", "encoded", "image_encoded", "encoded_image", "jpeg", "jpg",
              "image_raw", "image_bytes", "img"),
    "label": ("image/class/label", "label", "class/label", "class_id", "label_id", "cls", "class"),
    "text": ("image/class/text", "text", "class/text", "class_name", "label_name", "label_text"),
    "filename": ("image/filename", "filename", "file_name", "image/source_id", "image/id"),
}  # fmt: skip
_LOOKED_AT = 10
_SHOWN = 12


class Chosen(NamedTuple):
    """The features that are read; None: none is."""

    image: str
    label: str | None
    text: str | None
    filename: str | None


def _find(options: DataOptions, asked: bool) -> Path | None:
    path = given_path(options)
    if asked:
        return path

    def fits(file: Path) -> bool:
        if is_compressed(file):
            return True  # which its reader says
        said = _first_examples(file)
        chosen = None if said is None else _choose(options.features, said)
        return chosen is not None and (chosen.label or chosen.text) is not None

    if path.is_file():
        return path if NAMED.search(path.name) and fits(path) else None
    return path if first_file(path, _is_called_so, fits) else None


def _is_called_so(name: str) -> bool:
    return NAMED.search(name) is not None


def _first_examples(file: Path) -> dict[str, Feature] | None:
    """All features of the first few records that can be read, as the first of them has them that
    has any; None where none can be read. Raises OSError."""
    found: dict[str, Feature] | None = None
    for _, record in zip(range(_LOOKED_AT), records(file), strict=False):
        with suppress(BadRecord):
            said = {} if record.error else example(record.content)
            if not record.error:
                known = found or {}
                found = {**said, **{name: values for name, values in known.items() if values}}
    return found


def _choose(features: FeatureOptions, said: dict[str, Feature]) -> Chosen | None:
    """Which features of an example say what; None where it has no image that is known."""
    found: dict[str, str | None] = {}
    for role, known in KNOWN.items():
        wanted = getattr(features, role)
        if wanted == "auto":
            wanted = next((name for name in known if said.get(name)), None)
        found[role] = wanted
    image = found.pop("image")
    return None if image is None else Chosen(image, **found)


def read_tfrecord(path: Path, options: DataOptions) -> Listing:
    """Raises `UsageError`."""
    root = (path if path.is_dir() else path.parent).absolute()
    files = shard_files(path.absolute(), _is_called_so)
    if not files:  # asked for by name: whatever they are called
        files = [f for f in shard_files(path.absolute(), lambda name: True) if _has_records(f)]
    if not files:
        raise UsageError(
            "no TFRecord files", where=repr(str(path)), mend="is it the folder of the shards?"
        )
    listing = Listing("tfrecord", root, Records.of([]))
    chosen = _chosen(files, options.features)
    listing.notes.append(
        f"read from features {', '.join(f'{r} {n!r}' for r, n in chosen._asdict().items() if n)}"
    )
    return read_shards(
        listing,
        files,
        partial(scan, chosen=chosen),
        ["tfrecord", *chosen],
        options.features,
        lambda name: NAMED.sub("", name),
    )


def _has_records(file: Path) -> bool:
    try:
        return not next(records(file)).error
    except (OSError, StopIteration):
        return False


def _chosen(files: Sequence[Path], features: FeatureOptions) -> Chosen:
    """By the first example that can be read. Raises `UsageError` where none has what is needed."""
    why = ""
    for file in files:
        try:
            said = _first_examples(file)
            if said is None:
                why = why or next((r.error for r in records(file) if r.error), "")
                continue
        except OSError as error:
            why = why or (error.strerror or str(error))
            continue
        chosen = _choose(features, said)
        lacking = "image" if chosen is None else "label"
        if chosen is not None and (chosen.label or chosen.text):
            _refuse_absent(chosen, features, said, file)
            return chosen
        raise UsageError(
            f"no feature of its examples is known for the {lacking}: there are"
            f" {some(sorted(map(repr, said)), _SHOWN, between=', ')}",
            where=repr(str(file)),
            mend=f"data.features.{lacking}=NAME says which",
        )
    raise UsageError(
        f"no example in {few([file.name for file in files])} can be read"
        f"{f': {why}' if why else ''}",
        where=repr(str(files[0])),
        mend="give files of tf.train.Example",
    )


def _refuse_absent(
    chosen: Chosen, features: FeatureOptions, said: dict[str, Feature], file: Path
) -> None:
    for role, name in chosen._asdict().items():
        if name is not None and getattr(features, role) != "auto" and name not in said:
            there = some(sorted(map(repr, said)), _SHOWN, between=", ")
            raise UsageError(
                f"its examples have no feature {name!r}",
                where=f"key data.features.{role}, {str(file)!r}",
                mend=suggest(name, said) or f"there are {there}",
            )


def scan(path: Path, chosen: Chosen) -> Iterator[Example]:
    """The examples of the file at `path`. Raises OSError."""
    for record in records(path):
        if record.error:
            yield broken(record.number, record.error)
            continue
        try:
            yield _example(record.number, record.offset, example(record.content), chosen)
        except BadRecord as error:
            yield broken(record.number, error)


def _example(number: int, offset: int, said: dict[str, Feature], chosen: Chosen) -> Example:
    """Raises BadRecord."""
    image = _image(said, chosen.image)
    label, text = _class(said, chosen)
    name = None if chosen.filename is None else first(said, chosen.filename)
    title = "" if name is None else name.content.decode("utf-8", "surrogateescape").strip()
    return located(
        number,
        offset + image.at,
        image.content,
        name=normal(title).encode("utf-8", "surrogateescape") or None,
        label=label,
        text=text,
    )


def _image(said: dict[str, Feature], feature: str) -> Piece:
    values = said.get(feature) or []
    if len(values) > 1:
        what = "images" if isinstance(values[0], Piece) else "numbers instead of an encoded image"
        raise BadRecord(f"{len(values):,} {what} in it ({feature})")
    image = first(said, feature)
    if image is None or not image.content:
        raise BadRecord(f"no image in it ({feature})")
    if not looks_like_image(image.content[:32]) and (sides := _raw_sides(said, image)):
        raise BadRecord(
            f"its image ({feature}) is {sides} raw values, and no file: encode it as JPEG or PNG"
        )
    return image


def _raw_sides(said: dict[str, Feature], image: Piece) -> str:
    """`28 × 28 × 1`, where the image has as many bytes as that; empty where it has not."""
    sides = []
    for known in (("height", "rows"), ("width", "cols", "columns"), ("channels", "depth")):
        names = (f"{folder}{name}" for name in known for folder in ("", "image/"))
        values = next((v for n in names if (v := said.get(n))), [1])
        if isinstance(values[0], Piece):
            return ""
        sides.append(int(values[0]))
    count = math.prod(sides)
    whole = count > 1 and len(image.content) in (count, 4 * count)
    return " × ".join(map(str, sides)) if whole else ""


def _class(said: dict[str, Feature], chosen: Chosen) -> tuple[int | None, bytes | None]:
    """The number of its class and its name, as far as it says them. Raises BadRecord."""
    beside = None if chosen.text is None else first(said, chosen.text)
    text = (beside.content.strip() or None) if beside is not None else None
    if chosen.label is None:
        if text is None:
            raise BadRecord(f"no class in it ({chosen.text})")
        return None, text
    values = said.get(chosen.label) or []
    if not values:
        raise BadRecord(f"no label in it ({chosen.label})")
    if len(values) > 1:
        raise BadRecord(f"{len(values):,} labels in it ({chosen.label}), where there should be one")
    [value] = values
    if isinstance(value, Piece):
        name = value.content.strip()
        if not name:
            raise BadRecord(f"no label in it ({chosen.label})")
        return None, name
    if isinstance(value, float) and not value.is_integer():
        raise BadRecord(f"label {value:g}, which is no whole number")
    if abs(value) > LARGEST_LABEL:
        raise BadRecord(f"label {value:g}, which is no number of a class")
    return int(value), text


TFRECORD = Reader(
    "tfrecord",
    _find,
    read_tfrecord,
    heeds=frozenset({"features"}),
    also=frozenset({"tfrecords"}),
    labels="classes in TFRecord files",
    drawn_without_train=True,
)
