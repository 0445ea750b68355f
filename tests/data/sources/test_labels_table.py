"""Tables of several labels an image: in one cell, a row each, in a column a class."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from data_sets import WHOLE, put
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.api import check_data
from retinue.data.options import DataOptions
from retinue.data.sources import Dataset, open_dataset
from retinue.data.sources.label_cells import of_list, separator_in
from retinue.data.targets.several_labels import SeveralLabels
from retinue.errors import UsageError
from retinue.tasks.task import task_of, task_type

FIVE = [f"{k}.jpg" for k in range(5)]


def table(root: Path, text: str, name: str = "t.csv") -> Path:
    put(root, *FIVE)
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def read(path: Path, **options: Any) -> Dataset:
    given = DataOptions(path=str(path), split=WHOLE, **options)
    return open_dataset(given, task_type("multilabel").readers())


def labels(dataset: Dataset) -> dict[str, tuple[list[str], list[str]]]:
    """What each image is called → the classes in it, and those that are unknown."""
    found = {}
    for samples in dataset.splits.values():
        for sample in samples:
            assert isinstance(sample.target, SeveralLabels)
            found[sample.name] = (
                [dataset.classes[int(k)] for k in sample.target.of],
                [dataset.classes[int(k)] for k in sample.target.unknown],
            )
    return found


def there(dataset: Dataset) -> dict[str, list[str]]:
    return {name: own for name, (own, _) in labels(dataset).items()}


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["sea|sky", "sky", "", "dog | sea"], "apart by '|'"),
        (["sea;sky", "sky;", "", "dog;sea;dog"], "apart by ';'"),
        (['"sea,sky"', "sky", "", '"dog, sea"'], "apart by ','"),
        (["sea sky", "sky", "", "dog  sea"], "apart by ' '"),
        (["\"['sea', 'sky']\"", '"[""sky""]"', "[]", '"[dog, sea]"'], "lists of labels"),
    ],
)
def test_labels_within_a_cell(tmp_path: Path, cells: Sequence[str], said: str) -> None:
    rows = "".join(f"{k}.jpg,{cell}\n" for k, cell in enumerate(cells))
    path = table(tmp_path, f"image,labels\n{rows}")
    dataset = read(path)
    assert dataset.classes == ("dog", "sea", "sky")
    assert there(dataset) == {
        "0.jpg": ["sea", "sky"], "1.jpg": ["sky"], "2.jpg": [], "3.jpg": ["dog", "sea"],
    }  # fmt: skip
    assert any(said in note for note in dataset.notes)
    assert any("1 row has no label: none of the classes is in" in note for note in dataset.notes)


def test_a_mark_at_the_end_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = table(tmp_path, "image,labels\n0.jpg,sea|tri\n1.jpg,tri;\n2.jpg,sea;tri\n3.jpg,|sea\n")
    dataset = read(path)
    assert there(dataset) == {
        "0.jpg": ["sea", "tri"], "1.jpg": ["tri"], "2.jpg": ["sea", "tri"], "3.jpg": ["sea"],
    }  # fmt: skip
    assert any("apart by '|' and ';'" in note for note in dataset.notes)
    text = 'image,label\n0.jpg,tri\n1.jpg,"tri,"\n2.jpg,"dog , tri, "\n'
    assert read(table(tmp_path, text, "u.csv")).classes == ("dog", "tri")
    # Whoever says what is between labels is taken at his word.
    assert read(path, label_separator="|").classes == ("sea", "sea;tri", "tri", "tri;")


def test_what_is_no_label_is_said(tmp_path: Path) -> None:
    text = "image,labels\n0.jpg,tri|NA\n1.jpg,nan\n2.jpg,none\n3.jpg,tri|sea\n4.jpg,\n"
    path = table(tmp_path, text)
    dataset = read(path)
    assert there(dataset) == {
        "0.jpg": ["tri"], "1.jpg": [], "2.jpg": ["none"], "3.jpg": ["sea", "tri"], "4.jpg": [],
    }  # fmt: skip
    told = "\n".join(dataset.notes)
    assert "'NA' is no label, unless data.classes names it (line 2: 'tri|NA')" in told
    assert "'nan' is no label, unless data.classes names it (line 3: 'nan')" in told
    assert "'none' is taken for a class (first in line 4); an empty cell says" in told
    assert "2 rows have no label" in told
    named = read(path, classes=["tri", "NA"])
    assert there(named)["0.jpg"] == ["tri", "NA"]
    assert not any("'NA' is no label" in note for note in named.notes)


def test_names_with_blanks_and_commas_stay_whole_unless_it_is_asked_for(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label\n0.jpg,polar bear\n1.jpg,brown bear\n")
    whole = read(path)
    assert whole.classes == ("brown bear", "polar bear")
    assert any("data.label_separator=' ' takes it apart" in note for note in whole.notes)
    assert read(path, label_separator=" ").classes == ("bear", "brown", "polar")
    assert read(
        table(tmp_path, "file,label\n0.jpg,a|b\n1.jpg,c\n"), label_separator=""
    ).classes == (
        "a|b",
        "c",
    )
    assert separator_in(["a,b"], "label") == ""
    assert of_list(r"""['it\'s', "b,c", d ]""") == ["it's", "b,c", "d"]
    assert of_list("[]") == of_list("['']") == []


def test_rows_of_one_image_are_joined(tmp_path: Path) -> None:
    text = "path,label,split\n0.jpg,a,train\n1.jpg,b,train\n0.jpg,c,train\n0.jpg,a,train\n2.jpg,,\n"
    path = table(tmp_path, text.replace("2.jpg,,", "2.jpg,,train"))
    dataset = read(path)
    assert there(dataset) == {"0.jpg": ["a", "c"], "1.jpg": ["b"], "2.jpg": []}
    assert any("2 rows name images of an earlier row" in note for note in dataset.notes)
    torn = table(tmp_path, text.replace("0.jpg,c,train", "0.jpg,c,val"))
    with pytest.raises(UsageError, match=r"line 4: another split than .* in line 2"):
        read(torn)


@pytest.mark.parametrize(
    ("role", "one", "other"),
    [("split", "train", "test"), ("fold", "1", "2"), ("stratify", "x", "y"), ("group", "x", "y"),
     ("sample_weight", "1", "2")],
)  # fmt: skip
@pytest.mark.parametrize("head", ["path,sea,sky", "path,label"])
def test_rows_of_one_image_have_one_place(
    tmp_path: Path, role: str, one: str, other: str, head: str
) -> None:
    own = "1,0" if "sea" in head else "sea"
    rows = [f"0.jpg,{own},{one}", f"1.jpg,{own},{one}", f"2.jpg,{own},{other}"]
    again = "\n".join([f"{head},{role}", *rows, f"0.jpg,{own},{one}"])
    assert len(labels(read(table(tmp_path, again)))) == 3
    torn = "\n".join([f"{head},{role}", *rows, f"0.jpg,{own},{other}"])
    with pytest.raises(UsageError, match=r"line 5: another \w+ than .* in line 2"):
        read(table(tmp_path, torn))


def test_a_column_a_class(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "ID,sea,dog,sky,age\n0.jpg,1,0,0.0,31\n1.jpg,0,-1,1.0,40\n2.jpg,0,,0,3\n3.jpg,,,,9\n"
        "4.jpg,true,no,yes,1\n",
    )
    dataset = read(path)
    assert dataset.classes == ("sea", "dog", "sky"), "in the order of the columns"
    assert labels(dataset) == {
        "0.jpg": (["sea"], []),
        "1.jpg": (["sky"], ["dog"]),
        "2.jpg": ([], ["dog"]),
        "4.jpg": (["sea", "sky"], []),
    }
    told = "\n".join(dataset.notes)
    assert "3 classes of yes and no=sea, dog, sky; ignored: age" in told
    assert "class 'dog' has no images" in told
    assert "1 row has no label: left out, first line 5" in told
    some = read(path, classes=["sky", "dog"])
    assert some.classes == ("sky", "dog")
    assert labels(some)["4.jpg"] == (["sky"], [])


@pytest.mark.parametrize(
    "cells", [("[1, 0, 1]", "[0. 0. 1.]", "[0, 0, 0]"), ("1 0 1", "0 0 1", "0 0 0")]
)
def test_a_vector_in_a_cell_needs_the_names_of_the_classes(
    tmp_path: Path, cells: Sequence[str]
) -> None:
    rows = "".join(f'{k}.jpg,"{cell}"\n' for k, cell in enumerate(cells))
    path = table(tmp_path, f"path,label\n{rows}")
    named = read(path, classes=["sea", "dog", "sky"])
    assert named.classes == ("sea", "dog", "sky")
    assert there(named) == {"0.jpg": ["sea", "sky"], "1.jpg": ["sky"], "2.jpg": []}
    with pytest.raises(UsageError, match="a 0 or 1 for each of 3 classes, and nothing names them"):
        read(path)
    assert task_of(DataOptions(path=str(path))) == "multilabel"


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (
            ["[1, 0, 0]", "[0, 1]", "[0, 0, 1]"],
            r"'\[0, 1\]' has 2 of 0 and 1, .* 3 classes.* line 3",
        ),
        (["[1, 0]", "[0, 1]", "[0, 1, 0]", "[1, 0, 1]"], "has 2 of 0 and 1"),
        (["[1, 0, 0]", "[0, 0, 1]", "[0, 2, 1]"], r"'\[0, 2, 1\]' is no row of 0 and 1.* line 4"),
        (["1 0 0", "0 1", "0 0 1"], "'0 1' has 2 of 0 and 1"),
    ],
)
def test_a_vector_of_another_length_is_told_by_its_line(
    tmp_path: Path, cells: Sequence[str], said: str
) -> None:
    rows = "".join(f'{k}.jpg,"{cell}"\n' for k, cell in enumerate(cells))
    path = table(tmp_path, f"path,label\n{rows}")
    with pytest.raises(UsageError, match=said):
        read(path, classes=["a", "b", "c"])
    with pytest.raises(UsageError, match="nothing names them"):
        read(path)
    notes = check_data(str(path), task="multilabel", classes=["a", "b", "c"]).notes
    assert not any("no label: left out" in note for note in notes)


def test_nothing_where_others_have_a_vector_is_not_known(tmp_path: Path) -> None:
    path = table(tmp_path, 'path,label\n0.jpg,"[1, 0]"\n1.jpg,\n2.jpg,"[0, 0]"\n')
    dataset = read(path, classes=["a", "b"])
    assert there(dataset) == {"0.jpg": ["a"], "2.jpg": []}
    assert any("1 row has no label: left out, first line 3" in note for note in dataset.notes)


def test_lists_of_numbers_are_no_vectors(tmp_path: Path) -> None:
    path = table(tmp_path, 'path,label\n0.jpg,"[0, 1]"\n1.jpg,[1]\n2.jpg,"[1, 0]"\n3.jpg,\n')
    assert there(read(path)) == {
        "0.jpg": ["0", "1"], "1.jpg": ["1"], "2.jpg": ["0", "1"], "3.jpg": [],
    }  # fmt: skip


def test_minus_one_is_no_where_nothing_else_is(tmp_path: Path) -> None:
    """As CelebA has it."""
    dataset = read(table(tmp_path, "image_id,Bald,Smiling\n0.jpg,-1,1\n1.jpg,-1,-1\n2.jpg,1,\n"))
    assert labels(dataset) == {
        "0.jpg": (["Smiling"], []), "1.jpg": ([], []), "2.jpg": (["Bald"], ["Smiling"]),
    }  # fmt: skip
    assert any("−1 is taken for no" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("train", "val", "refused"),
    [
        ("0.jpg,1,-1\n1.jpg,-1,1\n", "2.jpg,1,0\n3.jpg,-1,1\n", True),
        ("0.jpg,1,0\n1.jpg,-1,1\n", "2.jpg,1,-1\n3.jpg,-1,1\n", True),
        ("0.jpg,1,-1\n1.jpg,-1,1\n", "2.jpg,1,0\n3.jpg,0,1\n", True),
        ("0.jpg,1,-1\n1.jpg,-1,1\n", "2.jpg,1,-1\n3.jpg,1,1\n", False),
        ("0.jpg,1,-1\n1.jpg,-1,1\n", "2.jpg,1,\n3.jpg,1,1\n", False),
        ("0.jpg,1,0\n1.jpg,-1,1\n", "2.jpg,1,0\n3.jpg,0,1\n", False),
    ],
)
def test_tables_of_one_folder_say_no_alike(
    tmp_path: Path, train: str, val: str, refused: bool
) -> None:
    put(tmp_path, *FIVE)
    (tmp_path / "train.csv").write_text(f"path,a,b\n{train}")
    (tmp_path / "val.csv").write_text(f"path,a,b\n{val}")
    if not refused:
        assert len(labels(read(tmp_path))) == 4
        return
    (tmp_path / "test.csv").write_text("path,a,b\n4.jpg,0,1\n")
    with pytest.raises(UsageError, match=r"−1 says no in this table, .* '\w+\.csv' 0 does"):
        read(tmp_path)


def test_yes_and_no_without_a_header(tmp_path: Path) -> None:
    path = table(tmp_path, "0.jpg 1 0 1\n1.jpg 0 0 1\n", "t.txt")
    assert there(read(path)) == {"0.jpg": ["2", "4"], "1.jpg": ["4"]}
    assert there(read(path, classes=["a", "b", "c"])) == {"0.jpg": ["a", "c"], "1.jpg": ["c"]}


def test_a_column_of_words_beside_columns_of_yes_and_no_is_said(tmp_path: Path) -> None:
    dataset = read(table(tmp_path, "file,label,tags,labels\n0.jpg,1,0,x y\n1.jpg,0,1,z\n"))
    assert dataset.classes == ("label", "tags")
    assert any("ignored: labels" in note for note in dataset.notes)


def test_what_says_neither_is_refused_by_its_line(tmp_path: Path) -> None:
    path = table(tmp_path, "path,a,b\n0.jpg,1,0\n1.jpg,0.7,1\n")
    with pytest.raises(UsageError, match=r"'0\.7' says neither whether 'a' .* line 3"):
        read(path, classes=["a", "b"])
    twice = table(tmp_path, "path,a,b\n0.jpg,1,0\n1.jpg,0,1\n0.jpg,0,0\n")
    with pytest.raises(UsageError, match=r"line 4: says something else of the image in line 2"):
        read(twice)
    with pytest.raises(UsageError, match="2 columns called 'a'"):
        read(table(tmp_path, "path,a,a\n0.jpg,1,0\n"))
    with pytest.raises(UsageError, match="no images of class 'c'"):
        read(table(tmp_path, "path,a,b\n0.jpg,1,0\n"), classes=["c"])


YES_AND_NO = [f"{k}.jpg,{k % 2},{k % 3 // 2},{k % 5 // 4}" for k in range(60)]


def many(root: Path, head: str, rows: Sequence[str]) -> Path:
    put(root, *(f"{k}.jpg" for k in range(60)))
    path = root / "t.csv"
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("word", ["2", "maybe", "0.5"])
def test_one_odd_cell_does_not_drop_its_class(tmp_path: Path, word: str) -> None:
    rows = [*YES_AND_NO]
    rows[6] = f"6.jpg,{word},0,0"
    path = many(tmp_path, "path,circle,square,tri", rows)
    with pytest.raises(UsageError, match=rf"{word!r} says neither whether 'circle'.* line 8"):
        read(path)
    assert read(path, classes=["square", "tri"]).classes == ("square", "tri")
    assert task_of(DataOptions(path=str(path))) == "multilabel"
    report = check_data(str(path), task="multilabel")
    assert report.refused
    assert not any("leaves it open" in note for note in report.notes)
    assert any("'circle'" in item for f in report.findings if f.fatal for item in f.items)
    # One in each of them, too.
    rows[7], rows[8] = "7.jpg,1,x,0", "8.jpg,0,1,?"
    with pytest.raises(UsageError, match="says neither"):
        read(many(tmp_path, "path,circle,square,tri", rows))


def test_columns_of_other_values_are_still_ignored(tmp_path: Path) -> None:
    rows = [f"{r},{k},{k % 3},{k % 4},{2 if k < 2 else 1}" for k, r in enumerate(YES_AND_NO)]
    dataset = read(many(tmp_path, "path,circle,square,tri,number,grade,siblings,Weight", rows))
    assert dataset.classes == ("circle", "square", "tri")
    assert any("ignored: number, grade, siblings, Weight" in note for note in dataset.notes)


def test_a_rare_class_in_a_column_of_labels_is_no_mistake(tmp_path: Path) -> None:
    rows = [f"{k}.jpg,{2 if k == 7 else k % 2},{k % 3 // 2}" for k in range(60)]
    path = many(tmp_path, "path,label,blurry", rows)
    assert task_of(DataOptions(path=str(path))) == "classification"
    assert read(path).classes == ("0", "1", "2")


def test_an_odd_cell_without_a_header(tmp_path: Path) -> None:
    rows = [*YES_AND_NO]
    rows[6] = "6.jpg,1,no idea,0"
    with pytest.raises(UsageError, match=r"'no idea' says neither .*line 7"):
        read(many(tmp_path, rows[0], rows[1:]))
    with pytest.raises(UsageError, match=r"no header|no column"):
        read(many(tmp_path, "Bild,circle,square,tri", YES_AND_NO))


def test_tables_of_splits_have_the_same_columns(tmp_path: Path) -> None:
    put(tmp_path, *FIVE)
    (tmp_path / "train.csv").write_text("path,a,b\n0.jpg,1,0\n1.jpg,0,1\n")
    (tmp_path / "val.csv").write_text("path,a,b\n2.jpg,1,1\n")
    dataset = read(tmp_path)
    assert dataset.classes == ("a", "b")
    assert there(dataset)["2.jpg"] == ["a", "b"]
    assert {name: len(samples) for name, samples in dataset.splits.items()} == {
        "train": 2,
        "val": 1,
    }
    (tmp_path / "val.csv").write_text("path,a,c\n2.jpg,1,1\n")
    with pytest.raises(UsageError, match="columns of other classes"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("path,label\n0.jpg,a|b\n1.jpg,b\n", "multilabel"),
        ("path,label\n0.jpg,a\n1.jpg,b\n0.jpg,b\n", "multilabel"),
        ("path,a,b\n0.jpg,1,0\n1.jpg,0,1\n", "multilabel"),
        ("path,label\n0.jpg,a\n1.jpg,b\n", "classification"),
        ("path,label,is_valid\n0.jpg,a,1\n1.jpg,b,0\n", "classification"),
        ("path,label,blurred\n0.jpg,a,1\n1.jpg,b,0\n", "classification"),
        ("path,label\n0.jpg,polar bear\n1.jpg,brown bear\n2.jpg,polar fox\n", "classification"),
        ("path,label\n0.jpg,1\n1.jpg,0\n", "classification"),
        ("path,label,blurry\n0.jpg,1,0\n1.jpg,0,0\n", "classification"),
        ("image,Target,verified\n0.jpg,1,0\n1.jpg,0,1\n", "classification"),
        ("image,label,weight\n0.jpg,1,1\n1.jpg,0,1\n", "classification"),
        ("filename,xmin,ymin,xmax,ymax,class\n0.jpg,0,0,2,2,a\n", "detection"),
    ],
)
def test_only_what_is_surely_meant_is_claimed(tmp_path: Path, text: str, task: str) -> None:
    assert task_of(DataOptions(path=str(table(tmp_path, text)))) == task


def test_a_column_called_label_is_a_class_where_it_is_named(tmp_path: Path) -> None:
    path = str(table(tmp_path, "path,label,blurry\n0.jpg,1,0\n1.jpg,0,1\n"))
    assert task_of(DataOptions(path=path, classes=["label", "blurry"])) == "multilabel"


def test_a_classifier_is_told_of_several_labels(tmp_path: Path) -> None:
    readers = task_type("classification").readers()
    path = table(tmp_path, "path,labels\n0.jpg,a|b\n1.jpg,b|a\n2.jpg,b\n")
    notes = open_dataset(DataOptions(path=str(path), split=WHOLE), readers).notes
    assert any(
        "several labels an image, in a table: `retinue train multi-label`" in n for n in notes
    )
    for text in (
        "path,a,b\n0.jpg,1,0\n1.jpg,0,1\n",
        "path,label\n0.jpg,a\n0.jpg,b\n1.jpg,a\n",
    ):
        path = table(tmp_path, text)
        with pytest.raises(UsageError, match="several labels an image"):
            open_dataset(DataOptions(path=str(path)), readers)


def test_what_has_no_use_for_a_separator_says_so(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label\n0.jpg,a\n1.jpg,b\n")
    with pytest.raises(UsageError, match=r"key data\.label_separator"):
        open_dataset(
            DataOptions(path=str(path), label_separator="|"), task_type("classification").readers()
        )


def test_the_check_counts_each_class_and_takes_one_alone(tmp_path: Path) -> None:
    path = table(tmp_path, "path,labels\n0.jpg,a|b\n1.jpg,b\n2.jpg,\n")
    found = check_data(path)
    assert found.classes == {"a": 1, "b": 2}
    assert found.images == 3
    single = check_data(table(tmp_path, "path,broken\n0.jpg,1\n1.jpg,0\n"), task="multilabel")
    assert single.classes == {"broken": 1}
    assert not single.refused, single.findings


def test_copies_of_an_image_may_leave_open_what_another_says(tmp_path: Path) -> None:
    whole = SeveralLabels(("a",), unknown=("b",))
    assert whole.agrees(SeveralLabels(("a", "b")))
    assert SeveralLabels(("a", "b")).agrees(whole)
    assert not whole.agrees(SeveralLabels(("b",)))
    assert not whole.agrees(SeveralLabels(("a", "c")))


CELLS = st.sampled_from(
    ["", "0", "1", "-1", "a", "a|b", "b;a", "a,b", "a b", "nan", "['a', \"b\"]", "[1, 0]", "1 0",
     "|", "猫 & dog/1", "0.5", "[", "yes", "train", "b|b|", " "]
)  # fmt: skip


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from(["path", "label", "labels", "tags", "x", "y", "split", "a", ""]),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.lists(CELLS, min_size=4, max_size=4), min_size=1, max_size=6),
)
def test_any_table_is_read_or_refused_in_words(heads: list[str], rows: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = put(Path(place), *FIVE)
        with (root / "t.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", *heads])
            for k, row in enumerate(rows):
                writer.writerow([f"{k % 5}.jpg", *row[: len(heads)]])
        options = DataOptions(path=str(root / "t.csv"), split=WHOLE, on_bad_image="skip")
        task = task_of(options)
        for name in {task, "multilabel"}:
            try:
                dataset = open_dataset(options, task_type(name).readers())
            except UsageError:
                continue
            for sample in dataset.splits["train"] if name == "multilabel" else ():
                assert isinstance(sample.target, SeveralLabels)
                assert not set(sample.target.of) & set(sample.target.unknown)
                assert sample.target.classes == len(dataset.classes)


def test_what_was_predicted_can_be_read_as_labels(tmp_path: Path) -> None:
    text = 'path,name,score\n0.jpg,"猫 & dog/1",0.9\n0.jpg,b,0.6\n1.jpg,,\n'
    assert there(read(table(tmp_path, text))) == {"0.jpg": ["b", "猫 & dog/1"], "1.jpg": []}
