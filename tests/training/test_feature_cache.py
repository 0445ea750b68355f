"""Rows on disk: whole or not there, found by key, shared by processes, within a budget."""

from __future__ import annotations

import errno
import json
import os
import signal
import tempfile
import time
import traceback
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from retinue.errors import RetinueError
from retinue.training import feature_cache, segments
from retinue.training.feature_cache import FeatureCache, Space, default_root
from retinue.training.segments import Layout

LAYOUT = Layout([("state", "float16", (3, 5)), ("size", "float64", (2,)), ("index", "int32", ())])
ROW = LAYOUT.dtype.itemsize
PLENTY = 10**9
linux = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


def key(number: int) -> bytes:
    return number.to_bytes(16, "little")  # mostly zeros, also at the end


def values(*numbers: int) -> dict[str, npt.NDArray[Any]]:
    n = np.array(numbers)
    return {
        "state": (n[:, None, None] + np.arange(15).reshape(3, 5) / 16).astype(np.float16),
        "size": n[:, None] + np.array([0.25, 1 / 3]),
        "index": n.astype(np.int32),
    }


def put(space: Space, *numbers: int, capacity: int | None = None) -> None:
    with space.writer(capacity or len(numbers)) as writer:
        writer.append([key(n) for n in numbers], values(*numbers))


def there(space: Space, numbers: range) -> list[int]:
    """Which of `numbers` are found; what is found is as it was written."""
    rows = space.find_sound([key(n) for n in numbers])
    found = [n for n, row in zip(numbers, rows, strict=True) if row >= 0]
    if found:
        read = space.read(rows[rows >= 0])
        for name, expected in values(*found).items():
            np.testing.assert_array_equal(read[name], expected)
    return found


def file_of(space_folder: Path, kind: str, number: int = 0) -> Path:
    return sorted(space_folder.glob(f"*.{kind}"))[number]


