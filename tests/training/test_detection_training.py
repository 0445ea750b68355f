"""A detector's training, whole: its backbone frozen and run once at several sizes, mosaics and
tiles among what it sees; killed anywhere, it goes on as if nothing had happened."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from interrupted import assert_same, rows_of
from PIL import Image
from reads import steps_without_reads
from warm import IN_A_CHECKPOINT, Warm

import retinue
from retinue.errors import UsageError
from retinue.run.checkpoint import CheckpointStore

PUBLISHED = {
    "jitter": 0.3,
    "fit_scale": [0.25, 2.0],
    "colour": {"hsv": 1.0, "hsv_gains": [0.1, 0.7, 0.4], "hsv_hue": "factor"},
}


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures of different sizes, one of them without an object."""
    root = tmp_path_factory.mktemp("boxes")
    rng = np.random.default_rng(0)
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for number in range(24):
        width, height = rng.integers(70, 150, 2).tolist()
        pixels = rng.integers(0, 90, (height, width, 3)).astype(np.uint8)
        for _ in range(number % 4):
            w, h = rng.integers(16, 40, 2).tolist()
            x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
            of = int(rng.integers(2))
            pixels[y : y + h, x : x + w, of] = 250
            rows.append(
                f"{number}.png,{width},{height},{('red', 'green')[of]},{x},{y},{x + w},{y + h}"
            )
        if number % 4 == 0:
            rows.append(f"{number}.png,{width},{height},,,,,")
        Image.fromarray(pixels).save(root / f"{number}.png")
    (root / "boxes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root / "boxes.csv"


def _recipe(boxes: Path, cache: Path, **changes: Any) -> dict[str, Any]:
    """As published: the neck alone first; then everything."""
    optimizer = {"name": "sgd", "lr": 0.02, "momentum": 0.9}
    values: dict[str, Any] = {
        "task": "detection",
        "data": {
            "path": str(boxes),
            "workers": 1,
            "split": {"train": 0.6, "val": 0.2, "test": 0.2},
        },
        "model": {
            "name": "yolov3",
            "weights": None,
            "arguments": {"backbone": "mobilenet_v1_025", "widths": [4, 8, 8]},
        },
        "input": {"size": 64},
        "cache": {"folder": str(cache)},
        "stages": [
            {
                "name": "frozen",
                "trainable": "neck",
                "epochs": 2,
                "batch_size": 4,
                "views": 2,
                "sizes": [64, 96],
                "cache_features": "on",
                "augment": {**PUBLISHED, "mosaic": 0.5},
                "optimizer": optimizer,
            },
            {
                "name": "all",
                "trainable": "all",
                "steps": 6,
                "epoch_steps": 3,
                "batch_size": 8,
                "data": {"name": "tiles", "side": 64},
                "augment": {**PUBLISHED, "mosaic": 0.3, "blend": 0.3, "copy_paste": 0.2},
                "optimizer": optimizer,
            },
        ],
        "ema": {"decay": 0.8},
        "device": "cpu",
        "tensorboard": False,
    }
    values.update(changes)
    return values


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, boxes: Path, warm: Warm) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    outcome = warm.train(_recipe(boxes, folder / "cache"), folder / "run")
    assert outcome.code == 0, outcome
    assert len(rows_of(folder / "run")) == 4
    return folder / "run"


