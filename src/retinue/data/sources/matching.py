"""Which file each name of a table means: the very one, or the only one that it can mean.

People write names on other machines: with `\\`, with the folders of where the files lay then,
without suffix or with another one, in other capitals, with fewer zeros. Each such reading is tried
for what is left by the one before, over all names at once; one that leaves two files is none.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retinue.data.formats import EXTENSIONS, EXTRAS
from retinue.data.population import grouped
from retinue.data.sources.records import NONE, Names, as_names, glued, text_of, texts_of
from retinue.data.sources.walking import closed, hidden, image_names, is_looked_into, normal
from retinue.errors import UsageError
from retinue.files import entries

Positions = npt.NDArray[np.int64]
SEVERAL = -2
"""In an array of positions: more than one could be meant."""
DIFFERS = ("", "capitals", "suffix", "zeros", "folders")
"""What a file's name may have other than is written; the first: nothing that is worth a word."""
_FOLDERS = DIFFERS.index("folders")
_DEEPEST, _MOST_FOLDERS = 6, 10_000
"""How far a file is searched for below the root by its bare name."""
_MOST_COMPARED = 20_000
"""Files among which a near one is looked for, for a message."""
_IMAGE_SUFFIX = "(?i)(" + "|".join(map(re.escape, sorted({*EXTENSIONS, *EXTRAS}))) + ")$"


class Files:
    """The files of those folders that were asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: list[str] = []
        self.closed: list[UsageError] = []
        """Folders that may not be looked into."""
        self._code: dict[str, int] = {}
        self._parts: list[tuple[npt.NDArray[np.int32], Names, npt.NDArray[np.bool_]]] = []
        self._below: dict[str, list[str]] = {}

    def add(self, folder: str) -> int | None:
        """The code of `folder`, from the root or absolute; None if there is no such folder."""
        if folder in self._code:
            return self._code[folder]
        try:
            found = entries(self.root / folder)
        except (OSError, ValueError) as error:
            if isinstance(error, PermissionError):
                self.closed.append(closed(error, self.root / folder))
            return None
        names = [entry.name for entry in found]
        images = image_names(names)
        below = {entry.name for entry in found if is_looked_into(entry)}
        if below:
            images = [i for n, i in zip(names, images, strict=True) if n not in below]
            names = [name for name in names if name not in below]
        shown = np.array(images, bool) & ~np.array([hidden(name) for name in names], bool)
        code = self._code[folder] = len(self.folders)
        self.folders.append(folder)
        self._below[folder] = sorted(name for name in below if not hidden(name))
        self._parts.append((np.full(len(names), code, np.int32), as_names(names), shown))
        return code

    def below(self, folder: str) -> list[str]:
        """The folders in `folder`, by name."""
        return self._below[folder] if self.add(folder) is not None else []

    def add_all(self) -> None:
        """Everything below the root, as far as a data set reaches."""
        level = [""]
        for _ in range(_DEEPEST):
            level = [os.path.join(here, name) for here in level for name in self.below(here)]
            if len(self.folders) + len(level) > _MOST_FOLDERS:
                return
        for here in level:
            self.add(here)

    def table(self) -> tuple[npt.NDArray[np.int32], Names, npt.NDArray[np.bool_]]:
        """(files,) each: the folder's code, the bare name, whether it is called like an image."""
        if len(self._parts) != 1:
            empty = (np.array([], np.int32), as_names([]), np.array([], bool))
            codes, names, images = zip(*self._parts, empty, strict=True)
            self._parts = [(np.concatenate(codes), pa.concat_arrays(names), np.concatenate(images))]
        return self._parts[0]

    def paths(self, positions: Positions) -> Names:
        """The files at `positions` from the root, tidied; those elsewhere across from it."""
        codes, names, _ = self.table()
        own = os.path.abspath(self.root)
        tidy = []
        for folder in self.folders:
            across = os.path.relpath(os.path.join(own, folder), own).replace(os.sep, "/")
            tidy.append("" if across == "." else f"{across}/")
        at = pa.array(positions)
        folders = as_names(tidy).take(pa.array(codes[positions]))
        return glued(folders, names.take(at))

    def path(self, position: int) -> str:
        """One of them."""
        return text_of(self.paths(np.array([position]))[0]) or ""

    def used(self, positions: Positions) -> list[int]:
        """The codes of the folders of the files at `positions`."""
        return np.unique(self.table()[0][positions[positions >= 0]]).tolist()  # type: ignore[no-any-return]

    def images_beside(self, positions: Positions) -> list[Path]:
        """The images of the folders of the files at `positions`, but for these, sorted."""
        codes, _, images = self.table()
        beside = images & np.isin(codes, self.used(positions))
        beside[positions] = False
        return sorted(self.root / name for name in texts_of(self.paths(np.flatnonzero(beside))))


