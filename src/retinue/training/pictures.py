"""Whether the images of a run are still the files that they were when it began: told by their sizes
and times of change, which costs a look at each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from retinue.data.sources import Dataset
from retinue.run.folder import RunFolder
from retinue.sample import Sample
from retinue.text import counted

FILE = "last/images.parquet"
"""A row an image, in the order of `splits.csv`: `size` in bytes and `time` of its last change in
nanoseconds, −1 for an image that lies in no file of its own."""
_AT_ONCE = 1000
_ROOT = b"root"


def remember(run: RunFolder, dataset: Dataset) -> None:
    """Write down how the files of the images look now."""
    sizes, times = _looked_at(_samples(dataset))
    table = pa.table({"size": pa.array(sizes), "time": pa.array(times)})
    root = os.fsencode(str(dataset.root))
    run.write_table(FILE, table.replace_schema_metadata({_ROOT: root}))


def other_pictures(run: RunFolder, dataset: Dataset) -> Iterator[str]:
    """What is to be said of images that were written anew since `remember`. For a data set that
    has moved, only their sizes count: who copies files often gives them new times."""
    try:
        known = pq.read_table(run.path / FILE)
        before = known["size"].to_numpy(), known["time"].to_numpy()
        moved = (known.schema.metadata or {}).get(_ROOT) != os.fsencode(str(dataset.root))
    except (OSError, pa.ArrowException, KeyError):  # an older run, or damaged: nothing is known
        return
    samples = _samples(dataset)
    if len(before[0]) != len(samples):
        return
    sizes, times = _looked_at(samples)
    larger = np.flatnonzero(before[0] != sizes)
    touched = np.flatnonzero((before[0] == sizes) & (before[1] != times) & (not moved))
    if len(larger):
        k = int(larger[0])
        yield (
            f"{_count(larger)} other bytes than when the training began, first"
            f" {_name(samples[k])!r} ({before[0][k]:,} bytes then, {sizes[k]:,} now): the training"
            " goes on with what is there now"
        )
    if len(touched):
        yield (
            f"{_count(touched, 'was', 'were')} written anew since the training began, at the same"
            f" size, first {_name(samples[int(touched[0])])!r}: if it shows something else, the"
            " training goes on with that"
        )


def _samples(dataset: Dataset) -> list[Sample]:
    return [sample for part in dataset.parts.values() for sample in part]


def _name(sample: Sample) -> str:
    return sample.name or sample.key


def _count(found: npt.NDArray[np.intp], one: str = "has", more: str = "have") -> str:
    return counted(len(found), f"image {one}", f"images {more}")


def _looked_at(samples: Sequence[Sample]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Size and time of each; −1 where there is no file."""

    def facts(start: int) -> list[tuple[int, int]]:
        return [_facts(sample) for sample in samples[start : start + _AT_ONCE]]

    with ThreadPoolExecutor(8, thread_name_prefix="retinue-stat") as pool:
        rows = [row for part in pool.map(facts, range(0, len(samples), _AT_ONCE)) for row in part]
    table = np.array(rows, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _facts(sample: Sample) -> tuple[int, int]:
    if sample.read is not None:
        return -1, -1
    try:
        found = os.stat(sample.key)
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns
