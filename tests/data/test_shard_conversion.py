"""Classified images written as shards are the same when they are read, and an interrupted
conversion goes on with what is missing."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from data_sets import labels, read, splits
from examples import example
from shard_sets import jpeg, slim_shards

import retinue
from retinue.data.conversion import Conversion
from retinue.data.options import DataOptions, SplitOptions
from retinue.data.shard_conversion import convert
from retinue.data.sources import Dataset
from retinue.data.sources.tfrecord import records
from retinue.data.written_shards import SHARDS, encoded
from retinue.errors import BadImageError, Interrupted, RetinueError, UsageError
from retinue.tasks.task import task_type

CLASSES = ("dog & 1", "猫")


def pictures(root: Path, each: int = 10) -> Path:
    for k, name in enumerate(CLASSES):
        for n in range(each):
            path = root / name / f"{n} é.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(each * k + n))
    return root


def converted(path: Path, out: Path, to: str, **options: Any) -> Conversion:
    more = {k: options.pop(k) for k in ("megabytes", "progress") if k in options}
    readers = task_type("classification").readers()
    return convert(DataOptions(path=str(path), **options), readers, out, to, **more)


def contents(dataset: Dataset) -> dict[str, bytes]:
    found = {}
    for samples in dataset.splits.values():
        for sample in samples:
            read_it = sample.read or Path(sample.key).read_bytes
            content = read_it()
            assert isinstance(content, bytes)
            found[sample.name] = content
    return found


@pytest.mark.parametrize("to", SHARDS)
def test_what_is_written_is_read(tmp_path: Path, to: str) -> None:
    root = pictures(tmp_path / "set")
    done = converted(root, tmp_path / "out", to, megabytes=0.002)
    origin, again = read(root), read(tmp_path / "out")
    assert again.classes == origin.classes == CLASSES
    assert labels(again) == labels(origin)
    assert contents(again) == contents(origin)
    # By the same names the same splits are drawn.
    assert {k: set(v) for k, v in splits(again).items()} == {
        k: set(v) for k, v in splits(origin).items()
    }
    assert (done.images, done.shards, done.splits, done.lost) == (20, 3, {"all": 20}, {})
    assert str(done.told()).startswith("20 images of 2 classes in 3 shards (all 20) written to ")
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert (
        names
        == {
            "tfrecord": [f"data-0000{k}-of-00003.tfrecord" for k in range(3)] + ["labels.txt"],
            "webdataset": [f"data-00000{k}.tar" for k in range(3)] + ["labels.txt"],
        }[to]
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "set"]
    # Every shard has some of every class.
    by_shard: dict[str, set[Any]] = {}
    for samples in again.splits.values():
        for sample in samples:
            assert sample.target is not None
            by_shard.setdefault(sample.shard, set()).update(sample.target.names())
    assert list(by_shard.values()) == [{0, 1}] * 3


def test_splits_stay_or_are_drawn_where_that_is_asked_for(tmp_path: Path) -> None:
    pictures(tmp_path / "set" / "train")
    pictures(tmp_path / "set" / "val", 2)
    done = converted(tmp_path / "set", tmp_path / "out", "webdataset")
    assert done.splits == {"train": 20, "val": 4}
    assert {k: len(v) for k, v in splits(read(tmp_path / "out")).items()} == done.splits
    half = SplitOptions(train=0.5, val=0.25, test=0.25, given="ignore")
    done = converted(tmp_path / "set", tmp_path / "drawn", "tfrecord", split=half)
    assert done.splits == {"train": 12, "val": 6, "test": 6}


def test_shards_of_shards(tmp_path: Path) -> None:
    slim_shards(tmp_path / "one")
    converted(tmp_path / "one", tmp_path / "two", "webdataset")
    converted(tmp_path / "two", tmp_path / "three", "tfrecord")
    first, last = read(tmp_path / "one"), read(tmp_path / "three")
    assert (labels(first), contents(first)) == (labels(last), contents(last))


def test_an_example_as_the_formats_have_it(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", 1)
    converted(root, tmp_path / "t", "tfrecord")
    converted(root, tmp_path / "w", "webdataset")
    found = {r.content for r in records(tmp_path / "t" / "data-00000-of-00001.tfrecord")}
    assert found == {
        example(
            {
                "image/encoded": [jpeg(k)],
                "image/format": [b"png"],
                "image/height": [8],
                "image/width": [8],
                "image/class/label": [k],
                "image/class/text": [name.encode()],
                "image/filename": [f"{name}/0 é.png".encode()],
            }
        )
        for k, name in enumerate(CLASSES)
    }
    with tarfile.open(tmp_path / "w" / "data-000000.tar") as archive:
        names = archive.getnames()
        assert names == [f"0000000{k}.{e}" for k in range(2) for e in ("png", "cls", "json")]
        for k in range(2):
            opened = [archive.extractfile(n) for n in names[3 * k : 3 * k + 3]]
            image, label, said = (file.read() for file in opened if file is not None)
            assert json.loads(said)["text"] == CLASSES[int(label)]
            assert image == jpeg(int(label))
    assert encoded({"n": [-1, 300], "b": []}) == example({"n": [-1, 300], "b": []})


class Stop:
    """Interrupts the work after so many images."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, done: int, total: int) -> None:
        if done >= self.after:
            raise KeyboardInterrupt


