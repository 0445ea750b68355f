"""A training is fitted to a time, once, and its run repeats what came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny

import retinue
from retinue.errors import Interrupted, UsageError
from retinue.training.options import BudgetOptions
from retinue.training.planning import budget, clock, plan, rehearsal
from retinue.training.planning.budget import AIM, MOST, fitted_to_budget
from retinue.training.planning.estimate import Estimate, estimated
from retinue.training.planning.rehearsal import Judging, Rates
from retinue.training.recipe import Recipe, load_recipe
from retinue.training.stage import first_to_learn
from retinue.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("torch_alone")
NETWORK = tiny.Tiny(num_classes=3)
NETWORK.first_drawn = len(NETWORK.units())  # but for its head it has learnt


def _recipe(**changes: Any) -> Recipe:
    head = {"name": "head", "trainable": "head", "epochs": 10, "views": 2,
            "augment": {"crop_scale": [0.5, 1.0]}}  # fmt: skip
    every = {"name": "all", "epochs": 20, "augment": {"crop_scale": [0.5, 1.0]},
             "schedule": {"warmup_epochs": 2}}  # fmt: skip
    return load_recipe(tiny.recipe("photos", stages=[head, every], **changes))


def _estimate(recipe: Recipe) -> Estimate:
    """A step takes 1 s where everything learns, as much less as less does; a view 0.01 s."""
    rates = []
    for stage in recipe.stages:
        first = first_to_learn(NETWORK, stage.trainable, "")
        cached = first > 0 and stage.views is not None
        rates.append(Rates(cached, 0.0, 0.01, 0.01, 1.0, 0.1 if cached else 1.0, 0.0))
    return estimated(
        recipe, rates, Judging(0.0, 0.1, 0.1),
        images=[100, 100], epoch_steps=[4, 4], labelled=[0, 0], validated=0, judged=10,
    )  # fmt: skip


def _fit(seconds: float) -> Recipe:
    fitted, estimate, _ = fitted_to_budget(_recipe(), NETWORK, seconds, _estimate)
    assert estimate == _estimate(fitted)
    assert estimate.total_s <= AIM * seconds
    return fitted


def _lengths(recipe: Recipe) -> list[tuple[str | int, int | None, int | None]]:
    return [(stage.trainable, stage.epochs, stage.views) for stage in recipe.stages]


def test_little_time_takes_epochs_first() -> None:
    whole = _estimate(_recipe()).total_s
    fitted = _fit(0.8 * whole)
    (_, heads, _), (trainable, epochs, views) = _lengths(fitted)
    assert (trainable, views) == ("all", None)
    assert heads is not None
    assert epochs is not None
    assert 5 <= heads < 10
    assert 10 <= epochs < 20
    assert fitted.stages[1].schedule.warmup_epochs == pytest.approx(2 * epochs / 20)


def test_a_length_in_steps_takes_its_warm_up_along() -> None:
    stage = {"name": "all", "epochs": None, "steps": 1000, "schedule": {"warmup_steps": 100}}
    recipe = load_recipe(tiny.recipe("photos", stages=[stage]))

    def estimate(of: Recipe) -> Estimate:  # a step takes 1 s
        rates = [Rates(False, 0, 0, 0, 1, 1.0, 0)]
        return estimated(
            of, rates, Judging(0, 0, 0),
            images=[100], epoch_steps=[4], labelled=[0], validated=0, judged=10,
        )  # fmt: skip

    fitted = fitted_to_budget(recipe, NETWORK, 50 / AIM, estimate)[0].stages[0]
    assert (fitted.steps, fitted.schedule.warmup_steps) == (50, 5)
    generous = fitted_to_budget(recipe, NETWORK, 9999, estimate)[0].stages[0]
    assert (generous.steps, generous.schedule.warmup_steps) == (1000 * MOST, 100)


def test_less_time_cuts_the_network_and_caches_views() -> None:
    fitted = _fit(0.35 * _estimate(_recipe()).total_s)
    trainable, epochs, views = _lengths(fitted)[1]
    assert trainable in budget.CUTS
    assert epochs is not None
    assert views is not None
    assert views <= epochs
    assert load_recipe(fitted) == fitted  # a run can begin from it


def test_what_was_freshly_drawn_always_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _estimate(_recipe()).total_s
    monkeypatch.setattr(NETWORK, "first_drawn", 1)
    (first, *_), (second, *_) = _lengths(_fit(0.1 * whole))
    assert (first, second) == ("head", NETWORK.units()[1].name)  # the recipe's own word stands
    monkeypatch.setattr(NETWORK, "first_drawn", 0)  # training from scratch
    assert _lengths(_fit(0.35 * whole))[1][0] == "all"


def test_hardly_any_time_still_does_an_epoch_of_each() -> None:
    shortest = 0.1 * 4 * 2 + 2 * 100 * 0.01 + 1.0
    assert [epochs for _, epochs, _ in _lengths(_fit(1.1 * shortest / AIM))] == [1, 1]


def test_too_little_says_what_would_do() -> None:
    with pytest.raises(UsageError, match=r"takes about 4 s here.*budget=5s"):
        _fit(2.0)


def test_time_that_has_gone_by_is_told_and_is_a_part_of_what_would_do() -> None:
    told = r"about 4 s here.* too long for 8 s, of which 6 s have gone by.*budget=11s"
    with pytest.raises(UsageError, match=told):
        fitted_to_budget(_recipe(), NETWORK, 8.0, _estimate, spent=6.0)
    fitted, estimate, _ = fitted_to_budget(_recipe(), NETWORK, 11.0, _estimate, spent=6.0)
    assert estimate.total_s <= AIM * (11.0 - 6.0)
    assert [epochs for _, epochs, _ in _lengths(fitted)] == [1, 1]


def test_time_to_spare_is_used_up_to_a_bound() -> None:
    whole = _estimate(_recipe()).total_s
    generous = _lengths(_fit(100 * whole))
    assert generous == [("head", 10 * MOST, 2 * MOST), ("all", 20 * MOST, None)]
    assert _lengths(_fit(2 * whole))[1][1] in range(30, 40)


@pytest.mark.parametrize("seconds", [5, 10, 20, 30, 50, 80, 120, 300])
def test_more_time_never_does_less(seconds: float) -> None:
    def work(recipe: Recipe) -> float:
        return _estimate(recipe).total_s

    assert work(_fit(seconds)) <= work(_fit(1.5 * seconds)) + 1e-9


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1h5s", 3605), (45, 45), ("600", 600)],
)
def test_times(text: str | float, seconds: float) -> None:
    assert BudgetOptions(time=text).seconds == seconds
    assert load_recipe(tiny.recipe("photos"), {"budget": text}).budget == BudgetOptions(time=text)


@pytest.mark.parametrize(
    "text", ["soon", "", "0", "0m", "1m1h", "-5s", 0, -3, True, "10 m!", "1h30", "5m30"]
)
def test_no_times(text: Any) -> None:
    with pytest.raises(UsageError, match="budget"):
        load_recipe(tiny.recipe("photos"), {"budget": text})


# --- in a run ------------------------------------------------------------------------------------


def _slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The machine is slow by the same factor whenever it is asked; how often it was."""
    asked: list[int] = []
    real: Callable[..., Estimate] = plan.estimated

    def estimate(recipe: Recipe, *rest: Any, **given: Any) -> Estimate:
        asked.append(1)
        epochs = [stage.epochs or 1 for stage in recipe.stages]
        told = real(recipe, *rest, **given)
        stages = tuple(
            type(stage)(stage.name, stage.what, stage.images, 0.0, 10.0 * count, 0.0)
            for stage, count in zip(told.stages, epochs, strict=True)
        )
        return Estimate(stages, told.judged, 0.0)

    monkeypatch.setattr(plan, "estimated", estimate)
    return asked


