from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import retinue
from retinue import modelfile
from retinue.errors import BadImageError, RetinueError, UsageError
from retinue.training.evaluation import data_of_run
from retinue.training.features.cached_views import CachedViews
from retinue.training.features.shown import Shown
from retinue.training.session import Run

pytestmark = pytest.mark.usefixtures("torch_alone")


def _train(tmp_path: Path, recipe: dict[str, Any], name: str = "run") -> Run:
    return retinue.train(recipe, out=tmp_path / name, report=False, quiet=True)


def _one(data: Path, **stage: Any) -> dict[str, Any]:
    """One stage of everything, without averages."""
    values = {"trainable": "all", "epochs": 1, "batch_size": 8, **stage}
    return tiny.recipe(data, stages=[values], ema=None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, pictures: Path, torch_alone: None) -> Run:
    tiny.register()
    return _train(tmp_path_factory.mktemp("trained"), tiny.recipe(pictures))


def test_a_run_leaves_what_the_design_promises(trained: Run, pictures: Path) -> None:
    names = {path.name for path in trained.folder.iterdir()}
    assert names >= {
        "recipe.yaml",
        "classes.json",
        "splits.csv",
        "metrics.csv",
        "metrics.json",
        "predictions.parquet",
        "environment.json",
        "best.safetensors",
        "last",
        "plots",
        "train.log",
    }
    assert json.loads((trained.folder / "classes.json").read_text()) == sorted(tiny.COLOURS)
    rows = tiny.rows(trained.folder)
    assert [row["stage"] for row in rows] == ["head"] * 2 + ["all"] * 3
    assert [row["epoch"] for row in rows] == list("12345")
    assert {"train_loss", "train_top1", "val_loss", "val_top1", "lr"} <= rows[0].keys()
    figures = json.loads((trained.folder / "metrics.json").read_text())
    assert figures["split"] == "test"
    assert figures == trained.figures
    assert {p.name for p in (trained.folder / "plots").iterdir()} >= {
        "batch_head.png",
        "batch_all.png",
    }


def test_the_model_file_holds_the_best_epochs_weights_and_no_path(trained: Run) -> None:
    rows = tiny.rows(trained.folder)
    description = modelfile.read_description(trained.best)
    best = max(float(row["val_top1"]) for row in rows)
    assert description.figures["top1"] == best
    assert description.classes == sorted(tiny.COLOURS)
    assert str(trained.folder.parent) not in description.model_dump_json()
    assert description.recipe is not None
    assert description.recipe["data"]["path"] == "data"


def test_the_runs_own_recipe_repeats_it(trained: Run, tmp_path: Path) -> None:
    again = retinue.train(
        trained.folder / "recipe.yaml", out=tmp_path / "again", report=False, quiet=True
    )
    first, second = tiny.last_network(trained.folder), tiny.last_network(again.folder)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_seed_gives_other_weights(trained: Run, tmp_path: Path, pictures: Path) -> None:
    other = _train(tmp_path, tiny.recipe(pictures, seed=1))
    assert not torch.equal(
        tiny.last_network(trained.folder)["stem.0.weight"],
        tiny.last_network(other.folder)["stem.0.weight"],
    )


def test_a_second_run_takes_another_folder(tmp_path: Path, pictures: Path) -> None:
    recipe = _one(pictures, steps=1, epochs=None)
    first, second = _train(tmp_path, recipe), _train(tmp_path, recipe)
    assert [first.folder.name, second.folder.name] == ["run", "run-2"]


def test_what_is_frozen_stays_and_what_learns_changes(tmp_path: Path, pictures: Path) -> None:
    run = _train(tmp_path, _one(pictures, trainable=1, cache_features="off"))
    torch.manual_seed(0)
    fresh = tiny.Tiny(num_classes=3).state_dict()
    trained = tiny.last_network(run.folder)
    for name, value in fresh.items():
        frozen = name.startswith(("stem", "middle"))
        assert torch.equal(trained[name], value) == frozen, name


