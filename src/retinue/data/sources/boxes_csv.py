"""A table with a row a box: `filename,width,height,class,xmin,ymin,xmax,ymax` as scripts for the
TensorFlow Object Detection API write it, or other usual names for that; and without a header
`path,x1,y1,x2,y2,class`.

Of a folder with several tables, those that are called like a split are it. A row without class and
corners says that its image shows no object.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retinue.data.dimensions import dimensions, upright
from retinue.data.options import ColumnOptions, DataOptions
from retinue.data.sources.annotated import Annotated, fill, from_one_root, no_boxes
from retinue.data.sources.box_rules import Flags, Numbers, Positions
from retinue.data.sources.cells import Cells, read_cells
from retinue.data.sources.columns import ALIASES, find_columns
from retinue.data.sources.layout import TABLES, image_root
from retinue.data.sources.listing import Listing, Reader, given_path
from retinue.data.sources.matching import SEVERAL, match
from retinue.data.sources.records import NONE, Names, Records, texts_of
from retinue.data.sources.walking import hidden, normal, subfolders
from retinue.data.sources.words import ORDER, split_in, yes_or_no
from retinue.errors import UsageError, some
from retinue.files import children
from retinue.text import counted

_HEAD_ROWS = 20
_SHOWN = 5
_SUGGESTED = 5
_CORNERS: tuple[tuple[str, ...], ...] = (
    ("xmin", "x1", "x_min", "left", "bbox_x1", "xtl"),
    ("ymin", "y1", "y_min", "top", "bbox_y1", "ytl"),
    ("xmax", "x2", "x_max", "right", "bbox_x2", "xbr"),
    ("ymax", "y2", "y_max", "bottom", "bbox_y2", "ybr"),
)
"""What people call the corners."""
_SIZE = (("width", "image_width", "img_width"), ("height", "image_height", "img_height"))
_FLAGS = {"difficult": ("difficult",), "crowd": ("crowd", "iscrowd", "is_crowd", "isgroupof")}
_ROLES = ("path", "label", "split", "group")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True, eq=False)
class _Table:
    """A table of boxes, its columns found."""

    cells: Cells
    corners: tuple[int, int, int, int]
    path: int
    label: int
    split: npt.NDArray[np.int8] | None
    """(rows,) see `Columns.splits`; None: no column says."""
    group: int | None
    size: tuple[int, int] | None
    flags: Mapping[str, int]
    note: str
    errors: list[UsageError]


# --- finding --------------------------------------------------------------------------------------


def _find(options: DataOptions, asked: bool) -> Path | None:
    path = given_path(options)
    if path.is_file():
        fits = path.suffix.lower() in TABLES and _tells_boxes(path, options.columns)
        return path if asked or fits else None
    if _tables(path, options.columns) or len(_tables_of_splits(path, options.columns)) > 1:
        return path
    # One folder of many may hold the tables, beside that of the images.
    inner = [folder for folder in subfolders(path) if _tables(folder, options.columns)]
    if len(inner) == 1:
        return inner[0]
    if asked or inner:
        found = ", ".join(repr(folder.name) for folder in inner)
        raise UsageError(
            "tables of boxes in several folders: " + found if inner else "no table of boxes",
            where=repr(str(path)),
            mend="give the table itself as data=PATH",
        )
    return None


def _tables_of_splits(path: Path, columns: ColumnOptions) -> dict[Path, str | None]:
    """Those in the folders of `path` that are called like splits."""
    return {
        table: split
        for folder in subfolders(path)
        if (split := split_in(folder.name)) is not None
        for table in _tables(folder, columns)
    }


def _tables(folder: Path, columns: ColumnOptions) -> list[Path]:
    """Those in `folder`, sorted."""
    return sorted(
        path
        for path in children(folder)
        if path.suffix.lower() in TABLES
        and path.is_file()
        and not hidden(path.name)
        and _tells_boxes(path, columns)
    )


def _tells_boxes(path: Path, columns: ColumnOptions) -> bool:
    try:
        return _read_columns(path, columns, most=_HEAD_ROWS) is not None
    except UsageError:
        return False


def _read_columns(path: Path, options: ColumnOptions, *, most: int | None = None) -> _Table | None:
    """None for a table of something else. Raises `UsageError` for what is no table."""
    cells = read_cells(path, most=most)
    head = [_plain(name) for name in cells.head]
    corners = [_position(head, names) for names in _CORNERS]
    if NONE in corners:
        bare = len(head) == 6 and all(_NUMBER.fullmatch(h) or not h for h in cells.head[1:5])
        if not bare or not any(cells.head[1:5]):
            return None
        note = f"{path.name} read as: path, x1, y1, x2, y2, class"
        return _Table(cells.without_header(), (1, 2, 3, 4), 0, 5, None, None, None, {}, note, [])
    found = find_columns(cells, options)
    splits, errors = found.splits()
    size = [_position(head, names) for names in _SIZE]
    flags = {k: at for k, names in _FLAGS.items() if (at := _position(head, names)) != NONE}
    read = [role for role in ALIASES if role in found.place and role in _ROLES]
    used = {*corners, *size, *flags.values(), *(found.place[role] for role in read)}
    ignored = [name for k, name in enumerate(cells.head) if k not in used]
    said = [f"{role}={cells.head[found.place[role]]}" for role in read]
    said += [f"box={' '.join(cells.head[k] for k in corners)}"]
    note = f"{path.name} read as: {', '.join(said)}"
    note += f"; ignored: {some(ignored, 8, between=', ')}" if ignored else ""
    return _Table(
        cells,
        (corners[0], corners[1], corners[2], corners[3]),
        found.place["path"],
        found.place["label"],
        splits,
        found.place.get("group"),
        None if NONE in size else (size[0], size[1]),
        flags,
        note,
        errors,
    )


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _position(head: Sequence[str], names: Sequence[str]) -> int:
    return next((head.index(name) for name in names if name in head), NONE)


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Rows:
    """What a table's rows say; those without an image are left out."""

    files: list[str]
    """The images, from the root."""
    image: Positions
    """(rows,) positions in `files`."""
    xyxy: Numbers
    boxed: Flags
    """(rows,) False: the row says that there is nothing."""
    label: list[str]
    size: Positions
    """(rows, 2); 0: it does not say."""
    at: list[str]
    split: Positions
    """(rows,) positions in `ORDER`; `NONE`: it does not say."""
    flags: dict[str, Flags]
    group: list[str]


def read_boxes_csv(path: Path, options: DataOptions) -> Listing:
    """Raises `UsageError`, naming the line, for a table that makes no sense."""
    tables = _chosen(path, options)
    root = path if path.is_dir() else path.parent
    listing = Listing("boxes_csv", root, Records.of([]))
    beside = [other for other in _beside(path, options) if other not in tables]
    if beside:
        names = some([other.name for other in beside], _SHOWN, between=", ")
        listing.notes.append(f"not read beside {', '.join(p.name for p in tables)}: {names}")
    parts: list[tuple[Path, _Rows]] = []
    for place, split in tables.items():
        table = _read_columns(place, options.columns)
        if table is None:
            raise UsageError(
                "no columns for the corners of boxes",
                where=repr(str(place)),
                mend="call them xmin, ymin, xmax and ymax",
            )
        listing.notes.append(table.note)
        listing.errors += table.errors
        parts.append(_rows(table, split, options, listing))
    return fill(listing, _joined(listing, parts), options)


def _chosen(path: Path, options: DataOptions) -> dict[Path, str | None]:
    """The tables that are read, and the split that each is called like."""
    if path.is_file():
        return {path: split_in(path.stem)}
    own = _tables(path, options.columns)
    tables = {table: split_in(table.stem) for table in own} or _tables_of_splits(
        path, options.columns
    )
    named = {table: split for table, split in tables.items() if split is not None}
    if len(set(named.values())) < len(named) or (not named and len(tables) != 1):
        found = ", ".join(repr(table.name) for table in named or tables) or "none"
        raise UsageError(
            f"one table, or one of each split, was expected in this folder, found: {found}",
            where=repr(str(path)),
            mend="give the table itself as data=PATH",
        )
    return {table: split for table, split in tables.items() if split or not named}


def _beside(path: Path, options: DataOptions) -> list[Path]:
    return _tables(path if path.is_dir() else path.parent, options.columns)


