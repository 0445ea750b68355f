"""Formats are recognised, classes ordered, splits exact and repeatable, mistakes named."""

from __future__ import annotations

import csv
import importlib.util
import os
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from data_sets import put, read
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.data.options import DataOptions, SplitOptions
from retinue.data.sources import Dataset
from retinue.data.sources import open_dataset as open_with
from retinue.data.sources.folder import read_folder
from retinue.data.sources.listing import Listing, Reader, Readers
from retinue.data.sources.records import Record, Records
from retinue.data.sources.splits import draw_splits as draw
from retinue.data.sources.words import ORDER, sort_names
from retinue.data.targets.one_class import OneClass
from retinue.data.targets.several_labels import SeveralLabels
from retinue.errors import RetinueError, UsageError
from retinue.sample import Sample
from retinue.tasks.task import task_type


def open_dataset(options: DataOptions, **how: bool) -> Dataset:
    return open_with(options, task_type("classification").readers(), **how)


def label(sample: Sample) -> int:
    assert isinstance(sample.target, OneClass)
    assert isinstance(sample.target.of, int)
    return sample.target.of


def draw_splits(records: list[Record], shares: dict[str, float], seed: int) -> dict[str, str]:
    """Name → split."""
    drawn = draw(Records.of(records), shares, seed).tolist()
    return {record.name: ORDER[code] for record, code in zip(records, drawn, strict=True)}


def names(dataset: Dataset, split: str) -> set[str]:
    assert dataset.root is not None
    return {Path(s.key).relative_to(dataset.root).as_posix() for s in dataset.splits[split]}


def everything(dataset: Dataset) -> dict[str, str]:
    """File name → class."""
    return {
        Path(sample.key).name: dataset.classes[label(sample)]
        for samples in dataset.splits.values()
        for sample in samples
    }


# Folders


def test_folder_that_is_split(tmp_path: Path) -> None:
    root = put(tmp_path, *[f"{c}/deep/{i}.png" for c in "ab" for i in range(10)])
    dataset = read(root)
    assert dataset.classes == ("a", "b")
    for split, count in (("train", 8), ("val", 1), ("test", 1)):
        assert Counter(label(s) for s in dataset.splits[split]) == {0: count, 1: count}
    assert dataset.notes[0] == (
        "found 2 classes, 20 images (folder), split 0.8/0.1/0.1 (seed 0): train 16, val 2, test 2"
    )
    assert read(root).splits == dataset.splits
    other = read(root, split=SplitOptions(seed=1))
    assert names(other, "test") != names(dataset, "test") or names(other, "val") != names(
        dataset, "val"
    )


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_split_folders(tmp_path: Path, val: str) -> None:
    root = put(tmp_path, "train/a/1.png", "train/b/2.png", f"{val}/a/3.png", "test/b/4.png")
    put(root, "other/c/5.png")
    dataset = read(root)
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 2, "val": 1, "test": 1}
    assert any("'other'" in note for note in dataset.notes)
    assert any("val has no images of: 'b'" in note for note in dataset.notes)


def test_validation_is_taken_from_train(tmp_path: Path) -> None:
    root = put(tmp_path, *[f"train/{c}/{i}.png" for c in "ab" for i in range(9)])
    dataset = read(root)
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 16, "val": 2}
    assert any("no validation images given" in note for note in dataset.notes)


def test_class_that_train_lacks(tmp_path: Path) -> None:
    root = put(tmp_path, "train/a/1.png", "val/a/2.png", "val/zebra/3.png")
    with pytest.raises(UsageError, match=r"val has classes that train has no images of: 'zebra'"):
        read(root)


def test_two_folders_for_one_split(tmp_path: Path) -> None:
    root = put(tmp_path, "train/a/1.png", "val/a/2.png", "valid/a/3.png")
    with pytest.raises(UsageError, match="two folders for the split 'val'"):
        read(root)


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    root = put(tmp_path, "test/1.png", "prod/2.png")
    assert read(root, split=SplitOptions(train=1, val=0, test=0)).classes == ("prod", "test")


