"""Detections in other tools' files."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import bright
import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from retinue.data.options import DataOptions
from retinue.data.targets.boxes import Boxes
from retinue.errors import RetinueError, UsageError
from retinue.inference.predictor import Skipped
from retinue.inference.writers import PredictionFolder
from retinue.sample import Result
from retinue.tasks.classification.task import Classification
from retinue.tasks.detection.task import Detection
from retinue.tasks.results import Box, BoxResult, FrameResult

TASK = bright.Bright(bright.CLASSES, bright.Bright.options_type())
RESULTS = [
    BoxResult(
        "shots/a.jpg",
        [Box("蓝", 0.75, (6.0, 11.25, 96.0, 98.5)), Box("red", 0.5, (0.0, 0.0, 416.0, 295.0))],
        (416, 295),
    ),
    BoxResult("shots/none.jpg", [], (640, 480)),
    BoxResult("shots/a.png", [Box("green", 0.25, (1.5, 2.5, 3.5, 4.5))], (10, 10)),
]


def write(
    out: Path, format: str, results: Sequence[Result] = RESULTS, **more: Any
) -> PredictionFolder:
    with PredictionFolder(out, format=format, task=TASK, **more) as folder:
        for result in results:
            folder.add(result)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "out"


def files(folder: Path) -> list[str]:
    there = [p for p in folder.rglob("*") if p.is_file() and p.name[0] != "."]
    return sorted(p.relative_to(folder).as_posix() for p in there)


def test_voc(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        write(here, "voc")
    assert files(here) == [
        "Annotations/shots/a-2.xml", "Annotations/shots/a.xml", "Annotations/shots/none.xml",
    ]  # fmt: skip
    assert "'shots/a.png' is called like another image" in caplog.text
    content = (here / "Annotations/shots/a.xml").read_bytes()
    assert content.startswith(b'<?xml version="1.0" encoding="UTF-8"?>')
    assert "蓝".encode() in content
    root = ElementTree.fromstring(content)
    assert (root.findtext("folder"), root.findtext("filename")) == ("shots", "a.jpg")
    assert (root.findtext("size/width"), root.findtext("size/height")) == ("416", "295")
    objects = root.findall("object")
    assert [one.findtext("name") for one in objects] == ["蓝", "red"]
    corners = [objects[0].findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    assert corners == ["7", "12.25", "96", "98.5"]
    assert ElementTree.parse(here / "Annotations/shots/none.xml").findall("object") == []
    other = ElementTree.parse(here / "Annotations/shots/a-2.xml")
    assert other.findtext("filename") == "a.png"


def test_names_of_voc_are_escaped(here: Path) -> None:
    odd = 'a<b>&"\x01\udce9.jpg'
    write(here, "voc", [BoxResult(odd, [Box("<red> & \x02", 0.5, (0, 0, 2, 2))], (4, 4))])
    (place,) = (here / "Annotations").glob("*.xml")
    root = ElementTree.parse(place)
    assert root.findtext("filename") == 'a<b>&"\\x01\\udce9.jpg'
    assert root.findtext("object/name") == "<red> & \\x02"


def test_yolo(here: Path) -> None:
    folder = write(here, "yolo")
    assert files(here) == [
        "data.yaml", "labels/shots/a-2.txt", "labels/shots/a.txt", "labels/shots/none.txt",
    ]  # fmt: skip
    assert folder.files == [here / "data.yaml", here / "labels"]
    names = YAML(typ="safe").load((here / "data.yaml").read_text("utf-8"))
    assert names == {"nc": 3, "names": {0: "red", 1: "green", 2: "蓝"}}
    assert (here / "labels/shots/none.txt").read_bytes() == b""
    rows = [line.split() for line in (here / "labels/shots/a.txt").read_text().splitlines()]
    assert [row[0] for row in rows] == ["2", "0"]
    assert [float(v) for v in rows[1][1:]] == [0.5, 0.5, 1.0, 1.0]
    x, y, w, h = map(float, rows[0][1:])
    # (6 + 96) / 2 = 51 of 416; (11.25 + 98.5) / 2 = 54.875 of 295
    assert [x * 416, y * 295, w * 416, h * 295] == pytest.approx([51, 54.875, 90, 87.25], abs=1e-4)
    again = write(here, "yolo", RESULTS[:1])
    assert again.images == 1


def test_coco_without_a_reference(here: Path) -> None:
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO

    write(here, "coco")
    place = here / "predictions.json"
    found = json.loads(place.read_text("utf-8"))
    assert [(row["id"], row["file_name"]) for row in found["images"]] == [
        (1, "shots/a.jpg"), (2, "shots/none.jpg"), (3, "shots/a.png"),
    ]  # fmt: skip
    assert found["images"][1] == {
        "id": 2,
        "file_name": "shots/none.jpg",
        "width": 640,
        "height": 480,
    }
    assert [(row["id"], row["name"]) for row in found["categories"]] == [
        (1, "red"), (2, "green"), (3, "蓝"),
    ]  # fmt: skip
    assert found["annotations"][0] == {
        "id": 1, "image_id": 1, "category_id": 3, "bbox": [6.0, 11.25, 90.0, 87.25],
        "area": 7852.5, "iscrowd": 0, "score": 0.75,
    }  # fmt: skip
    coco = COCO(str(place))
    assert len(coco.loadRes(found["annotations"]).anns) == 3
    write(here, "coco", RESULTS[1:2])  # an earlier one of ours is replaced
    assert json.loads(place.read_text("utf-8"))["annotations"] == []


def reference(path: Path, **changes: Any) -> Path:
    values = {
        "images": [
            {"id": 900, "file_name": "a.jpg"},
            {"id": "x7", "file_name": "fire1-80.jpg", "width": 1, "height": 1},
            {"id": 80, "file_name": "other/a.jpg"},
        ],
        "annotations": [],
        "categories": [
            {"id": 17, "name": "green"},
            {"id": 0, "name": "蓝"},
            {"id": 3, "name": "z"},
        ],
        **changes,
    }
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def test_a_reference_gives_ids(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    results = [
        *RESULTS[:2],
        BoxResult("/somewhere/fire1-80.jpg", [Box("green", 0.5, (0, 0, 2, 2))], (9, 8)),
        BoxResult("deep/other/a.jpg", [], (9, 8)),
    ]
    with caplog.at_level(logging.WARNING):
        write(here, "coco", results, reference=reference(here.parent / "true.json"))
    found = json.loads((here / "predictions.json").read_text("utf-8"))
    assert [(row["id"], row["file_name"]) for row in found["images"]] == [
        (900, "a.jpg"), (901, "shots/none.jpg"), ("x7", "fire1-80.jpg"), (80, "other/a.jpg"),
    ]  # fmt: skip
    assert (found["images"][2]["width"], found["images"][2]["height"]) == (9, 8)
    assert [(row["image_id"], row["category_id"]) for row in found["annotations"]] == [
        (900, 0), (900, 18), ("x7", 17),
    ]  # fmt: skip
    categories = [(row["id"], row["name"]) for row in found["categories"]]
    assert categories == [(17, "green"), (0, "蓝"), (3, "z"), (18, "red")]
    assert "1 class is not in" in caplog.text
    assert "1 image is not in the reference" in caplog.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": None}, "no list 'images'"),
        ({"images": [{"id": 1}]}, r"it lacks id or file_name, .*images\[0\]"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "there twice"),
        ({"images": [{"id": 1.5, "file_name": "a"}]}, "neither number nor text"),
    ],
)
def test_a_bad_reference_is_refused(here: Path, changes: dict[str, Any], words: str) -> None:
    place = reference(here.parent / "true.json", **changes)
    with pytest.raises(RetinueError, match=words):
        write(here, "coco", reference=place, draw=lambda image, result: image, crops=True)
    assert not here.exists()


def test_a_reference_that_is_no_json_is_told_what_to_be(here: Path) -> None:
    place = here.parent / "photo.json"
    place.write_bytes(b"\x89PNG")
    with pytest.raises(RetinueError, match=r"not JSON .*photo\.json, give one with images, anno"):
        write(here, "coco", reference=place)


def test_what_cannot_begin_is_said_and_leaves_no_half(here: Path) -> None:
    folder = PredictionFolder(here, format="coco", task=TASK, crops=True)
    here.mkdir()
    (here / "crops").touch()  # in the meantime
    with pytest.raises(RetinueError, match="predictions cannot be written: File exists"), folder:
        pass
    assert [p.name for p in here.iterdir()] == ["crops"]


def test_of_two_that_may_be_it_none_is_guessed(here: Path) -> None:
    images = [{"id": 1, "file_name": "x/a.jpg"}, {"id": 2, "file_name": "y/a.jpg"}]
    place = reference(here.parent / "true.json", images=images)
    with pytest.raises(RetinueError, match="several images of the reference"):
        write(here, "coco", [BoxResult("a.jpg", [], (4, 4))], reference=place)
    write(here, "coco", [BoxResult("y/a.jpg", [], (4, 4))], reference=place)
    assert json.loads((here / "predictions.json").read_text("utf-8"))["images"][0]["id"] == 2


def test_frames_of_a_video(here: Path) -> None:
    frames = [FrameResult("clip.mp4", RESULTS[0], n, n / 25) for n in (0, 3)]
    write(here / "v", "voc", frames)
    assert files(here / "v") == [
        "Annotations/clip-000000.xml", "Annotations/clip-000003.xml",
    ]  # fmt: skip
    write(here / "c", "coco", frames)
    images = json.loads((here / "c/predictions.json").read_text("utf-8"))["images"]
    assert [(row["file_name"], row["frame"], row["time"]) for row in images] == [
        ("clip.mp4", 0, 0.0), ("clip.mp4", 3, 0.12),
    ]  # fmt: skip


def test_what_a_result_cannot_be_is_refused_in_words(here: Path) -> None:
    task = Classification(["a", "b"])
    with pytest.raises(UsageError, match=r"unknown format 'voc' for predictions of the task"):
        PredictionFolder(here, format="voc", task=task)
    with pytest.raises(UsageError, match="did you mean 'coco'"):
        PredictionFolder(here, format="cocoa", task=TASK)
    with pytest.raises(UsageError, match="have no numbers that a reference could give"):
        PredictionFolder(here, format="voc", task=TASK, reference=Path("x.json"))


def test_what_is_not_ours_is_left_alone(here: Path) -> None:
    (here / "labels").mkdir(parents=True)
    (here / "labels" / "a.txt").write_text("0 0.5 0.5 1 1\n")  # somebody's work of a week
    with pytest.raises(UsageError, match="retinue writes nothing into it"):
        write(here, "yolo")
    (here / "predictions.json").write_text('{"images": []}')
    with pytest.raises(UsageError, match="is not overwritten"):
        write(here, "coco")


@pytest.mark.parametrize("format", ["coco", "yolo", "parquet"])
def test_an_error_leaves_the_lists_from_before(here: Path, format: str) -> None:
    write(here, format)
    (name,) = (p for p in here.iterdir() if p.is_file())
    before = name.read_bytes()

    def interrupted() -> None:
        with PredictionFolder(here, format=format, task=TASK) as folder:
            folder.add(RESULTS[0])
            folder.add(Skipped("b.jpg", "zero bytes"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert name.read_bytes() == before
    assert [p.name for p in here.iterdir() if p.is_file()] == [name.name]


@pytest.mark.parametrize("format", ["voc", "coco", "yolo"])
def test_what_is_written_is_read_again_to_a_thousandth_of_a_pixel(here: Path, format: str) -> None:
    """By the readers that a training has."""
    rng = np.random.default_rng(0)
    results = []
    for number in range(4):
        size = (int(rng.integers(50, 5000)), int(rng.integers(50, 3000)))
        corners = np.sort(rng.uniform(0, 1, (number, 2, 2)), axis=1) * size
        boxes = [
            Box(bright.CLASSES[k % 3], 0.5, (*map(float, low), *map(float, high)))
            for k, (low, high) in enumerate(corners)
        ]
        path = here / "images" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size).save(path)
        results.append(BoxResult(str(path), boxes, size))
    write(here, format, results, base=here / "images")
    reader = Detection.readers()[format]
    first = {"first_pixel": 1} if format == "voc" else {}
    options = DataOptions(path=str(here), **first)
    found = reader.find(options, True)
    assert found is not None
    records = {Path(record.path).name: record for record in reader.read(found, options).records}
    for result in results:
        target = records[Path(result.path).name].target
        assert isinstance(target, Boxes)
        expected = [box.xyxy for box in result.boxes]
        np.testing.assert_allclose(target.xyxy, np.reshape(expected, (-1, 4)), atol=1.5e-3)
        if format != "yolo":
            assert list(target.of) == [box.name for box in result.boxes]


def test_what_voc_has_no_numbers_for_is_left_out_and_counted(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    boxes = [
        Box("red", 0.9, (2, 2, 3, 9)),
        Box("red", 0.8, (4.5, 4, 4.75, 9)),
        Box("red", 0.7, (6, 4, 7.5, 9)),
    ]
    write(here, "voc", [BoxResult("a.jpg", boxes, (16, 16))])
    text = (here / "Annotations" / "a.xml").read_text()
    assert re.findall(r"<bndbox>.*", text) == [
        "<bndbox><xmin>7</xmin><ymin>5</ymin><xmax>7.5</xmax><ymax>9</ymax></bndbox>"
    ]
    assert "2 objects of a pixel or less left out: VOC has no numbers for them" in caplog.text
