"""What version 0.1.0 wrote loads and answers as it did: see golden/v1/README.md.

Only what is public is called, so that the insides may change as they like.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import retinue
from retinue import api

GOLDEN = Path(__file__).parent / "golden" / "v1"
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))
MODELS: dict[str, Any] = EXPECTED["models"]
RUNS: dict[str, Any] = EXPECTED["runs"]
PLACE = "@DATA@"
TEXTS = ("recipe.yaml", "train.log")


@pytest.fixture(scope="module")
def v1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the fixtures, with its own place in every path that is written down."""
    root = tmp_path_factory.mktemp("older") / "v1"
    shutil.copytree(GOLDEN, root)
    for run in RUNS:
        for name in TEXTS:
            file = root / run / name
            text = file.read_text(encoding="utf-8")
            assert PLACE in text
            file.write_text(text.replace(PLACE, root.as_posix()), encoding="utf-8")
        table = pq.read_table(root / run / "predictions.parquet")
        assert table.column_names == ["path", "label", "scores"]
        paths = [path.replace(PLACE, root.as_posix()) for path in table["path"].to_pylist()]
        table = table.set_column(0, "path", pa.array(paths, pa.string()))
        pq.write_table(table, root / run / "predictions.parquet")
    return root


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def same_figures(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Every scalar of `expected` is in `found`: the same, or a number that is close."""
    for name, value in expected.items():
        if isinstance(value, float):
            value = pytest.approx(value, rel=1e-5, abs=1e-5)
        assert found.get(name) == value, name


def same_answer(found: list[tuple[str, float]], expected: list[list[Any]]) -> None:
    assert len(found) == len(expected)
    assert dict(found) == pytest.approx(dict(map(tuple, expected)), abs=1e-5)
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("model", MODELS)
def test_model_answers_as_before(v1: Path, model: str):
    predictor = retinue.load(v1 / model, engine="torch", device="cpu")
    assert list(predictor.classes) == MODELS[model]["classes"]
    answers = MODELS[model]["answers"]
    assert len(answers) == 24
    for picture, expected in answers.items():
        same_answer(predictor(v1 / picture).classes, expected)


@pytest.mark.parametrize("model", MODELS)
def test_model_has_the_same_figures_on_named_data(v1: Path, model: str):
    for asked in MODELS[model]["evaluations"]:
        how = {name: value for name, value in asked.items() if name != "figures"}
        how["data"] = v1 / how["data"]
        found = retinue.evaluate(v1 / model, engine="torch", device="cpu", **how)
        assert len(asked["figures"]) >= 10
        same_figures(found, asked["figures"])


@pytest.mark.parametrize("run", RUNS)
def test_run_has_the_same_figures_on_its_own_data(v1: Path, run: str):
    """Split as it was then, whatever would be drawn now."""
    for split, figures in RUNS[run].items():
        found = retinue.evaluate(v1 / run, split=split, engine="torch", device="cpu")
        same_figures(found, figures)
    written = json.loads((v1 / run / "metrics.json").read_text(encoding="utf-8"))
    same_figures(written, RUNS[run]["test"])


def test_predict_writes_the_same_names(v1: Path, tmp_path: Path):
    said = api.predict(v1 / "run", v1 / "pictures", out=tmp_path / "out", engine="torch")
    answers = MODELS["run/best.safetensors"]["answers"]
    assert said.images == len(answers)
    lines = (tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    found = {}
    for line in lines:
        values = json.loads(line)
        found[Path(values["path"]).relative_to(v1).as_posix()] = values["classes"]
    assert found.keys() == answers.keys()
    for picture, classes in found.items():
        same_answer([(c["name"], c["score"]) for c in classes], answers[picture])


@pytest.mark.parametrize("run", RUNS)
def test_report_of_the_run_shows_its_figures(v1: Path, tmp_path: Path, run: str):
    folder = tmp_path / run
    shutil.copytree(v1 / run, folder)
    page = api.write_report(folder).read_text(encoding="utf-8")
    figures = RUNS[run]["test"]
    shown = " ".join(re.sub(r"<[^>]*>", " ", page).replace("&nbsp;", " ").split())
    assert f"Top-1 accuracy {100 * figures['top1']:.1f} %" in shown
    assert f"Loss {figures['loss']:.3f}" in shown
    assert f"Balanced accuracy {100 * figures['balanced_accuracy']:.1f} %" in shown
    for name in json.loads((folder / "classes.json").read_text(encoding="utf-8")):
        assert escape(name) in page
    if "auc" in figures:
        assert f"{figures['auc']:.3f}" in shown
    assert (folder / "plots" / "loss.png").is_file()  # from metrics.csv
    assert (folder / "plots" / "calibration.png").is_file()  # from predictions.parquet


def test_a_finished_run_that_is_gone_on_with_gives_its_figures(v1: Path):
    run = retinue.train(v1 / "run", resume=True, report=False, quiet=True)
    same_figures(run.figures, RUNS["run"]["test"])
    assert run.best == v1 / "run" / "best.safetensors"


@pytest.mark.parametrize(
    ("model", "network"),
    [
        ("run/best.safetensors", "mobilenet_v1_025"),
        ("pair/best.safetensors", "vit_base_patch16"),
        ("models/efficientnet.safetensors", "tf_efficientnet_lite0"),
        ("models/mnist.safetensors", "mnist_cnn"),
    ],
)
def test_the_network_begins_from_its_tensors(v1: Path, model: str, network: str):
    """The file brings the arguments that it was built with, and how it takes its images."""
    made = retinue.create_model(
        network, num_classes=len(MODELS[model]["classes"]), weights=v1 / model
    )
    tensors = load_file(v1 / model)
    state = made.state_dict()
    assert state.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert torch.equal(state[key], tensor), key
    predictor = retinue.load(v1 / model, engine="torch")
    assert made.preprocessing == predictor.preprocessing


def test_a_training_begins_from_its_tensors(v1: Path, tmp_path: Path, only_torch: None):
    """Only the head learns; what is frozen ends as it began."""
    recipe = {
        "model": {"name": "mobilenet_v1_025", "weights": str(v1 / "run" / "best.safetensors")},
        "data": {"path": str(v1 / "pair.csv"), "workers": 0},
        "stages": [{"trainable": "head", "steps": 1, "batch_size": 4}],
        "device": "cpu",
        "tensorboard": False,
    }
    run = retinue.train(recipe, out=tmp_path / "new", report=False, quiet=True)
    new, old = load_file(run.best), load_file(v1 / "run" / "best.safetensors")
    assert new.keys() == old.keys()
    for key, tensor in old.items():
        if key.startswith("head."):
            assert new[key].shape[0] == 2  # other classes
        else:
            assert torch.equal(new[key], tensor), key
    assert retinue.load(run.folder).classes == ("9", "10")


@pytest.mark.parametrize("run", RUNS)
def test_the_recipe_begins_a_new_training(v1: Path, tmp_path: Path, only_torch: None, run: str):
    short = {"run": {"stages.1.epochs": 1}, "pair": {"stages.0.steps": 3}}[run]
    new = retinue.train(
        v1 / run / "recipe.yaml", out=tmp_path / "new", overrides=short, report=False, quiet=True
    )
    assert set(RUNS[run]["test"]) <= set(new.figures)
    assert (new.folder / "classes.json").read_bytes() == (v1 / run / "classes.json").read_bytes()
    before, now = (rows_of(folder / "splits.csv") for folder in (v1 / run, new.folder))
    # Which is new, behind what there was.
    assert list(now[0]) == [*before[0], "target"]
    assert [{name: row[name] for name in before[0]} for row in now] == before
    old, begun = load_file(v1 / run / "best.safetensors"), load_file(new.best)
    assert {k: t.shape for k, t in begun.items()} == {k: t.shape for k, t in old.items()}


def test_nothing_of_a_machine_is_in_the_fixtures():
    for file in GOLDEN.rglob("*"):
        if file.is_file() and file.suffix != ".png":
            held = file.read_bytes()
            for trace in (b"/home/", b"/tmp/", b"/root/", b"/Users/", b"EPYC", b"Xeon"):
                assert trace not in held, file
    assert sum(file.stat().st_size for file in GOLDEN.rglob("*")) < 1_500_000
