"""`retinue data` for objects: the task is seen, converting and anchors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from box_sets import found, picture, read, voc, write, xml
from PIL import Image

Command = Callable[..., Any]


def boxes(root: Path) -> Path:
    return voc(
        root / "我的 boxes",
        a=xml(("cat", 1, 1, 20, 30), ("dog", 10, 10, 40, 20), difficult=[1]),
        b=xml(("cat", 5, 5, 30, 45)),
    )


def test_check_sees_what_the_data_is_for(retinue: Command, tmp_path: Path) -> None:
    root = boxes(tmp_path)
    code, out, _ = retinue(
        "data", "check", root, "split.train=0.5", "split.val=0.5", "split.test=0"
    )
    assert code == 0
    assert "looked at as data for detection" in out
    assert "objects\t3\tcat 2, dog 1" in out
    told = json.loads(retinue("data", "check", root, "--json", "--input-size", "320").out)
    assert told["objects"]["input_side"] == 320
    code, _, err = retinue("data", "check", root, "--task", "classification")
    assert code == 2
    assert "this looks like boxes in PASCAL VOC's XML: `retinue train detect` reads it" in err


@pytest.mark.parametrize("again", ["split.seed=2", "data.split.seed=2"])
def test_an_option_is_given_once(retinue: Command, tmp_path: Path, again: str) -> None:
    code, _, err = retinue("data", "check", boxes(tmp_path), "split.seed=1", again)
    assert (code, err) == (2, "error: split.seed is given twice, key split.seed, give it once\n")
    code, _, err = retinue("predict", "m", "a.jpg", "--set", "iou=0.1", "--set", "iou=0.2")
    assert (code, err) == (2, "error: iou is given twice, key iou, give it once\n")


def test_what_a_format_refuses_is_not_taken_for_other_data(
    retinue: Command, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        text = f"train: images/{name}\nval: images/{name}\nnames: [cat]\n"
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    code, _, err = retinue("data", "check", tmp_path)
    assert code == 2
    assert "several files describe the data: 'one.yaml', 'two.yaml'" in err
    code, _, err = retinue("data", "check", tmp_path / "nothing")
    assert code == 2
    assert "no such file or folder" in err


def test_check_of_odd_boxes_ends_as_training_would(retinue: Command, tmp_path: Path) -> None:
    root = voc(tmp_path, a=xml(("cat", 20, 1, 2, 30)), b=xml(("cat", 5, 5, 30, 45)))
    code, out, _ = retinue("data", "check", root)
    assert code == 1
    assert "an inverted box, 20, 1, 2, 30" in out
    assert retinue("data", "check", root, "on_bad_image=skip").code == 0


@pytest.mark.parametrize("to", ["voc", "coco", "yolo", "csv"])
def test_convert(retinue: Command, tmp_path: Path, to: str) -> None:
    code, out, _ = retinue("data", "convert", boxes(tmp_path), tmp_path / "out", "--to", to)
    assert code == 0
    splits = "train 2" if to == "yolo" else "all 2"
    assert f"2 images with 3 objects of 2 classes ({splits}) written to " in out
    assert ("lost: difficult objects, which become plain ones (1)\n" in out) == (
        to in ("coco", "yolo")
    )
    assert sorted(map(len, found(read(tmp_path / "out")).values())) == [1, 2]
    code, _, err = retinue("data", "convert", boxes(tmp_path), tmp_path / "out", "--to", to)
    assert code == 2
    assert "something is there already" in err


def test_convert_tells_as_json_and_refuses(retinue: Command, tmp_path: Path) -> None:
    told = json.loads(
        retinue("data", "convert", boxes(tmp_path), tmp_path / "o", "--copy", "--json").out
    )
    assert told["lost"] == {"difficult objects, which become plain ones": 1}
    assert (told["format"], told["source_format"], told["images"]) == ("coco", "voc", 2)
    code, _, err = retinue("data", "convert", boxes(tmp_path), tmp_path / "p", "--to", "yaml")
    assert code == 2
    assert "unknown format 'yaml', key to, there are voc, coco, yolo, csv" in err
    picture(tmp_path / "photos" / "cat" / "1.jpg")
    code, _, err = retinue("data", "convert", tmp_path / "photos", tmp_path / "q", "--to", "voc")
    assert code == 2
    assert "1 image, but no labels in a known format" in err


def test_anchors(retinue: Command, tmp_path: Path) -> None:
    # Two sizes, four of each, in images that are brought to twice their size.
    sizes = [(10, 20), (12, 20), (30, 16), (32, 16)]
    for number, (width, height) in enumerate(sizes * 2):
        picture(tmp_path / "set" / f"{number}.jpg", (64, 64))
        text = xml(("cat", 1, 1, width, height), size=(64, 64))
        write(tmp_path / "set" / f"{number}.xml", text)
    plot = tmp_path / "plots" / "anchors.png"
    how = ("--input-size", "128", "--levels", "2", "--each", "1", "--plot", plot)
    whole = ("split.train=1", "split.val=0", "split.test=0")
    code, out, _ = retinue("data", "anchors", tmp_path / "set", *whole, *how)
    assert code == 0
    assert "task_options.anchors=[[[22.0,40.0]],[[62.0,32.0]]]" in out
    assert out.endswith(f"written to {plot}\n")
    assert Image.open(plot).size[0] > 500
    told = json.loads(retinue("data", "anchors", tmp_path / "set", *whole, *how, "--json").out)
    assert told["anchors"] == [[[22, 40]], [[62, 32]]]
    assert (told["boxes"], told["input_size"]) == (8, 128)
    # Each box has a width 2 of 20, 24 and of 60, 64 beside the median of its cluster.
    assert told["fit"]["mean_iou"] == pytest.approx((20 / 22 + 22 / 24 + 60 / 62 + 62 / 64) / 4)
    code, _, err = retinue("data", "anchors", tmp_path / "set", *whole)
    assert code == 2
    assert "4 different sizes of boxes are too few for 9 anchors" in err


@pytest.mark.parametrize("to", ["tfrecord", "webdataset"])
def test_convert_to_shards(retinue: Command, tmp_path: Path, to: str) -> None:
    for name in ("cat", "dog"):
        picture(tmp_path / "photos" / name / "1.jpg")
    how = ("--to", to, "--shard-mb", "0.001")
    code, out, err = retinue("data", "convert", tmp_path / "photos", tmp_path / "out", *how)
    assert (code, out) == (
        0,
        f"2 images of 2 classes in 2 shards (all 2) written to {tmp_path / 'out'}\n",
    )
    code, out, _ = retinue("data", "check", tmp_path / "out", "--json")
    told = json.loads(out)
    assert (code, told["format"], told["classes"]) == (0, to, {"cat": 1, "dog": 1})
    code, _, err = retinue("data", "convert", boxes(tmp_path), tmp_path / "v", "--to", to)
    assert code == 2
    assert "this looks like" in err
    wrong = ("--to", "voc", "--shard-mb", "3")
    code, _, err = retinue("data", "convert", boxes(tmp_path), tmp_path / "v", *wrong)
    assert code == 2
    assert "data of format 'voc' has no shards" in err
