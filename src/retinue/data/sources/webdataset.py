"""WebDataset: tar files whose members of one name are an example, `7.jpg` and `7.cls` among them.

What stands before the first dot of a member's name is its example's key, what comes after it, its
ending, says what the member is. Examples' members need not stand together. Nothing is unpacked: an
image is read from where it lies.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from retinue.data.formats import is_image_name
from retinue.data.options import DataOptions, FeatureOptions
from retinue.data.sources.listing import Listing, Reader, given_path
from retinue.data.sources.looking import ending_in, first_file
from retinue.data.sources.records import Records
from retinue.data.sources.shard_index import LARGEST_LABEL, Example, broken, located
from retinue.data.sources.shards import read_shards, shard_files
from retinue.data.sources.tfrecord import BadRecord
from retinue.data.sources.walking import hidden, normal
from retinue.documents import NotJson, parse_json
from retinue.errors import UsageError, some, suggest
from retinue.files import open_file

LABELS = ("cls", "label", "class", "cls.txt", "label.txt")
"""Endings that tell the class."""
FIELDS = {
    "label": ("label", "class", "cls", "class_id", "label_id", "class_index", "category"),
    "text": ("text", "class_name", "label_name", "label_text"),
    "filename": ("filename", "file_name", "original_filename"),
}
"""Fields of an example's `json`."""
_ARCHIVE = re.compile(r"\.(tar|tar\.\w{1,4}|tgz|tbz2?|txz)$", re.IGNORECASE)
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_SMALL = 1 << 20
"""Bytes of a member that is no image, at most."""
_NO_FILE = -1
"""In place of the offset of a link, or of what else has no bytes of its own."""
_LOOKED_AT = 20
_SHOWN = 12


class Chosen(NamedTuple):
    """Endings, or fields of the `json`, that are read; None: none is. Of the image: those with an
    image's usual endings."""

    image: str | None
    label: str | None
    text: str | None
    filename: str | None


class Part(NamedTuple):
    """A member of a tar file."""

    name: str
    offset: int
    size: int


Parts = dict[str, Part]
"""The members of an example by their endings, in lower case."""


def _find(options: DataOptions, asked: bool) -> Path | None:
    path = given_path(options)
    if asked:
        return path

    def fits(file: Path) -> bool:
        return _choose(options.features, _first_example(file)).label is not None

    if path.is_file():
        # What is compressed cannot be read, which its reader says.
        return path if _ARCHIVE.search(path.name) and (_is_packed(path) or fits(path)) else None
    return path if first_file(path, ending_in(".tar"), fits) else None


def _is_packed(file: Path) -> bool:
    with open_file(file) as opened:
        return opened.read(8).startswith(_COMPRESSED)


def read_webdataset(path: Path, options: DataOptions) -> Listing:
    """Raises `UsageError`."""
    root = (path if path.is_dir() else path.parent).absolute()
    files = shard_files(path.absolute(), lambda name: name.lower().endswith(".tar"))
    if not files:
        raise UsageError("no tar files", where=repr(str(path)), mend="is it the folder of shards?")
    listing = Listing("webdataset", root, Records.of([]))
    chosen = _chosen(files, options.features)
    told = {"label": chosen.label, "text": chosen.text, "filename": chosen.filename}
    listing.notes.append(f"read from {', '.join(f'{r} {n!r}' for r, n in told.items() if n)}")
    return read_shards(
        listing,
        files,
        partial(scan, chosen=chosen),
        ["webdataset", *chosen],
        options.features,
        lambda name: _ARCHIVE.sub("", name),
    )


