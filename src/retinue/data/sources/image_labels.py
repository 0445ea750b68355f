"""Data of other kinds, read as labels of whole images: an image shows the classes of its objects,
or the one of its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from retinue.data.options import DataOptions
from retinue.data.sources.boxes_csv import BOXES_CSV
from retinue.data.sources.coco import COCO as BOXES_IN_COCO
from retinue.data.sources.folder import FOLDER as FOLDER_OF_CLASSES
from retinue.data.sources.listing import Listing, Reader
from retinue.data.sources.records import NONE
from retinue.data.sources.tfrecord_boxes import TFRECORD_BOXES as BOXES_IN_TFRECORDS
from retinue.data.sources.voc import VOC as BOXES_IN_VOC
from retinue.data.sources.yolo import YOLO as BOXES_IN_YOLO
from retinue.data.targets.boxes import Boxes
from retinue.data.targets.one_class import OneClass
from retinue.data.targets.several_labels import SeveralLabels
from retinue.sample import Target


def labels_of(target: Target) -> SeveralLabels:
    """The classes that `target` says are in the image, by name. Unknown is, as in VOC's own lists,
    what only difficult objects are of, and what is not exhaustively labelled."""
    if isinstance(target, Boxes):
        sure = [name for name, hard in zip(target.of, target.difficult, strict=True) if not hard]
        open_ = {*target.of, *target.not_exhaustive} - set(sure)
        return SeveralLabels(_sorted(set(sure)), unknown=_sorted(open_))
    if isinstance(target, OneClass):
        return SeveralLabels(_sorted(set(target.names())))
    raise TypeError(f"{target!r} tells nothing of the whole image")


def as_labels(reader: Reader) -> Reader:
    """The same format, read as labels of whole images. It claims nothing: such data is as likely
    meant for what it was made for."""

    def read(place: Path, options: DataOptions) -> Listing:
        listing = reader.read(place, options)
        records = listing.records
        targets, code = _distinct([labels_of(target) for target in records.targets])
        moved = np.array([*code, NONE], np.int64)[records.target]
        listing.records = replace(records, targets=targets, target=moved)
        listing.oddities = []  # of boxes
        return listing

    return replace(
        reader,
        read=read,
        claims=None,
        also=frozenset(),
        labels="",
    )


def _sorted(names: set[str | int]) -> tuple[str | int, ...]:
    return tuple(sorted(names, key=str))


def _distinct(targets: Sequence[SeveralLabels]) -> tuple[list[Target], list[int]]:
    place: dict[SeveralLabels, int] = {}
    code = [place.setdefault(target, len(place)) for target in targets]
    return list(place), code


VOC = as_labels(BOXES_IN_VOC)
COCO = as_labels(BOXES_IN_COCO)
YOLO = as_labels(BOXES_IN_YOLO)
BOXES = as_labels(BOXES_CSV)
TFRECORD_BOXES = as_labels(BOXES_IN_TFRECORDS)
FOLDER = as_labels(FOLDER_OF_CLASSES)
