"""A training on data that a package brings, which no path leads to: it is found again by name."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny
from ruamel.yaml import YAML

import retinue as package
from retinue.cli.app import run as run_command

Command = Callable[..., Any]

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("elpv_dataset") is None, reason="needs the package elpv-dataset"
    ),
    pytest.mark.usefixtures("only_torch", "unreported"),
]
SPLIT = {"train": 0.98, "val": 0.01, "test": 0.01}
TEST_IMAGES = 26


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step, started from a folder of its own."""
    tiny.register()
    folder = tmp_path_factory.mktemp("elpv")
    stage = {"name": "all", "trainable": "all", "steps": 1, "batch_size": 4}
    values = tiny.recipe("photos", ema=None, stages=[stage])
    values["data"] |= {"split": SPLIT, "on_bad_image": "skip"}
    values["evaluation"] = {"batch_size": 32}
    (folder / "mine.yaml").write_text(json.dumps(values), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("retinue.api.training.write_report", lambda run: Path(run) / "report.html")
        line = ["train", "mine.yaml", "data=elpv", "-q", "--out", "run"]
        assert run_command(line) == 0
    return folder / "run"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which is not where the training was started."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_recipe_names_the_data_and_no_folder_of_this_machine(trained: Path) -> None:
    data = YAML(typ="safe").load((trained / "recipe.yaml").read_text(encoding="utf-8"))["data"]
    assert (data["format"], data["path"]) == ("elpv", None)
    text = (trained / "recipe.yaml").read_text(encoding="utf-8")
    assert "elpv_dataset" not in text
    assert str(trained.parent) not in text
    splits = (trained / "splits.csv").read_text(encoding="utf-8").splitlines()
    assert len(splits) == 2625
    assert splits[1].startswith("images/")
    assert json.loads((trained / "classes.json").read_text()) == ["functional", "defective"]


def test_evaluating_finds_the_data_again(retinue: Command, trained: Path, elsewhere: Path) -> None:
    figures = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    assert figures["images"] == TEST_IMAGES
    code, out, err = retinue("evaluate", trained, "--json", "--out", "judged")
    assert code == 0, err
    told = json.loads(out)
    assert told["split"] == "test"
    for name in ("images", "top1", "loss", "auc"):
        assert told[name] == pytest.approx(figures[name])
    before, now = (
        pq.read_table(folder / "predictions.parquet").to_pylist()
        for folder in (trained, elsewhere / "judged")
    )
    assert [row["path"] for row in now] == [row["path"] for row in before]
    assert all(os.path.isfile(row["path"]) for row in now)


def test_a_resumed_training_finds_the_data_again(
    retinue: Command, trained: Path, elsewhere: Path
) -> None:
    """It has its last checkpoint, and not yet its figures."""
    shutil.copytree(trained, elsewhere / "cut")
    (elsewhere / "cut" / "metrics.json").unlink()
    code, out, err = retinue("train", "cut", "--resume", "-q", "--json")
    assert code == 0, err
    figures = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    again = json.loads(out)["figures"]
    assert again["loss"] == pytest.approx(figures["loss"])
    assert again["images"] == TEST_IMAGES


def test_a_training_by_the_runs_recipe_is_the_same_again(trained: Path, elsewhere: Path) -> None:
    again = package.train(
        trained / "recipe.yaml", out=elsewhere / "again", report=False, quiet=True
    )
    for name in ("splits.csv", "classes.json", "recipe.yaml"):
        assert (again.folder / name).read_bytes() == (trained / name).read_bytes()


def test_a_model_without_its_run_is_judged_on_it_by_name(
    retinue: Command, trained: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first 40 images: all of them take too long for a test."""
    whole = Path.read_text

    def shortened(self: Path, *how: Any, **more: Any) -> str:
        text = whole(self, *how, **more)
        return "\n".join(text.splitlines()[:40]) if self.name == "labels.csv" else text

    monkeypatch.setattr(Path, "read_text", shortened)
    shutil.copy(trained / "best.safetensors", elsewhere / "model.safetensors")
    code, out, err = retinue("evaluate", "model.safetensors", "--data", "elpv", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["split"], told["images"]) == ("all", 40)
    code, _, err = retinue("evaluate", "model.safetensors", "--json")
    assert code == 2
    assert "does not say where its data is" in err
