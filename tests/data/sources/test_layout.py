"""Folders as people have them: recognised, or what is there is said with what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_sets import WHOLE, labels, put, read, splits

from retinue.data.check import check
from retinue.data.options import DataOptions
from retinue.errors import UsageError
from retinue.tasks.task import task_type


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


IDS = [f"{k:06d}" for k in range(6)]


@pytest.fixture(params=["", "zeros"])
def kaggle(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Flat `train/` and `test/`, a table of ids, and one of how answers are to look."""
    put(tmp_path, *[f"train/{k}.jpg" for k in IDS], *[f"test/{k}9.jpg" for k in IDS])
    written = [str(int(k)) if request.param else k for k in IDS]
    rows = "".join(f"{k},{'ab'[n % 2]}\n" for n, k in enumerate(written))
    write(tmp_path / "labels.csv", f"id,breed\n{rows}")
    write(tmp_path / "sample_submission.csv", "id,breed\n" + "".join(f"{k}9,a\n" for k in IDS))
    return tmp_path


def test_flat_folders_with_a_table(kaggle: Path) -> None:
    dataset = read(kaggle, split=WHOLE)
    assert labels(dataset) == {f"{k}.jpg": "ab"[n % 2] for n, k in enumerate(IDS)}
    notes = "\n".join(dataset.notes)
    assert "labels.csv read as: path=id, label=breed" in notes
    assert "6 images have no row in labels.csv" in notes
    assert "not read beside labels.csv: sample_submission.csv" in notes


def test_flat_folders_without_a_table(tmp_path: Path) -> None:
    put(tmp_path, "train/1.png", "test/2.png")
    with pytest.raises(UsageError, match=r"pictures in test/ and train/, but no class folders"):
        read(tmp_path)
    assert read(tmp_path, classes=["train", "test"], split=WHOLE).classes == ("train", "test")


def test_only_a_test_split(tmp_path: Path) -> None:
    put(tmp_path, "test/a/1.png", "test/b/2.png")
    with pytest.raises(UsageError, match=r"there is only test.*split\.given=ignore divides"):
        read(tmp_path)
    anew = read(tmp_path, split=WHOLE.model_copy(update={"given": "ignore"}))
    assert splits(anew) == {"train": ["test/a/1.png", "test/b/2.png"]}
    judged = read(tmp_path, to_train=False)
    assert judged.classes == ("a", "b")
    assert splits(judged) == {"test": ["test/a/1.png", "test/b/2.png"]}


@pytest.mark.parametrize("inner", ["train/a train/b val/a val/b", "a b", "test/a test/b"])
@pytest.mark.parametrize("around", ["flowers", "archive/flowers"])
def test_one_folder_around_all(tmp_path: Path, inner: str, around: str) -> None:
    files = [f"{folder}/{k}.png" for folder in inner.split() for k in "12"]
    put(tmp_path / "plain", *files)
    put(tmp_path / "wrapped" / around, *files)
    (tmp_path / "wrapped" / "__MACOSX").mkdir()
    plain, wrapped = (read(tmp_path / k, to_train=False) for k in ("plain", "wrapped"))
    assert splits(plain) == splits(wrapped)
    assert any("the one folder there" in note for note in wrapped.notes)


def test_splits_in_folders_of_their_own_names(tmp_path: Path) -> None:
    put(tmp_path, "training_set/training_set/a/1.png", "training_set/training_set/b/2.png")
    put(tmp_path, "test_set/test_set/a/3.png", "test_set/test_set/b/4.png")
    dataset = read(tmp_path, split=WHOLE)
    assert dataset.classes == ("a", "b")
    assert {split: len(names) for split, names in splits(dataset).items()} == {
        "train": 2,
        "test": 2,
    }


def test_a_table_whose_columns_are_named_is_asked_for(tmp_path: Path) -> None:
    put(tmp_path, "train/n0/1.png", "train/n1/2.png")
    write(tmp_path / "train.csv", "filenames,cats\nn0/1.png,x\nn1/2.png,y\n")
    assert read(tmp_path, split=WHOLE).classes == ("n0", "n1")
    assert read(tmp_path, split=WHOLE, columns={"label": "cats"}).classes == ("x", "y")


