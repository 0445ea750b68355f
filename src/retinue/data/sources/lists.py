"""`ImageSets/Main`: which images of a PASCAL VOC development kit belong to which split."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from retinue.data.sources.walking import normal, subfolders
from retinue.data.sources.words import ORDER, split_of
from retinue.errors import UsageError, some
from retinue.files import read_text
from retinue.text import counted

_DEEPEST = 4
_SHOWN = 5
_BOTH = "trainval"


@dataclass(slots=True)
class Lists:
    """What the lists of all years say."""

    split: dict[int, int] = field(default_factory=dict)
    """Position of an image → position in `ORDER`."""
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_lists(root: Path, images: Sequence[str]) -> Lists | None:
    """What those below `root` say of `images`, paths from there; None if there are none. An image
    of `trainval` that is in neither `train` nor `val` is one to train on. Raises `UsageError` for
    an image in two splits, or a list that cannot be read."""
    kits = _kits(root)
    found = Lists()
    for kit in kits:
        inside = kit.relative_to(root).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        own = {
            normal(os.path.splitext(os.path.basename(name))[0]): k
            for k, name in enumerate(images)
            if name.startswith(prefix)
        }
        place = _lists_of(kit)
        assert place is not None
        _read_kit(place, own, found)
    return found if kits and found.split else None


def _kits(root: Path) -> list[Path]:
    """The folders that hold such lists."""
    level, found = [root], []
    for _ in range(_DEEPEST):
        found += [folder for folder in level if _lists_of(folder) is not None]
        level = [inner for folder in level for inner in subfolders(folder)]
    return found


def _lists_of(kit: Path) -> Path | None:
    """Where its lists are."""
    for place in (kit / "ImageSets" / "Main", kit / "ImageSets"):
        if place.is_dir() and any(place.glob("*.txt")):
            return place
    return None


def _read_kit(folder: Path, own: dict[str, int], found: Lists) -> None:
    names: dict[str, list[tuple[int, str]]] = {}
    for path in sorted(folder.glob("*.txt")):
        # Others are those of one class, with a flag an image: `cat_train.txt`.
        split = _BOTH if path.stem.lower() == _BOTH else split_of(path.stem)
        if split is not None:
            names[split] = _lines(path)
    settled: dict[str, str] = {}
    for split in (*ORDER, _BOTH):
        absent: list[str] = []
        for line, name in names.get(split, ()):
            if split != _BOTH and settled.get(name, split) != split:
                raise UsageError(
                    f"{name!r} is in the lists of {settled[name]} and of {split}",
                    where=f"{str(folder)!r}, line {line} of {split}",
                    mend="leave it in one of them",
                )
            settled.setdefault(name, split)
            if name not in own:
                absent.append(name)
            else:
                meant = settled[name]
                code = ORDER.index("train" if meant == _BOTH else meant)
                found.split[own[name]] = code
        where = repr(str(folder / f"{split}.txt"))
        if absent and len(absent) == len(names[split]):
            found.notes.append(f"no image of {where} is there: the list is passed over")
        elif absent and split != _BOTH:
            images = counted(len(absent), "image that is", "images that are")
            shown = some(list(map(repr, absent)), _SHOWN, between=", ")
            found.problems.append(f"{where}: {images} not there: {shown}")


def _lines(path: Path) -> list[tuple[int, str]]:
    """The names in a list, and the line of each: without folders, suffix or flag."""
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        what = f"cannot read the list: {getattr(error, 'strerror', None) or error}"
        raise UsageError(what, where=repr(str(path)), mend="save it as UTF-8") from None
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        name = re.sub(r"\s+-?[01]$", "", line.strip()).replace("\\", "/").rsplit("/", 1)[-1]
        stem, suffix = os.path.splitext(name)
        name = stem if re.fullmatch(r"\.(xml|jpe?g|png|bmp|tiff?|webp)", suffix.lower()) else name
        if name:
            found.append((number, normal(name)))
    return found
