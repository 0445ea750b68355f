"""Images without labels: which they are, and that none of them is in a split."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tiny

from retinue.data.options import DataOptions, SplitOptions
from retinue.data.sources import Dataset, open_dataset
from retinue.data.sources.member import Member
from retinue.data.sources.pool import read_pool, unknown
from retinue.errors import UsageError
from retinue.sample import Sample
from retinue.tasks.task import task_type


def _open(**options: str) -> Dataset:
    return open_dataset(DataOptions(**options), task_type("classification").readers())  # type: ignore[arg-type]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "pool/deep 猫").mkdir(parents=True)
    for name in ("b.png", "deep 猫/a.png", "notes.txt", ".hidden.png"):
        (tmp_path / "pool" / name).write_bytes(name.encode())
    return tmp_path / "pool"


def test_a_folder_at_any_depth_and_a_list_are_the_same(place: Path) -> None:
    found, notes = read_pool(str(place))
    assert [s.name for s in found] == ["pool//b.png", "pool//deep 猫/a.png"]
    assert [Path(s.key) for s in found] == [place / "b.png", place / "deep 猫/a.png"]
    assert all(s.target is None for s in found)
    assert notes == ["pool: files that are not called like images: 1 .txt"]
    listed = place / "list.txt"
    listed.write_text(" deep 猫/a.png\n\nb.png\r\nb.png\n", encoding="utf-8")
    assert read_pool(str(listed))[0] == found


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", r"no such file or folder, key data.pool"),
        ("empty", r"no images in the pool: files that are not called like images: 1 \.txt"),
        ("gone.txt", r"names 1 image that is not there.*gone\.txt', line 2: 'gone\.png'"),
        ("nothing.txt", r"the list is empty"),
    ],
)
def test_what_is_no_pool_is_refused(place: Path, name: str, said: str) -> None:
    (place / "empty").mkdir()
    (place / "empty/a.txt").write_text("a")
    (place / "gone.txt").write_text("b.png\ngone.png\n")
    (place / "nothing.txt").write_text("\n \n")
    with pytest.raises(UsageError, match=said):
        read_pool(str(place / name))


def test_known_images_are_told_by_their_bytes_alone(tmp_path: Path) -> None:
    contents = {"a": b"12", "b": b"34", "c": b"34", "d": b"5", "e": b"12", "f": b"678"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    of = {name: Sample(str(tmp_path / name)) for name in contents}
    os.symlink(tmp_path / "f", tmp_path / "g")
    known = [of["a"], Sample("gone"), Sample("held", lambda: b"56")]
    pool = [*of.values(), Sample(str(tmp_path / "g")), Sample(str(tmp_path / "absent"))]
    kept, left = unknown(pool[1:], known)
    assert [Path(s.key).name for s in kept] == ["b", "d", "f", "absent"]  # "56" is another
    assert [Path(s.key).name for s in left] == ["c", "e", "g"]  # twice, as a, as f


def test_images_of_any_split_are_left_out_of_the_pool(tmp_path: Path) -> None:
    data = tiny.write_pictures(tmp_path / "data", each=4)
    pool = tmp_path / "pool"
    pool.mkdir()
    dataset = _open(path=str(data))
    for split, samples in dataset.splits.items():
        (pool / f"{split}.png").write_bytes(Path(samples[0].key).read_bytes())
    with pytest.raises(UsageError, match=r"every image of the pool is in a split.*key data\.pool"):
        _open(path=str(data), pool=str(pool))
    (pool / "new.png").write_bytes(b"new")
    found = _open(path=str(data), pool=str(pool))
    assert [s.name for s in found.pool] == ["pool//new.png"]
    assert found.splits == dataset.splits
    assert list(found.parts) == [*dataset.splits, "pool"]
    assert "pool: 3 images are labelled, in a split or there twice: left out" in " ".join(
        found.notes
    )
    assert found.options.pool == str(pool)


def test_bytes_in_shards_are_known_and_pixels_alone_are_not(tmp_path: Path) -> None:
    (tmp_path / "shard").write_bytes(b"....1234")
    for name, content in {"a": b"1234", "b": b"4321", "c": b"56"}.items():
        (tmp_path / name).write_bytes(content)
    pool = [Sample(str(tmp_path / name)) for name in "abc"]
    pixels = np.zeros((2, 2, 3), np.uint8)
    known = [
        Sample("one", Member(str(tmp_path / "shard"), 4, 4)),
        Sample("two", lambda: b"56"),
        Sample("three", lambda: pixels),
    ]
    kept, left = unknown(pool, known)
    assert [Path(s.key).name for s in kept] == ["b"]
    assert [Path(s.key).name for s in left] == ["a", "c"]


def test_images_that_judge_other_folds_are_no_part_of_the_pool(tmp_path: Path) -> None:
    """Nor is any other that the data has a label of."""
    data = tiny.write_pictures(tmp_path / "data", each=4)
    pool = tmp_path / "pool"
    pool.mkdir()
    for k, path in enumerate(sorted(data.rglob("*.png"))):
        (pool / f"{k}.png").write_bytes(path.read_bytes())
    (pool / "new.png").write_bytes(b"new")
    split = SplitOptions(train=0.6, val=0.2, test=0.2, folds=3, fold="2")
    options = DataOptions(path=str(data), pool=str(pool), split=split)
    found = open_dataset(options, task_type("classification").readers())
    assert "test" not in found.splits or len(found.splits["test"]) < 12
    assert [s.name for s in found.pool] == ["pool//new.png"]
    fewer = DataOptions(path=str(data), pool=str(pool), classes=["green", "red"])
    found = open_dataset(fewer, task_type("classification").readers())
    assert [s.name for s in found.pool] == ["pool//new.png"]
