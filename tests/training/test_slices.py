"""Two thin slices of what is to come, driven through the frame: a gated head with centre loss on
pairs of a class with splices, and a detector on real boxes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import finder
import pytest
import tiny
import torch
from torch import Tensor, nn
from warm import Warm

import retinue
from retinue import modelfile
from retinue.models import heads
from retinue.models.network import Network
from retinue.options import Options
from retinue.run.checkpoint import CheckpointStore
from retinue.tasks.classification.objective import ClassificationObjective
from retinue.tasks.classification.task import Classification
from retinue.tasks.results import BoxResult
from retinue.tasks.task import Losses, Objective, register_task

FEATURES = 6


class GatedOptions(Options):
    features: int = FEATURES


class Gated(nn.Module):
    """A gated linear unit to a narrow feature, and an auxiliary classifier beside it (the 2017
    dog breeds)."""

    classifiers = ("fc", "beside")

    def __init__(self, width: int, classes: int, features: int) -> None:
        super().__init__()
        self.value = nn.Linear(width, features)
        self.gate = nn.Linear(width, features)
        self.fc = nn.Linear(features, classes)
        self.beside = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Any:
        feature = self.value(x) * self.gate(x).sigmoid()
        logits = self.fc(feature)
        if not self.training:
            return {"logits": logits, "auxiliary": self.beside(x)}
        return {"logits": logits, "auxiliary": self.beside(x), "feature": feature}


def register() -> None:
    """As the package that brings the head would."""
    if "gated" not in heads.list_heads():
        heads.register_head("gated", GatedOptions, lambda w, c, o: Gated(w, c, o.features))


@pytest.fixture(autouse=True, scope="module")
def _gated() -> Iterator[None]:
    register()
    yield
    del heads._HEADS["gated"]


class CentreObjective(ClassificationObjective):
    """With the squared distance of the feature to its class's centre, which learns."""

    def __init__(self, classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.centres = nn.Parameter(torch.zeros(classes, FEATURES))

    def forward(self, outputs: Any, targets: dict[str, Any], taught: Any = None) -> Losses:
        losses = super().forward(outputs, targets, taught)
        away = outputs["feature"].float() - self.centres[targets["label"]]
        losses.parts["centre"] = 0.25 * away.square().sum(1)
        return losses


@register_task
class Breeds(Classification):
    name: ClassVar[str] = "breeds"

    def objective(self, network: Network) -> Objective:
        return CentreObjective(len(self.classes), auxiliary_weight=0.25)


def _breeds(pictures: Path, cache: Path, **changes: Any) -> dict[str, Any]:
    sampler = {"name": "class_pairs", "images": 2, "classes": 3}
    stage = {"batch_size": 6, "sampler": sampler, "augment": {"splice": 0.5}, "epoch_steps": 5}
    optimizer = {"name": "adam", "lr": 0.02, "objective_lr_scale": 5.0}
    stages = [
        {"name": "head", "trainable": "head", "epochs": 2, "views": 3, **stage},
        {"name": "all", "trainable": 1, "epochs": 4, "cache_features": "off", **stage},
    ]
    return tiny.recipe(
        pictures,
        task="breeds",
        model={"name": "tiny", "weights": None, "head": {"name": "gated"}},
        stages=[{**s, "optimizer": optimizer} for s in stages],
        ema=None,
        cache={"folder": str(cache)},
        **changes,
    )


def _learner(run: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = CheckpointStore(run / "last").load()["learner"]
    return state


def test_centres_learn_on_pairs_of_spliced_images(tmp_path: Path, pictures: Path) -> None:
    out = tmp_path / "run"
    run = retinue.train(_breeds(pictures, tmp_path / "cache"), out=out, report=False, quiet=True)
    centres = _learner(run.folder)["objective.centres"]
    assert centres.shape == (3, FEATURES)
    assert (centres.abs().sum(1) > 0.01).all()
    with (run.folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["5", "10", "15", "20", "25", "30"]
    assert all(float(row["train_loss_centre"]) > 0 for row in rows)
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    # The model file needs neither the objective nor anybody's help to be read again.
    described, tensors = modelfile.read(run.best)
    assert described.arguments["head"] == {"name": "gated", "features": FEATURES}
    assert not any("centre" in name for name in tensors)
    answer = retinue.load(run.best, engine="torch")(next((pictures / "red").iterdir()))
    assert len(answer.classes) == 3
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["trunk"]["head"]["views"] == 3


def test_centres_go_on_bit_for_bit_and_agree_on_two_processes(
    tmp_path: Path, pictures: Path, warm: Warm
) -> None:
    plain = {"model": {"name": "tiny", "weights": None, "dropout": 0.0, "head": {"name": "gated"},
                       "arguments": {"norm": False}}}  # fmt: skip
    recipe = {**_breeds(pictures, tmp_path / "cache"), **plain}
    assert warm.train(recipe, tmp_path / "whole").code == 0
    assert warm.train(recipe, tmp_path / "run", moment="in a step", times=14).code == -9
    assert warm.train(tmp_path / "run").code == 0
    whole = _learner(tmp_path / "whole")
    assert (whole["objective.centres"].abs().sum(1) > 0.01).all()
    resumed = _learner(tmp_path / "run")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert warm.train(recipe, tmp_path / "two", processes=2).code == 0
    both = _learner(tmp_path / "two")
    for name, value in whole.items():
        assert torch.allclose(both[name], value, rtol=1e-3, atol=1e-4), name


def _voc(folder: Path, target: Path, files: Sequence[Path]) -> Path:
    entries = []
    for number, file in enumerate(files):
        tree = ElementTree.parse(file)
        boxes = [
            [float(box.findtext(side, "0")) for side in ("xmin", "ymin", "xmax", "ymax")]
            for box in tree.iter("bndbox")
        ]
        image = folder / "JPEGImages" / f"{file.stem}.jpg"
        split = ("train", "train", "train", "val", "test")[number % 5]
        names = [item.findtext("name", "") for item in tree.iter("object")]
        entries.append({"file": str(image), "boxes": boxes, "names": names, "split": split})
    target.write_text(json.dumps(entries))
    return target


@pytest.mark.usefixtures("only_torch")
def test_a_detector_trains_ten_steps_on_real_boxes(
    tmp_path: Path, shared: Callable[[str], Path]
) -> None:
    raccoons = shared("data/raccoon")
    files = sorted((raccoons / "Annotations").glob("*.xml"))[:60]
    data = _voc(raccoons, tmp_path / "boxes.json", files)
    stage = {
        "steps": 10,
        "batch_size": 8,
        "augment": {"mosaic": 0.5, "horizontal_flip": 0.5},
        "optimizer": {"name": "adamw", "lr": 0.003},
    }
    recipe = finder.recipe(
        data,
        model={"name": "tiny", "weights": None},
        input={"size": 96, "fit": "letterbox"},
        stages=[stage],
        ema=None,
        task_options={"threshold": 0.05},
    )
    run = retinue.train(recipe, out=tmp_path / "run", report=True, quiet=True)
    with (run.folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["train_loss_place"]) < float(rows[0]["train_loss_place"])
    again = retinue.evaluate(run.folder, split="test", engine="torch")
    assert again["distance"] == pytest.approx(run.figures["distance"])
    picture = json.loads(data.read_text())[4]["file"]
    result = retinue.load(run.folder)(picture)
    assert isinstance(result, BoxResult)
    assert "How many were found" in (run.folder / "report.html").read_text(encoding="utf-8")


def test_a_training_searches_it_keeps_it_and_answers_by_it(tmp_path: Path, pictures: Path) -> None:
    recipe = tiny.recipe(
        pictures,
        task_options={"centre_weight": 0.25, "auxiliary_weight": 0.25},
        model={"name": "tiny", "weights": None,
               "head": {"name": "glu", "features": 2, "auxiliary": True}},
    )  # fmt: skip
    run = retinue.train(recipe, out=tmp_path / "run", quiet=True)
    head = (run.folder / "metrics.csv").read_text().splitlines()[0]
    for column in ("loss_centre", "loss_auxiliary", "val_top1_main", "val_top1_auxiliary"):
        assert column in head
    predictor = retinue.load(run.folder)
    assert 0 <= predictor.task.fitted()["blend"] <= 1
    judged = retinue.evaluate(run.folder, split="test")
    assert judged["top1"] == pytest.approx(run.figures["top1"])
    assert {"top1_main", "top1_auxiliary"} <= judged.keys()
    _, tensors = modelfile.read(run.folder / "best.safetensors")
    assert not [key for key in tensors if "centres" in key]
    assert {"head.fc.auxiliary.weight", "head.fc.gate.weight"} <= tensors.keys()