def test_odd_names_hidden_files_and_empty_classes(tmp_path: Path) -> None:
    root = put(tmp_path, "猫 & dog/1.JPG", 'it\'s "x"/new\nline.PNG', ".cache/x/9.png", "1.png")
    put(root, "猫 & dog/.hidden.png", "猫 & dog/Thumbs.db", "猫 & dog/readme.md")
    (root / "empty").mkdir()
    dataset = read(root, split=SplitOptions(train=1, val=0, test=0))
    assert dataset.classes == ('it\'s "x"', "猫 & dog")
    assert everything(dataset) == {"1.JPG": "猫 & dog", "new\nline.PNG": 'it\'s "x"'}
    assert "class 'empty' has no images" in dataset.notes
    assert any(
        note.startswith("found 2 classes (1 more is empty), 2 images") for note in dataset.notes
    )
    assert any("1 image directly in" in note for note in dataset.notes)


def test_answers_that_were_written_into_the_data_are_no_class(tmp_path: Path) -> None:
    put(tmp_path, *(f"{name}/{k}.png" for name in ("cat", "dog") for k in range(3)))
    for place in ("why/explained/.drawn-by-retinue", "said/predictions.csv", "clips/frames.jsonl"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    (tmp_path / "empty").mkdir()
    # A class whose pictures were predicted into their own folder stays one.
    (tmp_path / "dog" / "predictions.jsonl").touch()
    listing = read_folder(tmp_path, DataOptions())
    assert listing.empty_classes == ["empty"]
    assert listing.not_images == ["dog/predictions.jsonl"]
    for name in ("why", "said", "clips"):
        assert any(f"passed over: '{name}'" in note for note in listing.notes)


def test_class_names_are_nfc(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "é")
    dataset = read(
        put(tmp_path, f"{decomposed}/1.png", "z/2.png"), split=SplitOptions(train=1, val=0, test=0)
    )
    assert dataset.classes == ("z", "é")


def test_class_order() -> None:
    assert sort_names(["10", "9", "2"]) == ["2", "9", "10"]
    assert sort_names(["10", "9", "a"]) == ["10", "9", "a"]
    assert sort_names(["b", "B", "ä", "a"]) == ["B", "a", "b", "ä"]
    assert sort_names(["-1", "3", "-20"]) == ["-20", "-1", "3"]


def test_links_in_a_circle(tmp_path: Path) -> None:
    root = put(tmp_path, "a/1.png", "b/2.png")
    (root / "a" / "loop").symlink_to(root / "a")
    assert len(everything(read(root, split=SplitOptions(train=1, val=0, test=0)))) == 2


def test_chosen_classes(tmp_path: Path) -> None:
    root = put(tmp_path, "rose/1.png", "daisy/2.png", "tulip/3.png")
    whole = SplitOptions(train=1, val=0, test=0)
    dataset = read(root, classes=["tulip", "daisy"], split=whole)
    assert everything(dataset) == {"3.png": "tulip", "2.png": "daisy"}
    assert dataset.classes == ("tulip", "daisy")
    with pytest.raises(UsageError, match="did you mean 'tulip'"):
        read(root, classes=["tulp"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p / "gone", "no such file or folder.*the nearest that exists is"),
        (
            lambda p: put(p, "photos/x.png") / "phots" / "a",
            r"no such file.*did you mean '.*photos'",
        ),
        (lambda p: put(p, "x.png") / "x.png" / "a", r"no such file.*x\.png' is a file"),
        (lambda p: p, "no images found"),
        (
            lambda p: put(p, "x.png") / "x.png",
            r"no known format.*known: tfrecord, webdataset, table, folder$",
        ),
    ],
)
def test_wrong_paths(tmp_path: Path, make: Callable[[Path], Path], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        read(make(tmp_path))
    assert caught.value.mend


def test_folders_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a/1.png", "b/2.png")
    real = os.scandir

    def denied(path: Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UsageError, match=r"Permission denied.*b'"):
        read(tmp_path)
    with pytest.raises(UsageError, match="name too long"):
        read(Path("x" * 5000))


def test_one_class_is_remarked_on(tmp_path: Path) -> None:
    dataset = read(put(tmp_path, "a/1.png"), split=SplitOptions(train=1, val=0, test=0))
    assert any("nothing to tell apart" in note for note in dataset.notes)


def test_no_path() -> None:
    with pytest.raises(UsageError, match=r"data\.path"):
        open_dataset(DataOptions())


# Splits


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    test=st.sampled_from([0.1, 0.25, 0.3]),
    val=st.sampled_from([0.1, 0.15]),
    seed=st.integers(0, 5),
)
def test_splits_are_exact_and_stratified(
    sizes: list[int], test: float, val: float, seed: int
) -> None:
    records = [
        Record(Path(), f"{c}/{i}", OneClass(str(c)), stratum=str(i % 2))
        for c, size in enumerate(sizes)
        for i in range(size)
    ]
    shares = {"test": test, "val": val, "train": 1 - test - val}
    drawn = draw_splits(records, shares, seed)
    assert drawn == draw_splits(records[::-1], shares, seed)
    counts = Counter(drawn.values())
    assert counts["test"] == round(len(records) * test)
    assert abs(counts["val"] - len(records) * val) <= 1
    for c, size in enumerate(sizes):
        of_class = Counter(drawn[f"{c}/{i}"] for i in range(size))
        assert abs(of_class["test"] - size * test) <= 2  # one a stratum, of which there are two