def test_frozen_batchnorm_keeps_its_statistics(tmp_path: Path, pictures: Path) -> None:
    first = _train(tmp_path, _one(pictures))
    before = modelfile.read(first.best)[1]["stem.1.running_mean"]
    assert not torch.equal(before, torch.zeros(8))
    weights = {"name": "tiny", "weights": str(first.best)}
    run = _train(tmp_path, _one(pictures, frozen_batchnorm=True) | {"model": weights})
    assert torch.equal(tiny.last_network(run.folder)["stem.1.running_mean"], before)
    run = _train(tmp_path, _one(pictures) | {"model": weights})
    assert not torch.equal(tiny.last_network(run.folder)["stem.1.running_mean"], before)


def test_views_are_each_drawn_and_all_used(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[set[tuple[int, int]]] = []
    real = CachedViews.batches

    def spy(self: CachedViews, plans: Any) -> Any:
        used.append(set())
        yield from real(self, plans)

    seen = Shown.seen

    def spied(self: Shown, row: Any, place: tuple[int, int], *rest: Any) -> Any:
        if self._count == 3 and used:
            used[-1].add(place)
        return seen(self, row, place, *rest)

    monkeypatch.setattr(CachedViews, "batches", spy)
    monkeypatch.setattr(Shown, "seen", spied)
    stage = {"trainable": "head", "epochs": 6, "views": 3, "batch_size": 2}
    _train(tmp_path, _one(pictures, **stage))
    train = 38  # of 48 pictures, 80 %, by class: 3 × 13 or so
    epochs = [places for places in used if places]
    assert len(epochs) == 6
    for places in epochs:  # an image once in each, all views among them
        assert len({p for _, p in places}) == len(places) >= train - 2
        assert {v for v, _ in places} == {0, 1, 2}
    assert len(set.union(*epochs)) == 3 * len(set.union(*epochs[:1]))


def test_early_stop_ends_its_stage_and_the_next_goes_on(tmp_path: Path, pictures: Path) -> None:
    recipe = tiny.recipe(pictures, ema=None)
    recipe["stages"][0] |= {"epochs": 30, "early_stop": {"patience": 2}}
    recipe["stages"][0]["optimizer"] = {"name": "sgd", "lr": 1e-9}
    recipe["stages"][1]["epochs"] = 1
    run = _train(tmp_path, recipe)
    rows = tiny.rows(run.folder)
    assert [row["stage"] for row in rows] == ["head"] * 3 + ["all"]


def test_steps_end_a_stage_within_an_epoch(tmp_path: Path, pictures: Path) -> None:
    run = _train(tmp_path, _one(pictures, epochs=None, steps=7, batch_size=8))
    rows = tiny.rows(run.folder)
    assert [row["step"] for row in rows] == ["4", "7"]


def test_a_loss_that_is_not_finite_names_the_files(tmp_path: Path, pictures: Path) -> None:
    recipe = _one(pictures, epochs=3, optimizer={"name": "sgd", "lr": 1e30})
    with pytest.raises(RetinueError, match=r"the loss is (nan|inf)") as raised:
        _train(tmp_path, recipe)
    assert str(raised.value).count(".png") == 8
    assert "epoch 1, step 2" in str(raised.value)


def test_out_of_memory_tells_what_fits(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tiny.Tiny.forward

    def limited(self: tiny.Tiny, x: torch.Tensor, *, start: int = 0) -> Any:
        if len(x) > 3 and self.training:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, x, start=start)

    monkeypatch.setattr(tiny.Tiny, "forward", limited)
    with pytest.raises(RetinueError, match=r"2 images fit: stages\.0\.accumulate=4"):
        _train(tmp_path, _one(pictures))
    run = _train(tmp_path, _one(pictures, accumulate=4))
    assert run.figures["images"] > 0


def test_bad_images_stop_a_training_before_it_begins_all_of_them_named(tmp_path: Path) -> None:
    data = tiny.write_pictures(tmp_path / "data", each=8)
    (data / "red" / "00.png").write_bytes(b"")
    (data / "green" / "zeitung.jpg").write_text("not a picture")
    with pytest.raises(BadImageError) as raised:
        _train(tmp_path, _one(data))
    assert "00.png" in str(raised.value)
    assert "zeitung.jpg" in str(raised.value)
    assert "on_bad_image=skip" in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_bad_images_can_be_skipped_and_are_listed(tmp_path: Path) -> None:
    data = tiny.write_pictures(tmp_path / "data", each=8)
    recipe = _one(data, epochs=2)
    recipe["data"] |= {"on_bad_image": "skip"}
    for name in ("00", "03", "05"):
        (data / "red" / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    run = _train(tmp_path, recipe)
    environment = json.loads((run.folder / "environment.json").read_text())
    assert {Path(p).name for p in run.skipped} == {"00.png", "03.png", "05.png"}
    assert environment["skipped"] == run.skipped


def test_a_place_that_takes_no_folder_is_a_clear_error(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for under, said in ((Path("file") / "run", "this is a file"), ("n" * 300, "cannot write")):
        with pytest.raises(RetinueError, match=said) as raised:
            retinue.train(_one(pictures), out=tmp_path / under, quiet=True)
        assert str(tmp_path / Path(under).parts[0]) in str(raised.value)


def test_an_unknown_metric_is_refused_with_the_known_ones(tmp_path: Path, pictures: Path) -> None:
    recipe = _one(pictures) | {"evaluation": {"metric": "top9"}}
    with pytest.raises(RetinueError, match=r"no figure 'top9'.*top1"):
        _train(tmp_path, recipe)


def test_a_unit_that_does_not_exist_is_refused(tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(UsageError, match=r"no unit 'midle'.*middle"):
        _train(tmp_path, _one(pictures, trainable="midle"))


def test_training_learns(tmp_path: Path, pictures: Path) -> None:
    recipe = _one(pictures, epochs=12, optimizer={"name": "adamw", "lr": 0.01})
    run = _train(tmp_path, recipe)
    rows = tiny.rows(run.folder)
    assert float(rows[-1]["train_loss"]) < 0.5 * float(rows[0]["train_loss"])
    assert run.figures["top1"] >= 0.8


def test_figures_are_those_of_the_file_itself(trained: Run) -> None:
    predictor = retinue.load(trained.folder, engine="torch")
    with (trained.folder / "splits.csv").open(encoding="utf-8", newline="") as file:
        test = [row for row in csv.DictReader(file) if row["split"] == "test"]
    recipe = (trained.folder / "recipe.yaml").read_text(encoding="utf-8")
    root = Path(next(line.split(": ", 1)[1] for line in recipe.splitlines() if " path: /" in line))
    hits = [predictor(root / row["path"]).classes[0][0] == row["label"] for row in test]
    assert len(hits) == trained.figures["images"]
    assert np.mean(hits) == pytest.approx(trained.figures["top1"])


def test_figures_say_what_their_split_was_to_the_training(tmp_path: Path, pictures: Path) -> None:
    recipe = _one(pictures)
    recipe["task_options"] = {"calibration": "temperature"}
    recipe["evaluation"] = {**recipe["evaluation"], "split": "val"}
    fitted = _train(tmp_path, recipe)
    assert fitted.figures["fitted_on_this_split"] == ["temperature"]
    again = retinue.evaluate(fitted.best, split="val")
    assert again["fitted_on_this_split"] == ["temperature"]
    assert "trained_on_this_split" not in fitted.figures | again
    for figures in (
        retinue.evaluate(fitted.best, split="test"),
        retinue.evaluate(fitted.best, data=pictures),
    ):
        assert not {key for key in figures if key.endswith("on_this_split")}
    recipe["stages"][0]["data"] = {"name": "with_validation"}
    learnt = _train(tmp_path, recipe, "learnt")
    assert modelfile.read_description(learnt.best).task_state == {}, "what is learnt fits nothing"
    assert learnt.figures["trained_on_this_split"] is True
    assert retinue.evaluate(learnt.best, split="val")["trained_on_this_split"] is True
    assert retinue.evaluate(fitted.best, split="train")["trained_on_this_split"] is True
    assert "trained_on_this_split" not in retinue.evaluate(learnt.best, split="test")


def test_images_that_were_learnt_from_are_counted_wherever_they_lie(
    trained: Run, tmp_path: Path
) -> None:
    """By their bytes: those of the training's own folder, and copies under other names."""
    splits = data_of_run(trained.folder).splits
    learnt, judged = splits["train"], splits["test"]
    root = Path(os.path.commonpath([sample.key for sample in [*learnt, *judged]]))
    assert retinue.evaluate(trained.folder, data=root)["learnt_from"] == len(learnt)
    for k, sample in enumerate([*learnt[:2], *judged[:3]]):
        place = tmp_path / "data" / Path(sample.key).parent.name
        place.mkdir(parents=True, exist_ok=True)
        (place / f"copy {k}.png").write_bytes(Path(sample.key).read_bytes())
    figures = retinue.evaluate(trained.folder, data=tmp_path / "data")
    assert (figures["learnt_from"], figures["images"]) == (2, 5)
    for copy in sorted((tmp_path / "data").rglob("copy [01].png")):
        copy.unlink()
    assert "learnt_from" not in retinue.evaluate(trained.folder, data=tmp_path / "data")
    alone = tmp_path / "best.safetensors"
    alone.write_bytes(trained.best.read_bytes())
    assert "learnt_from" not in retinue.evaluate(alone, data=root), "nobody can tell"


def test_evaluating_a_folder_with_a_strange_class_is_refused(trained: Run, tmp_path: Path) -> None:
    data = tiny.write_pictures(tmp_path / "data", each=2)
    (data / "red").rename(data / "read")
    with pytest.raises(UsageError, match=r"'read'.*did you mean 'red'"):
        retinue.evaluate(trained.folder, data=data)


def test_evaluating_some_of_the_classes_keeps_the_models_order(
    trained: Run, tmp_path: Path
) -> None:
    """The folder's own order would call its first class the model's first."""
    Image.new("RGB", (40, 40), (180, 60, 60)).save(_made(tmp_path / "data" / "red") / "a.png")
    Image.new("RGB", (40, 40), (60, 180, 60)).save(_made(tmp_path / "data" / "green") / "a.png")
    figures = retinue.evaluate(trained.folder, data=tmp_path / "data")
    predictor = retinue.load(trained.folder)
    right = [
        predictor(tmp_path / "data" / name / "a.png").classes[0][0] == name
        for name in ("red", "green")
    ]
    assert figures["images"] == 2
    assert figures["top1"] == pytest.approx(np.mean(right))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_tensorboard_gets_the_rows(tmp_path: Path, pictures: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = _train(tmp_path, _one(pictures, epochs=2) | {"tensorboard": True})
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    rows = tiny.rows(run.folder)
    told = [(event.step, event.value) for event in events.Scalars("loss/val")]
    assert told == [(k + 1, pytest.approx(float(r["val_loss"]))) for k, r in enumerate(rows)]


def test_a_training_that_fails_before_it_begins_leaves_no_folder(
    tmp_path: Path, pictures: Path
) -> None:
    recipe = _one(pictures, trainable="nowhere")
    with pytest.raises(UsageError, match="no unit 'nowhere'"):
        _train(tmp_path, recipe)
    assert not (tmp_path / "run").exists()


def test_a_report_that_fails_does_not_undo_the_training(
    tmp_path: Path,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from retinue.report import html

    def fail(run: Path) -> Path:
        raise ValueError("no ink")

    monkeypatch.setattr(html, "write_report", fail)
    run = retinue.train(_one(pictures), out=tmp_path / "run", quiet=True)
    assert run.figures["images"] > 0
    assert "no ink" in caplog.text
    assert f"retinue report {tmp_path / 'run'}" in caplog.text
