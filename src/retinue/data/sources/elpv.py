"""Photographs of solar cells (Deitsch et al., 2019), from the package `elpv-dataset`.

2,624 electroluminescence images of 300 × 300 pixels with the probability of a defect (0, ⅓, ⅔, 1).
A cell counts as defective above ½; splits are even over the label and the cell's type (mono- or
polycrystalline).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from retinue.data.options import DataOptions
from retinue.data.sources.listing import Listing, Reader
from retinue.data.sources.records import Record, Records
from retinue.data.targets.one_class import OneClass
from retinue.errors import RetinueError

CLASSES = ("functional", "defective")


def _find(options: DataOptions, asked: bool) -> Path | None:
    """The folder inside the package. Raises `RetinueError` if that is not installed."""
    if not asked and (options.path != "elpv" or Path("elpv").exists()):
        return None
    # Its own loader would decode every image into memory; the labels and files are all we need.
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise RetinueError(
            "the elpv data is not installed",
            where="key data.format",
            mend="pip install 'retinue[demo]'",
        )
    return Path(spec.origin).parent / "data"


def _read(root: Path, options: DataOptions) -> Listing:
    table = root / "labels.csv"
    records = []
    known = {label: OneClass(label) for label in CLASSES}
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise RetinueError(
            f"cannot read the elpv labels: {error.strerror}", where=repr(str(table))
        ) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            name, probability, kind = line.split()
            label = CLASSES[float(probability) > 0.5]
        except ValueError:
            raise RetinueError(
                "not `path probability type`", where=f"{str(table)!r} line {number}"
            ) from None
        records.append(Record(root / name, name, known[label], stratum=kind))
    return Listing("elpv", root, Records.of(records))


ELPV = Reader("elpv", _find, _read, class_order=CLASSES, installed=True)