def test_it_is_settled_once_and_repeated(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _slow(monkeypatch)
    recipe = tiny.recipe(pictures, budget="30s")  # two and three epochs of 10 s
    real = Trainer._end_epoch

    def interrupted(self: Trainer, stage: Any) -> None:
        real(self, stage)
        self.interruptions.signal = 15

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_end_epoch", interrupted)
        with pytest.raises(Interrupted):
            retinue.train(recipe, out=tmp_path / "run", report=False, quiet=True)
    written = load_recipe(tmp_path / "run")
    assert [stage.epochs for stage in written.stages] == [1, 1]
    assert written.budget == BudgetOptions(time="30s", fitted=True)
    count = len(asked)
    run = retinue.train(tmp_path / "run", resume=True, report=False, quiet=True)
    assert len(asked) == count
    assert len(tiny.rows(run.folder)) == 2
    model = retinue.load(run.folder).description.recipe
    assert model is not None
    assert [stage["epochs"] for stage in model["stages"]] == [1, 1]
    log = (run.folder / "train.log").read_text(encoding="utf-8")
    assert "fitted to the budget of 30s: stage all: all learns, 1 epoch (" in log
    again = retinue.train(run.folder / "recipe.yaml", out=tmp_path / "b", report=False, quiet=True)
    assert [stage.epochs for stage in load_recipe(again.folder).stages] == [1, 1]


def test_too_small_a_budget_leaves_no_run(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _slow(monkeypatch)
    with pytest.raises(UsageError, match=r"budget=2[34]s"):
        retinue.train(
            tiny.recipe(pictures, budget="10s"), out=tmp_path / "run", report=False, quiet=True
        )
    assert not (tmp_path / "run").exists()


def test_it_takes_about_what_was_told(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In seconds of the processor, both: other work may share the machine, now and not then."""
    own = SimpleNamespace(perf_counter=time.process_time, monotonic=time.process_time)
    monkeypatch.setattr(rehearsal, "time", own)
    monkeypatch.setattr(clock, "time", own)
    recipe = tiny.recipe(pictures, cache={"folder": str(tmp_path / "cache")})
    recipe["stages"][0]["epochs"] = recipe["stages"][1]["epochs"] = 15
    run = retinue.train(recipe, out=tmp_path / "run", report=False, quiet=True)
    environment = json.loads((run.folder / "environment.json").read_text(encoding="utf-8"))
    told = sum(stage["steps_s"] for stage in environment["plan"]["stages"])
    taken = environment["timings"]["training_s"]
    assert told / 2 < taken < 2 * told


def test_a_dry_run_says_it_all_and_leaves_nothing(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tiny.recipe(pictures, cache={"folder": str(tmp_path / "cache")})
    plan = retinue.train(recipe, dry_run=True, quiet=True)
    assert plan.images == {"train": 38, "val": 5, "test": 5}
    said = list(plan.lines())
    assert any("48 images" in line for line in said)
    assert any("tiny on cpu, fp32" in line for line in said)
    assert said[-1].startswith("it will take about ")
    assert not list(tmp_path.iterdir())


def test_a_dry_run_has_what_a_budget_came_to(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _slow(monkeypatch)
    plan = retinue.train(tiny.recipe(pictures), dry_run=True, quiet=True, budget="30s")
    assert [stage.epochs for stage in plan.recipe.stages] == [1, 1]
