from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import finder
import numpy as np
import pytest
import torch
from interrupted import rows_of
from pydantic import ValidationError

import retinue
from retinue import modelfile
from retinue.data.loader import Loader, in_order
from retinue.data.targets.boxes import Boxes
from retinue.data.views import EvalView
from retinue.errors import RetinueError, UsageError
from retinue.models.detector import Detector
from retinue.sample import Preprocessing, Sample
from retinue.tasks.detection.candidates import Candidates
from retinue.tasks.detection.tables import seen_in
from retinue.tasks.detection.task import Detection, DetectionOptions
from retinue.tasks.results import BoxResult
from retinue.tasks.task import described

BACKBONE = "mobilenet_v1_025"
SMALL: dict[str, Any] = {"widths": [8, 16, 16]}


def task(*classes: str, **options: Any) -> Detection:
    return Detection(classes or ("cat", "dog"), DetectionOptions(**options))


def candidates(*rows: tuple[float, float, float, float, float, int]) -> Candidates:
    array = np.array(rows, np.float32).reshape(-1, 6)
    return Candidates(array[:, :4], array[:, 4], array[:, 5].astype(np.int64), (100, 80))


# What it is made of


def test_a_classifiers_name_means_yolov3_on_it() -> None:
    one = task()
    network = one.build(BACKBONE, SMALL, None)
    assert network.name == "yolov3"
    assert network.arguments["backbone"] == BACKBONE
    again = task().build("yolov3", dict(network.arguments), None)
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in network.state_dict().items()
    }


def test_too_little_to_learn_from_is_doubted() -> None:
    def seen(count: int, of: list[int]) -> list[Sample]:
        xyxy = np.tile(np.array([[1, 1, 9, 9]], np.float32), (len(of), 1))
        return [Sample(f"{k}.jpg", target=Boxes.made(xyxy, of)) for k in range(count)]

    assert task().doubts(seen(50, [0, 1]), 100) == []
    images, boxes, steps = task("cat", "dog", "cow").doubts(seen(9, [0, 0, 1]), 99)
    assert "9 images to learn from: few" in images
    assert "fewer than 10 boxes to learn from, of 'dog' (9):" in boxes  # the cow has none at all
    assert "99 steps in all" in steps


def test_its_state_stands_for_it() -> None:
    one = task()
    one.build(BACKBONE, SMALL, None)
    state = json.loads(json.dumps(one.state()))
    assert state["strides"] == [8, 16, 32]
    assert state["anchors"][0] == [[10, 13], [16, 30], [33, 23]]
    again = Detection(one.classes, one.options, state)
    assert again.state() == one.state()


def test_published_anchors_are_those_of_the_network() -> None:
    tiny = task()
    tiny.build("yolov3_tiny", {}, None)
    assert [len(level) for level in tiny.state()["anchors"]] == [3, 3]
    assert tiny.state()["strides"] == [16, 32]


def test_fresh_predictions_begin_as_sure_as_they_are_told() -> None:
    images = torch.rand(1, 3, 64, 64)
    for options, share in (({}, 0.5), ({"objectness_prior": 0.01}, 0.01)):
        network = task(**options).build(BACKBONE, SMALL, None)
        for level in network.eval()(images)["levels"]:
            raw = level.unflatten(1, (3, 7))
            # What is added to it is hardly anything, and the others' biases are 0.
            torch.testing.assert_close(
                raw[:, :, 4].sigmoid(), torch.full_like(raw[:, :, 4], share), atol=0.02, rtol=0.1
            )
            assert raw[:, :, 5:].abs().max() < 0.2
    with torch.no_grad():
        network.get_submodule("head.outs.0").bias[4] = 1.5
    assert isinstance(network, Detector)
    network.expect(0.2)
    # What has been learnt stays, what has been set before too.
    assert network.get_submodule("head.outs.0").bias[[4, 11]].tolist() == pytest.approx(
        [1.5, np.log(0.01 / 0.99)]
    )


def test_given_anchors_stand() -> None:
    given = [[[8, 8]] * 3, [[16, 16]] * 3, [[32, 40]] * 3]
    one = task(anchors=given)
    one.build(BACKBONE, SMALL, None)
    assert np.array(one.state()["anchors"]).tolist() == given