def segment_bytes(cache: FeatureCache, name: str) -> int:
    """Of the first segment of a space."""
    return segments.size_of(segments.find_segments(cache.root / f"1-{name}")[0])


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def forked(work: Callable[[], object]) -> int:
    """A child process that does `work` and ends with 0, or with 1 if that raises."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache", PLENTY)


@pytest.fixture
def space(cache: FeatureCache) -> Iterator[Space]:
    with cache.space("a", LAYOUT) as space:
        yield space


@pytest.fixture
def folder(cache: FeatureCache) -> Path:
    return cache.root / "1-a"


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
        with pytest.raises(RetinueError, match=r"damaged.*--resume"):
            again.read(rows)
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
    with pytest.raises(RetinueError, match=r"No space left.*\.rows.*cache_features=off"):
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


# Several processes


@linux
def test_two_processes_write_at_once(cache: FeatureCache, space: Space, tmp_path: Path) -> None:
    def work(first: int) -> None:
        with cache.space("a", LAYOUT) as mine, mine.writer(60) as writer:
            (tmp_path / f"begun{first}").touch()
            end = time.monotonic() + 20
            while len(list(tmp_path.glob("begun*"))) < 2:
                assert time.monotonic() < end
            for n in range(first, first + 60, 3):
                writer.append([key(n + i) for i in range(3)], values(n, n + 1, n + 2))
                writer.flush()

    children = [forked(lambda first=first: work(first)) for first in (0, 50)]  # type: ignore[misc]
    assert [ended(child) for child in children] == [0, 0]
    space.refresh()
    assert there(space, range(200)) == list(range(110))


@linux
def test_what_another_process_holds_stays_until_it_dies(
    cache: FeatureCache, space: Space, folder: Path
) -> None:
    put(space, 1)
    space.close()
    ready, told = os.pipe()

    def work() -> None:
        with cache.space("a", LAYOUT) as mine:
            assert there(mine, range(9)) == [1]
            os.write(told, b"!")
            signal.pause()

    child = forked(work)
    try:
        assert os.read(ready, 1) == b"!"
        cache.max_bytes = 1
        reason = cache.make_room(0)
        assert (
            reason == "it would take 0.0 GB and cache.max_gb is 1e-09, of which 0.0 GB are in use"
        )
        assert folder.exists()
    finally:
        os.kill(child, signal.SIGKILL)
        ended(child)
    assert cache.make_room(0) is None
    assert not folder.exists()


def test_what_was_removed_meanwhile_is_not_there(cache: FeatureCache, space: Space) -> None:
    put(space, 1)
    put(space, 2)
    assert space.find([key(2)]) >= 0  # holds the second, not the first
    cache.max_bytes = segment_bytes(cache, "a")
    assert cache.make_room(0) is None
    assert there(space, range(9)) == [2]
    put(space, 3)
    put(space, 4)
    assert there(space, range(9)) == [2, 3, 4]


# The budget


def fill(cache: FeatureCache, *names: str) -> int:
    """Spaces of ten rows, used in this order; the bytes of one."""
    for i, name in enumerate(names):
        with cache.space(name, LAYOUT) as space:
            put(space, *range(10))
        (meta,) = (cache.root / f"1-{name}").glob("0*.json")
        os.utime(meta, (1000 + i, 1000 + i))
    return segment_bytes(cache, names[0])


def names_in(cache: FeatureCache) -> list[str]:
    return sorted(p.name[2:] for p in cache.root.iterdir() if p.is_dir())


def test_the_least_used_goes_first(cache: FeatureCache) -> None:
    each = fill(cache, "c", "a", "b", "d")
    cache.max_bytes = 4 * each
    assert cache.make_room(0) is None
    assert names_in(cache) == ["a", "b", "c", "d"]
    with cache.space("c", LAYOUT) as space:  # now the last used
        assert there(space, range(3)) == [0, 1, 2]
    cache.space("a", LAYOUT).find([key(99)])  # only looked into
    assert cache.make_room(1) is None
    assert names_in(cache) == ["b", "c", "d"]
    assert cache.make_room(each + 1) is None
    assert names_in(cache) == ["c", "d"]
    with cache.space("d", LAYOUT) as space:
        there(space, range(3))
        assert cache.make_room(3 * each) is None
    assert names_in(cache) == ["d"]


@linux
def test_what_a_killed_process_used_was_used(cache: FeatureCache) -> None:
    each = fill(cache, "a", "b")

    def work() -> None:
        there(cache.space("a", LAYOUT), range(3))
        os.kill(os.getpid(), signal.SIGKILL)

    assert ended(forked(work)) == -signal.SIGKILL
    cache.max_bytes = each
    assert cache.make_room(0) is None
    assert names_in(cache) == ["a"]


def test_parts_of_a_space_go_before_those_in_use(cache: FeatureCache, space: Space) -> None:
    put(space, 1)
    put(space, 2)
    assert there(space, range(2, 3)) == [2]
    cache.max_bytes = 1
    assert cache.make_room(0) is not None
    with cache.space("a", LAYOUT) as again:
        assert there(again, range(9)) == [1, 2]  # would not have helped: nothing was removed
    cache.max_bytes = segment_bytes(cache, "a")
    assert cache.make_room(0) is None
    with cache.space("a", LAYOUT) as again:
        assert there(again, range(9)) == [2]


def test_what_is_open_is_never_removed(cache: FeatureCache) -> None:
    each = fill(cache, "a", "b")
    cache.max_bytes = 2 * each
    with cache.space("a", LAYOUT) as reading, cache.space("c", LAYOUT) as writing:
        there(reading, range(3))
        with writing.writer(5) as writer:
            writer.append([key(1)], values(1))
            assert "are in use" in (cache.make_room(each) or "")
            assert names_in(cache) == ["a", "b", "c"]
            assert cache.make_room(each // 4) is None
            assert names_in(cache) == ["a", "c"]
        assert there(reading, range(10)) == list(range(10))
        assert there(writing, range(10)) == [1]
        assert len(list(cache.root.rglob("*.lease"))) == 2
    assert not list(cache.root.rglob("*.lease"))
    assert cache.make_room(2 * each) is None
    assert names_in(cache) == []


def test_only_what_the_cache_made_is_removed(cache: FeatureCache, tmp_path: Path) -> None:
    fill(cache, "a", "b")
    elsewhere = FeatureCache(tmp_path / "elsewhere", PLENTY)
    fill(elsewhere, "x")
    (cache.root / "1-x").symlink_to(elsewhere.root / "1-x", target_is_directory=True)
    no_marker = cache.root / "photos"
    no_marker.mkdir()
    (base,) = segments.find_segments(cache.root / "1-b")
    theirs = [no_marker / f"{base.name}.{kind}" for kind in ("json", "rows", "keys")]
    theirs += [cache.root / "notes.json", cache.root / "1-b" / "notes.json"]
    theirs += [cache.root / "1-b" / f"{base.name}.rows.txt"]
    for path in theirs:
        path.write_text("mine")
    cache.max_bytes = 1
    assert cache.make_room(0) is None
    assert [path for path in theirs if not path.exists()] == []
    assert not (cache.root / "1-a").exists()
    assert segments.find_segments(cache.root / "1-b") == []
    with elsewhere.space("x", LAYOUT) as space:
        assert there(space, range(10)) == list(range(10))


def test_why_there_is_no_room(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.max_bytes = 20_000_000_000
    assert cache.make_room(30_000_000_000) == "it would take 30.0 GB and cache.max_gb is 20"
    usage = namedtuple("usage", "total used free")(10**12, 10**12, 1_000_000_000)
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda _: usage)
    assert cache.make_room(900_000_000) is None
    reason = cache.make_room(901_000_000)
    assert reason == "it would take 0.9 GB and the disk has 1.0 GB left"


def test_a_full_disk_is_relieved(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    each = fill(cache, "a", "b")
    usage = namedtuple("usage", "total used free")(10**12, 10**12, 0)
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda _: usage)
    assert "the disk has 0.0 GB left" in (cache.make_room(2 * each) or "")
    assert names_in(cache) == ["a", "b"]
    assert cache.make_room(each // 2) is None
    assert names_in(cache) == ["b"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = FeatureCache(tmp_path / "file" / "cache", PLENTY)
    assert "cannot be written (" in (cache.make_room(1) or "")
    with cache.space("a", LAYOUT) as space:
        assert space.find([key(1)]).tolist() == [-1]
        with pytest.raises(RetinueError, match="cannot be written"):
            space.writer(1)


def test_a_cache_that_may_only_be_read(
    cache: FeatureCache, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(space, 1)

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with cache.space("a", LAYOUT) as again:
        monkeypatch.setattr(FileLock, "acquire", refused)
        assert there(again, range(9)) == [1]
    assert "cannot be written (Permission denied)" in (cache.make_room(1) or "")


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {}, "home/.cache/retinue/features"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/retinue/features"),
        ("linux", {"XDG_CACHE_HOME": "x"}, "home/.cache/retinue/features"),
        ("darwin", {"XDG_CACHE_HOME": "/x"}, "home/Library/Caches/retinue/features"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/retinue/features"),
        ("win32", {}, "home/AppData/Local/retinue/features"),
        ("win32", {"RETINUE_CACHE": "/mine"}, "/mine"),
        ("linux", {"RETINUE_CACHE": "~/mine"}, "home/mine"),
    ],
)
def test_where_the_cache_is(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    platform: str,
    environment: dict[str, str],
    expected: str,
) -> None:
    for name in ("RETINUE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**environment, "HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)
    assert default_root() == tmp_path / expected


# Any sequence of what may happen


class Store(RuleBasedStateMachine):
    """Two readers of one cache, against a dictionary of what must be there."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.patch = mock.patch("os.fsync")  # the power does not fail here
        self.patch.start()
        self.cache = FeatureCache(Path(self.place.name), PLENTY)
        self.spaces = [self.cache.space("a", LAYOUT) for _ in range(2)]
        self.rows: dict[Path, list[tuple[int, bool]]] = {}
        """What each segment has: (number, whether it is sound)."""
        self.seen: list[set[Path]] = [set(), set()]

    def _bases(self) -> set[Path]:
        return set(segments.find_segments(self.cache.root / "1-a"))

    @rule(who=st.integers(0, 1), numbers=st.lists(st.integers(0, 30), min_size=1, max_size=4))
    def append(self, who: int, numbers: list[int]) -> None:
        put(self.spaces[who], *numbers, capacity=5)
        (fresh,) = self._bases() - set(self.rows)
        self.rows[fresh] = [(n, True) for n in numbers]
        self.seen[who] = set(self.rows)

    @rule(who=st.integers(0, 1), closed=st.booleans())
    def refresh(self, who: int, closed: bool) -> None:
        if closed:
            self.spaces[who].close()
        self.spaces[who].refresh()
        self.seen[who] = set(self.rows)

    @rule(who=st.integers(0, 1))
    def look(self, who: int) -> None:
        expected = {n for base in self.seen[who] for n, sound in self.rows.get(base, []) if sound}
        assert there(self.spaces[who], range(32)) == sorted(expected)

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), torn=st.booleans())
    def damage(self, data: st.DataObject, torn: bool) -> None:
        """To a segment that nobody has open."""
        for space in self.spaces:
            space.close()
        base = data.draw(st.sampled_from(sorted(self.rows)))
        rows = self.rows[base]
        at = data.draw(st.integers(0, len(rows) - 1)) if rows else 0
        if torn:
            os.truncate(f"{base}.keys", at * 20 + 7)
            self.rows[base] = rows[:at]
        elif rows:
            flip(Path(f"{base}.rows"), at * ROW + 3)
            rows[at] = (rows[at][0], not rows[at][1])  # twice is once too many
        for who in range(2):
            self.refresh(who, False)

    @rule(budget=st.integers(0, 3000))
    def evict(self, budget: int) -> None:
        self.cache.max_bytes = budget
        why = self.cache.make_room(0)
        left = self._bases()
        held = [base for base in left if segments.is_held(base)]
        assert why is None or sum(map(segments.size_of, held)) > budget
        assert why or sum(map(segments.size_of, left)) <= budget
        self.rows = {base: rows for base, rows in self.rows.items() if base in left}

    @invariant()
    def only_what_is_known_is_there(self) -> None:
        assert self._bases() == set(self.rows)

    def teardown(self) -> None:
        for space in self.spaces:
            space.close()
        self.patch.stop()
        self.place.cleanup()


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=10, stateful_step_count=12, deadline=None)
