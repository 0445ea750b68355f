"""Run folders made by hand, so that the report is tested without a training."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

RECIPE = """\
about:
  title: Fine-tuning with <b>care</b>
task: classification
data:
  path: {data}
model:
  name: efficientnet_lite0
stages:
- name: head
  epochs: 3
- name: last blocks
  epochs: 5
"""


def _picture(path: Path, seed: int) -> None:
    draws = np.random.default_rng(seed)
    small = draws.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize((160, 120), Image.Resampling.BICUBIC).save(path)


def make_run(
    folder: Path,
    classes: list[str],
    *,
    images: int = 200,
    accuracy: float = 0.8,
    finished: bool = True,
    epochs: int = 8,
    pictures: int = 6,
    seed: int = 0,
) -> Path:
    """A run folder as the trainer leaves it."""
    draws = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(data=folder / "data"), encoding="utf-8")
    (folder / "classes.json").write_text(json.dumps(classes, ensure_ascii=False), encoding="utf-8")
    if epochs:
        with (folder / "metrics.csv").open("w", newline="", encoding="utf-8") as stream:
            columns = "stage epoch step seconds images_per_second lr train_loss train_top1"
            writer = csv.writer(stream)
            writer.writerow([*columns.split(), "val_loss", "val_top1", "val_ece"])
            for epoch in range(1, epochs + 1):
                stage = "head" if epoch <= 3 else "last blocks"
                loss = 0.25 + 1.2 * np.exp(-epoch / 3)
                writer.writerow([
                    stage, epoch, epoch * 10, 12.5, 240.0, 0.01 * 0.5**epoch, loss,
                    "" if epoch == 1 else 1 - loss / 2,
                    loss + 0.02 * epoch, 0.95 - loss / 2 - 0.004 * epoch, 0.05,
                ])  # fmt: skip
    Image.fromarray(draws.integers(0, 255, (96, 400, 3), dtype=np.uint8)).save(
        _folder(folder / "plots") / "batch_head.png"
    )
    environment: dict[str, Any] = {
        "versions": {"retinue": "0.1.0", "torch": "2.13.0+cpu"},
        "device": "cpu",
        "threads": 2,
        "precision": "fp32",
        "trunk": {"cut": "stages.5", "engine": "openvino", "images": 2000},
        "timings": {"training_s": 312.4, "evaluation_s": 41.0},
        "kept": {"epoch": 7, "figures": {"top1": 0.8}},
        "skipped": {"data/br\noken.jpg": "it is <empty>"},
    }
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    if not finished:
        return folder
    k = len(classes)
    labels = draws.integers(0, k, images)
    logits = draws.normal(0, 1, (images, k))
    logits[np.arange(images), labels] += np.where(draws.random(images) < accuracy, 4.0, -1.0)
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    paths = [f"data/{classes[c]}/IMG {i}.png".replace("\0", "") for i, c in enumerate(labels)]
    for i in range(min(pictures, images)):
        path = folder / "data" / f"{i}.png"
        _picture(path, i)
    for i in range(images):
        if (scores[i].argmax() != labels[i]) and i % 7:
            paths[i] = f"{i % max(1, pictures)}.png"
    write_predictions(folder, paths, labels, scores)
    top1 = float((scores.argmax(axis=1) == labels).mean())
    metrics = {
        "task": "classification", "split": "test", "images": images, "top1": top1, "loss": 0.61,
        "ece": 0.041, "balanced_accuracy": top1 - 0.02, "f1_macro": top1 - 0.03, "per_class": [],
        "engine": "openvino", "images_per_second": 512.3,
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return folder


def write_predictions(folder: Path, paths: list[str], labels: Any, scores: Any) -> None:
    """`predictions.parquet` as the classification task leaves it."""
    table = pa.table(
        {
            "path": pa.array(paths, pa.string()),
            "label": pa.array(np.asarray(labels), pa.int32()),
            "scores": pa.array(list(np.asarray(scores, np.float32)), pa.list_(pa.float32())),
        }
    )
    pq.write_table(table, folder / "predictions.parquet")


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="session")
def make_anywhere() -> Callable[..., Path]:
    """`make_anywhere(folder, classes, **how)`: a run folder that several tests share."""
    return make_run


@pytest.fixture
def run_maker(tmp_path: Path) -> Callable[..., Path]:
    """`run_maker(classes, **how)`: a run folder called `run` under the test's folder."""

    def make(classes: list[str], **how: Any) -> Path:
        return make_run(tmp_path / "run", classes, **how)

    return make


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not rendered, which is what takes the time."""
    from retinue.page import plots

    monkeypatch.setattr(plots, "draw", lambda *_: {"svg": "", "label": ""})
