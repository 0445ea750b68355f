"""Tables as people have them: what is read, what is said of it, and what is refused by line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_sets import WHOLE, labels, put, read, splits

from retinue.data.options import ColumnOptions
from retinue.data.sources import matching
from retinue.errors import UsageError
from retinue.files import Entry, entries

FIVE = [f"{k}.jpg" for k in range(5)]


def table(
    root: Path, text: str, *images: str, name: str = "t.csv", encoding: str = "utf-8"
) -> Path:
    put(root, *(images or FIVE))
    (root / name).write_bytes(text.encode(encoding))
    return root / name


def told(path: Path, **options: object) -> str:
    return "\n".join(read(path, split=WHOLE, **options).notes)


# Roles of columns


def test_body_weights_never_weigh_the_loss(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label,weight\n0.jpg,a,0\n1.jpg,b,3.2\n2.jpg,a,4.1\n")
    dataset = read(path, split=WHOLE)
    assert [sample.weight for sample in dataset.splits["train"]] == [1.0, 1.0, 1.0]
    assert "t.csv read as: path=file, label=label; ignored: weight" in dataset.notes
    assert any("data.columns.weight=weight" in note for note in dataset.notes)
    named = read(path, split=WHOLE, columns={"weight": "weight"})
    assert [sample.weight for sample in named.splits["train"]] == [0.0, 3.2, 4.1]
    assert "t.csv read as: path=file, label=label, weight=weight" in named.notes


def test_columns_can_be_named_and_switched_off(tmp_path: Path) -> None:
    text = "file,label,Species Name,split\n0.jpg,1,x,test\n1.jpg,2,y,test\n2.jpg,2,y,train\n"
    path = table(tmp_path, text)
    dataset = read(path, split=WHOLE, columns={"label": "species_name", "split": None})
    assert labels(dataset) == {"0.jpg": "x", "1.jpg": "y", "2.jpg": "y"}
    assert list(dataset.splits) == ["train"]
    with pytest.raises(
        UsageError, match=r"no column 'specie_name'.*data\.columns\.label.*did you mean"
    ):
        read(path, columns={"label": "specie_name"})
    with pytest.raises(ValueError, match="named for two things"):
        ColumnOptions(label="a", path="a")


def test_columns_without_a_header_are_named_by_number(tmp_path: Path) -> None:
    path = table(tmp_path, "z,0.jpg,a\nz,1.jpg,b\n")
    with pytest.raises(UsageError, match=r"3 columns and no header.*data\.columns\.path=1"):
        read(path)
    dataset = read(path, split=WHOLE, columns={"path": 2, "label": 3})
    assert labels(dataset) == {"0.jpg": "a", "1.jpg": "b"}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("Image,Id", "data.columns.label=Id"),
        ("filename,colour", "call the column `label`, or say data.columns.label=colour"),
        ("file,label,label", "2 columns called 'label'"),
    ],
)
def test_a_label_that_is_not_sure_is_asked_for(tmp_path: Path, header: str, words: str) -> None:
    cells = ",".join(["0.jpg", "a", "b"][: header.count(",") + 1])
    with pytest.raises(UsageError) as caught:
        read(table(tmp_path, f"{header}\n{cells}\n"))
    assert words in str(caught.value)


def test_folds_are_no_splits(tmp_path: Path) -> None:
    rows = "".join(f"{k}.jpg,{'ab'[k % 2]},{k}\n" for k in range(5))
    path = table(tmp_path, f"file,label,fold\n{rows}")
    notes = told(path)
    assert "fold=fold" in notes
    assert "data.split.folds=given" in notes
    assert "data.columns.split=fold" in notes
    with pytest.raises(UsageError, match=r"unknown split '0'.*line 2"):
        read(path, columns={"split": "fold"})
    words = "0.jpg,a,train\n1.jpg,b,train\n2.jpg,a,dev\n"
    (tmp_path / "t.csv").write_text(f"file,label,fold\n{words}", encoding="utf-8")
    assert splits(read(path)) == {"train": ["0.jpg", "1.jpg"], "val": ["2.jpg"]}


@pytest.mark.parametrize(
    ("column", "words", "expected"),
    [
        ("Usage", "Training PublicTest PrivateTest Training", "train val test train"),
        ("split", "Train valid TEST trn", "train val test train"),
        ("phase", "training_set eval test-set DEV", "train val test val"),
        ("is_valid", "False True 0 no", "train val train train"),
        ("is_test", "f t F 1.0", "train test train test"),
        ("is_training_image", "1 0 1 1", "train test train train"),
    ],
)
def test_words_for_splits(tmp_path: Path, column: str, words: str, expected: str) -> None:
    cells = "".join(f"{k}.jpg,{'ab'[k % 2]},{word}\n" for k, word in enumerate(words.split()))
    dataset = read(table(tmp_path, f"file,label,{column}\n{cells}"), split=WHOLE)
    of = {name: split for split, names in splits(dataset).items() for name in names}
    assert " ".join(of[f"{k}.jpg"] for k in range(4)) == expected
    assert any(f"split={column}" in note for note in dataset.notes)


def test_an_odd_cell_does_not_drop_the_splits(tmp_path: Path) -> None:
    cells = "".join(f"{k}.jpg,{'ab'[k % 2]},{'?' if k == 3 else k % 2}\n" for k in range(5))
    path = table(tmp_path, f"file,label,is_valid\n{cells}")
    with pytest.raises(UsageError, match=r"'\?' says neither yes nor no in 'is_valid'.* line 5"):
        read(path)
    assert set(splits(read(path, columns={"split": None}, split=WHOLE))) == {"train"}


# Labels


def test_whole_numbers_that_a_program_wrote_with_a_point(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label\n0.jpg,11.0\n1.jpg,2.0\n2.jpg,0.0\n3.jpg,\n4.jpg,nan\n")
    dataset = read(path, split=WHOLE)
    assert dataset.classes == ("0", "2", "11")
    assert labels(dataset) == {"0.jpg": "11", "1.jpg": "2", "2.jpg": "0"}
    notes = "\n".join(dataset.notes)
    assert "'0.0' is '0'" in notes
    assert "2 rows have no label: left out, first line 5 ('nan' means none, unless" in notes


@pytest.mark.parametrize(
    ("given", "classes"),
    [
        ("0.5 10.25 2.0", ("0.5", "2", "10.25")),
        ("007 7.0 7", ("007", "7", "7.0")),
        ("v1.0 v2.0 v10.0", ("v1.0", "v10.0", "v2.0")),
        ("-1.0 -0.0 3", ("-1", "0", "3")),
    ],
)
def test_names_of_numbers(tmp_path: Path, given: str, classes: tuple[str, ...]) -> None:
    rows = "".join(f"{k}.jpg,{label}\n" for k, label in enumerate(given.split()))
    assert read(table(tmp_path, f"file,label\n{rows}"), split=WHOLE).classes == classes


def test_missing_labels_and_classes_that_are_called_so(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label\n0.jpg,NA\n1.jpg,None\n2.jpg,null\n3.jpg,b\n4.jpg,NaN\n")
    dataset = read(path, split=WHOLE)
    assert labels(dataset) == {"1.jpg": "None", "3.jpg": "b"}
    assert any("'None' is taken for a class" in note for note in dataset.notes)
    notes = "\n".join(dataset.notes)
    assert "3 rows have no label: left out, first line 2 ('NA', 'NaN', 'null' mean none," in notes
    asked = read(path, split=WHOLE, classes=["NA", "b"])
    assert labels(asked) == {"0.jpg": "NA", "3.jpg": "b"}
    folders = put(tmp_path / "d", "nan/1.png", "null island/2.png", "NA/3.png")
    assert read(folders, split=WHOLE).classes == ("NA", "nan", "null island")


def test_classes_that_look_the_same_are_told(tmp_path: Path) -> None:
    notes = told(table(tmp_path, "file,label\n0.jpg,Cat\n1.jpg,cat \n2.jpg,dog\n"))
    assert "classes apart by capitals or blanks alone: 'Cat', 'cat'" in notes


# Names of files


@pytest.mark.parametrize(
    ("written", "files", "said"),
    [
        (r"img\0.jpg img\1.jpg", "img/0.jpg img/1.jpg", ""),
        ("./0.jpg .//1.jpg", "0.jpg 1.jpg", ""),
        ("0 1", "000000.jpg 000001.jpg", "zeros"),
        ("0.JPG 1.jpeg", "0.jpg 1.jpg", "suffix"),
        ("IMG_0 Img_1.JPG", "img_0.jpg img_1.jpg", "capitals"),
        (r"/home/b/d/cat/0.jpg C:\d\dog\1.jpg", "cat/0.jpg dog/1.jpg", "folders"),
        ("https://x.org/a/0.jpg?w=1 https://x.org/a/1.jpg", "0.jpg 1.jpg", "folders"),
        ("photos/0.jpg photos/1.jpg", "0.jpg 1.jpg", "folders"),
        ("Train/0.jpg Train/1.jpg", "train/0.jpg train/1.jpg", "folders"),
        ("a0 a1", "part_1/a0.jpg part_2/a1.jpg", "folders"),
        ("é.jpg e\u0301b.jpg", "e\u0301.jpg éb.jpg", ""),
        ("00.jpg 1", "0.jpg 01.jpg", "zeros"),
    ],
)
def test_names_with_one_meaning(tmp_path: Path, written: str, files: str, said: str) -> None:
    rows = "".join(f"{name},{label}\n" for name, label in zip(written.split(), "ab", strict=True))
    path = table(tmp_path / "photos", f"file,label\n{rows}", *files.split())
    dataset = read(path, split=WHOLE)
    assert [Path(s.key) for s in dataset.splits["train"]] == [
        path.parent / file for file in files.split()
    ]
    notes = "\n".join(dataset.notes)
    assert (f"with other {said}" in notes) if said else ("with other" not in notes)


@pytest.mark.parametrize(
    ("written", "files", "words"),
    [
        ("0", "00.jpg 000.jpg", r"'0' can be any of '00\.jpg', '000\.jpg'"),
        ("0.JPEG", "0.jpg 0.png", "can be any of"),
        ("kitten.jpg", "kiten.jpg", r"no image 'kitten\.jpg'.*there is 'kiten\.jpg'"),
        ("cat/1.jpg", "cat/2.jpg dog/1.jpg", r"no image 'cat/1\.jpg'"),
        ("https://x.org/9.jpg", "0.jpg", r"download the images"),
    ],
)
def test_names_without_one_meaning(tmp_path: Path, written: str, files: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read(table(tmp_path, f"file,label\n{written},a\n", *files.split()))


def test_two_rows_that_mean_one_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"line 3: '0\.jpg' again, as in line 2"):
        read(table(tmp_path, "file,label\n0,a\n0.jpg,b\n"))


# Text


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_encodings_and_separators(tmp_path: Path, encoding: str, mark: str) -> None:
    text = f"file{mark}label\r\n0.jpg{mark}ä\r\n\r\n1.jpg{mark}b, c\r\n"
    if mark == ",":
        text = text.replace("b, c", '"b, c"')
    path = table(tmp_path, text, encoding=encoding)
    assert labels(read(path, split=WHOLE)) == {"0.jpg": "ä", "1.jpg": "b, c"}


def test_only_newlines_end_a_line(tmp_path: Path) -> None:
    odd = ["a\fb.jpg", "c\u2028d.jpg", "e\x85f.jpg", "g\x0bh.jpg"]
    for name, mark in (("l.txt", " "), ("l.csv", ",")):
        text = "".join(f"{image}{mark}{'xy'[k % 2]}\n" for k, image in enumerate(odd))
        path = table(tmp_path, text, *odd, name=name)
        assert list(labels(read(path, split=WHOLE))) == odd


def test_fields_of_any_length(tmp_path: Path) -> None:
    caption = "x" * 200_000
    path = table(tmp_path, f'file,label,note\n0.jpg,a,"{caption}"\n1.jpg,b,\n')
    assert labels(read(path, split=WHOLE)) == {"0.jpg": "a", "1.jpg": "b"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'file,label\n0.jpg,a\n1.jpg,"b\n2.jpg,c\n', r"line 3.*closing"),
        (b'file,label\n0.jpg,"a"b\n', r"line 2"),
        (b"file,label\n0.jpg,a\n\0\0.jpg,b\n", r"NUL byte.*line 3"),
        (b"file,label\n0.jpg,a, b\n", r"3 columns where 2 were expected.*line 2"),
        (b"file,label\n\n0.jpg,a\n\n\nx.jpg,b\n", r"line 6: no image 'x\.jpg'"),
        (b'file,label\n0.jpg,"a\nb"\nx.jpg,b\n', r"line 4: no image 'x\.jpg'"),
        (b"PK\x03\x04", "spreadsheet"),
        (b"\xff\xfef\x00i", "UTF-16: truncated"),
        (b"\xff\xfef\x00\x00\xd8x", "UTF-16"),
        (b" \n\n", "the table is empty"),
        (b"\xef\xbb\xbf", "the table is empty"),
        (b"a," * 1_000_000 + b"\n", "1,000,001 columns"),
        (b"file,label\n" + b"a," * 1_000_000 + b"\n", "columns where 2 were expected.*line 2"),
    ],
)
def test_what_is_no_table_gets_its_line(tmp_path: Path, content: bytes, words: str) -> None:
    put(tmp_path, *FIVE)
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read(tmp_path / "t.csv", split=WHOLE)


def test_lists_with_blanks_between(tmp_path: Path) -> None:
    path = table(tmp_path, "0.jpg 1\n1.jpg\t 0\n")
    assert labels(read(path, split=WHOLE)) == {"0.jpg": "1", "1.jpg": "0"}


def test_lists_of_a_name_a_class_and_more(tmp_path: Path) -> None:
    """As contests hand them out: no header, numbers with gaps, names without suffix."""
    text = "0 107 http://a.b/c?d=1\n1  3 x\n2\t107 y\n"
    path = table(tmp_path, text, name="l.txt")
    assert labels(read(path, split=WHOLE)) == {"0.jpg": "107", "1.jpg": "3", "2.jpg": "107"}


@pytest.mark.parametrize("text", ["a b.jpg 1\nc d.jpg 0\n", "a 1 b.jpg x\nc d.jpg y\n"])
def test_blanks_in_names_stay(tmp_path: Path, text: str) -> None:
    files = [line.rpartition(" ")[0] for line in text.splitlines()]
    path = table(tmp_path, text, *files, name="l.txt")
    assert sorted(labels(read(path, split=WHOLE))) == sorted(files)


def test_weights_are_columns_of_their_own(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label,sample_weight\n0.jpg,a,\n1.jpg,b,0.5\n2.jpg,b,0\n")
    samples = read(path, split=WHOLE).splits["train"]
    assert samples.weight is not None
    np.testing.assert_array_equal(samples.weight, [1, 0.5, 0])
    assert [sample.weight for sample in samples] == [1, 0.5, 0]


def test_each_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows lie in it: the index grows with the files, not with rows times files."""
    files = [f"{folder}/{k}.jpg" for folder in "xyz" for k in range(30)]
    path = table(tmp_path, "file,label\n" + "".join(f"{f},{f[0]}\n" for f in files), *files)
    listed: list[str] = []

    def counting(folder: Path) -> list[Entry]:
        listed.append(Path(folder).name)
        return entries(folder)

    monkeypatch.setattr(matching, "entries", counting)
    read(path, split=WHOLE)
    assert sorted(listed) == ["x", "y", "z"]