def marks(folder: Path) -> dict[str, tuple[int, int]]:
    """What changes when a file is written anew."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.glob("data-*.tar")}


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retinue.data.shard_conversion.usable_cpus", lambda: 1)
    monkeypatch.setattr("retinue.data.readable._TELL_EVERY", -1.0)


@pytest.mark.usefixtures("one_at_a_time")
def test_interrupted_it_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set")
    out, partial = tmp_path / "out", tmp_path / ".out.converting"
    how = {"to": "webdataset", "megabytes": 0.001}
    with pytest.raises(KeyboardInterrupt):
        converted(root, out, progress=Stop(11), **how)
    before = marks(partial)
    assert 1 <= len(before) < 6
    assert not out.exists()
    whole = converted(root, tmp_path / "whole", **how)
    told: list[int] = []
    done = converted(root, out, progress=lambda n, total: told.append(n), **how)
    assert (done.images, done.shards) == (whole.images, whole.shards)
    assert told[-1] == 20
    assert {name: marks(out)[name] for name in before} == before
    for name in marks(out):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not partial.exists()


@pytest.mark.usefixtures("one_at_a_time")
def test_a_shard_whose_images_have_changed_is_written_anew(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set")
    how = {"to": "webdataset", "megabytes": 0.001}
    with pytest.raises(KeyboardInterrupt):
        converted(root, tmp_path / "out", progress=Stop(20), **how)
    partial = tmp_path / ".out.converting"
    before = marks(partial)
    first = next(iter(sorted(before)))
    (partial / "data-999999.tar").write_bytes(b"of another division")
    with tarfile.open(partial / first) as archive:
        file = archive.extractfile("00000000.json")
        assert file is not None
        changed = root / json.load(file)["filename"]
    changed.write_bytes(jpeg(77))
    converted(root, tmp_path / "out", **how)
    after = marks(tmp_path / "out")
    assert after[first] != before[first]
    kept = [name for name in before if after[name] == before[name]]
    assert len(kept) == len(before) - 1
    assert "data-999999.tar" not in after
    assert contents(read(tmp_path / "out")) == contents(read(root))


def test_bad_images_stop_it_all_of_them_named_or_are_left_out(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set")
    bad = [root / "猫" / f"{n} é.png" for n in (3, 7)]
    bad[0].write_bytes(b"no image")
    bad[1].write_bytes(jpeg(1)[:60])
    with pytest.raises(BadImageError) as caught:
        converted(root, tmp_path / "out", "tfrecord", megabytes=0.001)
    assert set(caught.value.reasons) == set(map(str, bad))
    assert not (tmp_path / "out").exists()
    skipping = {"on_bad_image": "skip", "megabytes": 0.001}
    done = converted(root, tmp_path / "out", "tfrecord", **skipping)
    assert done.images == 18
    assert any("2 images left out that cannot be read" in note for note in done.notes)
    assert len(labels(read(tmp_path / "out"))) == 18
    # Mended, the other shards stay.
    for path in bad:
        path.write_bytes(jpeg(5))
    assert converted(root, tmp_path / "more", "tfrecord", megabytes=0.001).images == 20


@pytest.mark.parametrize("to", ["tfrecord", "coco"])
def test_there_is_no_place_for_a_pool(tmp_path: Path, to: str) -> None:
    with pytest.raises(UsageError, match=r"key data\.pool"):
        retinue.convert_data(pictures(tmp_path / "set"), tmp_path / "out", to, pool=str(tmp_path))
    assert not (tmp_path / "out").exists()


def test_what_shards_cannot_hold_is_counted_and_groups_stay_together(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set")
    rows = [f"set/{name}/{n} é.png,{name},g{n},{1 + n % 2},{n % 3 or ''}" for name in CLASSES
            for n in range(10)]  # fmt: skip
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["path,label,group,sample_weight,fold", *rows]), encoding="utf-8")
    assert root.is_dir()
    done = converted(table, tmp_path / "out", "webdataset")
    assert done.lost == {"weights of images": 10, "images' folds": 12, "images' groups": 20}
    assert any("split.seed=0 in this command draws them now" in note for note in done.notes)
    drawn = converted(table, tmp_path / "drawn", "webdataset", split=SplitOptions(seed=0))
    origin = {k: set(v) for k, v in splits(read(table)).items()}
    assert {k: set(v) for k, v in splits(read(tmp_path / "drawn")).items()} == origin
    assert drawn.splits == {k: len(v) for k, v in origin.items()}
    assert not any("draws them now" in note for note in drawn.notes)


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pictures(tmp_path / "set", 1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(UsageError, match="something is there already"):
        converted(root, tmp_path / "full", "tfrecord")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="something is there already"):
        converted(root, tmp_path / "file", "tfrecord")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    # Not `struct.pack` itself: whatever else is at work in this process packs, too.
    monkeypatch.setattr("retinue.data.written_shards.struct", SimpleNamespace(pack=full))
    with pytest.raises(RetinueError, match=r"cannot be written: No space.*the same command goes"):
        converted(root, tmp_path / "out", "tfrecord")


def test_a_name_that_no_list_can_hold_is_kept_beside_its_images(tmp_path: Path) -> None:
    for name in ("a\nb", "c"):
        path = tmp_path / "set" / name / "1.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(jpeg(len(name)))
    for to in SHARDS:
        converted(tmp_path / "set", tmp_path / to, to)
        assert not (tmp_path / to / "labels.txt").exists()
        assert read(tmp_path / to).classes == ("a\nb", "c")


def test_real_flowers_there_and_back(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    origin = read(shared("data/tfrecord-flowers"))
    done = converted(shared("data/tfrecord-flowers"), tmp_path / "out", "webdataset")
    assert (done.images, done.shards) == (140, 1)
    again = read(tmp_path / "out")
    assert (labels(again), contents(again)) == (labels(origin), contents(origin))


@pytest.mark.usefixtures("one_at_a_time")
def test_an_interrupt_says_how_to_go_on(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set")
    with pytest.raises(Interrupted, match="the same command goes on"):
        retinue.convert_data(root, tmp_path / "out", "tfrecord", progress=Stop(3))
    assert retinue.convert_data(root, tmp_path / "out", "tfrecord").images == 20


def test_several_labels_a_cell_are_not_written_as_classes(tmp_path: Path) -> None:
    for k in range(3):
        (tmp_path / f"{k}.jpg").write_bytes(jpeg(k))
    table = tmp_path / "t.csv"
    table.write_text("path,label\n0.jpg,sea|dog\n1.jpg,dog|sea\n2.jpg,\n")
    with pytest.raises(UsageError, match=r"one class an image.*retinue train multi-label.*format="):
        converted(table, tmp_path / "out", "tfrecord")
    assert not (tmp_path / "out").exists()
    # A name is a name where it is said to be one.
    done = converted(table, tmp_path / "out", "tfrecord", format="table")
    assert (done.images, done.classes) == (2, ["dog|sea", "sea|dog"])
