"""Where the images of a shard lie, labelled or not: TFRecord and tar files, looked through once."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from retinue.data.formats import is_image_name, looks_like_image
from retinue.data.sources.shard_index import Example, broken, indexes, located
from retinue.data.sources.tfrecord import NAMED, BadRecord, example, first, records
from retinue.data.sources.tfrecord_classes import KNOWN
from retinue.files import open_file

_ARCHIVE = re.compile(r"\.tar$", re.IGNORECASE)
_NAMES = KNOWN["filename"]


def is_called_so(name: str) -> bool:
    """By its ending."""
    return bool(_ARCHIVE.search(name) or NAMED.search(name))


def look_through(path: Path) -> pa.Table:
    """A row an image, see `shard_index`. Raises OSError, also for what is no shard."""
    scan = _tar if _ARCHIVE.search(path.name) else _tfrecord
    (found,) = indexes([path], scan, ["images alone", scan.__name__])
    if isinstance(found, OSError):
        raise found
    return found


def _tar(path: Path) -> Iterator[Example]:
    """Every member with an image's name."""
    number = 0
    with open_file(path) as file, open_file(path) as reading:
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    if not is_image_name(member.name):
                        continue
                    number += 1
                    if not member.isreg() or member.issparse():
                        yield broken(number, "it is a link, or has no bytes of its own")
                        continue
                    reading.seek(member.offset_data)
                    content = reading.read(member.size)
                    if len(content) < member.size:
                        yield broken(number, "the file ends within it")
                        return
                    name = member.name.encode("utf-8", "surrogateescape")
                    yield located(number, member.offset_data, content, name=name)
        except tarfile.ReadError as error:
            if not number:
                raise OSError(f"this is no tar file, or a compressed one: {error}") from error
            yield broken(number + 1, f"the file is damaged from here on: {error}")


def _tfrecord(path: Path) -> Iterator[Example]:
    """Every record with a feature that holds an image."""
    for record in records(path):
        if record.error:
            if record.number == 1 and record.last:
                raise OSError(record.error)
            yield broken(record.number, record.error)
            continue
        try:
            said = example(record.content)
        except BadRecord as error:
            yield broken(record.number, error)
            continue
        pieces = (first(said, name) for name in [*KNOWN["image"], *said])
        image = next((p for p in pieces if p and looks_like_image(p.content[:32])), None)
        if image is None:
            yield broken(record.number, "no feature of it holds an encoded image")
            continue
        named = next((p for name in _NAMES if (p := first(said, name))), None)
        name = named.content if named is not None else None
        yield located(record.number, record.offset + image.at, image.content, name=name or None)
