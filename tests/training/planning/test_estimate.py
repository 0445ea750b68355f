"""What a training will take is told before it begins, and telling changes nothing of it."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import retinue
from retinue.errors import Interrupted, UsageError
from retinue.run.checkpoint import CheckpointStore
from retinue.run.folder import RunFolder
from retinue.run.forecast import Forecast
from retinue.run.log import Bar
from retinue.sample import Sample
from retinue.training import session
from retinue.training.options import StageOptions
from retinue.training.planning import plan
from retinue.training.planning.clock import Clock
from retinue.training.planning.estimate import Estimate, estimated
from retinue.training.planning.lengths import (
    fitted_to_data,
    images_to_label,
    learning,
    with_epochs,
    with_steps,
)
from retinue.training.planning.rehearsal import Judging, Rates, Rehearsal
from retinue.training.prepare import open_data, prepared, settings_of
from retinue.training.recipe import load_recipe
from retinue.training.trainer import Trainer
from retinue.training.training import Training

pytestmark = pytest.mark.usefixtures("torch_alone")
RATES = Rates(
    cached=True, ready=1.0, view=0.01, judged_view=0.02, absent=1.0, step=0.1, judged=0.005
)


def _training(recipe: dict[str, Any], folder: Path) -> Training:
    folder.mkdir()
    loaded = load_recipe(recipe)
    data = open_data(loaded)
    return prepared(RunFolder(folder), loaded, data, settings_of(loaded), Bar(), Clock())


def _estimate(recipe: dict[str, Any], **changes: Any) -> Estimate:
    given = {"images": [100, 100], "epoch_steps": [10, 10], "labelled": [0, 0], "validated": 20,
             "judged": 50}  # fmt: skip
    judging = Judging(2.0, 0.03, 0.04)
    return estimated(load_recipe(recipe), [RATES, RATES], judging, **(given | changes))


def test_the_parts_add_up() -> None:
    head, last = _estimate(tiny.recipe("photos")).stages
    # 100 images, two views each; 20 of validation, once
    assert head.frozen_s == pytest.approx(1 + 100 * 2 * 0.01 + 20 * 0.02)
    assert head.steps_s == pytest.approx(2 * 10 * 0.1)
    assert head.validation_s == pytest.approx(2 * 20 * 0.005)
    assert last.steps_s == pytest.approx(3 * 10 * 0.1)
    estimate = _estimate(tiny.recipe("photos"))
    assert estimate.evaluation_s == pytest.approx(2 + 50 * 0.03)
    assert estimate.total_s == pytest.approx(sum(estimate.parts().values()))
    assert Estimate.from_dict(estimate.as_dict()) == estimate


def test_compiling_is_said_not_to_be_in_it() -> None:
    plain, compiled = (
        _estimate(tiny.recipe("photos", ema=None, compile=compile)) for compile in (False, True)
    )
    assert compiled.total_s == plain.total_s
    assert not any("compile" in line for line in plain.lines())
    *_, last = compiled.lines()
    assert last.startswith("it will take about ")
    assert "without what compile=true takes to compile" in last
    assert Estimate.from_dict(compiled.as_dict()) == compiled
    older = compiled.as_dict()
    del older["compiles"]  # of a run that began before this was told
    assert Estimate.from_dict(older) == plain


def test_labelling_images_takes_its_time() -> None:
    plain = _estimate(tiny.recipe("photos"))
    estimate = _estimate(tiny.recipe("photos"), labelled=[0, 300])
    assert estimate.parts()["all: labelling"] == pytest.approx(300 * 0.04)
    assert estimate.total_s == pytest.approx(plain.total_s + 12)
    table = list(estimate.lines())
    assert table[0].split() == ["labelling", "frozen", "part", "steps", "validation"]
    assert table[1].split()[:2] == ["head", "–"]
    assert table[2].split()[:3] == ["all", "12", "s"]
    assert "labelling" not in "".join(plain.lines())
    # Once the stage is under way, nothing of it is left, and it tells nothing of the pace.
    forecast = Forecast(estimate.parts())
    Clock(forecast).resume_stage("all", 0.0)
    assert forecast.left() == pytest.approx(plain.total_s)


def test_a_stage_asks_for_labels_of_what_does_not_judge_it() -> None:
    test = {"name": "pseudo_labels", "of": "test"}
    data = (None, "pseudo_labels", "labelled", test)
    stages = [{"name": f"s{k}", "epochs": 1, "data": each} for k, each in enumerate(data)]
    splits = {"train": ["a"], "val": ["v"], "test": ["t"], "pool": ["p", "v", "q"]}
    samples = {split: [Sample(name) for name in names] for split, names in splits.items()}
    recipe = load_recipe(tiny.recipe("photos", stages=stages))
    assert images_to_label(recipe, samples) == [0, 2, 0, 1]


def test_it_is_linear_in_epochs() -> None:
    recipe = tiny.recipe("photos")
    seconds = []
    for epochs in (2, 4, 6):
        recipe["stages"][1]["epochs"] = epochs
        seconds.append(_estimate(recipe).total_s)
    assert seconds[2] - seconds[1] == pytest.approx(seconds[1] - seconds[0])


@pytest.mark.parametrize(
    ("options", "epochs", "count"),
    [({}, 7, 7), ({"validate_every": 3}, 7, 3), ({"validate_every": 3}, 2, 1),
     ({"validate_every": 2, "validate_from": 3}, 6, 3), ({"validate_from": 9}, 4, 1)],
)  # fmt: skip
def test_validations_are_counted_as_they_are_done(
    options: dict[str, int], epochs: int, count: int
) -> None:
    stage = StageOptions(epochs=epochs, **options)
    assert count == sum(stage.validates(k, last=k == epochs) for k in range(1, epochs + 1))
    recipe = tiny.recipe("photos", stages=[{"epochs": epochs, **options}])
    found = estimated(
        load_recipe(recipe), [replace(RATES, cached=False)], Judging(0, 0, 0),
        images=[9], epoch_steps=[1], labelled=[0], validated=1, judged=1,
    )  # fmt: skip
    assert found.stages[0].validation_s == pytest.approx(count * 0.005)


def test_a_rehearsal_leaves_everything_as_it_is(tmp_path: Path, pictures: Path) -> None:
    recipe = tiny.recipe(pictures, cache={"folder": str(tmp_path / "cache")})
    training = _training(recipe, tmp_path / "run")
    before = {name: value.clone() for name, value in training.learner.state_dict().items()}
    learns = [p.requires_grad for p in training.learner.parameters()]
    torch.manual_seed(7)
    generator = torch.get_rng_state()
    _, estimate, notes = plan.planned(training)
    assert estimate is not None
    assert [note.partition(":")[0] for note in notes] == ["precision"]  # nothing was fitted
    assert all(each > 0 for name, each in estimate.parts().items() if name != "all: frozen part")
    assert torch.equal(generator, torch.get_rng_state())
    for name, value in training.learner.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [p.requires_grad for p in training.learner.parameters()] == learns
    assert all(p.grad is None for p in training.learner.parameters())
    assert not (tmp_path / "cache").exists()


def test_a_training_that_was_timed_is_the_same(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {}
    for name in ("timed", "untimed"):
        if name == "untimed":
            monkeypatch.setattr(session, "planned", lambda training: (training, None, []))
        recipe = tiny.recipe(pictures, cache={"folder": str(tmp_path / name / "cache")})
        retinue.train(recipe, out=tmp_path / name / "run", report=False, quiet=True)
        runs[name] = tiny.last_network(tmp_path / name / "run")
    for name, value in runs["timed"].items():
        assert torch.equal(value, runs["untimed"][name]), name


def test_views_that_are_there_take_no_time(tmp_path: Path, pictures: Path) -> None:
    recipe = tiny.recipe(pictures, cache={"folder": str(tmp_path / "cache")})
    retinue.train(recipe, out=tmp_path / "first", report=False, quiet=True)
    rates = Rehearsal(_training(recipe, tmp_path / "second")).rates(load_recipe(recipe))
    assert [rate.absent for rate in rates if rate.cached] == [0.0]
    recipe["stages"][0]["views"] = 4  # two of them are there; so is the validation split
    rehearsal = Rehearsal(_training(recipe, tmp_path / "third"))
    assert rehearsal.rates(load_recipe(recipe))[0].absent == pytest.approx(2 * 38 / (4 * 38 + 5))
    recipe["stages"][0]["views"] = 3  # once more, after the steps of the stage that moves it
    assert rehearsal.rates(load_recipe(recipe))[0].absent == pytest.approx(38 / (3 * 38 + 5))


def test_a_stage_is_timed_once_however_long_it_goes_on(tmp_path: Path, pictures: Path) -> None:
    recipe = tiny.recipe(pictures, cache={"folder": str(tmp_path / "cache")})
    recipe["stages"][0]["schedule"] = {"name": "cosine", "warmup_epochs": 1}
    rehearsal = Rehearsal(_training(recipe, tmp_path / "run"))
    done: list[Any] = []
    rehearsal.learner.network.register_forward_hook(lambda *_: done.append(1))
    rates = rehearsal.rates(load_recipe(recipe))
    taken = len(done)
    assert taken > 0
    recipe["stages"][0] |= {"views": 7, "epochs": 30}
    recipe["stages"][0]["schedule"]["warmup_epochs"] = 0.5
    again = rehearsal.rates(load_recipe(recipe))
    assert len(done) == taken
    assert [(rate.step, rate.judged) for rate in again] == [
        (rate.step, rate.judged) for rate in rates
    ]


def test_what_cannot_be_timed_is_said_and_trained(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Rehearsal, recipe: Any) -> Any:
        raise RuntimeError("no room")

    monkeypatch.setattr(Rehearsal, "rates", fails)
    run = retinue.train(tiny.recipe(pictures), out=tmp_path / "run", report=False, quiet=True)
    assert "how long it takes cannot be timed (no room)" in (run.folder / "train.log").read_text()


def test_the_log_tells_it_before_the_first_step_and_all_along(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(Bar, "begin", lambda self, text, *rest: shown.append(text))
    run = retinue.train(tiny.recipe(pictures), out=tmp_path / "run", report=False, quiet=True)
    lines = (run.folder / "train.log").read_text(encoding="utf-8").splitlines()
    told = next(k for k, line in enumerate(lines) if "it will take about" in line)
    of_epochs = [k for k, line in enumerate(lines) if re.search(r" epoch \d+/", line)]
    epochs = [lines[k][20:] for k in of_epochs]
    assert told < of_epochs[0]
    assert [line.split("  ")[0] for line in epochs] == [
        "head epoch 1/5", "head epoch 2/5", "all epoch 3/5", "all epoch 4/5", "all epoch 5/5",
    ]  # fmt: skip
    numbers = [re.findall(r"epoch (\d+/\d+)", text) for text in shown if " epoch " in text]
    assert numbers == [[f"{k}/5"] for k in (1, 2, 3, 4, 5) for _ in ("steps", "validation")]
    assert [row["epoch"] for row in tiny.rows(run.folder)] == ["1", "2", "3", "4", "5"]
    assert all(line.endswith(" left") and len(line) < 100 for line in epochs)


def test_short_epochs_that_nobody_judges_have_no_line(tmp_path: Path, pictures: Path) -> None:
    recipe = tiny.recipe(pictures)
    recipe["stages"] = [{**recipe["stages"][0], "epochs": 7, "validate_every": 3}]
    run = retinue.train(recipe, out=tmp_path / "run", report=False, quiet=True)
    log = (run.folder / "train.log").read_text(encoding="utf-8")
    assert re.findall(r" epoch (\d+)/7 ", log) == ["3", "6", "7"]
    assert len(tiny.rows(run.folder)) == 7


def test_times_are_recorded_part_by_part(tmp_path: Path, pictures: Path) -> None:
    began = time.monotonic()
    run = retinue.train(tiny.recipe(pictures), out=tmp_path / "run", report=False, quiet=True)
    whole = time.monotonic() - began
    environment = RunFolder(run.folder).read_json("environment.json")
    timings = environment["timings"]
    parts = ("frozen_s", "training_s", "validation_s", "evaluation_s")
    assert [part for part in parts if not timings[part] > 0] == []
    assert sum(timings[part] for part in parts) <= timings["total_s"] <= whole
    assert set(timings["frozen_of_stages_s"]) == {"head", "all"}
    assert Estimate.from_dict(environment["plan"]).total_s > 0


def test_what_was_done_before_an_interruption_is_not_waited_for(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = Trainer._epoch, []

    def interrupted(self: Trainer, stage: Any) -> None:
        assert self.clock.forecast is not None
        left.append({k: 1 - p.done for k, p in self.clock.forecast._parts.items()})
        if len(left) == 4:  # the second epoch of the second stage
            self.interruptions.signal = 15
        real(self, stage)

    monkeypatch.setattr(Trainer, "_epoch", interrupted)
    with pytest.raises(Interrupted):
        retinue.train(tiny.recipe(pictures), out=tmp_path / "run", report=False, quiet=True)
    before = CheckpointStore(tmp_path / "run" / "last").load()["progress"]
    run = retinue.train(tmp_path / "run", resume=True, report=False, quiet=True)
    assert all(left[4][f"head: {kind}"] == 0 for kind in ("frozen part", "steps", "validation"))
    assert 0 < left[4]["all: steps"] < 0.7
    timings = json.loads((run.folder / "environment.json").read_text())["timings"]
    assert timings["total_s"] > before["total_seconds"] > 0
    assert timings["training_s"] > before["seconds"] > 0


# --- lengths that follow the data ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "steps", "epochs", "views"),
    [
        ({"epochs": 8, "views": 4}, 10, 8, 4),
        ({"epochs": 8, "views": 4, "min_steps": 100}, 5, 20, 10),
        ({"epochs": 8, "views": 4, "min_steps": 100}, 1, 100, 50),
        ({"epochs": 8, "views": 4, "max_steps": 9000}, 3125, 2, 2),
        ({"epochs": 8, "views": 4, "max_steps": 9000}, 40_000, 1, 1),
        ({"epochs": 8, "min_steps": 3, "max_steps": 9}, 5, 1, None),
    ],
)
def test_few_images_are_seen_more_often_and_many_less(
    options: dict[str, int], steps: int, epochs: int, views: int | None
) -> None:
    stage = {**options, "trainable": "head", "augment": {"horizontal_flip": 0.5}}
    recipe = load_recipe(tiny.recipe("photos", stages=[stage]))
    fitted, notes = fitted_to_data(recipe, [steps])
    assert (fitted.stages[0].epochs, fitted.stages[0].views) == (epochs, views)
    assert bool(notes) == (epochs != 8)
    assert all(note.endswith(f"of {steps:,} step{'s' * (steps > 1)} each") for note in notes)
    assert fitted_to_data(fitted, [steps])[0] == fitted


@pytest.mark.parametrize(
    ("trainable", "words"),
    [
        ("all", "all learns"),
        ("25%", "25% learns"),
        (2, "the last 2 units learn"),
        (1, "the last unit learns"),
        (0, "head learns"),
    ],
)
def test_what_learns_is_told(trainable: str | int, words: str) -> None:
    assert learning(StageOptions(name="a", epochs=1, trainable=trainable)) == words


def test_a_warm_up_stays_the_part_of_its_stage_that_it_was() -> None:
    stage = StageOptions(epochs=8, schedule={"warmup_epochs": 1.0})  # type: ignore[arg-type]
    assert with_epochs(stage, 2).schedule.warmup_epochs == 0.25
    assert with_epochs(stage, 16).schedule.warmup_epochs == 1.0
    stage = StageOptions(epochs=8, schedule={"warmup_steps": 100})  # type: ignore[arg-type]
    assert with_epochs(stage, 2).schedule.warmup_steps == 25
    stage = StageOptions(steps=100, schedule={"warmup_epochs": 1.0})  # type: ignore[arg-type]
    assert with_steps(stage, 25).schedule.warmup_epochs == 0.25
    assert with_steps(stage, 200).schedule.warmup_epochs == 1.0


@pytest.mark.parametrize(
    ("options", "part"),
    [({"min_steps": 9, "max_steps": 5, "epochs": 1}, "min_steps is above max_steps"),
     ({"min_steps": 9, "steps": 5}, "min_steps bounds epochs")],
)  # fmt: skip
def test_bounds_that_contradict_are_refused(options: dict[str, int], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        load_recipe(tiny.recipe("photos", stages=[options]))
