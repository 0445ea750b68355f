"""One cache for many spaces and processes, and its budget."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
import time
from collections import namedtuple
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from cached_rows import (
    LAYOUT,
    PLENTY,
    ROW,
    ended,
    flip,
    forked,
    key,
    linux,
    put,
    segment_bytes,
    there,
    values,
)
from filelock import FileLock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from retinue.errors import RetinueError
from retinue.training.features import cache as feature_cache
from retinue.training.features import segments
from retinue.training.features.cache import FeatureCache, Space, root_of

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


@pytest.mark.parametrize("place", ["file/cache", "x" * 300, "x/" * 3000])
def test_a_place_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    """A training goes on without: what it names in a variable may be anything."""
    (tmp_path / "file").touch()
    cache = FeatureCache(tmp_path / place, PLENTY)
    cache.tidy()
    assert cache.contents().of(str(tmp_path / "file"))
    assert cache.sizes() == {}
    assert cache.clear(["a"]) == 0
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
    assert root_of(None) == tmp_path / expected


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
