"""A training of any number of labels an image, whole: labels that nobody knows, mixing on the way,
killed and resumed, two processes, `evaluate`, `predict` and the report."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from interrupted import assert_same, interrupted
from PIL import Image

import retinue
from retinue import modelfile
from retinue.cli.app import run as command
from retinue.tasks.results import LabelsResult

pytestmark = pytest.mark.usefixtures("only_torch")
NAMES = ["red", "green", "blue 猫 & dog/1"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 pictures with patches of three colours, none among them; some cells are left empty."""
    root = tmp_path_factory.mktemp("labels")
    rng = np.random.default_rng(0)
    rows = [["image", *NAMES]]
    for number in range(90):
        there = rng.random(3) < 0.4
        pixels = rng.normal(60, 25, (40, 40, 3))
        for channel in np.flatnonzero(there):
            y, x = rng.integers(0, 24, 2)
            pixels[y : y + 16, x : x + 16, channel] += 150
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{number}.png")
        said = [("" if rng.random() < 0.1 else str(int(one))) for one in there]
        rows.append([f"{number}.png", *said])
    with (root / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return root / "labels.csv"


def _recipe(table: Path, **changes: Any) -> dict[str, Any]:
    return {
        "task": "multilabel",
        "model": {"name": "tiny", "weights": None},
        "data": {
            "path": str(table),
            "workers": 0,
            "split": {"train": 0.6, "val": 0.2, "test": 0.2},
        },
        "stages": [
            {
                "name": "all",
                "epochs": 12,
                "batch_size": 9,
                "sampler": "repeat_factor",
                "augment": {
                    "mixing": {"mixup": 0.4, "cutmix": 1.0, "probability": 0.3},
                    "policy": {"name": "rand_augment", "magnitude": 5},
                    "erasing": {"probability": 0.2, "area": [0.02, 0.1]},
                },
                "optimizer": {"name": "adamw", "lr": 0.02},
            }
        ],
        "ema": {"decay": 0.9},
        "device": "cpu",
        "tensorboard": False,
        **changes,
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, table: Path, torch_alone: None) -> Path:
    tiny.register()
    out = tmp_path_factory.mktemp("whole") / "run"
    retinue.train(_recipe(table), out=out, quiet=True)
    return out


def test_it_learns_and_keeps_its_thresholds(whole: Path, table: Path) -> None:
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["task"] == "multilabel"
    assert metrics["map"] > 0.8
    kept = modelfile.read_description(whole / "best.safetensors")
    assert kept.classes == NAMES
    thresholds = kept.task_state["thresholds"]
    assert [row["threshold"] for row in metrics["per_class"]] == pytest.approx(thresholds)
    predictor = retinue.load(whole / "best.safetensors", engine="torch")
    found = [predictor(table.parent / f"{k}.png") for k in range(20)]
    assert any(not result.answers() for result in found), "no label is an answer"
    assert any(len(result.answers()) > 1 for result in found)
    for result in found:
        assert isinstance(result, LabelsResult)
        own = {name for name, score, least in zip(NAMES, result.scores, thresholds, strict=True)
               if score >= least}  # fmt: skip
        assert own == {name for name, _ in result.classes}


def test_stopped_on_its_way_it_goes_on_bit_for_bit(
    tmp_path: Path, table: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = interrupted(_recipe(table), tmp_path / "run", monkeypatch, step=5)
    retinue.train(run, resume=True, report=False, quiet=True)
    assert_same(run, whole)
    described = [modelfile.read_description(r / "best.safetensors") for r in (run, whole)]
    assert described[0].task_state == described[1].task_state


def test_the_command_line_judges_predicts_and_reports(
    tmp_path: Path, table: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> str:
        assert command(list(arguments)) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    judged = json.loads(
        run("evaluate", str(whole), "--split", "test", "--engine", "torch", "--json")
    )
    metrics = json.loads((whole / "metrics.json").read_text())
    for name in ("map", "f1_macro", "loss"):
        assert judged[name] == pytest.approx(metrics[name], rel=1e-4)
    # Other data, its columns in another order and one of them absent.
    with table.open(encoding="utf-8") as file:
        rows = [[row[k] for k in (0, 3, 1)] for row in csv.reader(file)]
    with (table.parent / "other.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    elsewhere = json.loads(
        run("evaluate", str(whole), str(table.parent / "other.csv"), "--engine", "torch", "--json")
    )
    assert [row["name"] for row in elsewhere["per_class"]] == NAMES
    assert elsewhere["per_class"][1]["ap"] is None
    assert elsewhere["per_class"][1]["images"] == 0, "the table does not speak of it"

    out = tmp_path / "answers"
    pictures = [str(table.parent / f"{k}.png") for k in range(6)]
    run("predict", str(whole), *pictures, "--out", str(out), "--format", "scores", "--draw",
        "--set", "threshold=0.9")  # fmt: skip
    with (out / "scores.csv").open(encoding="utf-8", newline="") as file:
        scored = list(csv.reader(file))
    assert scored[0] == ["path", "labels", *NAMES]
    for path, labels, *scores in scored[1:]:
        above = [name for name, score in zip(NAMES, scores, strict=True) if float(score) >= 0.9]
        assert sorted(filter(None, labels.split("|"))) == sorted(above), path
    assert (out / "drawn" / "0.png").is_file()

    page = Path(run("report", str(whole)).strip()).read_text(encoding="utf-8")
    for said in ("Class by class", "From which probability on?", "The clearest mistakes",
                 "Can the probabilities be believed?", "any number an image",
                 "blue 猫 &amp; dog/1"):  # fmt: skip
        assert said in page, said
    assert "cannot be read" not in page


def test_a_split_without_labels_cannot_pick_the_weights(tmp_path: Path) -> None:
    rows = ["path,labels,split"]
    for k in range(12):
        Image.new("RGB", (8, 8), (20 * k, 0, 0)).save(tmp_path / f"{k}.png")
        rows.append(
            f"{k}.png,{'' if k > 8 else 'a|b' if k % 2 else 'b'},{'val' if k > 8 else 'train'}"
        )
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    with pytest.raises(retinue.UsageError, match="map is not defined on the validation split"):
        retinue.train(_recipe(tmp_path / "labels.csv"), out=tmp_path / "run", quiet=True)