@dataclass
class Match:
    """What names came to."""

    files: Files
    position: Positions
    """(names,) the file of each; `NONE`, or `SEVERAL`."""
    candidates: dict[int, list[int]] = field(default_factory=dict)
    """The files that a name could mean, by its position."""
    how: npt.NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    """(names,) what its file has other than is written, a position in `DIFFERS`."""

    def readings(self) -> list[tuple[str, int, int]]:
        """What some names were read with other than is written, how many, and the first of them."""
        return [
            (what, len(rows), int(rows[0]))
            for code, what in enumerate(DIFFERS)
            if what and len(rows := np.flatnonzero((self.how == code) & (self.position >= 0)))
        ]

    def near(self, name: str) -> str:
        """The file whose name is nearest to one that was not found, which may be an address's end;
        empty if none is near."""
        self.files.add_all()
        files = self.files.table()[1][:_MOST_COMPARED]
        meant = (name, unquote(name.split("?")[0]))
        bases = dict.fromkeys(re.split(r"[/\\]", text)[-1].lower() for text in meant)
        known = {text.lower(): k for k, text in enumerate(texts_of(files))}
        by_stem = {os.path.splitext(text)[0]: k for text, k in known.items()}
        for keys, base in product((known, by_stem), bases):
            for found in difflib.get_close_matches(base, keys, 1, 0.75):
                return self.files.path(keys[found])
        return ""


def match(names: Names, files: Files, *, strict: bool = False) -> Match:
    """The `files` that `names` mean. `strict`: in the very folders that they name;
    otherwise, where there is no such folder, with less of its path, and bare names below the
    root."""
    found = Match(files, np.full(len(names), NONE, np.int64), how=np.zeros(len(names), np.int8))
    left = np.arange(len(names))
    work = _Names.of(names)
    codes = np.array([NONE if (c := files.add(f)) is None else c for f in work.folders])
    left = left[_look_up(left, _within(codes[work.folder], work.base, files), found)]
    if not len(left):
        return found
    exact = found.position[found.position >= 0]
    work = _Names.of(tidied(names.take(pa.array(left))))
    codes, moved = _resolved(work.folders, files)
    if strict:
        codes = np.where(moved, NONE, codes)
    for reading in _READINGS:
        away = moved[work.folder]
        pair = _within(codes[work.folder], work.base, files, reading)
        kept = _look_up(left, pair, found, np.where(away, _FOLDERS, DIFFERS.index(reading.what)))
        left, work = left[kept], work.take(kept)
    bare = np.flatnonzero(np.array([not folder for folder in work.folders], bool)[work.folder])
    if not strict and len(bare):
        files.add_all()
        left, work = left[bare], work.take(bare)
        for reading in _READINGS:
            pair = _anywhere(work.base, files, reading)
            kept = _look_up(left, pair, found, np.full(len(left), _FOLDERS))
            left, work = left[kept], work.take(kept)
    # Another name means that file for sure.
    found.position[(found.how == _FOLDERS) & np.isin(found.position, exact)] = NONE
    return found


