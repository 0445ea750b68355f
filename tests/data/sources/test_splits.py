"""Written-down splits are read as any table is."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_sets import put, read, splits

from retinue.data.options import SplitOptions
from retinue.errors import UsageError

FILES = [f"{c}/{k}.png" for c in "ab" for k in range(3)]
WORDS = ("Train", "valid", "TEST")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("head", ["path,split", "File,Usage", "image_id,set", ""])
def test_splits_that_people_write(tmp_path: Path, encoding: str, mark: str, head: str) -> None:
    root = put(tmp_path / "d", *FILES)
    rows = [f"{file},{WORDS[k % 3]}" for k, file in enumerate(FILES)]
    text = "\r\n".join([head, *rows] if head else rows).replace(",", mark)
    (tmp_path / "s.csv").write_text(text, encoding=encoding, newline="")
    dataset = read(root, split=SplitOptions(file=str(tmp_path / "s.csv")))
    assert splits(dataset) == {
        "train": ["a/0.png", "b/0.png"],
        "val": ["a/1.png", "b/1.png"],
        "test": ["a/2.png", "b/2.png"],
    }


def test_names_in_splits_as_in_tables(tmp_path: Path) -> None:
    root = put(tmp_path / "d", *FILES)
    rows = "".join(f"{f[0]}\\{f[2]}.PNG,train\n" for f in FILES[:5]) + "./b/2,val\n"
    (tmp_path / "s.csv").write_text(f"path,split\n{rows}", encoding="utf-8")
    dataset = read(root, split=SplitOptions(file=str(tmp_path / "s.csv")))
    assert splits(dataset) == {"train": FILES[:5], "val": ["b/2.png"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,split\na/0.png,tset\n", r"unknown split 'tset'.*line 2"),
        ("path,split\na/0.png,train\nb/0.png,\n", "1 row has no split"),
        ("path,split\na/0.png,train\na/0.png,val\n", "stands in two splits"),
        ("path,splt\na/0.png,train\n", r"no column for the split.*data\.split\.file"),
        ("", "the table is empty"),
    ],
)
def test_splits_that_make_no_sense(tmp_path: Path, text: str, words: str) -> None:
    root = put(tmp_path / "d", *FILES)
    (tmp_path / "s.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=words):
        read(root, split=SplitOptions(file=str(tmp_path / "s.csv")))


def test_our_own_names_are_meant_to_the_letter(tmp_path: Path) -> None:
    odd = [" a/ x .png", " a/y\\z.png", "b/\t.png", 'b/"q", .png', "b/n\r\nl.png"]
    root = put(tmp_path / "d", *odd, "b/0.png", "b/00.png")
    dataset = read(root)
    dataset.write_splits(tmp_path / "splits.csv")
    again = read(root, split=SplitOptions(file=str(tmp_path / "splits.csv")))
    assert splits(again) == splits(dataset)
