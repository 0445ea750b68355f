"""Images of which nothing is known, beside a data set: to be labelled by the model itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from retinue.data.sources.copies import copies
from retinue.data.sources.walking import about_others, normal, walk
from retinue.errors import UsageError, some
from retinue.files import expanded, nearest, read_text
from retinue.sample import Sample
from retinue.text import counted

POOL = "pool"
"""What they are called among the splits."""
_KEY = "key data.pool"


def read_pool(place: str) -> tuple[list[Sample], list[str]]:
    """The images of a folder, at any depth, or of a list (a path a line, from the list's folder),
    sorted; each once. And what is to be said of them.

    Raises UsageError for a place that is not there, holds no image, or names one that is not there.
    """
    path = expanded(place)
    if path.is_dir():
        found = walk(path)
        for error in found.closed:
            raise error
        if not found.images:
            told = "; ".join(about_others(path, found.others))
            raise UsageError(
                "no images in the pool" + (f": {told}" if told else ""),
                where=f"{_KEY}, {str(path)!r}",
                mend="name a folder of images, or a list of them",
            )
        notes = [f"pool: {note}" for note in about_others(path, found.others)]
        return [_sample(path, name) for name in found.images], notes
    if path.is_file():
        return _listed(path), []
    raise UsageError("no such file or folder", where=f"{_KEY}, {place!r}", mend=nearest(path))


def _sample(folder: Path, name: str) -> Sample:
    return Sample(str(folder.absolute() / name), name=pool_name(normal(name)))


def pool_name(path: str) -> str:
    """What the image at `path`, from the pool, is called among all images."""
    # No path within a data set has an empty part: none is called like an image of the pool.
    return f"{POOL}//{path}"


def path_in_pool(name: str) -> str | None:
    """The path of an image of that `pool_name`; None for one that is not of the pool."""
    return name.removeprefix(pool_name("")) if name.startswith(pool_name("")) else None


def _listed(file: Path) -> list[Sample]:
    try:
        lines = read_text(file).splitlines()
    except (OSError, ValueError) as error:
        what = f"cannot read the list: {getattr(error, 'strerror', None) or error}"
        raise UsageError(what, where=f"{_KEY}, {str(file)!r}", mend="save it as UTF-8") from None
    absent = []
    names: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        if not (name := line.strip()):
            continue
        names[name] = None
        if not (file.parent / name).is_file():
            absent.append(f"line {number}: {name!r}")
    if absent or not names:
        count = counted(len(absent), "image that is", "images that are")
        raise UsageError(
            f"the list names {count} not there" if absent else "the list is empty",
            where=f"{_KEY}, {str(file)!r}" + (f", {some(absent, 5)}" if absent else ""),
            mend="one path a line, from the list's own folder",
            details=absent if len(absent) > 5 else (),
        )
    return [_sample(file.parent, name) for name in sorted(names, key=normal)]


def unknown(pool: Sequence[Sample], known: Iterable[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Those of the `pool` that are none of the `known` images, by their bytes, each once; and the
    others. What is known is not to be guessed, and what judges is not to be learnt from."""
    kept: list[Sample] = []
    left: list[Sample] = []
    for sample, there in zip(pool, copies(pool, known, once=True), strict=True):
        (left if there else kept).append(sample)
    return kept, left
