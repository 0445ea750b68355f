"""A second task, which the package has never heard of, goes through the whole frame unpatched:
its own data, several outputs, targets of unequal number, a loss with parameters of its own and a
part divided by its positives, cached mosaics, two sizes, one process and two, kills, `evaluate`,
`predict`, views merged in the original's pixels, report and model file (tests/support/finder.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import finder
import numpy as np
import pytest
import torch
from interrupted import assert_same, rows_of, state_of
from warm import IN_A_CHECKPOINT, Warm

import retinue
from retinue import modelfile
from retinue.cli.app import run as command
from retinue.data.targets.boxes import Boxes
from retinue.sample import Sample
from retinue.tasks.results import BoxResult


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finder.write_pictures(tmp_path_factory.mktemp("patches") / "data")


def _recipe(patches: Path, cache: Path, **changes: Any) -> dict[str, Any]:
    return finder.recipe(patches, cache={"folder": str(cache)}, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, patches: Path, warm: Warm) -> Path:
    """A training that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    assert warm.train(_recipe(patches, folder / "cache"), folder / "run").code == 0
    return folder / "run"


def _same(run: Path, whole: Path) -> None:
    assert_same(run, whole)
    described = [modelfile.read_description(r / "best.safetensors") for r in (run, whole)]
    assert described[0].task_state == described[1].task_state
    assert described[0].figures == described[1].figures


def test_what_the_loss_owns_learns_and_is_no_part_of_the_model(whole: Path) -> None:
    state = state_of(whole)
    balance = state["learner objective.balance"]
    assert (balance.abs() > 1e-3).all()
    assert not any("balance" in name for name in state if name.startswith("best"))
    assert not any("objective" in name for name in modelfile.read(whole / "best.safetensors")[1])


def test_the_figure_of_which_less_is_better_picks_the_weights(whole: Path) -> None:
    rows = rows_of(whole)
    distances = [float(row["val_distance"]) for row in rows]
    described = modelfile.read_description(whole / "best.safetensors")
    assert described.figures["distance"] == min(distances)
    assert min(distances) < max(distances)


def test_the_state_is_that_of_the_weights_that_are_kept(whole: Path) -> None:
    """The task lowers its threshold with every validation, from 0.3."""
    described = modelfile.read_description(whole / "best.safetensors")
    environment = json.loads((whole / "environment.json").read_text())
    threshold = 0.3
    for _ in range(environment["kept"]["epoch"]):
        threshold = round(threshold * 0.99, 6)
    assert described.task_state["threshold"] == threshold
    assert 10 < described.task_state["side"] < 18


MOMENTS = [
    ("in the cache's building", 2),
    ("before cached rows count", 1),
    (IN_A_CHECKPOINT, 2),
    ("in a step", 7),
    ("in validation", 2),
]


def test_killed_at_every_moment_it_goes_on_bit_for_bit(
    tmp_path: Path, patches: Path, whole: Path, warm: Warm
) -> None:
    run = tmp_path / "run"
    recipe = _recipe(patches, tmp_path / "cache", checkpoint={"every_steps": 1})
    for number, (moment, times) in enumerate(MOMENTS):
        begun: tuple[Any, ...] = (recipe, run) if number == 0 else (run,)
        outcome = warm.train(*begun, moment=moment, times=times)
        assert outcome.code == -9, (moment, outcome)
    assert warm.train(run).code == 0
    _same(run, whole)


def test_two_processes_reach_what_one_does(tmp_path: Path, patches: Path, warm: Warm) -> None:
    """The number of patches differs from image to image, and so does the padding; the place part
    is divided by the patches of all processes. Without BatchNorm, which sees a portion."""
    stages = finder.recipe(patches)["stages"]
    plain = [{**stage, "optimizer": {"name": "sgd", "lr": 0.02}} for stage in stages]
    outcomes = []
    for processes in (1, 2):
        out = tmp_path / f"run{processes}"
        recipe = _recipe(
            patches,
            tmp_path / "cache",
            stages=plain,
            ema={"decay": 0.5},
            model={"name": "tiny", "weights": None, "arguments": {"norm": False}},
        )
        outcome = warm.train(recipe, out, processes=processes)
        assert outcome.code == 0, outcome
        outcomes.append(out)
    alone, both = (state_of(out) for out in outcomes)
    for name, value in alone.items():
        assert torch.allclose(both[name], value, rtol=1e-4, atol=1e-5), name
    moved = alone["learner objective.balance"].abs()
    assert (moved > 1e-3).all()
    for ours, theirs in zip(rows_of(outcomes[1]), rows_of(outcomes[0]), strict=True):
        for key in ("train_loss_heat", "train_loss_place", "train_patches", "val_distance"):
            assert float(ours[key]) == pytest.approx(float(theirs[key]), rel=1e-3, abs=1e-3), key