def _chosen(files: Sequence[Path], features: FeatureOptions) -> Chosen:
    """By the first example that has an image. Raises `UsageError` where none has what is needed."""
    why = ""
    for file in files:
        try:
            said = _first_example(file)
            if not said:
                first = next((e.problem for e in scan(file, Chosen(*[None] * 4)) if e.problem), b"")
                why = why or first.decode()
                continue
        except OSError as error:
            why = why or (error.strerror or str(error))
            continue
        chosen = _choose(features, said)
        for role, name in chosen._asdict().items():
            asked = getattr(features, role) not in ("auto", None)
            if asked and not any(n in said for n in (name, *str(name).lower().split(";"))):
                raise UsageError(
                    f"its examples have no {name!r}",
                    where=f"key data.features.{role}, {str(file)!r}",
                    mend=suggest(str(name), said) or f"there are {_listed(said)}",
                )
        if chosen.label or chosen.text:
            return chosen
        raise UsageError(
            f"nothing in its examples is known for the class: there are {_listed(said)}",
            where=repr(str(file)),
            mend="data.features.label=NAME says which; a tar of class folders is to be unpacked",
        )
    raise UsageError(
        f"no example can be read{f': {why}' if why else ''}",
        where=repr(str(files[0])),
        mend="give tar files with an image and its class an example, as 7.jpg and 7.cls",
    )


def _listed(said: Mapping[str, Any]) -> str:
    return some([repr(name) for name in said], _SHOWN, between=", ")


def _choose(features: FeatureOptions, said: Mapping[str, Any]) -> Chosen:
    found: dict[str, str | None] = {}
    for role, fields in FIELDS.items():
        wanted = getattr(features, role)
        if wanted == "auto":
            known = (*LABELS, *fields) if role == "label" else fields
            wanted = next((name for name in known if said.get(name) not in (None, "", b"")), None)
        found[role] = wanted
    image = None if features.image == "auto" else features.image
    return Chosen(image, **found)


def _first_example(file: Path) -> dict[str, Any]:
    """Endings and fields of the first example that has an image, of the first few; nothing where
    none has. Raises OSError."""
    with open_file(file) as opened:
        groups: dict[str, Parts] = {}
        with suppress(BadRecord):
            for key, ending, part in _parts(opened):
                groups.setdefault(key, {})[ending] = part
                if len(groups) > _LOOKED_AT:
                    break
        for parts in groups.values():
            if any(is_image_name(f"a.{ending}") for ending in parts):
                fields: dict[str, Any] = {}
                with suppress(BadRecord):
                    fields = _fields(opened, parts) if "json" in parts else {}
                return dict.fromkeys(parts, True) | fields
    return {}


def scan(path: Path, chosen: Chosen) -> Iterator[Example]:
    """The examples of the file at `path`. Raises OSError."""
    with open_file(path) as file:
        groups: dict[str, Parts] = {}
        twice: dict[str, str] = {}
        broke: BadRecord | None = None
        try:
            for key, ending, part in _parts(file):
                parts = groups.setdefault(key, {})
                if ending in parts:
                    twice[key] = ending
                parts[ending] = part
        except BadRecord as error:
            broke = error
        for number, (key, parts) in enumerate(groups.items(), 1):
            try:
                if key in twice:
                    raise BadRecord(f"two members {key}.{twice[key]}")
                yield _example(file, number, parts, chosen)
            except BadRecord as error:
                yield broken(number, f"{error} ({key!r})" if key not in str(error) else error)
        if broke is not None:
            yield broken(len(groups) + 1, broke)


def _parts(file: BinaryIO) -> Iterator[tuple[str, str, Part]]:
    """Key, ending and place of each member of a tar file. Raises BadRecord for one that cannot be
    read to its end, after all that comes before."""
    start = file.read(8)
    if start.startswith(_COMPRESSED):
        raise BadRecord("the file is compressed as a whole: write it as a plain tar")
    file.seek(0, 2)
    size = file.tell()
    file.seek(0)
    try:
        archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - `file` is the caller's
    except tarfile.TarError:
        raise BadRecord("this is no tar file") from None
    while True:
        try:
            member = archive.next()
        except (tarfile.TarError, ValueError, OverflowError):
            raise BadRecord(
                "the file ends within it, or is damaged: whatever came after it is lost"
            ) from None
        if member is None:
            break
        archive.members = []  # type: ignore[attr-defined]  # it would keep all of them
        head, _, base = member.name.rpartition("/")
        if member.isdir() or hidden(base) or "__MACOSX" in head:
            continue
        stem, dot, ending = base.partition(".")
        if not dot or not stem:
            continue
        plain = member.isreg() and not member.issparse()
        if plain and member.offset_data + member.size > size:
            raise BadRecord(
                f"the file ends within {member.name!r}, and whatever came after it is lost"
            )
        key = normal(f"{head}/{stem}" if head else stem)
        offset = member.offset_data if plain else _NO_FILE
        yield key, ending.lower(), Part(member.name, offset, member.size)
    file.seek(archive.offset)
    rest = file.read(tarfile.BLOCKSIZE)
    if len(rest) < tarfile.BLOCKSIZE:
        raise BadRecord("the file lacks the mark of its end: more may have been lost with it")
    if rest.strip(b"\0"):
        raise BadRecord("the header of a member is damaged, and no later one can be found")