def test_auto_anchors_are_as_large_as_the_boxes_are_on_the_input(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from PIL import Image

    Image.new("RGB", (832, 416)).save(tmp_path / "a.png")
    sides = [(10 * k, 20 * k) for k in range(1, 10)]  # half as large at 416 pixels
    target = Boxes.made([[0, 0, w, h] for w, h in sides], [0] * 9)
    one = task(anchors="auto")
    one.build(BACKBONE, SMALL, None)
    sample = Sample(str(tmp_path / "a.png"), target=target)
    with caplog.at_level("INFO"):
        one.settle([sample], Preprocessing(size=(416, 416), fit="letterbox"))
    flat = [pair for level in one.state()["anchors"] for pair in level]
    np.testing.assert_allclose(flat, [(5 * k, 10 * k) for k in range(1, 10)], atol=0.06)
    assert "IoU 1.00" in caplog.text


def test_boxes_of_one_size_leave_the_published_anchors(caplog: pytest.LogCaptureFixture) -> None:
    one = task(anchors="auto")
    one.build(BACKBONE, SMALL, None)
    one.settle([], Preprocessing(size=(416, 416), fit="letterbox"))
    assert one.state()["anchors"][0] == [(10, 13), (16, 30), (33, 23)]
    assert "published anchors" in caplog.text


@pytest.mark.parametrize("anchors", [[], [[]], [[[1, 2, 3]]]])
def test_impossible_anchors_are_refused(anchors: Any) -> None:
    with pytest.raises((RetinueError, ValidationError)):
        task(anchors=anchors)


@pytest.mark.parametrize("thresholds", [[0.5], [0.5, 2], ["a", 0.1], 0.5])
def test_a_state_that_makes_no_sense_is_refused(thresholds: Any) -> None:
    with pytest.raises(RetinueError, match="thresholds"):
        Detection(("cat", "dog"), state={"thresholds": thresholds})


def test_classes_are_named_once() -> None:
    with pytest.raises(UsageError, match="twice"):
        task("cat", "cat")
    with pytest.raises(UsageError, match="needs a class"):
        Detection(())


def test_one_class_is_enough() -> None:
    assert task("cat").classes == ("cat",)


def test_a_training_without_objects_is_refused() -> None:
    empty = Sample("a.jpg", target=Boxes.made([], []))
    with pytest.raises(UsageError, match="none of the training images has an object"):
        Detection.prepared(("cat",), DetectionOptions(), [empty])


def test_a_detector_that_is_gone_on_from_keeps_its_anchors(whole: Path) -> None:
    before, _ = modelfile.read(whole / "best.safetensors")
    known = before.task_state["anchors"]
    assert known != [[[10, 13], [16, 30], [33, 23]]]
    for asked in ("published", "auto"):
        one = task("patch", "new", anchors=asked)
        one.build("yolov3", dict(before.arguments), str(whole / "best.safetensors"))
        assert np.allclose(one.state()["anchors"], known)
        one.settle([], Preprocessing(size=(64, 64), fit="letterbox"))
        assert np.allclose(one.state()["anchors"], known)


# Answers


def test_answers_are_those_above_the_confidence_without_doubles() -> None:
    found = candidates(
        (10, 10, 30, 30, 0.9, 0),
        (11, 10, 31, 30, 0.8, 0),
        (11, 10, 31, 30, 0.7, 1),
        (60, 60, 80, 80, 0.4, 0),
    )
    result = task(confidence=0.5, iou=0.3).result(found, "a.jpg")
    assert isinstance(result, BoxResult)
    assert [(b.name, round(b.score, 2)) for b in result.boxes] == [("cat", 0.9), ("dog", 0.7)]
    assert result.boxes[0].xyxy == (10, 10, 30, 30)
    apart = task(confidence=0.5, class_wise=False).result(found, "a.jpg")
    assert [b.name for b in apart.boxes] == ["cat"]


def test_each_class_has_its_threshold() -> None:
    one = Detection(("cat", "dog"), state={"thresholds": [0.85, 0.2]})
    found = candidates((0, 0, 9, 9, 0.8, 0), (20, 20, 40, 40, 0.3, 1))
    result = one.result(found, "a.jpg")
    assert isinstance(result, BoxResult)
    assert [b.name for b in result.boxes] == ["dog"]
    assert one.fitted() == {"thresholds": {"cat": 0.85, "dog": 0.2}}


@pytest.mark.parametrize("how", ["fixed", "f1", "f1_per_class"])
def test_thresholds_are_fitted_where_f1_is_highest(how: Any) -> None:
    rows = [(0, 0, 10, 10, 0.9, 0), (20, 20, 30, 30, 0.6, 0), (50, 50, 60, 60, 0.3, 0)]
    target = Boxes.made([[0, 0, 10, 10], [20, 20, 30, 30]], [0, 0])
    one = task(thresholds=how)
    meter = one.meter()
    meter.update([candidates(*rows)], [Sample("a.jpg", target=target)])
    fitted = one.fit(meter)
    assert fitted == one.fitted()
    if how == "fixed":
        assert fitted == {}
    else:
        assert fitted["thresholds"] == pytest.approx({"cat": 0.45, "dog": 0.45})


def test_doubles_that_answers_drop_count_for_ranks_alone() -> None:
    """Doubles at an IoU of 0.5 stay for the judges (0.65) and not in answers (0.3): a threshold has
    not to keep clear of them, and they are no mistakes."""
    rows = []
    for x, score in ((20, 0.9), (120, 0.6)):
        rows.append((x, 20, x + 30, 50, score, 0))
        for right, down in ((10, 0), (-10, 0), (0, 10), (0, -10)):
            rows.append((x + right, 20 + down, x + 30 + right, 50 + down, score - 0.1, 0))
    found = Candidates(
        np.array([row[:4] for row in rows], np.float32),
        np.array([row[4] for row in rows], np.float32),
        np.zeros(len(rows), np.int64),
        (200, 80),
    )
    one = task(thresholds="f1")
    meter = one.meter(tables=True)
    target = Boxes.made([[20, 20, 50, 50], [120, 20, 150, 50]], [0, 0])
    meter.update([found], [Sample("a.jpg", target=target)])
    fitted = one.fit(meter)["thresholds"]["cat"]
    assert fitted <= 0.6
    told = meter.compute()
    assert (told["f1"], told["precision"], told["recall"]) == (1, 1, 1)
    assert told["confidence"] == told["per_class"][0]["threshold"] == fitted
    assert told["errors"]["duplicate"] == told["errors"]["background"] == 0
    assert (told["per_class"][0]["found"], told["voc_ap50"] < 1) == (10, True)  # by their ranks
    tables = meter.tables()
    assert tables["boxes"].column("kind").to_pylist() == ["right", "right"]
    assert tables["confusion"].column("count").to_pylist() == [2]
    (row,) = tables["predictions"].to_pylist()
    assert (len(row["scores"]), len(row["answer_scores"])) == (10, 2)
    again = task(thresholds="f1").meter(tables=True)
    again.extend(seen_in(tables["predictions"])[0])
    assert again.compute() == told
    assert [t.equals(tables[name]) for name, t in again.tables().items()] == [True] * 3
    result = one.result(found, "a.jpg")
    assert isinstance(result, BoxResult)
    assert [box.xyxy[0] for box in result.boxes] == [20, 120]


def test_between_epochs_another_confidence_may_be_enough() -> None:
    found = candidates((0, 0, 10, 10, 0.9, 0), (20, 20, 30, 30, 0.04, 0))
    sample = Sample("a.jpg", target=Boxes.made([[0, 0, 10, 10], [20, 20, 30, 30]], [0, 0]))
    told = []
    for options in ({}, {"validation_confidence": 0.05}):
        for tables in (False, True):
            meter = task(**options).meter(tables=tables)
            meter.update([found], [sample])
            told.append(meter.compute()["voc_ap50"])
    assert told == [1, 1, 0.5, 1]


def test_views_are_joined_before_doubles_go() -> None:
    one = task()
    first, second = candidates((0, 0, 9, 9, 0.8, 0)), candidates((1, 0, 9, 9, 0.9, 0))
    result = one.result(one.merge([first, second]), "a.jpg")
    assert isinstance(result, BoxResult)
    assert [round(b.score, 2) for b in result.boxes] == [0.9]


def test_a_split_without_objects_has_no_figures() -> None:
    empty = Sample("a.jpg", target=Boxes.made([], []))
    some = Sample("b.jpg", target=Boxes.made([[0, 0, 4, 4]], [0]))
    assert "map50" in task().undefined([empty])
    assert set(task().undefined([empty, some])) == {"map_medium", "map_large"}


def test_what_it_decodes_lies_where_the_object_is(tmp_path: Path) -> None:
    """A map that says one thing, through a letterbox, in pixels of the original."""
    from PIL import Image

    Image.new("RGB", (128, 64)).save(tmp_path / "a.png")
    how = Preprocessing(size=(64, 64), fit="letterbox")
    (batch,) = Loader(EvalView(how), workers=0).batches(
        in_order([Sample(str(tmp_path / "a.png"))], 1, (64, 64))
    )
    one = task()
    one.build(BACKBONE, SMALL, None)
    levels = [torch.full((1, 21, side, side), -20.0) for side in (8, 4, 2)]
    # The first anchor of stride 16, 30 × 61, in the cell of column 2 and row 1, halved in height.
    cell = levels[1][0, :7, 1, 2]
    cell[:] = torch.tensor([0.0, 0.0, 0.0, np.log(0.5), 20.0, 20.0, -20.0])
    (found,) = one.decode({"levels": tuple(levels)}, batch)
    # The picture is 64 × 32 on the input, 16 pixels below its top.
    x, y = 2.5 * 16, 1.5 * 16
    wanted = [2 * (x - 15), 2 * (y - 16 - 15.25), 2 * (x + 15), 2 * (y - 16 + 15.25)]
    np.testing.assert_allclose(found.xyxy[0], np.clip(wanted, 0, [128, 64, 128, 64]), atol=1e-4)
    assert found.of.tolist() == [0]


# A training as a whole


def boxes_of(root: Path) -> Path:
    """Patches as the CSV of the TF Object Detection API."""
    listed = finder.write_pictures(root / "pictures", count=60)
    for split in ("train", "test"):
        with (root / f"{split}_labels.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"])
            for entry in json.loads(listed.read_text()):
                if (entry["split"] == "test") == (split == "test"):
                    for box, name in zip(entry["boxes"], entry["names"], strict=True):
                        table.writerow([f"pictures/{entry['file']}", 48, 48, name, *box])
    return root


