"""TFRecord shards of classified images: both known layouts, others by options, and what is wrong
with one told of the example."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_sets import WHOLE, labels, put, read, splits
from examples import Values, example, record
from examples import write as write_records
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_sets import flip, jpeg, slim, slim_shards, written_up

from retinue.data.check import check
from retinue.data.options import DataOptions, FeatureOptions
from retinue.data.readable import unreadable
from retinue.data.sources.tfrecord_classes import Chosen, scan
from retinue.errors import UsageError
from retinue.sample import Sample
from retinue.tasks.task import task_type


def all_of(path: Path, **options: Any) -> dict[str, str]:
    return labels(read(path, split=WHOLE, **options))


def samples_of(path: Path, **options: Any) -> list[Sample]:
    return list(read(path, split=WHOLE, **options).splits["train"])


def test_tf_slims_features_with_names_from_a_file(tmp_path: Path) -> None:
    root = slim_shards(tmp_path)
    dataset = read(root, split=WHOLE)
    assert dataset.classes == ("lily", "rose & 猫/1")
    assert labels(dataset) == {
        f"train-0000{n // 6}-of-00002/{n % 6 + 1}": dataset.classes[n % 2] for n in range(12)
    }
    for n, sample in enumerate(dataset.splits["train"]):
        assert sample.read is not None
        assert sample.read() == jpeg(n)
        assert sample.shard == str(root / f"train-0000{n // 6}-of-00002")
    assert any("features image 'image/encoded', label 'image/class/label'" in n
               for n in dataset.notes)  # fmt: skip


def test_plain_features_with_names_from_their_text(tmp_path: Path) -> None:
    path = write_records(
        tmp_path / "train.tfrecord",
        written_up(0, 1, "猫 ".encode()),
        written_up(1, 0, b"dog"),
        written_up(2, 1, "猫".encode()),
    )
    dataset = read(path, split=WHOLE)
    assert dataset.classes == ("dog", "猫")
    assert labels(dataset) == {"0.png": "猫", "1.png": "dog", "2.png": "猫"}


def test_other_features_by_options(tmp_path: Path) -> None:
    one = example({"photo": [jpeg(0)], "species": [b"rose"], "id": [b"a"]})
    two = example({"photo": [jpeg(1)], "species": [b"lily"], "id": [b"b"]})
    path = write_records(tmp_path / "a.tfrecord", one, two)
    with pytest.raises(UsageError, match="no known format"):
        read(path)
    with pytest.raises(
        UsageError, match=r"known for the image: there are 'id', 'photo', 'species'"
    ):
        read(path, format="tfrecord")
    named = FeatureOptions(image="photo", label="species", filename="id")
    assert all_of(path, features=named) == {"a": "rose", "b": "lily"}
    wrong = FeatureOptions(image="foto", label="species")
    with pytest.raises(UsageError, match=r"no feature 'foto'.*did you mean 'photo'"):
        read(path, format="tfrecord", features=wrong)
    put(tmp_path / "folder", "a/1.png")
    with pytest.raises(UsageError, match=r"'folder' has no use for it, key data.features"):
        read(tmp_path / "folder", features=named)


def test_the_split_is_that_of_the_files_names_or_drawn_by_hash(tmp_path: Path) -> None:
    root = slim_shards(tmp_path / "a")
    slim_shards(root / "validation", each=2, shards=1, split="shard")
    assert {k: len(v) for k, v in splits(read(root)).items()} == {"train": 12, "val": 2}
    only = slim_shards(tmp_path / "b", each=20, split="validation")
    dataset = read(only)
    assert {k: len(v) for k, v in splits(dataset).items()} == {"train": 32, "val": 4, "test": 4}
    assert "all is called val, nothing train: splits are drawn by hash" in dataset.notes
    # Who judges a model wants them as they are.
    assert {k: len(v) for k, v in splits(read(only, to_train=False)).items()} == {"val": 40}


def test_an_example_of_one_name_in_other_shards_keeps_its_split(tmp_path: Path) -> None:
    examples = [slim(n, 0, **{"image/filename": [b"%d.png" % n]}) for n in range(40)]
    write_records(tmp_path / "a" / "x.tfrecord", *examples)
    for k in range(4):
        write_records(tmp_path / "b" / f"x-{k:05d}-of-00004", *examples[k::4])
    one, four = (
        {name: s for s, names in splits(read(tmp_path / where)).items() for name in names}
        for where in "ab"
    )
    assert one == four


def test_examples_of_one_name_go_by_shard_and_number(tmp_path: Path) -> None:
    same = {"image/filename": [b"x.png"]}
    other = {"image/filename": [b"y.png"]}
    path = write_records(
        tmp_path / "a.tfrecord", slim(0, 0, **same), slim(1, 1, **same), slim(2, 1, **other)
    )
    dataset = read(path, split=WHOLE)
    assert list(labels(dataset)) == ["a.tfrecord/1/x.png", "a.tfrecord/2/x.png", "y.png"]
    assert "1 image is called like another one: they go by shard and number" in dataset.notes


# Numbers and names


def numbered(root: Path, *labels: int, **more: Values) -> Path:
    return write_records(root / "a.tfrecord", *(slim(k, n, **more) for k, n in enumerate(labels)))


def test_lines_are_numbered_from_0_or_where_nothing_else_fits_from_1(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\nc\n\n")
    path = numbered(tmp_path, 0, 2, 1)
    assert list(all_of(path).values()) == ["a", "c", "b"]
    numbered(tmp_path, 1, 3, 2)
    assert list(all_of(path).values()) == ["a", "c", "b"]
    with pytest.raises(UsageError, match=r"example 2: label 3, which labels.txt does not name \(0"):
        read(path, features=FeatureOptions(first_label=0))
    numbered(tmp_path, 0, 3)
    with pytest.raises(UsageError, match=r"a.tfrecord' example 2: label 3, which labels.txt does"):
        read(path)
    with pytest.raises(UsageError, match=r"example 1: label 0, but the first class is numbered 1"):
        read(path, features=FeatureOptions(first_label=1))


def test_the_text_beside_labels_tells_where_lines_begin(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    path = write_records(tmp_path / "a.tfrecord", written_up(0, 1, b"a"), written_up(1, 2, b"b"))
    assert list(all_of(path).values()) == ["a", "b"]
    dataset = read(path, split=WHOLE, features=FeatureOptions(first_label=0))
    assert list(labels(dataset).values()) == ["b", "c"]
    assert any("labels.txt calls label 1 'b', beside it stands 'a'" in n for n in dataset.notes)


def test_names_beside_the_folder_of_a_split(tmp_path: Path) -> None:
    for folder, named in (("train", True), ("photos", False)):
        root = slim_shards(tmp_path / folder)
        (root / "labels.txt").unlink()
        (tmp_path / "labels.txt").write_text("0:lily\n1:rose\n")
        assert set(all_of(root).values()) == ({"lily", "rose"} if named else {"0", "1"})


def test_a_label_map_and_a_class_without_images(tmp_path: Path) -> None:
    path = numbered(tmp_path, 1, 3)
    text = "item { id: 1 name: 'cat' }\nitem { id: 2 name: 'dog' }\nitem { id: 3 name: 'emu' }"
    (tmp_path / "label_map.pbtxt").write_text(text)
    dataset = read(path, split=WHOLE)
    assert dataset.classes == ("cat", "dog", "emu")
    assert "class 'dog' has no images" in dataset.notes
    numbered(tmp_path, 0, 3)
    with pytest.raises(UsageError, match=r"label 0, which label_map.pbtxt does not name \(1"):
        read(path)


def test_numbers_alone_are_names(tmp_path: Path) -> None:
    dataset = read(numbered(tmp_path, 10, 9, 0), split=WHOLE)
    assert dataset.classes == ("0", "9", "10")
    with pytest.raises(UsageError, match="label -1, which is below 0"):
        read(numbered(tmp_path, 0, -1))


def test_two_labels_of_one_name_stay_two_classes(tmp_path: Path) -> None:
    path = write_records(
        tmp_path / "a.tfrecord", written_up(0, 134, b"crane"), written_up(1, 517, b"crane")
    )
    dataset = read(path, split=WHOLE)
    assert dataset.classes == ("crane (134)", "crane (517)")
    assert any("several labels of one name" in note for note in dataset.notes)


def test_a_text_that_names_no_class_is_passed_over(tmp_path: Path) -> None:
    path = write_records(
        tmp_path / "a.tfrecord", written_up(0, 0, b"a cat on a sofa"), written_up(1, 0, b"cats")
    )
    dataset = read(path, split=WHOLE)
    assert dataset.classes == ("0",)
    assert any("is no name of a class: label 0 has 'a cat on a sofa'" in n for n in dataset.notes)


# What is wrong


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"image/encoded": []}, "no image in it (image/encoded)"),
        ({"image/encoded": [b""]}, "no image in it (image/encoded)"),
        ({"image/encoded": [b"a", b"b"]}, "2 images in it"),
        ({"image/encoded": [0.5] * 1200}, "1,200 numbers instead of an encoded image in it"),
        (
            {"image/encoded": [bytes(8 * 5 * 3)], "image/width": [5], "image/channels": [3]},
            "its image (image/encoded) is 8 × 5 × 3 raw values, and no file: encode it",
        ),
        ({"image/class/label": []}, "no label in it (image/class/label)"),
        ({"image/class/label": [1, 2]}, "2 labels in it (image/class/label), where there should"),
        ({"image/class/label": [0.5]}, "label 0.5, which is no whole number"),
        ({"image/class/label": [float("nan")]}, "label nan, which is no whole number"),
        ({"image/class/label": [1e30]}, "label 1e+30, which is no number of a class"),
        ({"image/class/label": [-(1 << 62)]}, "label -4.61169e+18, which is no number of a class"),
        ({"image/class/label": [b""]}, "no label in it"),
        ({"image/class/label": [b"rose"]}, "a name for a class, where others have numbers"),
    ],
)
def test_an_example_that_makes_no_sense_is_named(
    tmp_path: Path, more: dict[str, Values], words: str
) -> None:
    path = write_records(tmp_path / "a.tfrecord", slim(0, 0), slim(1, 0, **more), slim(2, 0))
    with pytest.raises(UsageError, match=r"a.tfrecord' example 2") as caught:
        read(path)
    assert words in str(caught.value)
    left = samples_of(path, on_bad_image="skip")
    assert [sample.name for sample in left] == ["a.tfrecord/1", "a.tfrecord/3"]


def test_a_flipped_byte_and_a_lost_end_are_told_of_the_example(tmp_path: Path) -> None:
    root = slim_shards(tmp_path)
    whole = root / "train-00000-of-00002"
    flip(whole, whole.read_bytes().index(jpeg(1)) + 40)
    cut = root / "train-00001-of-00002"
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(UsageError, match="2 examples cannot be used") as caught:
        read(root)
    said = str(caught.value)
    assert "train-00000-of-00002' example 2: its checksum is wrong" in said
    assert (
        "train-00001-of-00002' example 6: the file ends within it, and whatever came after it is"
        in said
    )
    assert len(samples_of(root, on_bad_image="skip")) == 10
    found = check(DataOptions(path=str(root), split=WHOLE), task_type("classification").readers())
    (finding,) = [f for f in found.findings if "cannot be used" in f.what]
    assert (finding.what, len(finding.items)) == ("examples that cannot be used", 2)


def test_compressed_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"\x1f\x8b\x08\x00" + bytes(60))
    with pytest.raises(UsageError, match="the file is compressed as a whole: write it without"):
        read(path, format="tfrecord")


def test_packed_files_are_told_by_their_names_and_kaggles_are_known(tmp_path: Path) -> None:
    (tmp_path / "gz" / "train.tfrecord.gz").parent.mkdir()
    (tmp_path / "gz" / "train.tfrecord.gz").write_bytes(b"\x1f\x8b\x08\x00" + bytes(60))
    for path in (tmp_path / "gz", tmp_path / "gz" / "train.tfrecord.gz"):
        with pytest.raises(UsageError, match="compressed as a whole"):
            read(path)
    one = example({"image": [jpeg(0)], "class": [3], "id": [b"a1"]})
    path = write_records(tmp_path / "00-224x224-798.tfrec", one)
    assert all_of(path) == {"00-224x224-798.tfrec/1": "3"}


def test_shards_that_are_missing_or_empty_are_told(tmp_path: Path) -> None:
    for k in (0, 1, 4):
        write_records(tmp_path / f"train-{k:05d}-of-00005", *([slim(k, 0)] if k else []))
    notes = read(tmp_path, split=WHOLE).notes
    assert "of train-…-of-5 there are 3 shards, not 2, 3" in notes
    assert "this shard is empty: train-00000-of-00005" in notes


def test_a_pattern_is_a_folder(tmp_path: Path) -> None:
    slim_shards(tmp_path)
    for pattern in ("train-{00000..00001}-of-00002", "train-*"):
        with pytest.raises(UsageError, match=r"no such file or folder.*give the folder, '"):
            read(tmp_path / pattern)


def test_an_empty_file_and_a_folder_without_any(tmp_path: Path) -> None:
    (tmp_path / "a.tfrecord").touch()
    with pytest.raises(UsageError, match=r"no example in a.tfrecord can be read"):
        read(tmp_path, format="tfrecord")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no TFRecord files"):
        read(tmp_path / "empty", format="tfrecord")


def test_bytes_that_change_behind_the_index_are_noticed(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.tfrecord", slim(0, 0), slim(1, 0))
    [first, second] = samples_of(path)
    flip(path, path.read_bytes().index(jpeg(1)) + 40)
    assert first.read is not None
    assert first.read() == jpeg(0)
    assert second.read is not None
    with pytest.raises(OSError, match="other bytes than when"):
        second.read()


def test_pictures_beside_shards_are_told(tmp_path: Path) -> None:
    put(slim_shards(tmp_path), "cat/1.png", "dog/1.png")
    dataset = read(tmp_path, split=WHOLE)
    assert "2 images beside the shards are not read: data.format=folder reads them" in dataset.notes


def test_real_flowers(shared: Callable[[str], Path]) -> None:
    dataset = read(shared("data/tfrecord-flowers"))
    assert dataset.classes == ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    assert {k: len(v) for k, v in splits(dataset).items()} == {"train": 112, "val": 14, "test": 14}
    assert "of flowers_validation-…-of-5 there are 2 shards, not 2, 3, 4" in dataset.notes


def test_of_an_image_that_is_broken_the_shard_is_told(tmp_path: Path) -> None:
    named = {"image/filename": [b"b.png"], "image/encoded": [jpeg(1)[:90]]}
    path = write_records(tmp_path / "a.tfrecord", slim(0, 0), slim(1, 1, **named))
    (said,) = unreadable(samples_of(path)).items()
    assert said[0] == "b.png"
    assert said[1].endswith(f"; in {str(path)!r}")
    readers = task_type("classification").readers()
    found = check(DataOptions(path=str(path), split=WHOLE), readers)
    assert list(found.unreadable.items()) == [said]


RECORDS = [record(written_up(n, n, b"x%d" % n)) for n in range(3)]
CHOSEN = Chosen("image", "label", "text", "filename")


@given(st.data())
@settings(max_examples=100)
def test_no_damage_passes_for_another_example(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Where a byte has changed, or the end is lost, that is told, and all others are as written."""
    path = tmp_path_factory.getbasetemp() / "damaged.tfrecord"
    path.write_bytes(b"".join(RECORDS))
    sound = list(scan(path, CHOSEN))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
        untold = False
    else:
        del content[at:]
        untold = at in (0, len(RECORDS[0]), len(RECORDS[0] + RECORDS[1]))
    path.write_bytes(content)
    found = list(scan(path, CHOSEN))
    assert any(one.problem for one in found) != untold
    for one in found:
        assert one.problem or one == sound[one.number - 1]