def match_known(names: Names, known: Names) -> Positions:
    """The position in `known`, paths in NFC, of each of `names`; `NONE`, or `SEVERAL`."""
    found = Match(Files(Path()), np.full(len(names), NONE, np.int64), how=np.zeros(0, np.int8))
    left, everything = np.arange(len(names)), np.arange(len(known))
    kept = _look_up(left, _Pair(composed(names), known, everything), found)
    left, names = left[kept], tidied(names.take(pa.array(kept)))
    for reading in _READINGS:
        pair = _Pair(reading.of_name(names), reading.of_file(known), everything)
        kept = _look_up(left, pair, found)
        left, names = left[kept], names.take(pa.array(kept))
    return found.position


# --- names ----------------------------------------------------------------------------------------


class _Names(NamedTuple):
    """Names as a folder and what follows."""

    folders: list[str]
    folder: Positions
    """(names,) positions in `folders`."""
    base: Names

    @classmethod
    def of(cls, names: Names) -> _Names:
        folders = pc.replace_substring_regex(names, "/?[^/]*$", "").dictionary_encode()
        base = pc.replace_substring_regex(names, "^(?s:.*)/", "")
        codes = folders.indices.to_numpy().astype(np.int64)
        return cls(texts_of(folders.dictionary), codes, base)

    def take(self, positions: Positions) -> _Names:
        return _Names(self.folders, self.folder[positions], self.base.take(pa.array(positions)))


_TEXT = pc.CastOptions(target_type=pa.large_string(), allow_invalid_utf8=True)


def tidied(names: Names) -> Names:
    """Names with `/` throughout, and without `./`, `file://`, a host or a query."""
    for pattern, instead in (
        (r"^([A-Za-z][A-Za-z0-9+.-]*://[^?#]*)[?#].*$", r"\1"),
        (r"^[A-Za-z][A-Za-z0-9+.-]*://", "/"),
        (r"\\", "/"),
        (r"^(\./)+", ""),
        (r"/(\.?/)+", "/"),
    ):
        names = pc.replace_substring_regex(names, pattern, instead)
    return names


def _resolved(folders: list[str], files: Files) -> tuple[Positions, npt.NDArray[np.bool_]]:
    """For each of `folders` the code of the folder that it means here, and whether that is called
    otherwise: what stays of its path once as little as possible of its start is left out."""
    codes, moved = [], []
    for folder in folders:
        code = files.add(folder)
        parts = [part for part in folder.split("/") if part not in ("", ".")]
        for start in range(len(parts) + 1) if code is None else ():
            there = _descended(parts[start:], files)
            if there is not None:
                code = files.add(there)
                break
        codes.append(NONE if code is None else code)
        moved.append(code is not None and files.folders[code] != folder)
    return np.array(codes, np.int64), np.array(moved, bool)


def _descended(parts: list[str], files: Files) -> str | None:
    """The folder below the root that is reached by `parts`, whatever their capitals."""
    here = ""
    for part in parts:
        below = files.below(here)
        same = [part] if part in below else [b for b in below if _folded(b) == _folded(part)]
        if len(same) != 1:
            return None
        here = os.path.join(here, same[0])
    return here


def _folded(name: str) -> str:
    return normal(name).lower()


# --- readings -------------------------------------------------------------------------------------


class _Reading(NamedTuple):
    """What a name and a file must have in common. A key that is null is like no other."""

    what: str
    """What differs, to be said; empty: nothing that is worth it."""
    of_name: Callable[[Names], Names]
    of_file: Callable[[Names], Names]


def composed(base: Names) -> Names:
    """In Unicode NFC."""
    return _changed(base, lambda text: text, normal)


def _lower(base: Names) -> Names:
    return _changed(base, pc.ascii_lower, _folded)


