"""Several labels in one cell of a table: what stands between them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_MARKS = ("|", ";")
"""Hardly ever a part of a name."""
_PLURAL = ("labels", "classes", "tags", "categories", "finding_labels")
"""What a column of several labels is called, and one of a single label hardly."""
_LIST = re.compile(r"\s*[\[(](.*)[\])]\s*", re.DOTALL)
_QUOTED = re.compile(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^,'"]*))\s*(?:,|$)""")


_VECTOR = re.compile(r"\s*[\[(]?\s*([01](?:\.0*)?(?:\s*[,;| \t]\s*[01](?:\.0*)?)+)\s*[\])]?\s*")


def vectors(cells: Sequence[str], classes: Sequence[str] = ()) -> list[list[bool] | None] | None:
    """What `[0, 1, 1]` or `0 1 1` says of as many classes, of each of `cells`, which all differ;
    None for one that is no such. Not all need be, nor of one length, where it is sure that they are
    meant to: where most are, and one says the same of two classes, as no list of numbers does, or
    they are as long as the `classes` that were asked for. Otherwise None altogether."""
    matches = [_VECTOR.fullmatch(cell) for cell in cells]
    rows = [m and [n[0] == "1" for n in re.findall(r"[01](?:\.0*)?", m[1])] for m in matches]
    found = [row for row in rows if row]
    if not found:
        return None
    named = not {"0", "1"} & {*classes} and any(len(row) == len(classes) for row in found)
    sure = named or any(len({*row}) < len(row) for row in found)
    most = 2 * len(found) > sum(1 for cell in cells if cell.strip())
    alike = len(found) == len(cells) and len({len(row) for row in found}) == 1
    return rows if alike or (sure and most) else None


def separator_in(cells: Sequence[str], column: str) -> str:
    """What stands between the labels of `cells`, which all differ, in a column of that name; empty
    where nothing says that there are several. `|` and `;` are always between labels; commas and
    blanks, of which names are made, too, where taking cells apart leaves fewer labels than there
    are cells, and blanks in a column only that is called like one of several labels."""
    for mark in marks_in(cells):
        return mark
    plural = column.strip().lower().replace(" ", "_") in _PLURAL
    for mark in (",", " ") if plural else (",",):
        several = [cell for cell in cells if len(_apart(cell, mark)) > 1]
        parts = {part for cell in cells for part in _apart(cell, mark)}
        if several and len(parts) < len(cells):
            return mark
    return ""


def listed(cells: Sequence[str]) -> bool:
    """Whether all that are not empty are lists as JSON and Python write them: `["a", "b"]`."""
    filled = [cell for cell in cells if cell.strip()]
    return bool(filled) and all(map(_LIST.fullmatch, filled))


def splitter(separator: str, *, found: bool = False) -> Callable[[str], list[str]]:
    """Takes a cell apart: its labels, without blanks around them; of nothing, none. `found`: as
    `separator_in` did; then each of its marks is between labels, and no comma ends one."""
    if not found:
        return lambda cell: _apart(cell, separator)

    def apart(cell: str) -> list[str]:
        for mark in _MARKS if separator in _MARKS else ():
            cell = cell.replace(mark, separator)
        return [label for part in _apart(cell, separator) if (label := part.strip(" ,"))]

    return apart


def marks_in(cells: Sequence[str]) -> list[str]:
    """Those marks that are always between labels, as far as `cells` have them."""
    return [mark for mark in _MARKS if any(mark in cell for cell in cells)]


def of_list(cell: str) -> list[str]:
    """The labels of a cell that is `listed`."""
    match = _LIST.fullmatch(cell)
    inside = "" if match is None else match[1]
    found = (single or double or bare for single, double, bare in _QUOTED.findall(inside))
    return [label for part in found if (label := re.sub(r"\\(.)", r"\1", part).strip())]


def _apart(cell: str, separator: str) -> list[str]:
    if not separator:
        parts = [cell]
    else:
        parts = cell.split() if separator.isspace() else cell.split(separator)
    return [part.strip() for part in parts if part.strip()]
