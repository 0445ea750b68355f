"""TFRecord files and Examples, against what was written by their descriptions; nothing on trust."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from box_sets import count, found, picture, read, sizes, targets, write
from examples import Values, crc32c, example, record
from examples import write as write_records
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue import protobuf
from retinue.data.sources import tfrecord
from retinue.data.sources.tfrecord import BadRecord, records
from retinue.errors import UsageError
from retinue.protobuf import Piece


def test_checksums() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    for content in (b"", b"a", bytes(range(256))):
        crc = crc32c(content)
        assert protobuf.masked(content) == ((crc >> 15 | crc << 17) + 0xA282EAD8) % (1 << 32)


@pytest.mark.parametrize("packed", [True, False])
def test_features(packed: bool) -> None:
    content = example(
        {"a": [b"x", b"", b"yz"], "浣": [0.5, -1.25], "n": [0, 1, -1, 1 << 40], "none": []},
        packed=packed,
    )
    read_back: dict[str, Any] = tfrecord.example(content)
    assert [content[p.at : p.at + len(p.content)] for p in read_back["a"]] == [b"x", b"", b"yz"]
    assert [p.content for p in read_back["a"]] == [b"x", b"", b"yz"]
    assert (read_back["浣"], read_back["n"], read_back["none"]) == (
        [0.5, -1.25],
        [0, 1, -1, 1 << 40],
        [],
    )


@given(st.binary(max_size=40))
@settings(max_examples=300)
def test_whatever_bytes_are_an_example_or_none(content: bytes) -> None:
    try:
        values = tfrecord.example(content)
    except BadRecord:
        return
    for several in values.values():
        assert all(isinstance(value, Piece | float | int) for value in several)


def one_box(root: Path) -> bytes:
    """An image with a cat in its middle."""
    return example(
        {
            "image/encoded": [picture(root / "pictures" / "a.jpg").read_bytes()],
            "image/filename": [b"a.jpg"],
            "image/object/class/text": [b"cat"],
            "image/object/bbox/xmin": [0.25],
            "image/object/bbox/ymin": [0.25],
            "image/object/bbox/xmax": [0.5],
            "image/object/bbox/ymax": [0.75],
        }
    )


def test_files_are_divided_by_their_names_or_their_folders(tmp_path: Path) -> None:
    content = one_box(tmp_path)
    for name in ("train/a.record", "valid/b.record", "voc_test.tfrecord-00000-of-00001"):
        write_records(tmp_path / "records" / name, content)
    assert sizes(tmp_path / "records") == {"train": 1, "val": 1, "test": 1}


def test_a_file_that_cannot_be_opened_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    write_records(tmp_path / "records" / "a.record", one_box(tmp_path))
    (tmp_path / "records" / "b.record").symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError, match=r"b\.record'?: No such file"):
        read(tmp_path / "records")
    dataset = read(tmp_path / "records", on_bad_image="skip")
    assert count(dataset) == 1
    assert any("b.record" in note and "No such file" in note for note in dataset.notes)


def test_broken_records_are_numbered_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.record"
    good = record(b"one")
    wrong = bytearray(record(b"two"))
    wrong[13] ^= 1
    path.write_bytes(good + bytes(wrong) + record(b"three") + record(b"four")[:-6])
    told = [(r.number, r.content, r.error) for r in records(path)]
    assert told == [
        (1, b"one", ""),
        (2, b"", "its checksum is wrong"),
        (3, b"three", ""),
        (4, b"", "the file ends within it, and whatever came after it is lost"),
    ]
    head = bytearray(record(b"two"))
    head[3] ^= 1
    path.write_bytes(good + bytes(head) + good)
    assert [r.error for r in records(path)][1:] == [
        "the checksum of its length is wrong, and no later one can be found"
    ]
    path.write_bytes(b"not one at all")
    assert "no TFRecord file" in next(records(path)).error
    huge = struct.pack("<Q", 1 << 40)
    path.write_bytes(huge + struct.pack("<I", protobuf.masked(huge)) + b"x")
    assert [r.error for r in records(path)] == [
        "the file ends within it, and whatever came after it is lost"
    ]


# Boxes


def boxes(tmp_path: Path, *corners: tuple[float, float, float, float], **more: Values) -> bytes:
    image = picture(tmp_path / "made" / "p.jpg").read_bytes()
    sides = dict(zip(("xmin", "ymin", "xmax", "ymax"), zip(*corners, strict=True), strict=False))
    values: dict[str, Values] = {
        "image/encoded": [image],
        "image/filename": [b"p.jpg"],
        "image/width": [64],
        "image/height": [48],
        **{f"image/object/bbox/{side}": list(v) for side, v in sides.items()},
        "image/object/class/text": [b"cat"] * len(corners),
        "image/object/class/label": [1] * len(corners),
    }
    return example(values | more)


def test_an_image_with_its_boxes(tmp_path: Path) -> None:
    one = boxes(
        tmp_path,
        (0.25, 0.5, 0.75, 1.0),
        (0.0, 0.0, 1.0, 1.0),
        **{"image/object/difficult": [0, 1], "image/object/is_crowd": [1, 0]},
    )
    path = write_records(tmp_path / "train.record-00000-of-00002", one)
    other = boxes(tmp_path, (0.5, 0.5, 1.0, 1.0), **{"image/filename": [b"q.jpg"]})
    write_records(tmp_path / "train.record-00001-of-00002", other)
    dataset = read(tmp_path)
    assert found(dataset) == {
        "p.jpg": [("cat", 16, 24, 48, 48), ("cat", 0, 0, 64, 48)],
        "q.jpg": [("cat", 32, 24, 64, 48)],
    }
    [(sample, target), _] = targets(dataset)
    assert sample.read is not None
    assert sample.read() == (tmp_path / "made" / "p.jpg").read_bytes()
    assert sample.shard == str(path)
    assert (target.difficult.tolist(), target.crowd.tolist()) == ([False, True], [True, False])
    assert found(read(path)) == {"p.jpg": found(dataset)["p.jpg"]}


def test_images_without_objects_and_of_one_name(tmp_path: Path) -> None:
    some, none = boxes(tmp_path, (0.25, 0.5, 0.75, 1.0)), boxes(tmp_path)
    dataset = read(write_records(tmp_path / "a.tfrecord", some, none))
    assert {name: len(b) for name, b in found(dataset).items()} == {
        "a.tfrecord/0/p.jpg": 1,
        "a.tfrecord/1/p.jpg": 0,
    }
    assert "1 image is called like another one: they go by file and record" in dataset.notes


def test_shares_of_numbers_that_are_counted_from_1(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.tfrecord", boxes(tmp_path, (0.25, 0.5, 0.75, 1.0)))
    ((box,),) = found(read(path)).values()
    ((less,),) = found(read(path, first_pixel=1)).values()
    assert less[1:] == (box[1] - 1, box[2] - 1, *box[3:])


def test_classes_by_number_and_their_map(tmp_path: Path) -> None:
    one = boxes(tmp_path, (0.25, 0.5, 0.75, 1.0), **{"image/object/class/text": []})
    path = write_records(tmp_path / "a.tfrecord", one)
    assert read(path).classes == ("1",)
    text = (
        "# item {\nitem {\n id: 2\n name: 'dog'\n}\nitem { name: \"n1\" id: 1 display_name: 'c' }"
    )
    write(tmp_path / "map.pbtxt", text)
    assert read(path).classes == ("n1", "dog")
    write(tmp_path / "map.pbtxt", "item { id: 2 name: 'dog' }")
    with pytest.raises(UsageError, match=r"record 1: class 1, which the label map does not name"):
        read(path)
    write(tmp_path / "old.pbtxt", text)
    dataset = read(path)
    assert dataset.classes == ("1",)
    said = "several label maps, of which none is read: map.pbtxt, old.pbtxt"
    assert said in dataset.notes


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"image/encoded": []}, "no image in it"),
        ({"image/object/bbox/xmax": []}, "corners and classes of different numbers: 1, 1, 0, 1, 1"),
        ({"image/object/bbox/xmax": [0.1]}, "object 1: an inverted box, 16, 24, 6.4, 48"),
        ({"image/object/bbox/xmax": [float("nan")]}, "which is no place"),
        (
            {"image/object/class/text": [], "image/object/class/label": [float("nan")]},
            "classes that are no whole numbers",
        ),
        ({"image/width": [99]}, "boxes for an image of 99 × 48 pixels, but it has 64 × 48"),
    ],
)
def test_a_record_that_makes_no_sense_is_named(
    tmp_path: Path, more: dict[str, Values], words: str
) -> None:
    bad, good = (boxes(tmp_path, (0.25, 0.5, 0.75, 1.0), **m) for m in (more, {}))
    path = write_records(tmp_path / "a.tfrecord", good, bad)
    with pytest.raises(UsageError, match=r"a.tfrecord' record 2") as caught:
        read(path)
    assert words in str(caught.value)
    assert count(read(path, on_bad_image="skip")) == 1


def test_records_of_other_things_are_not_taken_for_it(
    shared: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="data in no known format"):
        read(shared("data/tfrecord-flowers"))


def test_raccoons_in_a_record(shared: Callable[[str], Path]) -> None:
    folder = shared("data/raccoon")
    dataset = read(folder / "tfrecord", to_train=False)
    assert {split: len(s) for split, s in dataset.splits.items()} == {"test": 40}
    assert count(dataset) == 44
    table = found(read(folder / "csv" / "test_labels.csv", to_train=False, first_pixel=0))
    for name, boxes_of_it in found(dataset).items():
        assert [box[0] for box in boxes_of_it] == [box[0] for box in table[name]]
        for box, other in zip(boxes_of_it, table[name], strict=True):
            assert box[1:] == pytest.approx(other[1:], abs=1e-3)