@pytest.mark.parametrize("word", ["-1", "nan", "inf", "1e400", "1e31", "much"])
def test_weights_that_the_loss_cannot_count_are_refused_with_their_line(
    tmp_path: Path, word: str
) -> None:
    path = table(tmp_path, f"file,label,sample_weight\n0.jpg,a,1\n1.jpg,b,{word}\n")
    with pytest.raises(UsageError, match=r"weight .* is not a number from 0 to 1e\+30.*line 3"):
        read(path, split=WHOLE)


@pytest.mark.parametrize("word", ["0", "0.0", "1e-320"])
def test_a_training_of_which_no_image_counts_is_refused(tmp_path: Path, word: str) -> None:
    rows = f"0.jpg,a,{word},train\n1.jpg,b,{word},train\n2.jpg,b,1,val\n"
    path = table(tmp_path, f"file,label,sample_weight,split\n{rows}")
    with pytest.raises(UsageError, match=r"the weights of all of them are 0.*columns\.weight=null"):
        read(path)
    assert len(read(path, columns={"weight": None}).splits["train"]) == 2


# The forms that tables have


TABLES = {
    "header.csv": "path,label\na.png,x\nb.png,y z\n",
    "bom-semicolon.csv": "\ufefflabel;file\nx;a.png\ny z;b.png\n",
    "tabs.tsv": "image_id\tclass\na\tx\nb\ty z\n",
    "quoted.csv": 'id,target,extra\n"a.png","x",1\n"b.png","y z",2\n',
    "bare.csv": "a.png,x\nb.png,y z\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path: Path, name: str) -> None:
    put(tmp_path, "a.png", "b.png")
    (tmp_path / name).write_text(TABLES[name], encoding="utf-8")
    for path in (tmp_path / name, tmp_path):
        dataset = read(path, split=WHOLE)
        assert labels(dataset) == {"a.png": "x", "b.png": "y z"}


def test_text_without_header_and_integers_with_gaps(tmp_path: Path) -> None:
    put(tmp_path / "pictures", "my cat.png", "b.png", "c.png")
    path = tmp_path / "list.txt"
    path.write_text("my cat.png 10\n\nb.png 2\nc 7\n")
    dataset = read(path, images=str(tmp_path / "pictures"), split=WHOLE)
    assert dataset.classes == ("2", "7", "10")
    assert labels(dataset) == {"my cat.png": "10", "b.png": "2", "c.png": "7"}


def test_images_beside_the_table(tmp_path: Path) -> None:
    put(tmp_path / "images", "a.png", "b.png")
    (tmp_path / "labels.csv").write_text("path,label\na,x\nb,y\n")
    assert len(labels(read(tmp_path, split=WHOLE))) == 2


def test_table_with_split_group_and_weight(tmp_path: Path) -> None:
    put(tmp_path, *[f"{i}.png" for i in range(4)])
    path = tmp_path / "t.csv"
    path.write_text(
        "path,label,split,sample_weight\n0.png,x,Train,2\n1.png,y,train,\n2.png,x,valid,1\n3.png,y,test,1\n"
    )
    dataset = read(path)
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 2, "val": 1, "test": 1}
    assert [s.weight for s in dataset.splits["train"]] == [2.0, 1.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\na.png,x\ngone.png,y\n", r"line 3: no image 'gone\.png'"),
        ("path,label\na.png,x\na.png,y\n", r"line 3: 'a\.png' again, as in line 2"),
        ("path,label\na.png,\nb.png,NaN\n", "no row of the table has a label"),
        ("path,label,split\na.png,x,tset\n", "unknown split 'tset'.*line 2"),
        ("path,label,sample_weight\na.png,x,heavy\n", "weight 'heavy'.*line 2"),
        ("path,label\na.png,x\nb.png\n", "1 column where 2 were expected.*line 3"),
        ("path,lable\na.png,x\n", "no column for the label.*line 1.*did you mean 'label'"),
        ("path,colour\na.png,x\n", "no column for the label.*line 1.*call the column `label`"),
        ("pth,label\na.png,x\n", "no column for the path.*line 1.*did you mean 'path'"),
        ('path,label\na.png,"x\n' + "b" * 200_000, r'cannot read the table.*t\.csv.*closing `"`'),
        ("a,b,c\n", "no header that names a path and a label"),
        ("path,label\ngone.png,x\n", "none of the table's images exist"),
        ("", "the table is empty"),
        ("path,label,split\na.png,x,train\nb.png,y,\n", "1 row has no split"),
    ],
)
def test_tables_that_make_no_sense(tmp_path: Path, text: str, words: str) -> None:
    put(tmp_path, "a.png", "b.png")
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        read(path)


