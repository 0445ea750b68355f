"""Images with boxes as their formats have them, and the listing that comes of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retinue.data.dimensions import Dimensions, dimensions
from retinue.data.options import DataOptions
from retinue.data.samples import Samples
from retinue.data.sources.box_rules import (
    Flags,
    Numbers,
    Oddity,
    Positions,
    first_pixel_of,
    judge,
)
from retinue.data.sources.frames import brought_upright, frames
from retinue.data.sources.listing import Listing
from retinue.data.sources.matching import composed
from retinue.data.sources.records import Records, as_names
from retinue.data.sources.words import nearly_alike, sort_names
from retinue.data.targets.boxes import Boxes
from retinue.errors import UsageError, some, suggest
from retinue.sample import Read
from retinue.text import counted

_SHOWN = 8
_FIRST = "data.first_pixel says which"


@dataclass(eq=False)
class Annotated:
    """`n` images and `m` boxes, by columns."""

    files: Sequence[str]
    """(n,) each image's file, from the root with `/`; or its name."""
    claimed: Positions
    """(n, 2) width and height that stand beside the boxes; 0: none do."""
    image_at: Callable[[int], str]
    """Where that stands."""
    image: Positions
    """(m,) the image of each box."""
    xyxy: Numbers
    """(m, 4) corners as the format has them."""
    of: Positions
    """(m,) positions in `classes`."""
    classes: Sequence[str]
    box_at: Callable[[int], str]
    """Where a box stands."""
    spoilt: Positions = field(default_factory=lambda: np.zeros(0, np.int64))
    """Images that show objects which are not among the boxes, since their labels cannot be used."""
    difficult: Flags | None = None
    crowd: Flags | None = None
    area: Numbers | None = None
    """(m,) square pixels of the objects themselves; NaN: not known."""
    splits: npt.NDArray[np.int8] | None = None
    """(n,) as `Records` has them."""
    not_exhaustive: Sequence[tuple[str, ...]] | None = None
    """(n,) see `Boxes`."""
    groups: Sequence[str] | None = None
    """(n,) images of one stay together; empty: none."""
    reads: Sequence[Read | None] | None = None
    """(n,) where images come from that lie in no file of their own."""
    shards: Sequence[str] | None = None
    found: Dimensions | None = None
    """(n, 3) of the files; None: they are looked at."""
    sized: bool = True
    """Whether the format has sizes beside the boxes."""
    counted_by_pixels: bool = False
    """Whether corners name pixels, as PASCAL VOC's do, so that it matters what the first is
    called."""
    notes: list[str] = field(default_factory=list)


def fill(listing: Listing, given: Annotated, options: DataOptions) -> Listing:
    """`listing` with the records of `given`, and all that is odd about their boxes."""
    found = given.found
    if found is None:
        paths = [str(listing.root / file) for file in given.files]
        found = dimensions(paths, given.reads)
    settled = frames(given.claimed, found, given.image_at, sized=given.sized)
    first = options.first_pixel
    if first == "auto":
        first, doubt = first_pixel_of(given.xyxy) if given.counted_by_pixels else (0, "")
        if doubt:
            listing.oddities.append(Oddity("pixels counted from 0 or from 1", [doubt], _FIRST))
    judged = judge(
        given.xyxy,
        given.image,
        given.of,
        settled.drawn,
        given.box_at,
        first_pixel=first,
        crowd=given.crowd,
    )
    listing.notes += given.notes
    lost = np.zeros(len(given.files), bool)
    lost[given.spoilt] = True
    lost[given.image] = True
    lost[given.image[judged.kept]] = False
    note_lost(listing, [given.files[k] for k in np.flatnonzero(lost & settled.usable).tolist()])
    used_images = settled.usable & ~lost
    count = int((judged.kept & used_images[given.image]).sum())
    images = counted(int(used_images.sum()), "image")
    listing.notes.insert(0, f"{counted(count, 'box', 'boxes')} in {images}")
    listing.problems += [*settled.problems, *judged.problems]
    listing.oddities += [*settled.oddities, *judged.oddities]
    listing.notes += [odd.note() for odd in listing.oddities if not odd.quiet]
    kept = np.flatnonzero(judged.kept & used_images[given.image])
    xyxy = brought_upright(judged.xyxy, given.image, settled)[kept].astype(np.float32)
    used = {given.classes[k] for k in np.unique(given.of[kept]).tolist()}
    listing.notes += nearly_alike(sorted(used))
    listing.empty_classes += [name for name in listing.classes or () if name not in used]
    usable = np.flatnonzero(used_images)
    listing.records = _records(listing.root, given, usable, xyxy, kept)
    return listing


