"""A shard is looked through once, and again when it has changed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from examples import write as write_records
from shard_sets import slim

from retinue.data.on_demand import Repeated
from retinue.data.sources import shard_index
from retinue.data.sources.member import Members
from retinue.data.sources.shard_index import Example, indexes
from retinue.data.sources.tfrecord_classes import Chosen, scan

CHOSEN = Chosen("image/encoded", "image/class/label", None, None)


@pytest.fixture
def shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Written an hour ago."""
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path / "cache"))
    path = write_records(tmp_path / "a.tfrecord", slim(0, 3), slim(1, 4))
    return aged(path)


def aged(path: Path, seconds: int = 3600) -> Path:
    changed = os.stat(path).st_mtime_ns - seconds * 10**9
    os.utime(path, ns=(changed, changed))
    return path


class Scans:
    """Counts how often a file is looked through."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, path: Path) -> Iterator[Example]:
        self.count += 1
        return scan(path, CHOSEN)


def labels(path: Path, scans: Scans, how: str = "one way") -> list[int]:
    [found] = indexes([path], scans, [how])
    assert not isinstance(found, OSError)
    return found["label"].to_pylist()


def test_once_for_each_way_and_again_when_it_has_changed(shard: Path) -> None:
    scans = Scans()
    assert labels(shard, scans) == labels(shard, scans) == [3, 4]
    assert scans.count == 1
    labels(shard, scans, "another")
    assert scans.count == 2
    aged(write_records(shard, slim(0, 5), slim(1, 6)), 1800)
    assert labels(shard, scans) == [5, 6]
    assert scans.count == 3


def test_what_has_just_been_written_is_not_remembered(shard: Path) -> None:
    scans = Scans()
    write_records(shard, slim(0, 5))
    assert labels(shard, scans) == [5]
    assert labels(shard, scans) == [5]
    assert scans.count == 2


def test_of_two_at_once_one_looks_through_it(shard: Path) -> None:
    scans = Scans()
    begun = threading.Barrier(2)

    def one() -> list[int]:
        begun.wait()
        return labels(shard, scans)

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(one) for _ in range(2)]
        assert [job.result() for job in jobs] == [[3, 4], [3, 4]]
    assert scans.count == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "folder"])
def test_a_damaged_index_is_made_anew(shard: Path, tmp_path: Path, damage: str) -> None:
    scans = Scans()
    labels(shard, scans)
    [place] = (tmp_path / "cache" / "shards").iterdir()
    content = place.read_bytes()
    if damage == "folder":
        place.unlink()
        place.mkdir()
    else:
        flipped = content[:60] + bytes([content[60] ^ 1]) + content[61:]
        place.write_bytes({"cut": content[:-9], "flipped": flipped, "empty": b""}[damage])
    assert labels(shard, scans) == [3, 4]
    assert scans.count == 2


def test_where_nothing_can_be_remembered_it_is_read_all_the_same(
    shard: Path, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    scans = Scans()
    assert labels(shard, scans) == labels(shard, scans) == [3, 4]


def test_those_used_last_are_kept(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_index, "MOST_KEPT", 2)
    scans = Scans()
    for how in "abc":
        labels(shard, scans, how)
    assert len(list((tmp_path / "cache" / "shards").iterdir())) == 2
    labels(shard, scans, "c")
    assert scans.count == 3


def test_a_file_that_is_not_there_is_an_error_of_its_own(shard: Path, tmp_path: Path) -> None:
    found = indexes([tmp_path / "none", shard], Scans(), [])
    assert isinstance(found[0], FileNotFoundError)
    assert len(found[1]) == 2  # type: ignore[arg-type]


def test_columns_whose_values_are_made_when_asked_for() -> None:
    import numpy as np

    codes = np.array([1, 0, 1], np.int32)
    files = Repeated(["a", "b"], codes)
    column = Members(files, *(np.array([10, 20, 30], t) for t in (np.int64, np.int64, np.uint32)))
    assert list(files) == ["b", "a", "b"]
    assert "" not in files
    assert "a" in files
    assert "a" not in files.take(np.array([0, 2]))
    taken = column.take(np.array([2, 0]))
    assert [(m.file, m.offset, m.checksum) for m in taken] == [("b", 30, 30), ("b", 10, 10)]
    assert column[-1] == taken[0]
    assert list(column[1:]) == [column[1], column[2]]
