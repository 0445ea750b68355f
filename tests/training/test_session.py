"""What a training begins with, refuses, writes down, and finds again."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from interrupted import interrupted
from safetensors.torch import load_file, save_file

import retinue
from retinue import modelfile
from retinue.data.sources import Dataset
from retinue.errors import Interrupted, RetinueError, UsageError
from retinue.models import registry
from retinue.models.darknet import EXAMPLE
from retinue.options.overrides import parse_override
from retinue.tasks.classification.task import Classification
from retinue.training import finish, prepare, trainer
from retinue.training.changes import without_paths
from retinue.training.features.cache import FeatureCache
from retinue.training.recipe import load_recipe
from retinue.training.session import Run
from retinue.weights.layout import ours
from retinue.weights.resolution import ResolvedWeights

pytestmark = pytest.mark.usefixtures("torch_alone")


def _train(recipe: dict[str, Any], out: Path) -> Run:
    return retinue.train(recipe, out=out, report=False, quiet=True)


def _resume(run: Path) -> Run:
    return retinue.train(run, resume=True, report=False, quiet=True)


def _one(data: Path | str, **stage: Any) -> dict[str, Any]:
    return tiny.recipe(data, stages=[{"epochs": 1, "batch_size": 8, **stage}], ema=None)


def test_stopped_in_the_final_evaluation_it_is_only_evaluated_again(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(finish, "evaluate", stop)
        with pytest.raises(Interrupted):
            _train(_one(pictures), run)
    before = (run / "best.safetensors").read_bytes()
    assert _resume(run).figures["split"] == "test"
    assert (run / "best.safetensors").read_bytes() == before


def test_a_signal_during_the_last_validation_counts(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trainer.validate

    def validate(*arguments: Any, **keywords: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "validate", validate)
        with pytest.raises(Interrupted):
            _train(_one(pictures), tmp_path / "run")
    assert _resume(tmp_path / "run").figures["split"] == "test"


def test_a_resumed_network_keeps_the_arguments_that_its_weights_brought(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights.safetensors"
    torch.manual_seed(5)
    save_file(tiny.Tiny(num_classes=3, norm=False).state_dict(), weights)

    def resolve(name: str, family: str, wanted: str, backbone: object) -> ResolvedWeights:
        return ResolvedWeights(
            tensors=load_file(wanted),
            layout=ours(family),
            source=wanted,
            tag=None,
            arguments={"norm": False},
        )

    monkeypatch.setattr(registry, "resolve", resolve)
    monkeypatch.chdir(tmp_path)
    recipe = _one(pictures, epochs=2)
    recipe["model"]["weights"] = f"./{weights.name}"
    whole = _train(recipe, tmp_path / "whole")
    interrupted(recipe, tmp_path / "run", monkeypatch, step=6)
    monkeypatch.chdir("/")
    _resume(tmp_path / "run")
    resumed, theirs = tiny.last_network(tmp_path / "run"), tiny.last_network(whole.folder)
    assert resumed.keys() == theirs.keys()
    assert all(torch.equal(resumed[name], theirs[name]) for name in theirs)
    described = modelfile.read_description(tmp_path / "run" / "best.safetensors")
    assert described.arguments["norm"] is False
    assert described.recipe is not None
    assert described.recipe["model"]["weights"] == weights.name
    # The run's own recipe repeats it from anywhere.
    again = retinue.train(
        whole.folder / "recipe.yaml", out=tmp_path / "again", report=False, quiet=True
    )
    assert torch.equal(tiny.last_network(again.folder)["head.fc.weight"], theirs["head.fc.weight"])


def test_the_model_file_says_which_hub_its_weights_came_from() -> None:
    recipe = load_recipe({"model": {"name": "tiny"}, "stages": [{"epochs": 1}]})
    dataset = Dataset(("a", "b"), {})
    hub = "hub:owner/repository@0123abc/model.safetensors"
    for weights, kept in ((hub, hub), ("/home/me/a.safetensors", "a.safetensors")):
        named = recipe.model_copy(
            update={"model": recipe.model.model_copy(update={"weights": weights})}
        )
        placed = prepare.with_absolute_paths(named, dataset)
        assert placed.model.weights == weights
        assert without_paths(placed)["model"]["weights"] == kept


def test_a_file_that_describes_a_network_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.cfg").write_text(EXAMPLE)
    there = str(tmp_path / "my.cfg")
    stages = [{"epochs": 1}]
    for model in ("my.cfg", {"name": "darknet", "weights": None, "arguments": {"cfg": "my.cfg"}}):
        recipe = load_recipe({"model": model, "task": "detection", "stages": stages})
        assert (recipe.model.name, recipe.model.weights) == ("darknet", None)
        placed = prepare.with_absolute_paths(recipe, Dataset(("a", "b"), {}))
        assert placed.model.arguments == {"cfg": there}
        assert without_paths(placed)["model"]["arguments"] == {"cfg": "my.cfg"}
    text = recipe.model.model_copy(update={"arguments": {"cfg": EXAMPLE}})
    as_text = prepare.with_absolute_paths(
        recipe.model_copy(update={"model": text}), Dataset(("a", "b"), {})
    )
    assert as_text.model.arguments == {"cfg": EXAMPLE}


def test_bf16_on_the_cpu_trains_and_resumes_exactly(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny.recipe(pictures, precision="bf16")
    whole = _train(recipe, tmp_path / "whole")
    interrupted(recipe, tmp_path / "run", monkeypatch, step=11)
    resumed = _resume(tmp_path / "run")
    ours, theirs = tiny.last_network(resumed.folder), tiny.last_network(whole.folder)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    full = _train(tiny.recipe(pictures), tmp_path / "full")
    assert not torch.equal(
        tiny.last_network(full.folder)["head.fc.weight"], theirs["head.fc.weight"]
    )


@pytest.mark.slow
def test_a_compiled_network_trains_as_the_plain_one(tmp_path: Path, pictures: Path) -> None:
    network = {"name": "tiny", "weights": None, "dropout": 0.0}  # compiled, it draws otherwise
    plain = _train(tiny.recipe(pictures, model=network), tmp_path / "plain")
    compiled = _train(tiny.recipe(pictures, model=network, compile=True), tmp_path / "compiled")
    ours, theirs = tiny.last_network(compiled.folder), tiny.last_network(plain.folder)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert torch.allclose(ours[name], theirs[name], rtol=1e-2, atol=1e-3), name


@pytest.mark.parametrize("room", [True, False])
def test_a_resumed_stage_is_cached_if_it_was_before(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    """Cached features are rounded, so that another decision would change the weights."""

    def budget(there: bool) -> None:
        monkeypatch.setattr(FeatureCache, "make_room", lambda *_: None if there else "no room")

    recipe = _one(pictures, trainable="head", views=2, epochs=2)
    recipe["cache"] = {"folder": str(tmp_path / "cache")}
    budget(room)
    whole = _train(recipe, tmp_path / "whole")
    interrupted(recipe, tmp_path / "run", monkeypatch, step=6)
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    budget(not room)
    _resume(tmp_path / "run")
    assert (tmp_path / "cache").exists() == room
    cached = json.loads((tmp_path / "run" / "environment.json").read_text())["trunk"]["train"]
    if room:
        assert len(cached.pop("spaces")) == 1
        assert cached.pop("dtype") == "float16"
        assert 0 < cached.pop("relative_error") <= cached.pop("largest_relative_error")
        assert cached.pop("error_bound") == 2**-12
        assert cached.pop("bytes") > 0
    wanted = {"units": 3, "via": [], "views": 2, "engine": "torch"}
    assert cached == (wanted if room else None)
    ours, theirs = tiny.last_network(tmp_path / "run"), tiny.last_network(whole.folder)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_without_a_validation_split_the_last_weights_are_kept(
    tmp_path: Path, pictures: Path
) -> None:
    recipe = _one(pictures, epochs=2, early_stop={"patience": 1})
    recipe["data"]["split"] = {"train": 0.8, "val": 0, "test": 0.2}
    run = _train(recipe, tmp_path / "run")
    kept = modelfile.read(run.best)[1]
    last = tiny.last_network(run.folder)
    assert all(torch.equal(kept[name], last[name]) for name in last)
    assert "no validation split" in (run.folder / "train.log").read_text(encoding="utf-8")


def test_keep_last_keeps_the_last_weights(tmp_path: Path, pictures: Path) -> None:
    recipe = _one(pictures, epochs=40, early_stop={"patience": 1})
    recipe["evaluation"] = {**recipe.get("evaluation", {}), "keep": "last"}
    run = _train(recipe, tmp_path / "run")
    rows = tiny.rows(run.folder)
    # The early stop ended it: the last epoch was not the best.
    assert len(rows) < 40
    assert float(rows[-1]["val_top1"]) <= float(rows[-2]["val_top1"])
    kept = modelfile.read(run.best)[1]
    last = tiny.last_network(run.folder)
    assert all(torch.equal(kept[name], last[name]) for name in last)
    assert "* best" not in (run.folder / "train.log").read_text(encoding="utf-8")


def test_a_file_that_went_missing_is_named_on_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny.write_pictures(tmp_path / "data")
    interrupted(_one(data), tmp_path / "run", monkeypatch)
    (data / "red" / "04.png").rename(tmp_path / "04.png")
    with pytest.raises(UsageError, match=r"missing, first 'red/04\.png'.*splits\.csv"):
        _resume(tmp_path / "run")
    (tmp_path / "04.png").rename(data / "red" / "04.png")
    assert _resume(tmp_path / "run").figures["images"] > 0


def test_changed_labels_or_order_are_refused_on_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny.write_pictures(tmp_path / "data")
    rows = [f"{p.relative_to(data)},{p.parent.name}" for p in sorted(data.rglob("*.png"))]
    table = data / "table.csv"
    table.write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    interrupted(_one(table), tmp_path / "run", monkeypatch)
    for changed in (
        [rows[0].replace(",blue 猫", ",red"), *rows[1:]],
        rows[::-1],
    ):
        table.write_text("\n".join(["path,label", *changed]), encoding="utf-8")
        with pytest.raises(RetinueError, match=r"another label or order.*splits\.csv, line \d+"):
            _resume(tmp_path / "run")
    new = [row.replace(",red", ",violet") for row in rows]
    table.write_text("\n".join(["path,label", *new]), encoding="utf-8")
    with pytest.raises(RetinueError) as refused:
        _resume(tmp_path / "run")
    assert refused.value.what.endswith("when the training began: new: violet; gone: red")
    command = shlex.split(str(refused.value.mend).split(": retinue train ")[1])
    assert load_recipe(command[0], dict(map(parse_override, command[1:]))).data.path == str(table)
    table.write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    assert _resume(tmp_path / "run").figures["images"] > 0


def test_a_run_that_an_older_version_began_says_so_on_resume(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    interrupted(_one(pictures), run, monkeypatch)
    rows = (run / "splits.csv").read_text(encoding="utf-8").splitlines()
    older = [",".join(row.split(",")[:3]) for row in rows]
    (run / "splits.csv").write_text("\n".join(older) + "\n", encoding="utf-8")
    with pytest.raises(RetinueError, match=r"older version.*splits\.csv.*new training"):
        _resume(run)


def test_a_task_goes_on_with_the_state_that_it_began_with(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with one that is worked out anew, which need not come to the same."""
    recipe = _one(pictures) | {"task_options": {"class_weights": "balanced"}}
    interrupted(recipe, tmp_path / "run", monkeypatch)

    def refuse(*_: object) -> None:
        raise AssertionError("prepared anew")

    monkeypatch.setattr(Classification, "prepared", refuse)
    _resume(tmp_path / "run")
    state = modelfile.read_description(tmp_path / "run" / "best.safetensors").task_state
    assert len(state["class_weights"]) == 3