def test_encodings_of_tables(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    path = tmp_path / "t.tsv"
    text = "path\tlabel\na.png\tthé\nb.png\t猫\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_text(text, encoding=encoding)
        assert labels(read(path, split=WHOLE)) == {"a.png": "thé", "b.png": "猫"}
    path.write_bytes("path\tlabel\r\na.png\tthé\r\nb.png\tx\r\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"class name 'th.udce9' is not UTF-8.*save the table"):
        read(path)


def test_two_images_that_a_row_can_mean(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "a.jpg", "b.png")
    path = tmp_path / "t.csv"
    path.write_text("path,label\na,x\nb,y\n")
    with pytest.raises(UsageError, match=r"line 2: 'a' can be any of 'a\.jpg', 'a\.png'"):
        read(path)
    path.write_text("path,label\na.png,x\nb,y\n")
    assert labels(read(path, split=WHOLE)) == {"a.png": "x", "b.png": "y"}


def test_first_row_of_data_is_no_misspelt_header(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    path = tmp_path / "t.csv"
    path.write_text("a.png,y\nb.png,n\n")
    assert labels(read(path, split=WHOLE)) == {"a.png": "y", "b.png": "n"}


def test_classes_that_share_a_name_are_told(tmp_path: Path) -> None:
    put(tmp_path, *[f"{i}.png" for i in range(8)])
    path = tmp_path / "t.csv"
    rows = [(i, (134, 517, 3, 3)[i % 4], ("crane", "crane", "fish", "fish")[i % 4])
            for i in range(8)]  # fmt: skip
    path.write_text(
        "filename,class_index,name\n" + "".join(f"{i},{k},{name}\n" for i, k, name in rows)
    )
    dataset = read(path)
    assert dataset.classes == ("crane", "fish")
    assert any("not used as labels: 'class_index'" in note for note in dataset.notes)
    shared = [note for note in dataset.notes if note.startswith("one label for several values")]
    assert shared == ["one label for several values of 'class_index': 'crane' (134, 517)"]


def test_nothing_is_told_where_one_column_can_be_the_label(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    path = tmp_path / "t.csv"
    path.write_text("path,label,caption\na.png,x,1\nb.png,y,2\n")
    notes = read(path).notes[1:]
    assert notes == ["t.csv read as: path=path, label=label; ignored: caption"]


def test_unusable_rows_can_be_skipped(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    path = tmp_path / "t.csv"
    path.write_text("path,label\na.png,x\ngone.png,y\nb.png,x\n")
    dataset = read(path, on_bad_image="skip", split=WHOLE)
    assert labels(dataset) == {"a.png": "x", "b.png": "x"}
    assert any(note.startswith("skipped: ") and "line 3" in note for note in dataset.notes)
