"""The cache of images that were made small changes how long a training takes, and nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from cached_rows import file_of, flip

from retinue.data.packed import SmallImages
from retinue.data.sources.member import Member
from retinue.sample import Preprocessing, Sample
from retinue.training.features.cache import FeatureCache
from retinue.training.features.packed_images import PackedImages

picture, encoded = sys.modules["salted"].picture, sys.modules["salted"].encoded
HOW = Preprocessing()
SIDE = 40


def settled(path: Path) -> None:
    os.utime(path, ns=(10**18, 10**18))


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Three files, and one in an archive."""
    found = []
    for k in range(4):
        path = tmp_path / f"{k} 猫.jpg"
        content = encoded(picture(k, (50 + 20 * k, 90)), "JPEG", quality=90)
        path.write_bytes(content if k < 3 else b"before" + content)
        settled(path)
        member = Member(str(path), 6, len(content)) if k == 3 else None
        found.append(Sample(str(path), read=member))
    return found


@contextmanager
def store(cache: FeatureCache, samples: Sequence[Sample]) -> Iterator[PackedImages]:
    """With all of `samples` in it."""
    made = PackedImages(cache, SIDE, HOW)
    _, absent = made.take(samples)
    if len(absent):
        assert made.fill(samples, absent, 2, lambda done: None) is None
    packed, absent = made.take(samples)
    assert (packed.images, packed.of, len(absent)) == (len(samples), len(samples), 0)
    yield made
    made.close()


def folder_of(cache: FeatureCache) -> Path:
    (folder,) = (path for path in cache.root.iterdir() if path.is_dir())
    return folder


def same_pixels(made: PackedImages, samples: Sequence[Sample]) -> list[bool]:
    """Which are found; what is opened is the same in any case."""
    for sample in samples:
        one, other = SmallImages(SIDE, made).open(sample, HOW), SmallImages(SIDE).open(sample, HOW)
        assert one.size == other.size
        assert np.array_equal(one.decode().image, other.decode().image)
    return [made.find(sample) is not None for sample in samples]


def test_what_is_kept_is_what_would_be_made(cache: FeatureCache, samples: list[Sample]) -> None:
    with store(cache, samples) as made:
        assert same_pixels(made, samples) == [True] * 4
    assert len(list(folder_of(cache).glob("*.rows"))) == 1


def test_others_make_only_what_is_not_there(cache: FeatureCache, samples: list[Sample]) -> None:
    """As folds, stages and resumed runs do."""
    with store(cache, samples[:3]):
        other = PackedImages(cache, SIDE, HOW)
        packed, absent = other.take([*samples[1:], samples[1]])
        assert (packed.images, packed.of, absent.tolist()) == (2, 3, [2])
        other.close()
    with store(cache, samples) as made:
        assert same_pixels(made, samples) == [True] * 4
    assert len(list(folder_of(cache).glob("*.rows"))) == 2


@pytest.mark.parametrize("how", [{"background": (0, 0, 0)}, {"depth": 12}])
def test_pixels_seen_in_another_way_are_others(
    cache: FeatureCache, samples: list[Sample], how: dict[str, object]
) -> None:
    with store(cache, samples):
        for side, seen in ((SIDE, Preprocessing(**how)), (SIDE + 1, HOW)):  # type: ignore[arg-type]
            other = PackedImages(cache, side, seen)
            assert other.take(samples)[0].images == 0


def test_a_file_that_changes_is_read_anew(cache: FeatureCache, samples: list[Sample]) -> None:
    with store(cache, samples) as made:
        path = Path(samples[1].key)
        path.write_bytes(encoded(picture(9, (64, 64)), "JPEG"))
        assert same_pixels(made, samples) == [True, False, True, True]
        settled(path)
        assert same_pixels(made, samples) == [True, False, True, True]
    with store(cache, samples) as made:
        assert same_pixels(made, samples) == [True] * 4


@pytest.mark.parametrize("open_before", [True, False])
def test_damage_is_seen_and_made_good(
    cache: FeatureCache, samples: list[Sample], open_before: bool
) -> None:
    with store(cache, samples) as made:
        rows = file_of(folder_of(cache), "rows")
        if open_before:
            assert same_pixels(made, samples) == [True] * 4
        flip(rows, 5_000)  # in the first image: 72 × 40 × 3 bytes
        assert same_pixels(made, samples) == [False, True, True, True]
        with rows.open("rb+") as file:  # somebody cuts what is open
            file.truncate(rows.stat().st_size - 10)
        assert same_pixels(made, samples) == [False, True, True, False]
    with store(cache, samples) as made:
        assert same_pixels(made, samples) == [True] * 4


@pytest.mark.parametrize("at", range(0, 4 * 28, 7))
def test_a_damaged_index_is_none(cache: FeatureCache, samples: list[Sample], at: int) -> None:
    with store(cache, samples):
        pass
    flip(file_of(folder_of(cache), "keys"), at)
    made = PackedImages(cache, SIDE, HOW)
    made.take(samples)
    assert sum(same_pixels(made, samples)) in (2, 3)
    made.close()


def test_no_room_and_no_permission_are_told(
    cache: FeatureCache, samples: list[Sample], tmp_path: Path
) -> None:
    (tmp_path / "a file").touch()
    for root, budget in ((cache.root, 100), (tmp_path / "a file" / "cache", 10**9)):
        made = PackedImages(FeatureCache(root, budget), SIDE, HOW)
        _, absent = made.take(samples)
        why = made.fill(samples, absent, 1, lambda done: None)
        assert why is not None
        assert "max_gb" in why or "cannot be written" in why
        assert same_pixels(made, samples) == [False] * 4


def test_an_interrupt_leaves_what_is_done(
    cache: FeatureCache, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retinue.training.features.packed_images._AHEAD", 2)

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    made = PackedImages(cache, SIDE, HOW)
    _, absent = made.take(samples)
    with pytest.raises(KeyboardInterrupt):
        made.fill(samples, absent, 1, stop)
    packed, absent = made.take(samples)
    assert (packed.images, absent.tolist()) == (2, [2, 3])
    assert same_pixels(made, samples) == [True, True, False, False]
    made.close()


def test_broken_images_and_fresh_ones_are_left_out(
    cache: FeatureCache, samples: list[Sample], tmp_path: Path
) -> None:
    broken, fresh = tmp_path / "broken.jpg", tmp_path / "fresh.png"
    broken.write_bytes(Path(samples[0].key).read_bytes()[:200])
    settled(broken)
    fresh.write_bytes(encoded(picture(1, (64, 64)), "PNG"))
    every = [*samples, Sample(str(broken)), Sample(str(fresh)), Sample(str(tmp_path / "none.jpg"))]
    made = PackedImages(cache, SIDE, HOW)
    packed, absent = made.take(every)
    assert (packed.of, absent.tolist()) == (5, [0, 1, 2, 3, 4])
    assert made.fill(every, absent, 1, lambda done: None) is None
    packed, absent = made.take(every)
    assert (packed.images, absent.tolist()) == (4, [4])
    assert same_pixels(made, every[5:6]) == [False]
    made.close()


def test_it_counts_in_the_budget_and_is_cleared(cache: FeatureCache, samples: list[Sample]) -> None:
    with store(cache, samples) as made:
        (name,) = cache.sizes()
        assert cache.sizes()[name] > sum(3 * 40 * 40 for _ in samples)
        assert cache.clear({name}) == 0  # in use
        assert same_pixels(made, samples) == [True] * 4
    assert cache.make_room(10**9 - 1) is None  # least used goes first
    assert not cache.sizes()