def _changed(base: Names, plain: Callable[[Names], Names], other: Callable[[str], str]) -> Names:
    text = pc.cast(base, options=_TEXT)
    if pc.all(pc.string_is_ascii(text)).as_py() is not False:
        return plain(text).cast(pa.large_binary())
    return as_names([other(name) for name in texts_of(base)])


def _stem(base: Names) -> Names:
    return pc.replace_substring_regex(base, r"([^/])\.[^./]*$", r"\1")


def _digits(stem: Names) -> Names:
    """Whole numbers without the zeros before them; null for others."""
    numbers = pc.match_substring_regex(stem, "^[0-9]+$")
    plain = pc.replace_substring_regex(stem, "^0+([0-9])", r"\1")
    return pc.if_else(numbers, plain, pa.scalar(None, pa.large_binary()))


def _without_image_suffix(base: Names) -> Names:
    return pc.replace_substring_regex(base, _IMAGE_SUFFIX, "")


_READINGS = (
    _Reading("", composed, composed),
    _Reading("", composed, lambda base: _stem(composed(base))),
    _Reading("capitals", _lower, _lower),
    _Reading("capitals", _lower, lambda base: _stem(_lower(base))),
    _Reading(
        "suffix",
        lambda base: _without_image_suffix(_lower(base)),
        lambda base: _stem(_lower(base)),
    ),
    _Reading(
        "zeros",
        lambda base: _digits(_without_image_suffix(_lower(base))),
        lambda base: _digits(_stem(_lower(base))),
    ),
)


class _Pair(NamedTuple):
    """What is compared."""

    wanted: Names
    """(names,)"""
    keys: Names
    """(some of the files,)"""
    at: Positions
    """(some of the files,) which they are."""


def _within(codes: Positions, base: Names, files: Files, reading: _Reading | None = None) -> _Pair:
    """Names with files of the folder `codes` (names,); without a `reading`, of any kind and to the
    letter."""
    folder, names, images = files.table()
    at = np.flatnonzero(images) if reading is not None else np.arange(len(folder))
    there = names.take(pa.array(at))
    wanted = base if reading is None else reading.of_name(base)
    keys = there if reading is None else reading.of_file(there)
    return _Pair(_joined(codes, wanted), _joined(folder[at], keys), at)


def _anywhere(base: Names, files: Files, reading: _Reading) -> _Pair:
    """Names with images of all folders."""
    _, names, images = files.table()
    at = np.flatnonzero(images)
    return _Pair(reading.of_name(base), reading.of_file(names.take(pa.array(at))), at)


def _joined(codes: npt.NDArray[Any], base: Names) -> Names:
    folders = pa.array(codes).cast(pa.large_string()).cast(pa.large_binary())
    return glued(folders, b"/", base)


def _look_up(
    left: Positions,
    pair: _Pair,
    found: Match,
    what: npt.NDArray[Any] | None = None,
) -> Positions:
    """Settles what it can of `left`, and gives the places in it of the others."""
    if not len(left):
        return left
    known = pair.keys.dictionary_encode()
    codes = known.indices.fill_null(len(known.dictionary)).to_numpy().astype(np.int64)
    strata = grouped(np.r_[codes, len(known.dictionary)])
    hit = pc.index_in(pair.wanted, value_set=known.dictionary).fill_null(NONE).to_numpy()
    several = np.flatnonzero((hit >= 0) & (strata.counts[hit] > 1))
    for k in several.tolist():
        found.candidates[int(left[k])] = pair.at[strata.members(int(hit[k]))].tolist()
    found.position[left[several]] = SEVERAL
    one = np.flatnonzero((hit >= 0) & (strata.counts[hit] == 1))
    file = pair.at[strata.order[strata.starts[hit[one]]]]
    found.position[left[one]] = file
    if what is not None:
        found.how[left[one]] = what[one]
    return np.flatnonzero(hit < 0)
