"""Rows on disk: found by key, and whole or not there, whatever happens to who writes them."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
import torch
from cached_rows import (
    LAYOUT,
    ROW,
    ended,
    file_of,
    flip,
    forked,
    key,
    linux,
    put,
    there,
    values,
)

from retinue.errors import RetinueError
from retinue.training.features import segments
from retinue.training.features.cache import FeatureCache, Space
from retinue.training.features.layouts import Layout

# What is written is read


def test_what_was_written_is_found_and_read(cache: FeatureCache, space: Space) -> None:
    assert not cache.root.exists()  # looking leaves nothing
    assert space.find([key(1)]).tolist() == [-1]
    put(space, 4, 2, 9)
    put(space, 7, 300)
    with cache.space("a", LAYOUT) as again:
        for reader in (space, again):
            assert there(reader, range(400)) == [2, 4, 7, 9, 300]
            rows = reader.find([key(n) for n in (300, 2, 2, 7)])  # across segments, twice
            assert reader.read(rows)["index"].tolist() == [300, 2, 2, 7]
            as_array = np.frombuffer(key(300) + key(5), np.uint8).reshape(2, 16)
            assert reader.find(as_array).tolist() == [rows[0], -1]
    assert cache.space("b", LAYOUT).find([key(4)]).tolist() == [-1]


def test_fields_are_seen_by_torch(space: Space) -> None:
    put(space, 3, 5)
    for name, array in space.read(space.find([key(5), key(3)])).items():
        expected = torch.from_numpy(values(5, 3)[name])
        assert torch.equal(torch.from_numpy(array), expected)


def test_room_is_counted(space: Space, folder: Path) -> None:
    put(space, *range(10), capacity=50)
    size = sum(file_of(folder, kind).stat().st_size for kind in ("rows", "keys"))
    assert size == LAYOUT.bytes_of(10)  # the rest was given back


def test_a_writer_takes_only_what_the_layout_says(space: Space) -> None:
    good = values(1, 2)
    bad: list[tuple[list[bytes], dict[str, Any]]] = [
        ([key(1), key(2)], {**good, "state": good["state"].astype(np.float32)}),
        ([key(1), key(2)], {**good, "size": good["size"][:, :1]}),
        ([key(1)], good),
        ([key(1), key(2)], {k: v for k, v in good.items() if k != "index"}),
        ([key(1), key(2)], {**good, "more": good["index"]}),
        ([key(1), b"short"], good),
    ]
    with space.writer(3) as writer:
        for keys, arrays in bad:
            with pytest.raises(ValueError, match=r"rows|layout|16 bytes"):
                writer.append(keys, arrays)
        writer.append([key(1), key(2)], good)
        with pytest.raises(ValueError, match="announced"):
            writer.append([key(3), key(4)], values(3, 4))
    assert there(space, range(9)) == [1, 2]


def test_a_row_that_was_not_found_is_not_read(space: Space) -> None:
    put(space, 1)
    with pytest.raises(ValueError, match="not found"):
        space.read(space.find([key(1), key(2)]))
    assert {name: len(a) for name, a in space.read(space.find([])).items()} == {
        "state": 0,
        "size": 0,
        "index": 0,
    }


def test_an_error_in_the_work_keeps_what_is_done(space: Space) -> None:
    def work() -> None:
        with space.writer(9) as writer:
            writer.append([key(1)], values(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert there(space, range(9)) == [1]


def test_rows_are_found_as_soon_as_they_are_flushed(
    cache: FeatureCache, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = cache.space("a", LAYOUT)
    with space.writer(9) as writer:
        writer.append([key(1)], values(1))
        other.refresh()
        assert there(other, range(9)) == []
        writer.flush()
        assert there(other, range(9)) == []  # it has not looked
        other.refresh()
        before = other.find([key(1)])
        assert there(other, range(9)) == [1]
        monkeypatch.setattr(segments, "SECONDS_BETWEEN_FLUSHES", 0.0)
        writer.append([key(2)], values(2))  # flushes by itself
        other.refresh()
        assert there(other, range(9)) == [1, 2]
        assert other.find([key(1)]) == before
    other.close()


# Killed, torn, damaged


MOMENTS = ["rows written", "keys written", "all synced"]


@linux
@pytest.mark.parametrize("moment", range(3), ids=MOMENTS)
def test_a_killed_writer_leaves_whole_rows(
    cache: FeatureCache, space: Space, folder: Path, moment: int
) -> None:
    def work() -> None:
        with cache.space("a", LAYOUT) as mine, mine.writer(100) as writer:
            writer.append([key(1), key(2)], values(1, 2))
            writer.flush()
            writer.append([key(3), key(4)], values(3, 4))
            calls: list[int] = []
            real = os.fsync

            def fsync(descriptor: int) -> None:
                if len(calls) == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                calls.append(descriptor)
                real(descriptor)

            with mock.patch("os.fsync", fsync):
                writer.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    assert ended(forked(work)) == -signal.SIGKILL
    space.refresh()
    expected = [1, 2] if moment == 0 else [1, 2, 3, 4]
    assert file_of(folder, "rows").stat().st_size == 100 * ROW  # still reserved
    assert cache.make_room(0) is None
    assert file_of(folder, "rows").stat().st_size == len(expected) * ROW
    assert there(space, range(9)) == expected
    assert len(list(folder.glob("*.lease"))) == 1  # the reader's; the dead one's is gone
    put(space, 3, 5)
    assert there(space, range(9)) == sorted({*expected, 3, 5})


@linux
def test_killed_before_the_first_row_nothing_is_left(cache: FeatureCache, folder: Path) -> None:
    def work() -> None:
        cache.space("a", LAYOUT).writer(100)
        os.kill(os.getpid(), signal.SIGKILL)

    assert ended(forked(work)) == -signal.SIGKILL
    assert file_of(folder, "rows").stat().st_size == 100 * ROW
    assert cache.make_room(0) is None
    assert not folder.exists()


@pytest.mark.parametrize("left", [0, 1, 19, 20, 39, 41, 79])
def test_a_key_that_is_torn_does_not_count(
    cache: FeatureCache, space: Space, folder: Path, left: int
) -> None:
    put(space, 0, 1, 2, 3)
    os.truncate(file_of(folder, "keys"), left)
    with cache.space("a", LAYOUT) as again:
        assert there(again, range(9)) == list(range(left // 20))


@pytest.mark.parametrize("left", [0, 1, ROW - 1, ROW, 2 * ROW + 1])
def test_a_row_that_is_torn_does_not_count(
    cache: FeatureCache, space: Space, folder: Path, left: int
) -> None:
    put(space, 0, 1, 2, 3)
    os.truncate(file_of(folder, "rows"), left)
    with cache.space("a", LAYOUT) as again:
        assert there(again, range(9)) == list(range(left // ROW))


@pytest.mark.parametrize("at", [0, 7, ROW - 1])
@pytest.mark.parametrize("row", [0, 2, 3])
def test_a_damaged_row_is_not_there_and_the_others_are(
    cache: FeatureCache, space: Space, folder: Path, row: int, at: int, caplog: Any
) -> None:
    put(space, 0, 1, 2, 3)
    flip(file_of(folder, "rows"), row * ROW + at)
    keys = [key(n) for n in range(4)]
    with cache.space("a", LAYOUT) as again:
        rows = again.find(keys)
        assert (rows >= 0).all()  # nobody has looked yet
        with pytest.raises(RetinueError, match="a cached view is damaged") as told:
            again.read(rows)
        assert told.value.resumable
    with cache.space("a", LAYOUT) as again:
        rows = again.find(keys)
        caplog.clear()
        assert again.verify(np.append(rows, [-1, rows[row]])).tolist() == [
            *(n != row for n in range(4)),
            False,
            False,
        ]
        assert [r.message for r in caplog.records] == [
            "damaged cached views, to be computed anew: 1"
        ]
        assert np.flatnonzero(again.find(keys) < 0).tolist() == [row]
        put(again, row)  # computed anew
        assert there(again, range(9)) == [0, 1, 2, 3]
    with cache.space("a", LAYOUT) as again:  # the newer of two is taken, the damaged not read
        caplog.clear()
        assert there(again, range(9)) == [0, 1, 2, 3]
        assert not caplog.records


def test_a_damaged_copy_gives_way_to_an_older_sound_one(
    cache: FeatureCache, space: Space, folder: Path
) -> None:
    put(space, 1, 2)
    put(space, 2, 3)
    flip(file_of(folder, "rows", 1), 0)
    with cache.space("a", LAYOUT) as again:
        assert there(again, range(9)) == [1, 2, 3]


def test_a_damaged_key_is_not_taken_for_another(
    cache: FeatureCache, space: Space, folder: Path
) -> None:
    put(space, 1, 2)
    flip(file_of(folder, "keys"), 0)  # 1 becomes 17
    with cache.space("a", LAYOUT) as again:
        assert there(again, range(32)) == [2]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}', "\udcff"])
def test_a_segment_without_its_layout_does_not_count(
    cache: FeatureCache, space: Space, folder: Path, text: str
) -> None:
    put(space, 1)
    put(space, 2)
    file_of(folder, "json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with cache.space("a", LAYOUT) as again:
        assert there(again, range(9)) == [2]
        again.close()
        space.close()
        assert cache.make_room(0) is None
        assert len(segments.find_segments(folder)) == 1  # useless: gone
        again.refresh()
        assert there(again, range(9)) == [2]


def test_another_layout_does_not_count(cache: FeatureCache, space: Space) -> None:
    put(space, 1)
    fields = json.loads(json.dumps(LAYOUT.as_json()))
    assert cache.space("a", Layout(fields)).find([key(1)]) == [0]
    fields[0][2] = [5, 3]
    assert cache.space("a", Layout(fields)).find([key(1)]) == [-1]


# The disk refuses


def test_a_full_disk_is_told_before_a_row_is_computed(
    cache: FeatureCache, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(RetinueError, match=r"No space left.*\.rows.*cache\.folder=FOLDER"):
        space.writer(10)
    assert [p.name for p in cache.root.iterdir()] == ["lock"]


def test_a_file_system_that_cannot_reserve_is_written_all_the_same(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)
    put(space, 1, 2, capacity=5)
    assert there(space, range(9)) == [1, 2]
    monkeypatch.delattr(os, "posix_fallocate")  # as on macOS
    put(space, 3, capacity=5)
    assert there(space, range(9)) == [1, 2, 3]


def test_a_disk_that_fills_up_keeps_what_was_flushed(space: Space) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = space.writer(9)
    writer.append([key(1)], values(1))
    writer.flush()
    writer.append([key(2)], values(2))
    with mock.patch("os.fsync", full), pytest.raises(RetinueError, match="No space left"):
        writer.flush()
    with mock.patch("os.fsync", full), pytest.raises(RetinueError, match="No space left"):
        writer.close()
    writer.close()
    assert there(space, range(9)) == [1]


def test_a_write_that_broke_off_does_not_shift_the_next(space: Space) -> None:
    real = segments._write

    def half(file: Any, at: int, data: npt.NDArray[Any]) -> None:
        real(file, at, np.frombuffer(data.tobytes()[: data.nbytes // 2], np.uint8))
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with space.writer(9) as writer:
        writer.append([key(1)], values(1))
        with mock.patch.object(segments, "_write", half):
            with pytest.raises(RetinueError, match="Input/output"):
                writer.append([key(2)], values(2))
            with pytest.raises(RetinueError, match="Input/output"):
                writer.flush()
        writer.append([key(3)], values(3))
    assert there(space, range(9)) == [1, 3]