def _records(
    root: Path, given: Annotated, usable: Positions, xyxy: npt.NDArray[np.float32], kept: Positions
) -> Records:
    """The images `usable` with those of their boxes that are `kept`, at `xyxy`."""
    image = given.image[kept]
    order = np.argsort(image, kind="stable")
    flags = [
        np.zeros(len(kept), bool) if f is None else f[kept][order]
        for f in (given.difficult, given.crowd)
    ]
    xyxy = np.ascontiguousarray(xyxy[order])
    area = None if given.area is None else given.area[kept][order]
    if area is not None:
        area = np.where(np.isnan(area), (xyxy[:, 2:] - xyxy[:, :2]).prod(axis=1), area)
    for column in (xyxy, *flags, *([] if area is None else [area])):
        column.setflags(write=False)
    of = [given.classes[k] for k in given.of[kept][order].tolist()]
    bounds = np.searchsorted(image[order], np.arange(len(given.files) + 1)).tolist()
    unsure: Sequence[tuple[str, ...]] = given.not_exhaustive or [()] * len(given.files)
    targets = [
        Boxes(
            xyxy[start:stop],
            tuple(of[start:stop]),
            flags[0][start:stop],
            flags[1][start:stop],
            unsure[k],
            None if area is None else area[start:stop],
        )
        for k in usable.tolist()
        for start, stop in [(bounds[k], bounds[k + 1])]
    ]
    chosen = usable.tolist()
    names = as_names([given.files[k] for k in chosen])
    alone = given.reads is None
    return Records(
        names=composed(names),
        targets=targets,
        target=np.arange(len(targets)),
        root=root,
        files=names if alone else as_names([None] * len(chosen)),
        split=None if given.splits is None else given.splits[usable],
        group=None if given.groups is None else as_names([given.groups[k] or None for k in chosen]),
        read=None if given.reads is None else [given.reads[k] for k in chosen],
        shard=None if given.shards is None else [given.shards[k] for k in chosen],
    )


def check_classes(records: Records, chosen: Sequence[str]) -> list[str]:
    """What to say of the boxes of `records`, classes by name, with `chosen` for the classes. Raises
    `UsageError` where none of them is of one."""
    found: Counter[str] = Counter()
    for k in records.occurring():
        target = records.targets[k]
        found.update(map(str, target.of) if isinstance(target, Boxes) else ())
    known, total = set(chosen), found.total()
    left = {name: count for name, count in found.items() if name not in known}
    if total and sum(left.values()) == total:
        names = sort_names(found)
        raise UsageError(
            f"0 of {counted(total, 'box matches', 'boxes match')} your class list",
            where="key data.classes",
            mend=f"the data has: {some(list(map(repr, names)), _SHOWN, between=', ')}",
        )
    notes = []
    if left:
        shown = some([f"{n!r} ({left[n]:,})" for n in sort_names(left)], _SHOWN, between=", ")
        boxes = counted(sum(left.values()), "box", "boxes")
        notes.append(f"left out {boxes} of classes not in data.classes: {shown}")
    absent = [name for name in chosen if name not in found]
    if absent:
        near = suggest(absent[0], set(left))
        shown = some(list(map(repr, absent)), _SHOWN, between=", ")
        notes.append(f"no boxes of class {shown}{': ' if near else ''}{near}")
    return notes


def about_splits(splits: Mapping[str, Samples], classes: Sequence[str]) -> list[str]:
    """What to say of classes that one split has boxes of, and train has none."""
    if "train" not in splits:
        return []
    shown = {
        split: {
            name
            for k in np.unique(samples.target[samples.target >= 0]).tolist()
            for name in samples.targets[k].names()
        }
        for split, samples in splits.items()
    }
    notes = []
    for split, indices in shown.items():
        unknown = sorted(int(k) for k in indices - shown["train"])
        if unknown:
            names = some([repr(classes[k]) for k in unknown], _SHOWN, between=", ")
            notes.append(f"{split} has boxes of classes that train has none of: {names}")
    return notes


def from_one_root(roots: Sequence[Path]) -> tuple[Path, list[str]]:
    """The folder that holds all of `roots`, and what leads from it into each."""
    whole = [os.path.abspath(root) for root in roots]
    if len(set(whole)) == 1:
        return roots[0], [""] * len(roots)
    common = os.path.commonpath(whole)
    across = [os.path.relpath(root, common).replace(os.sep, "/") for root in whole]
    return Path(common), ["" if path == "." else f"{path}/" for path in across]


def unreadable(file: Path, error: OSError) -> str:
    """The problem that a `file` of labels cannot be read."""
    return f"{str(file)!r}: {error.strerror or error}"


def beside_splits(files: Sequence[Path], root: Path) -> str:
    """The note on `files` of labels that are called like no split, where others are."""
    names = [repr(str(file.relative_to(root))) for file in files]
    return f"not read beside the files of splits: {some(names, _SHOWN, between=', ')}"


def note_lost(listing: Listing, files: Sequence[str]) -> None:
    """Say which images are left out since their labels are, every one: they may show objects, and
    would teach that they show none."""
    if files:
        are = counted(len(files), "image is", "images are")
        why = "left out, of whose labels none can be used"
        listing.notes.append(f"{are} {why}: {files[0]!r} the first")


def no_boxes(listing: Listing, looked_at: str) -> UsageError:
    """There is nothing to learn from."""
    what = f"no object in any of {looked_at}"
    if listing.problems:
        others = len(listing.problems) - 1
        mend = f"mend it, and {counted(others, 'other label')}" if others else "mend it"
        return UsageError(what, where=listing.problems[0], mend=mend)
    return UsageError(what, where=repr(str(listing.root)), mend="is it the folder of the labels?")
