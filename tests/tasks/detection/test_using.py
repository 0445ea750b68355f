"""What is done with a detector's answers, with the task itself: an untrained one, which finds
something everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
import torch
from PIL import Image

from retinue import api, modelfile
from retinue.errors import UsageError
from retinue.modelfile import ModelDescription
from retinue.tasks.detection.task import Detection, DetectionOptions

CLASSES = ["cat", "dog"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    task = Detection(CLASSES, DetectionOptions(confidence=0.01, max_boxes=10))
    torch.manual_seed(0)
    network = task.build("mobilenet_v1_025", {"widths": [8, 16, 16]}, None).eval()
    path = tmp_path_factory.mktemp("model") / "best.safetensors"
    size = {**network.preprocessing.as_dict(), "size": [96, 96]}
    description = ModelDescription(
        task="detection", classes=CLASSES, network=network.name, arguments=dict(network.arguments),
        task_options=task.options.model_dump(mode="json"), task_state=task.state(),
        preprocessing=size,
    )  # fmt: skip
    modelfile.write(path, network.state_dict(), description)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (150, 200, 3), np.uint8)).save("a.png")
    return tmp_path


def predict(model: Path, source: str, **more: Any) -> api.Predictions:
    return api.predict(model, source, engine="torch", device="cpu", **more)


@pytest.mark.parametrize(
    ("format", "file"),
    [("voc", "Annotations/a.xml"), ("yolo", "labels/a.txt"), ("coco", "predictions.json"),
     ("parquet", "predictions.parquet")],
)  # fmt: skip
def test_every_form(model: Path, here: Path, format: str, file: str) -> None:
    done = predict(model, "a.png", out="out", format=format)
    assert done.images == 1
    assert Path("out", file).stat().st_size > 100


def test_all_at_once(model: Path, here: Path) -> None:
    done = predict(
        model, "a.png", out="out", tiles=96, overlap=0.3, crops=True, count=True, heatmap=True,
        draw=True, tta="flip",
    )  # fmt: skip
    (row,) = [json.loads(line) for line in Path("out/predictions.jsonl").read_text().splitlines()]
    assert 0 < len(row["boxes"]) <= 10
    for box in row["boxes"]:
        x1, y1, x2, y2 = box["xyxy"]
        assert 0 <= x1 < x2 <= 200
        assert 0 <= y1 < y2 <= 150
    assert done.counts is not None
    assert sum(done.counts["objects"].values()) == len(row["boxes"])
    assert len(list(Path("out/crops").rglob("a-*.png"))) == len(row["boxes"])
    for folder in ("drawn", "heatmaps"):
        assert Image.open(f"out/{folder}/a.png").size == (200, 150)


def test_a_still_clip_keeps_its_numbers(model: Path, here: Path) -> None:
    image = np.asarray(Image.open("a.png"))[:96, :96]
    clips.write(here / "clip.avi", [image] * 6, codec="MJPG")
    predict(model, "clip.avi", out="out", track=True)
    rows = [json.loads(line) for line in Path("out/frames.jsonl").read_text().splitlines()]
    tracks = [{box["track"] for box in row["boxes"]} - {None} for row in rows]
    assert tracks[0] == set()
    assert tracks[1]
    assert all(later == tracks[1] for later in tracks[1:])


def test_what_is_answered_can_be_set(model: Path, here: Path) -> None:
    (few,) = predict(model, "a.png", options={"max_boxes": "3"}).results
    assert len(few.parts()) == 3
    (none,) = predict(model, "a.png", options={"confidence": 0.9}).results
    assert none.parts() == []
    for options, words in (
        ({"anchors": "published"}, "anchors is settled by the training, .* what may be set is"),
        ({"confidense": 0.5}, "did you mean 'confidence'"),
        ({"confidence": "much"}, "must be a number"),
        ({"confidence": 1.5}, "confidence"),
    ):
        with pytest.raises(UsageError, match=words):
            predict(model, "a.png", options=options)


def test_a_confidence_stands_in_place_of_what_was_fitted() -> None:
    task = Detection(CLASSES, DetectionOptions(), {"thresholds": [0.3, 0.4]})
    assert task.adjusted({"iou": 0.6}).fitted() == task.fitted()
    changed = task.adjusted({"confidence": 0.5})
    assert changed.fitted() == {}
    assert task.fitted() != {}
    assert changed.options.confidence == 0.5


def test_of_a_classifier_how_many_classes_are_answered() -> None:
    from retinue.tasks.classification.task import Classification

    task = Classification([f"class {k}" for k in range(9)], state={"temperature": 2.0})
    with pytest.raises(UsageError, match="what may be set is top_k"):
        task.adjusted({"label_smoothing": 0.1})
    for key, words in (("foo", ", what may be set is top_k"), ("top-p", ", did you mean 'top_k'?")):
        with pytest.raises(UsageError) as refused:
            task.adjusted({key: "1"})
        assert str(refused.value) == f"unknown key '{key}', given for the answers{words}"
    scores = torch.arange(9.0)[None]
    every = task.adjusted({"top_k": "100"})
    shown = every.result(every.decode(scores, None)[0], "a.jpg").as_dict()["classes"]
    assert len(shown) == 9
    assert sum(one["score"] for one in shown) == pytest.approx(1, abs=1e-6)
    assert every.fitted() == {"temperature": 2.0}
    assert len(task.result(task.decode(scores, None)[0], "a.jpg").as_dict()["classes"]) == 5