def recipe(data: Path, **changes: Any) -> dict[str, Any]:
    stages = [
        {"name": "neck", "trainable": "neck", "epochs": 12, "views": 2},
        {"name": "all", "trainable": "all", "epochs": 2, "sizes": [64, 96]},
    ]
    augment = {"mosaic": 0.2, "jitter": 0.2, "fit_scale": [0.8, 1.25], "horizontal_flip": 0.5}
    common = {"batch_size": 4, "augment": augment, "optimizer": {"name": "adamw", "lr": 0.01}}
    return {
        "task": "detection",
        "task_options": {
            "thresholds": "f1",
            "loss": {"assignment": "dynamic", "class_weight": 4.0},
            "anchors": [[[6, 6]] * 3, [[12, 12]] * 3, [[20, 18]] * 3],
        },
        "data": {"path": str(data)},
        "model": {"name": BACKBONE, "weights": None, "arguments": SMALL},
        "input": {"size": 64},
        "stages": [{**common, **stage} for stage in stages],
        "ema": {"decay": 0.9},
        "tensorboard": False,
        **changes,
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boxes_of(tmp_path_factory.mktemp("patches"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        for package in ("openvino", "onnxruntime"):  # engines have tests of their own
            patch.setitem(sys.modules, package, None)
        retinue.train(recipe(data), out=out, report=False, quiet=True)
    return out


def test_it_trains_judges_and_predicts(whole: Path, data: Path) -> None:
    figures = json.loads((whole / "metrics.json").read_text())
    assert figures["task"] == "detection"
    assert 0.05 < figures["map50"] <= 1, "figures that are all about 0 agree with any"
    assert 0 <= figures["map50_95"] <= figures["map50"]
    description, _ = modelfile.read(whole / "best.safetensors")
    assert description.network == "yolov3"
    assert described(description).classes == ("patch",)
    again = retinue.evaluate(whole, engine="torch")
    assert again["map50"] == pytest.approx(figures["map50"], abs=1e-4)
    result = retinue.load(whole, engine="torch")(data / "pictures" / "19.png")
    assert isinstance(result, BoxResult)
    assert "to learn from: few for a detector" in (whole / "train.log").read_text("utf-8")


def test_an_epoch_is_judged_as_an_evaluation_judges(whole: Path) -> None:
    judged = [float(row["val_map50"]) for row in rows_of(whole) if row["val_map50"]]
    again = retinue.evaluate(whole, split="val", engine="torch")
    assert max(judged) > 0.05
    assert again["map50"] == pytest.approx(max(judged), abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_figures_do_not_depend_on_the_batch(whole: Path, batch_size: int) -> None:
    figures = json.loads((whole / "metrics.json").read_text())
    again = retinue.evaluate(whole, engine="torch", batch_size=batch_size)
    for name in ("map50", "map50_95", "voc_ap50"):
        assert again[name] == pytest.approx(figures[name], abs=1e-4)