def _example(file: BinaryIO, number: int, parts: Parts, chosen: Chosen) -> Example:
    """Raises BadRecord."""
    image = _image(parts, chosen.image)
    fields = _fields(file, parts) if "json" in parts else {}
    label, text = _class(file, parts, fields, chosen)
    title = fields.get(chosen.filename) if chosen.filename else None
    name = title if isinstance(title, str) and title.strip() else image.name
    return located(
        number,
        image.offset,
        _content(file, image),
        name=normal(name.strip()).encode("utf-8", "surrogateescape"),
        label=label,
        text=text,
    )


def _refuse_link(part: Part) -> None:
    if part.offset == _NO_FILE:
        raise BadRecord(f"{part.name!r} is no plain file, but a link or the like")


def _content(file: BinaryIO, part: Part) -> bytes:
    _refuse_link(part)
    file.seek(part.offset)
    return file.read(part.size)


def _image(parts: Parts, endings: str | None) -> Part:
    if endings is None:
        found = [parts[ending] for ending in parts if is_image_name(f"a.{ending}")]
    else:
        found = [parts[e] for e in endings.lower().split(";") if e in parts]
    if not found or not (found[0].size or found[0].offset == _NO_FILE):
        raise BadRecord(f"no image in it{f' ({endings})' if endings else ''}")
    if len(found) > 1:
        names = some([part.name for part in found], 3, between=", ")
        raise BadRecord(f"{len(found)} images in it, {names}: data.features.image says which")
    _refuse_link(found[0])
    return found[0]


def _fields(file: BinaryIO, parts: Parts) -> dict[str, Any]:
    part = parts["json"]
    try:
        if part.size > _SMALL:
            raise ValueError
        said = parse_json(_content(file, part).decode("utf-8-sig"))
    except (ValueError, NotJson):
        raise BadRecord(f"{part.name} is no JSON, or too large") from None
    return said if isinstance(said, dict) else {}


def _class(
    file: BinaryIO, parts: Parts, fields: Mapping[str, Any], chosen: Chosen
) -> tuple[int | None, bytes | None]:
    """The number of its class and its name, as far as it says them. Raises BadRecord."""
    text = None if chosen.text is None else _said(file, parts, fields, chosen.text)
    named = None if text is None else str(text).strip().encode("utf-8", "backslashreplace") or None
    if chosen.label is None:
        if named is None:
            raise BadRecord(f"no class in it ({chosen.text})")
        return None, named
    value = _said(file, parts, fields, chosen.label)
    if isinstance(value, str):
        value = value.strip()
        if not value:
            raise BadRecord(f"no label in it ({chosen.label})")
        if not re.fullmatch(r"-?\d{1,18}", value):
            return None, value.encode("utf-8", "backslashreplace")
        value = int(value)
    if value is None:
        raise BadRecord(f"no label in it ({chosen.label})")
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    if not whole or abs(value) > LARGEST_LABEL:
        raise BadRecord(f"its label ({chosen.label}) is neither a whole number nor a name")
    return int(value), named


def _said(file: BinaryIO, parts: Parts, fields: Mapping[str, Any], name: str) -> Any:
    """What a member or a field says; None where there is none."""
    part = parts.get(name.lower())
    if part is None:
        return fields.get(name)
    try:
        if part.size > _SMALL:
            raise ValueError
        return _content(file, part).decode("utf-8-sig")
    except ValueError:
        raise BadRecord(f"{part.name} is no text") from None


WEBDATASET = Reader(
    "webdataset",
    _find,
    read_webdataset,
    heeds=frozenset({"features"}),
    also=frozenset({"wds", "tar"}),
    labels="classes in WebDataset's tar files",
    drawn_without_train=True,
)
