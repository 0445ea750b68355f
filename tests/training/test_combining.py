"""Models made one: means of weights, and weights of answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

import retinue
from retinue import modelfile
from retinue.data.options import DataOptions
from retinue.data.sources import open_dataset
from retinue.errors import RetinueError, UsageError
from retinue.inference.predictor import load
from retinue.sample import Preprocessing
from retinue.tasks.task import task_type
from retinue.training import combining
from retinue.training.combining import measure

pytestmark = pytest.mark.usefixtures("torch_alone")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> list[Path]:
    """Three trainings that differ in their seed: of another start each."""
    tiny.register()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("runs")
    found = []
    for seed in range(3):
        recipe = tiny.recipe(pictures, stages=[{"epochs": 2, "batch_size": 8}], ema=None, seed=seed)
        found.append(
            retinue.train(recipe, out=root / f"run{seed}", report=False, quiet=True).folder
        )
    return found


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    return modelfile.read(modelfile.find_model(path))[1]


def test_the_mean_of_all_has_their_mean_weights_and_its_own_statistics(
    tmp_path: Path, runs: list[Path], pictures: Path
) -> None:
    made = retinue.soup(runs, tmp_path / "soup.safetensors", uniform=True, data=pictures)
    mean, each = _tensors(made.path), [_tensors(run) for run in runs]
    for name in ("stem.0.weight", "head.fc.bias"):
        expected = sum(one[name].double() for one in each) / 3
        assert torch.allclose(mean[name].double(), expected, atol=1e-7)
    statistics = mean["stem.1.running_mean"]
    assert not any(torch.allclose(statistics, one["stem.1.running_mean"]) for one in each)
    average = sum(one["stem.1.running_mean"] for one in each) / 3
    assert not torch.allclose(statistics, average, atol=1e-4)
    answer = retinue.load(made.path, engine="torch")(str(next((pictures / "red").iterdir())))
    assert set(answer.as_dict()) >= {"path", "classes"}
    assert [member.share for member in made.members] == pytest.approx([1 / 3] * 3)


def test_a_mean_of_all_takes_its_statistics_from_the_run_s_own_data(
    tmp_path: Path, runs: list[Path], pictures: Path
) -> None:
    made = retinue.soup(runs, tmp_path / "soup.safetensors", uniform=True)
    assert made.figures == {}
    again = retinue.soup(runs, tmp_path / "told.safetensors", uniform=True, data=pictures)
    one, other = _tensors(made.path), _tensors(again.path)
    assert all(torch.equal(one[name], other[name]) for name in one)
    # What needs no image asks for none: the run's folder has no data.
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copyfile(modelfile.find_model(runs[0]), tmp_path / name / "best.safetensors")
    alone = [tmp_path / "a" / "best.safetensors", tmp_path / "b" / "best.safetensors"]
    retinue.soup(alone, tmp_path / "copies.safetensors", uniform=True)


def test_models_of_single_epochs_are_judged_on_the_run_s_data(
    tmp_path: Path, runs: list[Path]
) -> None:
    files = []
    for run in runs[:2]:
        files.append(run / "epochs" / "epoch_0001.safetensors")
        files[-1].parent.mkdir(exist_ok=True)
        shutil.copyfile(modelfile.find_model(run), files[-1])
    made = retinue.soup(files, tmp_path / "soup.safetensors")
    runs_own = retinue.soup(runs[:2], tmp_path / "own.safetensors")
    assert made.figures == runs_own.figures
    assert retinue.ensemble(files, tmp_path / "all.json").figures


def test_statistics_are_those_of_what_the_network_sees(
    tmp_path: Path, runs: list[Path], pictures: Path
) -> None:
    predictor = load(runs[0], device="cpu", engine="torch")
    samples = list(open_dataset(DataOptions(path=str(pictures)), task_type(
        "classification").readers()).splits["train"])[:8]  # fmt: skip
    seen = []
    conv = predictor.network.stem[0]  # type: ignore[index]
    hook = conv.register_forward_hook(lambda module, inputs, output: seen.append(output))
    measure(predictor.network, samples, predictor.preprocessing, "cpu")
    hook.remove()
    (values,) = seen
    norm = predictor.network.stem[1]  # type: ignore[index]
    assert torch.allclose(norm.running_mean, values.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, values.var((0, 2, 3)), rtol=1e-4)
    assert norm.momentum == 0.1
    assert not norm.training


def test_a_greedy_soup_leaves_out_what_makes_it_worse(tmp_path: Path, runs: list[Path]) -> None:
    made = retinue.soup(runs, tmp_path / "soup.safetensors", metric="loss")
    figures = [member.figure for member in made.members]
    assert figures == sorted(figures)  # type: ignore[type-var]
    assert made.members[0].share > 0
    best = figures[0]
    assert best is not None
    assert made.figures["loss"] <= best + 1e-6 or len([m for m in made.members if m.share]) == 1
    # The best with a copy of itself stays the best, bit for bit, with its own statistics.
    copy = tmp_path / "copy.safetensors"
    shutil.copyfile(modelfile.find_model(runs[0]), copy)
    twice = retinue.soup([runs[0], copy], tmp_path / "twice.safetensors", metric="loss")
    own, same = _tensors(runs[0]), _tensors(twice.path)
    assert all(torch.equal(own[name], same[name]) for name in own)
    assert [member.share for member in twice.members] == [0.5, 0.5]
    described = modelfile.read_description(twice.path)
    assert described.figures == twice.figures
    assert described.recipe is not None
    assert "the mean of the weights of 2 models" in described.recipe["about"]["source"]


def test_an_ensemble_answers_with_the_weighted_mean(
    tmp_path: Path, runs: list[Path], pictures: Path
) -> None:
    made = retinue.ensemble(runs, tmp_path / "all.json")
    assert sum(member.share for member in made.members) == pytest.approx(1)
    assert made.figures["loss"] <= made.alike["loss"] + 1e-6
    written = json.loads(made.path.read_text())
    picture = str(next((pictures / "green").iterdir()))

    def scores(model: object) -> np.ndarray:
        found = retinue.load(model, engine="torch")(picture).as_dict()["classes"]  # type: ignore[arg-type]
        return np.array([s for _, s in sorted((c["name"], c["score"]) for c in found)])

    expected = sum(one["weight"] * scores(tmp_path / one["file"]) for one in written["models"])
    assert scores(made.path) == pytest.approx(expected, abs=1e-5)
    figures = retinue.evaluate(made.path, split="val", engine="torch")
    assert figures["loss"] == pytest.approx(made.figures["loss"], rel=1e-4)
    with pytest.raises(UsageError, match="an ensemble cannot answer together"):
        retinue.load([made.path, runs[0]])


def test_the_file_of_an_ensemble_that_was_moved_or_damaged(
    tmp_path: Path, runs: list[Path]
) -> None:
    path = tmp_path / "e.json"
    for text, what in (
        ("{}", "this is no ensemble"),
        ('{"retinue_ensemble": 1, "models": []}', "damaged"),
        ('{"retinue_ensemble": 1, "models": [{"file": "x", "weight": 0}]}', "damaged"),
        ('{"retinue_ensemble": 9, "models": [{"file": "x", "weight": 1}]}', "format 9"),
        ("{", "not JSON"),
    ):
        path.write_text(text)
        with pytest.raises(RetinueError, match=what):
            retinue.load(path)
    path.write_text('{"retinue_ensemble": 1, "models": [{"file": "gone/x", "weight": 1}]}')
    with pytest.raises(RetinueError, match=r"model .*gone/x is gone") as told:
        retinue.load(path)
    assert told.value.where == str(path)


def test_a_task_that_does_not_weigh_is_refused_before_anything_is_judged(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        files.append(tmp_path / f"{name}.safetensors")
        described = modelfile.ModelDescription(
            task="multilabel", classes=["sea"], network="tiny", arguments={"num_classes": 1},
            preprocessing=Preprocessing(size=(32, 32)).as_dict(),
        )  # fmt: skip
        modelfile.write(files[-1], {"nothing": torch.zeros(1)}, described)
    with pytest.raises(UsageError, match="does not weigh models") as refused:
        retinue.ensemble(files, tmp_path / "all.json")
    assert "retinue.evaluate([A, B], data=PATH)" in str(refused.value)


def test_what_is_refused(tmp_path: Path, runs: list[Path], pictures: Path) -> None:
    out = tmp_path / "out.safetensors"
    recipe = tiny.recipe(pictures, stages=[{"epochs": 1, "batch_size": 8}], ema=None)
    recipe["model"]["arguments"] = {"norm": False}
    other = retinue.train(recipe, out=tmp_path / "other", report=False, quiet=True).folder
    fewer = tiny.recipe(pictures, stages=[{"epochs": 1, "batch_size": 8}], ema=None)
    fewer["data"]["classes"] = ["green", "red"]
    two = retinue.train(fewer, out=tmp_path / "two", report=False, quiet=True).folder
    for models, what in (
        ([runs[0]], "a combination needs two models or more"),
        (str(runs[0]), "a combination needs two models or more"),
        ([runs[0], runs[0]], "named twice"),
        ([runs[0], other], "other arguments of the network than the first"),
        ([runs[0], two], "other classes"),
        ([runs[0], tmp_path / "none"], "there is no such model"),
    ):
        with pytest.raises(UsageError, match=what):
            retinue.soup(models, out)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no figure 'beauty'"):
        retinue.soup(runs, out, metric="beauty")
    assert not out.exists()
    out.write_text("mine")
    with pytest.raises(UsageError, match="the file is there already"):
        retinue.ensemble(runs, out)
    with pytest.raises(UsageError, match="it is one of the models"):
        retinue.soup(runs, runs[1] / "best.safetensors", force=True)
    assert out.read_text() == "mine"


def test_models_of_other_splits_are_doubted(
    tmp_path: Path, runs: list[Path], pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = tiny.recipe(pictures, stages=[{"epochs": 1, "batch_size": 8}], ema=None)
    recipe["data"]["split"] = {"seed": 5}
    other = retinue.train(recipe, out=tmp_path / "other", report=False, quiet=True).folder
    caplog.clear()
    retinue.soup([runs[0], other], tmp_path / "s.safetensors")
    assert "may have learnt from the images" in caplog.text
    assert combining.LOOKED_AT > 0