def _rows(
    table: _Table, split: str | None, options: DataOptions, listing: Listing
) -> tuple[Path, _Rows]:
    """The folder that the images lie in, and what the rows say."""
    cells = table.cells
    names = cells.columns[table.path].fill_null(b"")
    found = match(
        names, image_root(cells.path, names, options, around=True, split=split or "train")
    )
    there = found.position >= 0
    told: set[bytes] = set()
    for row, name in zip(
        np.flatnonzero(~there).tolist(),
        names.take(pa.array(np.flatnonzero(~there))).to_pylist(),
        strict=True,
    ):
        if name in told:
            continue
        told.add(name)
        text = os.fsdecode(name)
        if found.position[row] == SEVERAL:
            what = some([repr(found.files.path(k)) for k in found.candidates[row]], _SHOWN)
            what = f"{text!r} can be any of {what}"
        else:
            near = found.near(text) if len(listing.missing) < _SUGGESTED else ""
            listing.missing.append(text)
            what = f"no image {text!r} in {str(found.files.root)!r}"
            what += f" (there is {near!r})" if near else ""
        listing.problems.append(f"{cells.at(int(cells.lines[row]))}: {what}")
    listing.errors += found.files.closed
    listing.without_label += found.files.images_beside(found.position[there])
    xyxy, boxed, good = _corners(table, there, listing)
    kept = np.flatnonzero(there & good)
    place, first, sort = np.unique(found.position[kept], return_index=True, return_inverse=True)
    order = np.argsort(first)  # the images in the order of the rows
    image = np.argsort(order)[sort]
    labels = [normal(" ".join(t.split())) for t in _texts(cells, table.label, kept)]
    own = np.full(len(kept), NONE if split is None else ORDER.index(split))
    if split is None and table.split is not None:
        own = table.split[kept].astype(np.int64)
    flags = {
        name: np.array([bool(yes_or_no(text)) for text in _texts(cells, at, kept)], bool)
        for name, at in table.flags.items()
    }
    return found.files.root, _Rows(
        texts_of(found.files.paths(place[order])),
        image,
        xyxy[kept],
        boxed[kept],
        labels,
        _sizes(table, kept),
        [cells.at(line) for line in cells.lines[kept].tolist()],
        own,
        flags,
        [""] * len(kept) if table.group is None else _texts(cells, table.group, kept),
    )


def _texts(cells: Cells, column: int, rows: Positions) -> list[str]:
    taken: Names = cells.columns[column].take(pa.array(rows))
    return texts_of(taken)


def _corners(table: _Table, there: Flags, listing: Listing) -> tuple[Numbers, Flags, Flags]:
    """(rows, 4) corners, (rows,) whether there is a box, and whether the row makes sense."""
    cells = table.cells
    count = len(cells.lines)
    rows = np.arange(count)
    words = [_texts(cells, at, rows) for at in table.corners]
    xyxy = np.full((count, 4), np.nan)
    empty = np.array([not any(row) for row in zip(*words, strict=True)], bool).reshape(count)
    labels = _texts(cells, table.label, rows)
    good = np.ones(count, bool)
    for column, texts in enumerate(words):
        try:
            xyxy[:, column] = np.array(texts, np.float64)
            continue
        except ValueError:
            pass
        for k, text in enumerate(texts):
            try:
                xyxy[k, column] = float(text)
            except ValueError:
                if good[k] and there[k] and not empty[k]:
                    name = cells.head[table.corners[column]]
                    said = f"{text[:40]!r} is no number" if text else "a corner is missing"
                    where = cells.at(int(cells.lines[k]))
                    listing.problems.append(f"{where}: {said}, column {name!r}")
                good[k] &= empty[k]
    for k in np.flatnonzero(~empty & there & good).tolist():
        if not labels[k]:
            good[k] = False
            where = cells.at(int(cells.lines[k]))
            listing.problems.append(f"{where}: a box without a class")
    return xyxy, ~empty, good


def _sizes(table: _Table, kept: Positions) -> Positions:
    sizes = np.zeros((len(kept), 2), np.int64)
    for side, at in enumerate(table.size or ()):
        for k, text in enumerate(_texts(table.cells, at, kept)):
            if _NUMBER.fullmatch(text):
                sizes[k, side] = int(min(max(float(text), 0), 1 << 30))
    return sizes