def test_it_learns_to_find(tmp_path: Path, patches: Path) -> None:
    stage = {
        "epochs": 60,
        "batch_size": 8,
        "augment": {"mosaic": 0.2},
        "optimizer": {"name": "adamw", "lr": 0.02},
        "validate_every": 10,
        "validate_from": 20,
    }
    run = retinue.train(
        finder.recipe(patches, stages=[stage], ema=None, task_options={"threshold": 0.45}),
        out=tmp_path / "run",
        report=False,
        quiet=True,
    )
    rows = rows_of(run.folder)
    judged = [int(row["epoch"]) for row in rows if row["val_distance"]]
    assert judged == [20, 30, 40, 50, 60]
    assert float(rows[-1]["train_loss_place"]) < 0.5 * float(rows[0]["train_loss_place"])
    assert run.figures["distance"] < 12
    predictor = retinue.load(run.best, engine="torch", tta="none")
    mirrored = retinue.load(run.best, engine="torch", tta="dihedral")
    for answerer in (predictor, mirrored):
        away = []
        for entry in json.loads(patches.read_text())[-8:]:
            result = answerer(patches.parent / entry["file"])
            assert isinstance(result, BoxResult)
            found = np.array([box.xyxy for box in result.boxes]).reshape(-1, 2, 2).mean(1)
            wanted = np.array(entry["boxes"]).reshape(-1, 2, 2).mean(1)
            away += [np.abs(found - middle).sum(1).min(initial=99) for middle in wanted]
        assert np.mean(np.array(away) < 6) > 0.8, (answerer.tta, away)


def test_the_command_line_evaluates_predicts_and_reports_it(
    tmp_path: Path, patches: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> str:
        assert command(list(arguments)) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    figures = json.loads(
        run("evaluate", str(whole), "--split", "test", "--engine", "torch", "--json")
    )
    written = json.loads((whole / "metrics.json").read_text())
    assert figures["distance"] == pytest.approx(written["distance"], rel=1e-3)
    assert figures["task"] == "find"
    answers = tmp_path / "answers"
    picture = str(patches.parent / "39.png")
    run("predict", str(whole / "best.safetensors"), picture, "--out", str(answers), "--format",
        "csv", "--draw")  # fmt: skip
    header = (answers / "predictions.csv").read_text().splitlines()[0]
    assert header == "path,name,score,x1,y1,x2,y2"
    assert (answers / "drawn" / "39.png").is_file()
    page = run("report", str(whole)).strip()
    text = Path(page).read_text(encoding="utf-8")
    assert "How many were found" in text
    assert "39.png" in text
    assert "is left out" not in text
    assert "Distance" in text


def test_classes_in_another_order_are_put_in_the_models(tmp_path: Path, patches: Path) -> None:
    from retinue.training.evaluation import in_order_of

    target = Boxes.made([[0, 0, 4, 4], [1, 1, 3, 3]], [1, 0])
    (moved,) = in_order_of(["b", "x", "a"], ["a", "b"], [Sample("k", target=target)])
    assert isinstance(moved.target, Boxes)
    assert moved.target.of == (0, 2)


def test_a_box_that_was_edited_is_refused_on_resume(
    tmp_path: Path, patches: Path, warm: Warm
) -> None:
    entries = json.loads(patches.read_text())
    data = tmp_path / "patches.json"
    for entry in entries:
        entry["file"] = str(patches.parent / entry["file"])
    data.write_text(json.dumps(entries))
    run = tmp_path / "run"
    recipe = _recipe(data, tmp_path / "cache")
    assert warm.train(recipe, run, moment="in a step", times=2).code == -9
    entries[3]["boxes"][0][2] += 1
    data.write_text(json.dumps(entries))
    outcome = warm.train(run)
    assert outcome.code == 1
    assert "another label or order" in outcome.said
    assert "line 5" in outcome.said
