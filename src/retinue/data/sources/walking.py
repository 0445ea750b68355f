"""Looking through folders: which files are images, and which are not."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from retinue.data.formats import EXTRAS, is_image_name, looks_like_image, not_read, suffix_of
from retinue.errors import UsageError, some
from retinue.files import Entry, entries, open_file

_SHOWN = 6
_OPENED = 100
"""Files that are opened at most, to see whether they are images."""


class Walked(NamedTuple):
    """What lies in a folder, as paths from there with `/`."""

    images: list[str]
    others: list[str]
    """Files that are not called like an image."""
    closed: list[UsageError]
    """Folders that may not be looked into."""


def normal(text: str) -> str:
    """Unicode NFC: what macOS and others write as different bytes becomes the same name."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def hidden(name: str) -> bool:
    """Files and folders that programs keep for themselves."""
    return name.startswith((".", "__MACOSX")) or (
        name[:1] in "TtDd" and name.lower() in ("thumbs.db", "desktop.ini")
    )


DRAWN_MARK = ".drawn-by-retinue"
"""Stands in a folder of drawn predictions: no search for pictures goes in there."""


def is_drawn(folder: str | os.PathLike[str]) -> bool:
    """Whether the pictures in `folder` are drawn predictions."""
    return os.path.exists(os.path.join(folder, DRAWN_MARK))


OF_RUNS = (
    frozenset(("recipe.yaml", "environment.json")),
    frozenset(("metrics.json", "predictions.parquet")),
)
"""Files that stand together in the folder of a training, or of an evaluation: the pictures there
are plots, and no search takes them for others."""


def is_run(folder: str | os.PathLike[str]) -> bool:
    """Whether `folder` is what a training or an evaluation left."""
    return any(all(os.path.isfile(os.path.join(folder, n)) for n in names) for names in OF_RUNS)


def _holds_runs(folder: Path) -> bool:
    """Whether `folder` is a run, or holds runs and nothing else, as `runs/` does."""
    if is_run(folder):
        return True
    try:
        inside = [entry for entry in entries(folder) if not hidden(entry.name)]
    except OSError:
        return False
    return bool(inside) and all(e.is_folder and is_run(folder / e.name) for e in inside)


def holds_answers(folder: Path) -> bool:
    """Whether predictions or explanations were written to `folder`: by their lists, or the folders
    of drawn pictures beside those."""
    try:
        inside = entries(folder)
    except OSError:
        return False
    return any(
        is_drawn(folder / entry.name)
        if entry.is_folder
        else entry.name.rpartition(".")[0] in _LISTS_OF_ANSWERS
        for entry in inside
    )


_LISTS_OF_ANSWERS = ("predictions", "frames", "explanations")


def _below(folder: Path) -> list[Path]:
    names = [e.name for e in entries(folder) if is_looked_into(e) and not hidden(e.name)]
    return [folder / name for name in sorted(names, key=normal)]


def subfolders(folder: Path) -> list[Path]:
    """The folders directly below, sorted by name; hidden ones, drawn predictions and runs are left
    out."""
    return [p for p in _below(folder) if not is_drawn(p) and not _holds_runs(p)]


def about_runs(folder: Path) -> list[str]:
    """What to say of the runs directly below `folder`, which `subfolders` leaves out."""
    runs = [place.name for place in _below(folder) if _holds_runs(place)]
    return (
        [f"passed over: {', '.join(map(repr, runs))}, which trainings or evaluations left"]
        if runs
        else []
    )


def is_looked_into(entry: Entry) -> bool:
    """Whether it is a folder, and no broken image: one that is called so."""
    return entry.is_folder and not is_image_name(entry.name)


def closed(error: OSError, folder: Path) -> UsageError:
    """What to say of a folder that cannot be looked into."""
    what = f"cannot look through the data: {error.strerror or error}"
    return UsageError(what, where=repr(str(folder)), mend="see data=PATH")


def image_names(names: Sequence[str]) -> list[bool]:
    """`is_image_name` of each; a suffix is judged once."""
    known: dict[str, bool] = {}
    flags = []
    for name in names:
        dot = name.rfind(".")
        if dot < 1 or name[0] in ". ":
            flags.append(is_image_name(name))
            continue
        suffix = name[dot:]
        if suffix not in known:
            known[suffix] = is_image_name(name)
        flags.append(known[suffix])
    return flags


def walk(folder: Path, *, recursive: bool = True) -> Walked:
    """Everything in `folder`, sorted; with `recursive` below it, too, where links are followed, but
    never in circles.

    A folder called like an image counts as one: reading it will say what is wrong. One that may not
    be looked into is passed over and told. Drawn predictions and runs below are no pictures.
    """
    found = Walked([], [], [])
    seen: set[str] = set()
    stack = [""]
    while stack:
        inside = stack.pop()
        here = folder / inside
        real = os.path.realpath(here)
        if real in seen:
            continue
        seen.add(real)
        try:
            listed = entries(here)
        except OSError as error:
            found.closed.append(closed(error, here))
            continue
        if inside and any(entry.name == DRAWN_MARK for entry in listed):
            continue
        if inside and any(names.issubset(entry.name for entry in listed) for names in OF_RUNS):
            continue
        shown = {entry.name: entry for entry in listed if not hidden(entry.name)}
        names = sorted(shown, key=normal)
        deeper = []
        for name, image in zip(names, image_names(names), strict=True):
            if image:
                found.images.append(inside + name)
            elif shown[name].is_folder:
                deeper.append(f"{inside}{name}/")
            else:
                found.others.append(inside + name)
        if recursive:
            stack.extend(reversed(deeper))
    return found


def by_suffix(names: Iterable[str]) -> str:
    """How many files there are of each suffix: `8 .heic, 3 without suffix`."""
    counts = Counter(map(suffix_of, names))
    kinds = [f"{count:,} {suffix or 'without suffix'}" for suffix, count in counts.most_common()]
    return some(kinds, _SHOWN, between=", ")


def about_others(root: Path, names: Sequence[str]) -> list[str]:
    """What to say of files in `root` that are not called like images: how many of each suffix, what
    reads those of an extra, and whether some are images by their content. Nothing of none."""
    if not names:
        return []
    alike = [name for name in names if suffix_of(name) not in EXTRAS][:_OPENED]
    images = [name for name in alike if _begins_like_image(root / name)]
    said = [f"files that are not called like images: {by_suffix(names)}", *not_read(names)]
    if images:
        said.append(f"some of these are images, {images[0]!r} among them: give them their suffix")
    return said


def _begins_like_image(path: Path) -> bool:
    try:
        with open_file(path) as file:
            return looks_like_image(file.read(32))
    except OSError:
        return False