def test_the_second_stage_has_tiles_and_goes_on_where_the_first_ended(whole: Path) -> None:
    lines = (whole / "stages" / "all.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) > 30
    assert sum('"part"' in line for line in lines) > 20
    assert {row["stage"] for row in rows_of(whole)} == {"frozen", "all"}


KILLS = [
    ("before cached rows count", 1),
    ("in a step", 2),
    (IN_A_CHECKPOINT, 2),
    ("between stages", 2),
    ("in a step", 3),
]


def test_killed_at_every_moment_it_ends_the_same(
    tmp_path: Path, boxes: Path, whole: Path, warm: Warm
) -> None:
    run = tmp_path / "run"
    recipe = _recipe(boxes, tmp_path / "cache", checkpoint={"every_steps": 1})
    for number, (moment, times) in enumerate(KILLS):
        begun = (recipe, run) if number == 0 else (run,)
        outcome = warm.train(*begun, moment=moment, times=times)
        assert outcome.code == -signal.SIGKILL, (number, moment, outcome)
    assert warm.train(run).code == 0
    assert_same(run, whole)


def test_a_frozen_backbone_stays_as_it_was_with_and_without_the_cache(
    tmp_path: Path, boxes: Path, warm: Warm
) -> None:
    """Weights and what norms have counted: as they were built, while the neck learns."""
    learnt = []
    for cached in ("on", "off"):
        recipe = _recipe(boxes, tmp_path / "cache", ema=None)
        stage = {k: v for k, v in recipe["stages"][0].items() if cached == "on" or k != "views"}
        recipe["stages"] = [{**stage, "cache_features": cached, "epochs": 1, "sizes": None}]
        run = tmp_path / cached
        assert warm.train(recipe, run).code == 0
        learnt.append(CheckpointStore(run / "last").load()["learner"])
    for name, value in learnt[0].items():
        if name.startswith("network.backbone."):
            assert torch.equal(value, learnt[1][name]), name
            if name.endswith("num_batches_tracked"):
                assert value == 0
        elif name.endswith("num_batches_tracked"):
            assert value > 0


def test_what_boxes_cannot_be_is_refused_before_the_first_step(tmp_path: Path, boxes: Path) -> None:
    stage = {"name": "all", "epochs": 1, "batch_size": 4, "augment": {"mixing": {"mixup": 0.2}}}
    recipe = _recipe(boxes, tmp_path / "cache", stages=[stage])
    with pytest.raises(UsageError) as raised:
        retinue.train(recipe, out=tmp_path / "run", report=False, quiet=True)
    assert "key stages.0.augment.mixing" in str(raised.value)
    assert "augment.blend" in str(raised.value.mend)
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_grey_pictures_of_8_and_16_bits_train_as_colour_does(boxes: Path, tmp_path: Path) -> None:
    """The same pictures, written in three ways, are the same to a training."""
    trained = []
    for mode in ("RGB", "L", "I;16"):
        root = tmp_path / mode[0]
        root.mkdir()
        (root / "boxes.csv").write_text(boxes.read_text("utf-8"), encoding="utf-8")
        for path in boxes.parent.glob("*.png"):
            with Image.open(path) as picture:
                grey = np.asarray(picture.convert("L"))
            wide = grey.astype(np.uint16) * 257  # 65,535 is white
            made = Image.fromarray(wide if mode == "I;16" else grey)
            (made.convert("RGB") if mode == "RGB" else made).save(root / path.name)
        with Image.open(root / "1.png") as picture:
            assert picture.mode == mode
        recipe = _recipe(root / "boxes.csv", tmp_path / "cache")
        # What is drawn for a cached view depends on the file's bytes.
        plain = {k: v for k, v in recipe["stages"][0].items() if k not in ("views", "sizes")}
        recipe["stages"] = [{**plain, "epochs": 1, "cache_features": "off"}]
        run = retinue.train(recipe, out=tmp_path / f"run-{mode[0]}", report=False, quiet=True)
        trained.append(rows_of(run.folder))
    assert trained[0] == trained[1] == trained[2]
    assert float(trained[0][0]["train_loss"]) > 0


def test_a_step_reads_nothing_back(
    tmp_path: Path, boxes: Path, monkeypatch: pytest.MonkeyPatch, only_torch: None
) -> None:
    """Of a detector neither: matching, overlaps, the average of the weights, clipping, at two sizes
    whose grids are known. A new size's grid is copied to the device once."""
    stage = {"name": "all", "steps": 3, "epoch_steps": 3, "batch_size": 8, "accumulate": 2,
             "clip_norm": 1.0, "sizes": [64, 96], "augment": {"mosaic": 0.3}}  # fmt: skip
    options = {"loss": {"assignment": "dynamic", "focal_gamma": 1.5}}
    recipe = _recipe(boxes, tmp_path / "cache", stages=[stage], task_options=options)
    with steps_without_reads(monkeypatch) as done:
        retinue.train(recipe, out=tmp_path / "run", report=False, quiet=True)
    assert done == [1, 2, 3]