def _joined(listing: Listing, parts: Sequence[tuple[Path, _Rows]]) -> Annotated:
    """All tables as one, their images from one root. Raises `UsageError` where nothing is left."""
    listing.root, prefixes = from_one_root([root for root, _ in parts])
    files: dict[str, int] = {}
    columns: dict[str, list[npt.NDArray[np.int64]]] = {"image": [], "split": []}
    for prefix, (_, rows) in zip(prefixes, parts, strict=True):
        code = [files.setdefault(prefix + name, len(files)) for name in rows.files]
        columns["image"].append(np.array(code, np.int64)[rows.image])
        columns["split"].append(rows.split)
    image, split = (np.concatenate(columns[name]) for name in ("image", "split"))
    _note_unlabelled(listing, {os.path.join(os.path.abspath(listing.root), name) for name in files})
    all_rows = [rows for _, rows in parts]
    at = [where for rows in all_rows for where in rows.at]
    boxed = np.concatenate([rows.boxed for rows in all_rows])
    if not boxed.any():
        for error in listing.errors:
            raise error
        raise no_boxes(listing, "the tables" if len(parts) > 1 else "the table")
    _, first = np.unique(image, return_index=True)
    splits = split[first].astype(np.int8)
    _refuse_torn(splits, image, split, list(files), at)
    size = np.concatenate([rows.size for rows in all_rows])
    differ = (size != size[first][image]).any(axis=1)
    for k in np.flatnonzero(differ).tolist():
        listing.problems.append(
            f"{at[k]}: another width or height of {list(files)[image[k]]!r} than before"
        )
    use = np.flatnonzero(boxed & ~differ)
    labels = [label for rows in all_rows for label in rows.label]
    groups = [group for rows in all_rows for group in rows.group]
    classes = sorted({labels[k] for k in use.tolist()})
    number = {name: k for k, name in enumerate(classes)}
    flags = {
        name: np.concatenate([r.flags.get(name, np.zeros(len(r.at), bool)) for r in all_rows])[use]
        for name in _FLAGS
    }
    given = Annotated(
        files=list(files),
        claimed=size[first],
        image_at=lambda k: at[first[k]],
        image=image[use],
        xyxy=np.concatenate([rows.xyxy for rows in all_rows])[use],
        of=np.array([number[labels[k]] for k in use.tolist()], np.int64),
        classes=classes,
        box_at=lambda k: at[use[k]],
        splits=splits if (splits != NONE).any() else None,
        difficult=flags["difficult"],
        crowd=flags["crowd"],
        groups=[groups[k] for k in first.tolist()] if any(groups) else None,
        sized=bool((size > 0).any()),
        counted_by_pixels=True,
    )
    return _in_pixels(listing, given)


def _note_unlabelled(listing: Listing, used: set[str]) -> None:
    """One table's images lie beside another's."""
    without = {p for p in listing.without_label if os.path.abspath(p) not in used}
    listing.without_label = sorted(without)
    if without:
        have = counted(len(without), "image has", "images have")
        listing.notes.append(
            f"{have} no row: left out, {listing.without_label[0].name!r} the first"
        )
        listing.without_label_become = (
            "no row: left out; a row without class and corners says that there is no object"
        )


def _in_pixels(listing: Listing, given: Annotated) -> Annotated:
    """Corners that are shares of the image's sides are brought to pixels."""
    finite = given.xyxy[np.isfinite(given.xyxy).all(axis=1)]
    if not len(finite) or finite.max() > 1 or finite.min() < 0 or (finite == np.rint(finite)).all():
        return given
    found = dimensions([str(listing.root / file) for file in given.files])
    listing.notes.append("corners lie between 0 and 1: taken for shares of width and height")
    sides = upright(found)[given.image].astype(np.float64)
    xyxy = given.xyxy * np.tile(sides, 2)
    return replace(given, xyxy=xyxy, found=found, counted_by_pixels=False)


def _refuse_torn(
    splits: npt.NDArray[np.int8],
    image: Positions,
    split: Positions,
    files: Sequence[str],
    at: Sequence[str],
) -> None:
    """Raises `UsageError` for an image in two splits."""
    for k in np.flatnonzero(split != splits[image])[:1].tolist():
        raise UsageError(
            f"{files[image[k]]!r} stands in two splits",
            where=at[k],
            mend="leave its boxes in one of them",
        )


BOXES_CSV = Reader(
    "boxes_csv",
    _find,
    read_boxes_csv,
    heeds=frozenset({"first_pixel"}),
    also=frozenset({"csv"}),
    labels="boxes in a table",
)
