"""Tables with a row a box."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from box_sets import count, found, picture, read, targets, write

from retinue.data.options import DataOptions
from retinue.data.sources.boxes_csv import BOXES_CSV
from retinue.errors import UsageError

HEAD = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


def table(
    root: Path, text: str, *images: str, name: str = "t.csv", encoding: str = "utf-8"
) -> Path:
    for image in images or ("a.jpg", "b.jpg"):
        picture(root / image)
    return write(root / "t.csv", text, encoding)


def test_rows_of_one_image_belong_together_and_corners_are_pixels(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        HEAD + "a.jpg,64,48,cat,1,1,9,9\nb.jpg,64,48,dog,2,3,64,48\na.jpg,64,48,dog,5,5,8,9",
    )
    dataset = read(path)
    assert dataset.classes == ("cat", "dog")
    assert found(dataset) == {
        "a.jpg": [("cat", 0, 0, 9, 9), ("dog", 4, 4, 8, 9)],
        "b.jpg": [("dog", 1, 2, 64, 48)],
    }
    assert "t.csv read as: path=filename, label=class, box=xmin ymin xmax ymax" in dataset.notes


def test_it_is_asked_for_by_either_of_its_names(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "filename,class,xmin,ymin,xmax,ymax\na.jpg,cat,1,1,9,9\n")
    picture(tmp_path / "a.jpg")
    for name in ("boxes_csv", "csv"):
        assert count(read(path, format=name)) == 1
    with pytest.raises(UsageError, match=r"unknown format 'cvs', key data\.format"):
        read(path, format="cvs")


def test_without_a_header_and_with_images_that_show_nothing(tmp_path: Path) -> None:
    path = table(tmp_path, "a.jpg,10,12,20,22,cat\nb.jpg,,,,,\n")
    dataset = read(path, first_pixel=0)
    assert found(dataset) == {"a.jpg": [("cat", 10, 12, 20, 22)], "b.jpg": []}


def test_other_names_shares_of_the_sides_and_flags(tmp_path: Path) -> None:
    text = (
        "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\na,cat,0.25,0.5,0.5,1,0\nb,cat,0,1,0,1,1"
    )
    dataset = read(table(tmp_path, text))
    assert found(dataset) == {"a.jpg": [("cat", 16, 24, 32, 48)], "b.jpg": [("cat", 0, 0, 64, 48)]}
    assert [t.crowd.tolist() for _, t in targets(dataset)] == [[False], [True]]
    assert list(found(dataset)) == ["a.jpg", "b.jpg"]
    assert any("taken for shares of width and height" in note for note in dataset.notes)


def test_a_column_of_groups_and_what_is_not_read(tmp_path: Path) -> None:
    rows = "".join(f"{k}.jpg,c,1,1,9,9,p{k % 2},3\n" for k in range(20))
    text = "path,label,xmin,ymin,xmax,ymax,patient,sample_weight\n" + rows
    dataset = read(
        table(tmp_path, text, *(f"{k}.jpg" for k in range(20))),
        split={"train": 0.5, "val": 0.5, "test": 0},
    )
    own = {split: {int(s.name[:-4]) % 2 for s in v} for split, v in dataset.splits.items()}
    assert sorted(own.values()) == [{0}, {1}]
    note = "t.csv read as: path=path, label=label, group=patient, box=xmin ymin xmax ymax"
    assert f"{note}; ignored: sample_weight" in dataset.notes


def test_a_column_of_splits(tmp_path: Path) -> None:
    path = table(
        tmp_path, "path,split,label,x1,y1,x2,y2\na.jpg,train,c,1,1,9,9\nb.jpg,test,c,1,1,5,5\n"
    )
    assert {k: len(v) for k, v in read(path).splits.items()} == {"train": 1, "test": 1}
    write(path, path.read_text() + "b.jpg,train,c,1,1,6,6\n")
    with pytest.raises(UsageError, match=r"'b.jpg' stands in two splits.*line 4"):
        read(path)


def test_tables_called_like_splits_with_a_folder_each(tmp_path: Path) -> None:
    for split in ("train", "test"):
        text = HEAD + "a.jpg,64,48,cat,1,1,9,9\n"
        picture(tmp_path / "images" / split / "a.jpg")
        write(tmp_path / "images" / f"{split}_labels.csv", text)
    dataset = read(tmp_path)
    assert list(found(dataset)) == ["train/a.jpg", "test/a.jpg"]
    assert list(dataset.splits) == ["train", "test"]


def test_a_table_in_the_folder_of_each_split(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        picture(tmp_path / split / "a.jpg")
        write(tmp_path / split / "_annotations.csv", HEAD + "a.jpg,64,48,cat,1,1,9,9\n")
    dataset = read(tmp_path)
    assert {k: [s.name for s in v] for k, v in dataset.splits.items()} == {
        "train": ["train/a.jpg"],
        "val": ["valid/a.jpg"],
        "test": ["test/a.jpg"],
    }


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a.jpg,64,48,cat,1,1,x,9", "line 2: 'x' is no number, column 'xmax'"),
        ("a.jpg,64,48,cat,1,1,,9", "line 2: a corner is missing, column 'xmax'"),
        ("a.jpg,64,48,cat,1,1,nan,9", "line 2: a box at 1, 1, nan, 9, which is no place"),
        ("a.jpg,64,48,,1,1,5,9", "line 2: a box without a class"),
        ("a.jpg,64,48,cat,9,1,5,9", "line 2: an inverted box, 9, 1, 5, 9"),
        ("a.jpg,64,48,cat,70,1,75,9", "line 2: a box outside its image of 64 × 48 pixels"),
        ("c.jpg,64,48,cat,1,1,5,9", "line 2: no image 'c.jpg'"),
        ("a.jpg,32,24,cat,1,1,5,9", "line 2: boxes for an image of 32 × 24 pixels, but it has 64"),
    ],
)
def test_a_row_that_makes_no_sense_is_named_by_its_line(
    tmp_path: Path, row: str, words: str
) -> None:
    path = table(tmp_path, HEAD + row + "\nb.jpg,64,48,cat,1,1,9,9\n")
    with pytest.raises(UsageError, match="1 label cannot be used") as caught:
        read(path)
    assert words in str(caught.value)
    dataset = read(path, on_bad_image="skip")
    assert found(dataset)["b.jpg"] == [("cat", 0, 0, 9, 9)]
    assert count(dataset) == 1


def test_sizes_that_contradict_each_other(tmp_path: Path) -> None:
    path = table(tmp_path, HEAD + "a.jpg,64,48,cat,1,1,9,9\na.jpg,64,49,cat,2,2,9,9\n")
    with pytest.raises(UsageError, match=r"line 3: another width or height of 'a.jpg'"):
        read(path)


def test_utf_16_and_chinese(tmp_path: Path) -> None:
    path = table(tmp_path, HEAD + "图 1.jpg,64,48,浣熊,1,1,9,9\n", "图 1.jpg", encoding="utf-16")
    assert found(read(path)) == {"图 1.jpg": [("浣熊", 0, 0, 9, 9)]}
    write(path, HEAD + "a.jpg,64,48,浣熊,1,1,9,9\n", "gbk")
    picture(tmp_path / "a.jpg")
    with pytest.raises(UsageError, match=r"not UTF-8.*save the table as UTF-8"):
        read(path)


def test_tables_of_classes_are_none_of_boxes(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label\na.jpg,cat\n")
    assert BOXES_CSV.find(DataOptions(path=str(path)), False) is None
    with pytest.raises(UsageError, match="no columns for the corners of boxes"):
        read(path, format="boxes_csv")


def test_raccoons_by_their_lists(shared: Callable[[str], Path]) -> None:
    folder = shared("data/raccoon")
    dataset = read(folder / "csv")
    counts = {k: sum(len(s.target.of) for s in v) for k, v in dataset.splits.items()}
    assert counts["test"] == 44
    assert counts["train"] + counts.get("val", 0) == 173, counts
    assert "not read beside test_labels.csv, train_labels.csv: raccoon_labels.csv" in dataset.notes
    alone = read(folder / "csv" / "test_labels.csv", to_train=False)
    assert found(alone) == {s.name: found(dataset)[s.name] for s in dataset.splits["test"]}
    # The XML files say the same.
    whole = {name.split("/")[-1]: boxes for name, boxes in found(read(folder)).items()}
    assert whole == found(dataset)
