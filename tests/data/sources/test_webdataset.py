"""WebDataset's tar files: what belongs together, what tells the class, and what is wrong."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from data_sets import WHOLE, labels, put, read, splits
from shard_sets import flip, jpeg, tar

from retinue.data.options import FeatureOptions
from retinue.errors import UsageError


def all_of(path: Path, **options: Any) -> dict[str, str]:
    return labels(read(path, split=WHOLE, **options))


def plain(root: Path, name: str = "train-000000.tar", *numbers: int) -> Path:
    """An example for each of `numbers`, whose parity is its class."""
    members = {}
    for n in numbers or range(4):
        members |= {f"{n:04d}.png": jpeg(n), f"{n:04d}.cls": str(n % 2).encode()}
    return tar(root / name, members)


def test_images_and_their_classes_by_number(tmp_path: Path) -> None:
    path = plain(tmp_path)
    dataset = read(tmp_path, split=WHOLE)
    assert labels(dataset) == {f"{n:04d}.png": str(n % 2) for n in range(4)}
    for n, sample in enumerate(dataset.splits["train"]):
        assert sample.read is not None
        assert sample.read() == jpeg(n)
        assert sample.shard == str(path)
    (tmp_path / "labels.txt").write_text("lily\nrose\n")
    assert set(all_of(path).values()) == {"lily", "rose"}


def test_the_class_and_the_name_from_json(tmp_path: Path) -> None:
    said = [
        {"label": 1, "text": "猫", "filename": "a/猫.jpg"},
        {"label": 0, "text": "dog & 1", "filename": "b.jpg"},
    ]
    members = {}
    for n, one in enumerate(said):
        members |= {f"x/{n}.json": json.dumps(one).encode(), f"x/{n}.jpg": jpeg(n)}
    dataset = read(tar(tmp_path / "a.tar", members), split=WHOLE)
    assert dataset.classes == ("dog & 1", "猫")
    assert labels(dataset) == {"a/猫.jpg": "猫", "b.jpg": "dog & 1"}


def test_members_that_do_not_stand_together_and_names_with_dots(tmp_path: Path) -> None:
    members = {
        "a.input.png": jpeg(0),
        "b.input.png": jpeg(1),
        "b.cls": b"rose\n",
        "a.cls": b"lily",
        "._a.png": b"of macOS",
        "README": b"no example",
        "sub.dir/c.input.PNG": jpeg(2),
        "sub.dir/c.cls": b" lily",
    }
    path = tar(tmp_path / "a.tar", members)
    names = {"a.input.png": "lily", "b.input.png": "rose", "sub.dir/c.input.PNG": "lily"}
    assert all_of(path) == names
    assert all_of(path, features=FeatureOptions(image="jpg;input.png")) == names


def test_python_s_own_archives_with_long_names(tmp_path: Path) -> None:
    for k, form in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT)):
        with tarfile.open(tmp_path / f"{k}.tar", "w", format=form) as archive:
            for name, content in (
                (f"{'d' * 90}/{k}猫.png", jpeg(k)),
                (f"{'d' * 90}/{k}猫.cls", b"0"),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    assert all_of(tmp_path) == {f"{'d' * 90}/{k}猫.png": "0" for k in range(3)}


def test_keys_that_every_shard_begins_anew(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        plain(tmp_path, name, 0, 1)
    assert list(all_of(tmp_path)) == [
        "a.tar/1/0000.png", "a.tar/2/0001.png", "b.tar/1/0000.png", "b.tar/2/0001.png"
    ]  # fmt: skip


def test_splits_by_names_of_files(tmp_path: Path) -> None:
    plain(tmp_path, "imagenet-train-000000.tar")
    plain(tmp_path, "imagenet-val-000000.tar", 10, 11)
    assert {k: len(v) for k, v in splits(read(tmp_path)).items()} == {"train": 4, "val": 2}


def test_captions_are_no_classes_unless_asked_for(tmp_path: Path) -> None:
    members = {"a.png": jpeg(0), "a.txt": b"a cat", "b.png": jpeg(1), "b.txt": b"a dog"}
    path = tar(tmp_path / "a.tar", members)
    with pytest.raises(UsageError, match="no known format"):
        read(path)
    with pytest.raises(UsageError, match="known for the class: there are 'png', 'txt'"):
        read(path, format="webdataset")
    assert all_of(path, features=FeatureOptions(label="txt")) == {
        "a.png": "a cat",
        "b.png": "a dog",
    }
    with pytest.raises(UsageError, match=r"have no 'txd', key data.features.label.*mean 'txt'"):
        read(path, format="wds", features=FeatureOptions(label="txd"))


def test_an_archive_beside_class_folders_is_not_taken_for_the_data(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "dog/1.png")
    tar(tmp_path / "flowers.tar", {"cat/1.png": jpeg(0), "dog/1.png": jpeg(1)})
    (tmp_path / "flowers.tar.gz").write_bytes(b"\x1f\x8b whatever")
    assert set(all_of(tmp_path).values()) == {"cat", "dog"}


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"x.cls": b"1"}, "example 3: no image in it ('x')"),
        ({"x.png": b"", "x.cls": b"1"}, "no image in it"),
        ({"x.png": jpeg(5)}, "no label in it (cls)"),
        ({"x.png": jpeg(5), "x.cls": b" \n"}, "no label in it (cls)"),
        ({"x.png": jpeg(5), "x.cls": b"\xff\xfe\x00\x80"}, "x.cls is no text"),
        ({"x.png": jpeg(5), "x.cls": b"1", "x.json": b"{nonsense"}, "x.json is no JSON"),
        ({"x.png": jpeg(5), "x.jpg": jpeg(6), "x.cls": b"1"}, "2 images in it, x.png, x.jpg"),
        ({"x.png": jpeg(5), "x.cls": b"rose"}, "a name for a class, where others have numbers"),
        ({"x.png": jpeg(5), "x.cls": b"-3"}, "label -3, which is below 0"),
        ({"x.png": jpeg(5), "x.cls": b"9" * 18}, "its label (cls) is neither a whole number nor"),
    ],
)
def test_an_example_that_makes_no_sense_is_named(
    tmp_path: Path, members: dict[str, bytes], words: str
) -> None:
    first = {"a.png": jpeg(0), "a.cls": b"0", "b.png": jpeg(1), "b.cls": b"1"}
    path = tar(tmp_path / "a.tar", first | members)
    with pytest.raises(UsageError, match=r"a.tar' example 3") as caught:
        read(path)
    assert words in str(caught.value)
    assert list(all_of(path, on_bad_image="skip")) == ["a.png", "b.png"]


def test_a_lost_end_a_damaged_header_and_a_missing_mark(tmp_path: Path) -> None:
    path = plain(tmp_path)
    whole = path.read_bytes()
    last = whole.rindex(b"0003.cls")
    for content, words in (
        (whole[: last + 200], "the file lacks the mark of its end"),
        (
            whole[: last - 300],
            r"the file ends within '0003.png', and whatever came after it is lost",
        ),
        (whole[: last + 1024], "the file lacks the mark of its end"),
    ):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=words):
            read(path)
    path.write_bytes(whole)
    flip(path, whole.index(b"0002.png"))
    with pytest.raises(UsageError, match="the header of a member is damaged, and no later one"):
        read(path)
    assert len(all_of(path, on_bad_image="skip")) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x1f\x8b\x08" + bytes(600), "compressed as a whole: write it as a plain tar"),
        (b"BZh9" + bytes(600), "compressed as a whole"),
        (b"no archive" * 100, "this is no tar file"),
        (b"", "this is no tar file"),
    ],
)
def test_what_is_no_plain_tar(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read(tmp_path / "a.tar", format="webdataset")


def test_a_link_is_no_image_and_leads_nowhere(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in (("a.png", jpeg(0)), ("a.cls", b"0")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        for name, content in (("c.png", jpeg(1)), ("c.cls", b"0")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(UsageError, match=r"example 2: 'b.png' is no plain file, but a link"):
        read(tmp_path)
    assert list(all_of(tmp_path, on_bad_image="skip")) == ["a.png", "c.png"]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (10**30, "neither a whole number nor a name"),
        (True, "neither a whole number nor a name"),
        (0.5, "neither a whole number nor a name"),
        ([1, 2], "neither a whole number nor a name"),
        ("", "no label in it (label)"),
    ],
)
def test_a_label_in_json_that_is_none(tmp_path: Path, label: Any, words: str) -> None:
    members = {}
    for n, value in enumerate([1, "1", 1.0, label]):
        members |= {f"{n}.png": jpeg(n), f"{n}.json": json.dumps({"label": value}).encode()}
    with pytest.raises(UsageError, match=r"1 example cannot be used.*example 4") as caught:
        read(tar(tmp_path / "a.tar", members))
    assert words in str(caught.value)
    assert set(all_of(tmp_path / "a.tar", on_bad_image="skip").values()) == {"1"}