def test_a_table_in_the_one_folder(tmp_path: Path) -> None:
    put(tmp_path / "d", "images/1.png", "images/2.png")
    write(tmp_path / "d" / "labels.csv", "file,label\n1,x\n2,y\n")
    assert labels(read(tmp_path, split=WHOLE)) == {"1.png": "x", "2.png": "y"}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ("1.png 2.png 3.png 4.png", "4 pictures lie directly in it, and no class folder"),
        ("a/1.nef a/2.nef b/x", r"files that are not called like images: 2 \.nef, 1 without"),
        ("", "no images found"),
    ],
)
def test_what_is_there_and_what_is_missing(tmp_path: Path, files: str, words: str) -> None:
    put(tmp_path, *files.split())
    with pytest.raises(UsageError, match=words):
        read(tmp_path)


def test_files_that_are_no_images_are_counted_by_suffix(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/2.png", "a/3.nef", "a/4", "b/deep/5.jpg_large", "b/.hidden")
    (tmp_path / "a" / "readme.md").write_text("of mine", encoding="utf-8")
    notes = read(tmp_path, split=WHOLE).notes
    assert any("1 .nef, 1 without suffix, 1 .md, 1 .jpg_large" in note for note in notes)
    assert any("some of these are images, 'a/3.nef' among them" in note for note in notes)
    report = check(DataOptions(path=str(tmp_path)), task_type("classification").readers())
    (found,) = (f for f in report.findings if f.what == "files that are not read")
    assert sorted(found.items) == ["a/3.nef", "a/4", "a/readme.md", "b/deep/5.jpg_large"]
    assert "1 .nef" in found.detail


def test_labels_of_a_table_beside_folders_that_are_no_classes(tmp_path: Path) -> None:
    put(tmp_path, "part_1/a1.jpg", "part_1/a2.jpg", "part_2/a3.jpg")
    write(tmp_path / "meta.csv", "lesion_id,image_id,dx\nl,a1,nv\nl,a2,mel\nl,a3,nv\n")
    dataset = read(tmp_path, split=WHOLE)
    assert labels(dataset) == {"part_1/a1.jpg": "nv", "part_1/a2.jpg": "mel", "part_2/a3.jpg": "nv"}
    assert any("data.format=folder" in note for note in dataset.notes)
    assert read(tmp_path, split=WHOLE, format="folder").classes == ("part_1", "part_2")


@pytest.mark.parametrize(
    "text",
    [
        "path,label\nrose/1.png,rose\ntulip/2.png,tulip\n",
        "file_name,text\nrose/1.png,a red one\ntulip/2.png,b\n",
        "anything\n",
    ],
)
def test_class_folders_count_where_the_table_says_the_same_or_nothing(
    tmp_path: Path, text: str
) -> None:
    put(tmp_path, "rose/1.png", "tulip/2.png")
    write(tmp_path / "metadata.csv", text)
    assert read(tmp_path, split=WHOLE).classes == ("rose", "tulip")


def test_notebook_and_system_folders_are_no_classes(tmp_path: Path) -> None:
    put(tmp_path, "rose/1.png", "tulip/2.png", ".ipynb_checkpoints/3.png", "__MACOSX/4.png")
    assert read(tmp_path, split=WHOLE).classes == ("rose", "tulip")


def test_a_run_is_no_data(tmp_path: Path) -> None:
    put(tmp_path, "plots/a.png", "other/b.png")
    for name in ("recipe.yaml", "environment.json"):
        write(tmp_path / name, "")
    with pytest.raises(UsageError, match="this is what a training or an evaluation left") as said:
        read(tmp_path)
    assert said.value.mend == "give the folder or table of the pictures"


def test_the_runs_beside_the_classes_are_passed_over_and_named(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/2.png", "runs/finetune/plots/3.png")
    for name in ("recipe.yaml", "environment.json"):
        write(tmp_path / "runs" / "finetune" / name, "")
    dataset = read(tmp_path, split=WHOLE)
    assert dataset.classes == ("a", "b")
    assert "passed over: 'runs', which trainings or evaluations left" in dataset.notes


def test_class_folders_apart_by_blanks_alone_are_named(tmp_path: Path) -> None:
    put(tmp_path, "red rose/1.png", "red  rose/2.png", "tulip/3.png")
    told = "classes apart by capitals or blanks alone: 'red  rose', 'red rose'"
    assert told in read(tmp_path, split=WHOLE).notes


def tables_of_splits(root: Path, images: str) -> None:
    """`train.csv`, `valid.csv` and `test.csv`, of images in one folder or in one for each."""
    for name, ids in (("train", IDS[:3]), ("valid", IDS[3:4]), ("test", IDS[4:])):
        put(root, *[f"{images.format(name)}/{k}.jpg" for k in ids])
        rows = "".join(f"{k}.jpg,{'ab'[n % 2]}\n" for n, k in enumerate(ids))
        write(root / f"{name}.csv", f"file,label\n{rows}")


@pytest.mark.parametrize("images", ["images", "{}", "photos/{}"])
def test_a_table_for_each_split_is_one_data_set(tmp_path: Path, images: str) -> None:
    tables_of_splits(tmp_path, images)
    write(tmp_path / "sample_submission.csv", f"file,label\n{IDS[4]}.jpg,a\n")
    dataset = read(tmp_path)
    said = {split: {Path(n).stem for n in names} for split, names in splits(dataset).items()}
    assert said == {"train": set(IDS[:3]), "val": set(IDS[3:4]), "test": set(IDS[4:])}
    assert all(Path(s.key).is_file() for rows in dataset.splits.values() for s in rows)
    assert {Path(name).stem: label for name, label in labels(dataset).items()} == {
        k: "ab"[n % 2] for ids in (IDS[:3], IDS[3:4], IDS[4:]) for n, k in enumerate(ids)
    }
    notes = "\n".join(dataset.notes)
    assert "split as given" in notes
    assert notes.count("not read beside") == 1
    assert "not read beside train.csv: sample_submission.csv" in notes
    assert "no row" not in notes


def test_tables_of_splits_say_what_is_wrong_once(tmp_path: Path) -> None:
    """An image of two tables is of the first; one of none is counted once; rows without a label
    are of their own table."""
    tables_of_splits(tmp_path, "images")
    put(tmp_path, "images/more.jpg", "images/bare.jpg")
    with open(tmp_path / "test.csv", "a", encoding="utf-8") as table:
        table.write(f"{IDS[0]}.jpg,a\nbare.jpg,\n")
    with pytest.raises(UsageError, match=f"'{IDS[0]}.jpg' again, as in the table of"):
        read(tmp_path)
    dataset = read(tmp_path, on_bad_image="skip")
    assert splits(dataset)["test"] == [f"{k}.jpg" for k in IDS[4:]]
    notes = "\n".join(dataset.notes)
    assert "1 image has no row in train.csv or valid.csv or test.csv: left out" in notes
    assert "test.csv: 1 row has no label" in notes


def test_a_table_of_a_split_may_not_speak_of_another(tmp_path: Path) -> None:
    tables_of_splits(tmp_path, "images")
    write(tmp_path / "valid.csv", f"file,label,split\n{IDS[3]}.jpg,a,train\n")
    with pytest.raises(UsageError, match="called like the split 'val', and has rows of 'train'"):
        read(tmp_path)


def test_two_tables_that_both_could_be_meant(tmp_path: Path) -> None:
    tables_of_splits(tmp_path, "images")
    write(tmp_path / "dev.csv", (tmp_path / "valid.csv").read_text())
    with pytest.raises(UsageError, match=r"found: 'dev.csv', 'test.csv', 'train.csv'") as said:
        read(tmp_path)
    assert said.value.mend is not None
    assert "keep one for each split" in said.value.mend