def test_stopped_while_the_splits_are_written_down(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Dataset.write_splits

    def half(self: Dataset, path: Path) -> None:
        real(self, path)
        text = Path(path).read_bytes()
        Path(path).write_bytes(text[: len(text) // 2])
        raise KeyboardInterrupt

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "write_splits", half)
        with pytest.raises(Interrupted):
            _train(_one(pictures), run)
    _resume(run)
    whole = _train(_one(pictures), tmp_path / "whole").folder
    assert (run / "splits.csv").read_bytes() == (whole / "splits.csv").read_bytes()
    settings = json.loads((run / "environment.json").read_text(encoding="utf-8"))["settings"]
    assert settings["device"] == "cpu"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation": {"metric": "top_1"}}, r"no figure 'top_1'.*did you mean 'top1'"),
        (
            {"evaluation": {"tta": "dihedral"}, "input": {"size": [32, 48]}},
            r"square input.*evaluation\.tta",
        ),
    ],
)
def test_what_would_only_fail_later_is_refused_before_the_first_step(
    tmp_path: Path, pictures: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        _train(_one(pictures) | changes, tmp_path / "run")
    assert not (tmp_path / "run" / "last").exists()


def test_a_bad_image_of_the_validation_split_is_named(tmp_path: Path, pictures: Path) -> None:
    data = tiny.write_pictures(tmp_path / "data")
    with (_train(_one(data), tmp_path / "first").folder / "splits.csv").open(
        encoding="utf-8", newline=""
    ) as file:
        path = next(row["path"] for row in csv.DictReader(file) if row["split"] == "val")
    (data / path).write_bytes(b"broken")
    recipe = _one(data)
    recipe["data"]["on_bad_image"] = "skip"
    assert set(_train(recipe, tmp_path / "run").skipped) == {str(data / path)}


def test_sample_weights_leave_validation_alone(tmp_path: Path, pictures: Path) -> None:
    """A table's weights are for training; a figure counts every image once."""
    rows = [
        (path.parent.name, str(path.relative_to(pictures)), number % 4 == 0)
        for number, path in enumerate(sorted(pictures.rglob("*.png")))
    ]
    losses = []
    for weight in (1, 0):
        lines = [
            f"{p},{label},{'val' if v else 'train'},{weight if v else 1}" for label, p, v in rows
        ]
        table = tmp_path / f"weight{weight}.csv"
        table.write_text("\n".join(["path,label,split,weight", *lines]), encoding="utf-8")
        recipe = _one(table)
        recipe["data"]["images"] = str(pictures)
        run = _train(recipe, tmp_path / f"run{weight}")
        losses.append(modelfile.read_description(run.best).figures["loss"])
    assert losses[0] == losses[1]