def test_test_side_does_not_depend_on_the_rest() -> None:
    records = [Record(Path(), str(i), OneClass("a")) for i in range(100)]
    first = draw_splits(records, {"test": 0.25, "train": 0.75}, 3)
    second = draw_splits(records, {"test": 0.25, "val": 0.2, "train": 0.55}, 3)
    assert {k for k, v in first.items() if v == "test"} == {
        k for k, v in second.items() if v == "test"
    }


def test_known_split() -> None:
    """Frozen: a released version must go on splitting as it did."""
    records = [Record(Path(), f"a/{i}.jpg", OneClass("a")) for i in range(10)]
    drawn = draw_splits(records, {"test": 0.2, "val": 0.2, "train": 0.6}, 0)
    assert {k[2] for k, v in drawn.items() if v == "test"} == {"1", "4"}
    assert {k[2] for k, v in drawn.items() if v == "val"} == {"0", "5"}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=10, max_size=40), st.integers(0, 5))
def test_groups_stay_together(sizes: list[int], seed: int) -> None:
    records = [
        Record(Path(), f"{g}/{i}", OneClass("ab"[i % 2]), group=str(g))
        for g, size in enumerate(sizes)
        for i in range(size)
    ]
    drawn = draw_splits(records, {"test": 0.3, "train": 0.7}, seed)
    for g, size in enumerate(sizes):
        assert len({drawn[f"{g}/{i}"] for i in range(size)}) == 1
    share = list(drawn.values()).count("test") / len(records)
    assert abs(share - 0.3) * len(records) <= 2 * 9 / 2 + 1


def test_written_down_splits_are_repeated(tmp_path: Path) -> None:
    root = put(tmp_path / "data", *[f"{c}/x,\n{i}.png" for c in ("a", "ü") for i in range(10)])
    dataset = read(root, split=SplitOptions(seed=5))
    file = tmp_path / "splits.csv"
    dataset.write_splits(file)
    rows = list(csv.DictReader(file.open(newline="", encoding="utf-8")))
    assert rows[0].keys() == {"path", "label", "split", "target"}
    again = read(root, split=SplitOptions(file=str(file)))
    for split in ("train", "val", "test"):
        assert names(again, split) == names(dataset, split)
    put(root, "a/new.png")
    assert any(
        "left out 1 image " in n for n in read(root, split=SplitOptions(file=str(file))).notes
    )
    (root / "a" / "x,\n3.png").unlink()
    with pytest.raises(UsageError, match=r"1 image of the written-down split is missing"):
        read(root, split=SplitOptions(file=str(file)))


