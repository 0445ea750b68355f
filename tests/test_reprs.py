"""What a notebook or a REPL shows of the things that it is given: one readable line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny

from retinue.api import Predictions
from retinue.data.check import CheckReport, Finding
from retinue.data.conversion import Conversion
from retinue.data.sources import Dataset
from retinue.demos import Demo
from retinue.exporting.elsewhere import Construction
from retinue.exporting.state_dict import Exported
from retinue.inference.predictor import Member, Predictor
from retinue.modelfile import ModelDescription
from retinue.sample import Preprocessing, Sample
from retinue.tasks.classification.task import Classification
from retinue.tasks.detection.anchors import Recall
from retinue.tasks.detection.data_anchors import FittedAnchors
from retinue.tasks.results import Box, BoxResult, ClassResult
from retinue.training.recipe import load_recipe
from retinue.training.session import Plan, Run

NAMES = [f"class {k}" for k in range(1000)]
FIGURES = {"task": "classification", "split": "test", "images": 78, "top1": 0.87, "loss": 0.41,
           "per_class": [{"name": name} for name in NAMES]}  # fmt: skip
RUN = Run(Path("runs/finetune"), FIGURES, Path("runs/finetune/best.safetensors"), {"a.jpg": "cut"})
ROSE = ClassResult("photos/a.jpg", [("rose", 0.9712), ("tulip", 0.02), ("lily", 0.005), ("x", 0)])
DESCRIPTION = ModelDescription(
    task="classification", classes=NAMES, network="tiny", arguments={"num_classes": 1000},
    preprocessing=Preprocessing(size=(32, 48)).as_dict(), recipe={"data": {"path": "x" * 5000}},
)  # fmt: skip


def predictor(members: int, **how: Any) -> Predictor:
    member = Member(tiny.Tiny(), Classification(NAMES), DESCRIPTION)
    return Predictor([member] * members, engine="torch", **how)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (ROSE, "<ClassResult photos/a.jpg: rose 97.1 %, tulip 2.0 %, lily 0.5 %, …>"),
        (ClassResult("a", []), "<ClassResult a: no class>"),
        (BoxResult("b.jpg", [Box("cat", 0.5, (0, 0, 1, 1))]),
         "<BoxResult b.jpg: 1 object (cat 50.0 %)>"),
        (BoxResult("b.jpg", []), "<BoxResult b.jpg: 0 objects>"),
        (RUN, "<Run runs/finetune: test split, 78 images, top-1 accuracy 87.0 %, loss 0.410,"
              " 1 skipped>"),
        (Run(Path("r"), {}, Path("r/b")), "<Run r: no figures yet>"),
        (Run(Path("r"), {"task": "dots", "images": 1}, Path("r/b")), "<Run r: 1 image>"),
        (Predictions(2, {"c.jpg": "cut"}, [], [ROSE, ROSE]),
         f"<Predictions 2 images, 1 skipped; {ROSE!r}, …>"),
        (Predictions(24, {}, [], [], frames=24), "<Predictions 24 frames>"),
        (Predictions(5000, {}, [Path("p.jsonl")], []), "<Predictions 5,000 images, 1 file>"),
        (Dataset(tuple(NAMES), {"train": [Sample("a")] * 2000, "val": [Sample("b")]}, Path("d")),
         "<Dataset train 2,000, val 1; 1,000 classes (class 0, class 1, class 2, …), d>"),
        (Dataset(("a",), {}), "<Dataset no images; 1 class (a)>"),
        (DESCRIPTION, "<ModelDescription tiny: classification, 1,000 classes (class 0, class 1,"
                      " class 2, …)>"),
        (CheckReport("d", "folder", 9, {"a": 9}, {}, {"x": "cut"},
                     [Finding("unreadable", ["x"] * 5000, "cut")]),
         "<CheckReport d: 9 images, 1 class, 1 unreadable, found: unreadable>"),
        (CheckReport("d", "folder", 9, {"a": 9}, {}, {}), "<CheckReport d: 9 images, 1 class>"),
        (Conversion("out", "coco", "voc", 40, 1077, ["a"], {}, {"crowds, which are left out": 2}),
         "<Conversion out: coco of voc, 40 images, 1,077 objects, 1 class,"
         " lost: crowds, which are left out (2)>"),
        (FittedAnchors([[(1, 2)], [(3, 4)]], Recall(0.866, 1, 1), Recall(0.7, 1, 1), 62, 416),
         "<FittedAnchors 2 of 62 boxes at 416 pixels: IoU 0.87 in the mean, published 0.70>"),
        (Classification(NAMES), "<Classification 1,000 classes (class 0, class 1, class 2, …)>"),
        (Plan(load_recipe("scratch"), [], None, {"train": 2000}, None),  # type: ignore[arg-type]
         "<Plan resnet18: train 2,000; 1 stage>"),
        (Exported(Path("w.pth"), Construction("timm", "resnet18", {"num_classes": 3}, None),  # type: ignore[arg-type]
                  Preprocessing(), tuple(NAMES)),
         '<Exported w.pth: timm.create_model("resnet18", num_classes=3)>'),
    ],
)  # fmt: skip
def test_it_is_one_readable_line(shown: object, expected: str) -> None:
    assert repr(shown) == expected


def test_a_predictor_says_what_it_is() -> None:
    classes = "1,000 classes (class 0, class 1, class 2, …), 32 × 48 pixels"
    assert repr(predictor(1)) == f"<Predictor tiny: {classes}, torch on cpu>"
    expected = f"<Predictor tiny and 2 others: {classes}, torch on cpu, tta=flip>"
    assert repr(predictor(3, tta="flip")) == expected


def test_names_and_paths_stay_on_the_line() -> None:
    odd = ClassResult("a\nb" * 100, [("two\nlines" * 20, 0.5)])
    many = Demo(RUN, Predictions(1, {}, [], [odd]), {key: ["x"] for key in NAMES})
    for shown in (odd, many, Dataset((("x\n" * 300),), {}, Path("p" * 900))):
        assert "\n" not in repr(shown)
        assert len(repr(shown)) < 350