def test_weights_are_written_down_with_what_is_known(tmp_path: Path) -> None:
    put(tmp_path, *[f"{k}.png" for k in range(4)])

    def written(weights: str) -> str:
        lines = [f"{k}.png,{'xy'[k % 2]},train,{w}" for k, w in enumerate(weights.split())]
        table = tmp_path / "labels.csv"
        table.write_text("\n".join(["path,label,split,sample_weight", *lines]), encoding="utf-8")
        read(table, split=SplitOptions(train=1, val=0, test=0)).write_splits(tmp_path / "out")
        return (tmp_path / "out").read_text(encoding="utf-8")

    assert "×" not in written("1 1 1.0 1")
    before = written("1 2 0.1 0")
    rows = list(csv.DictReader(before.splitlines()))
    assert [row["target"].partition(" × ")[2] for row in rows] == ["", "2.0", "0.1", "0.0"]
    assert len({before, written("1 1 1 1"), written("1 2 0.1 1"), written("1 2 0.11 0")}) == 4
    (tmp_path / "splits.csv").write_text(before, encoding="utf-8")
    split = SplitOptions(file=str(tmp_path / "splits.csv"))
    again = read(tmp_path / "labels.csv", split=split)
    assert len(again.splits["train"]) == 4


def test_classes_are_what_is_mentioned_and_labels_what_occurs(tmp_path: Path) -> None:
    """An image of which nobody knows whether it shows a cat makes the cat a class, and no label."""
    records = [
        Record(tmp_path / "a.png", "a.png", SeveralLabels(("dog",), unknown=("cat",)), "train"),
        Record(tmp_path / "b.png", "b.png", SeveralLabels(("fox",)), "train"),
    ]
    reader = Reader(
        "made up", lambda *_: tmp_path, lambda *_: Listing("", tmp_path, Records.of(records))
    )
    options = DataOptions(path=str(tmp_path), split=SplitOptions(train=1, val=0, test=0))
    dataset = open_with(options, Readers({"made up": reader}))
    assert dataset.classes == ("cat", "dog", "fox")
    dataset.write_splits(tmp_path / "splits.csv")
    rows = csv.DictReader((tmp_path / "splits.csv").read_text(encoding="utf-8").splitlines())
    assert [row["label"] for row in rows] == ["dog", "fox"]


def test_shares_must_add_up() -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        SplitOptions(train=0.8, val=0.3, test=0.1)


# Only some of the splits


def test_only_a_training_needs_a_train_split(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    table = tmp_path / "t.csv"
    table.write_text("path,label,split\na.png,x,test\nb.png,y,test\n")
    options = DataOptions(path=str(table), split=SplitOptions(train=1, val=0, test=0))
    with pytest.raises(UsageError, match="no images to train on"):
        open_dataset(options)
    assert list(open_dataset(options, to_train=False).splits) == ["test"]


# The solar cells


def test_elpv() -> None:
    if importlib.util.find_spec("elpv_dataset") is None:
        pytest.skip("needs elpv-dataset")
    dataset = open_dataset(
        DataOptions(format="elpv", split=SplitOptions(train=0.6, val=0.15, test=0.25))
    )
    assert dataset.classes == ("functional", "defective")
    assert {k: len(v) for k, v in dataset.splits.items()} == {
        "train": 1574,
        "val": 394,
        "test": 656,
    }
    share = [sum(label(s) for s in v) / len(v) for v in dataset.splits.values()]
    assert max(share) - min(share) < 0.01
    assert 0.30 < share[0] < 0.32


def test_elpv_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RetinueError, match=r"pip install 'retinue\[demo\]'"):
        open_dataset(DataOptions(format="elpv"))


def test_real_folders(shared: Callable[[str], Path]) -> None:
    dataset = read(shared("data/grocery20"))
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 640, "val": 89, "test": 440}
    assert len(dataset.classes) == 20
