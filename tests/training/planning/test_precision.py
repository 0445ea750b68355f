"""float32 or bfloat16: what is chosen, kept, recorded, and repeated."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from interrupted import assert_same, interrupted

import retinue
from retinue import processor
from retinue.inference.engine_cache import Choice, EngineCache
from retinue.measuring.training import bench_train
from retinue.processor import without_bfloat16
from retinue.run.folder import RunFolder
from retinue.run.log import Bar
from retinue.training import environment, prepare
from retinue.training.environment import OPEN, STEPS, choose_precision, facts
from retinue.training.planning import precision
from retinue.training.planning.clock import Clock
from retinue.training.planning.precision import Compared, compare, compared, costliest, settled
from retinue.training.prepare import open_data, prepared, settings_of
from retinue.training.recipe import load_recipe
from retinue.training.training import Training

pytestmark = pytest.mark.usefixtures("torch_alone")
TRAINED = {"epochs": 2, "batch_size": 8, "optimizer": {"name": "adamw", "lr": 0.01}}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that multiplies bfloat16, and trainings that are all long enough."""
    for module in (precision, environment, prepare):
        monkeypatch.setattr(module, "without_bfloat16", lambda: None)
    monkeypatch.setattr(precision, "product_ratio", lambda: 1.0)
    monkeypatch.setattr(precision, "LEAST_STEPS", 1)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever measures has failed."""

    def measured(*_: object) -> None:
        pytest.fail("it was measured")

    monkeypatch.setattr(precision, "measured", measured)


def _recipe(pictures: Path, **changes: Any) -> dict[str, Any]:
    return tiny.recipe(pictures, **{"stages": [TRAINED], "ema": None, **changes})


def _training(recipe: dict[str, Any], folder: Path) -> Training:
    folder.mkdir()
    loaded = load_recipe(recipe)
    data = open_data(loaded)
    return prepared(RunFolder(folder), loaded, data, settings_of(loaded), Bar(), Clock())


def _took(*seconds: float, loss: float = 2.0) -> Callable[[], tuple[float, float]]:
    """Steps that take so long, one after the other."""
    each = iter(seconds)
    return lambda: (next(each), loss)


# --- comparing -----------------------------------------------------------------------------------


def test_the_first_steps_do_not_count_and_three_that_agree_are_enough() -> None:
    found = compare(_took(9.0, 2.0, 2.2, 2.0), _took(99.0, 1.0, 1.0, 1.25), float("inf"))
    assert found == Compared(2.0, 2.0, 6)


def test_where_the_steps_do_not_agree_there_are_more_of_them_and_the_middle_counts() -> None:
    full = _took(1.0, 1.0, 1.0, 9.0, 1.0, 1.0)  # something else kept the machine busy once
    assert compare(full, _took(1.0, 1.0, 1.0, 1.0, 1.0, 1.0), float("inf")) == Compared(1, 1, 10)


def test_they_take_turns_and_each_begins_in_turn() -> None:
    order: list[str] = []

    def step(name: str) -> tuple[float, float]:
        order.append(name)
        return 1.0, 2.0

    compare(lambda: step("full"), lambda: step("brief"), float("inf"))
    assert order == ["full", "brief", "full", "brief", "brief", "full", "full", "brief"]


def test_of_short_steps_a_turn_has_several() -> None:
    """4 ms and 2 ms, of turns of 10 ms: 3 and 5 steps each."""
    found = compare(_took(*[0.004] * 10), _took(*[0.002] * 16), float("inf"))
    assert isinstance(found, Compared)
    assert (found.ratio, found.seconds) == (pytest.approx(2.0), pytest.approx(0.004))
    assert found.steps == 3 * 3 + 3 * 5


def test_what_is_far_behind_is_tried_once() -> None:
    assert compare(_took(1.0, 1.0), _took(5.0, 4.0), float("inf")) == Compared(0.25, 1.0, 2)


@pytest.mark.parametrize(
    ("own", "other", "good"),
    [(2.0, 2.09, True), (2.0, 2.11, False), (2.0, 1.89, False), (0.01, 0.059, True),
     (0.01, 0.07, False), (2.0, float("nan"), False), (2.0, float("inf"), False),
     (200.0, 209.0, True)],
)  # fmt: skip
def test_the_loss_must_be_near(own: float, other: float, good: bool) -> None:
    steps = [1.0] * 6
    found = compare(_took(*steps, loss=own), _took(*steps, loss=other), float("inf"))
    assert isinstance(found, Compared)
    assert (not found.why) == good
    assert good or "the loss in bfloat16" in found.why


def test_of_a_budget_it_takes_a_small_share_or_nothing() -> None:
    steps = [1.0] * 6
    assert isinstance(compare(_took(*steps), _took(*steps), 8.0), Compared)
    assert "too short" in str(compare(_took(1.0), _took(), 7.9))


def test_how_it_is_told() -> None:
    assert compared(1.1, "as it was") == "1.10 times as fast as float32 here (as it was)"
    assert compared(1.09, "as it was") == "as bfloat16 is 1.09 times as fast here (as it was)"


# --- settling ------------------------------------------------------------------------------------


def test_what_was_asked_for_is_not_looked_at(
    tmp_path: Path, pictures: Path, able: None, unmeasured: None
) -> None:
    for asked in ("fp32", "bf16"):
        training = _training(_recipe(pictures, precision=asked), tmp_path / asked)
        assert settled(training) == (training, [])
    assert choose_precision("auto", "cpu") == OPEN
    assert choose_precision("auto", "mps") == "fp32"


def test_bfloat16_that_was_asked_for_where_it_is_emulated_is_doubted_aloud(
    tmp_path: Path,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = "hundreds of times as long as one in fp32: precision=fp32"
    monkeypatch.setattr(processor, "cpu_flags", lambda: ["avx2"])
    _training(_recipe(pictures, precision="fp32"), tmp_path / "a")
    assert said not in caplog.text
    _training(_recipe(pictures, precision="bf16"), tmp_path / "b")
    assert said in caplog.text


def test_without_the_instructions_it_is_float32(
    tmp_path: Path, pictures: Path, able: None, unmeasured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "without_bfloat16", without_bfloat16)
    monkeypatch.setattr(processor, "cpu_flags", lambda: ["avx2"])
    training, lines = settled(_training(_recipe(pictures), tmp_path / "run"))
    assert training.settings.precision == "fp32"
    assert lines == ["precision: float32, as this processor has no bfloat16 instructions"]


def test_a_short_training_is_float32_also_once_a_long_one_has_been_measured(
    tmp_path: Path, pictures: Path, able: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its steps, so that it is the same each time."""
    monkeypatch.setattr(precision, "MARGIN", 0.0)
    training = _training(_recipe(pictures), tmp_path / "a")
    steps = 2 * training.epoch_steps[0]
    monkeypatch.setattr(precision, "LEAST_STEPS", steps)
    assert settled(training)[0].settings.precision == "bf16"
    monkeypatch.setattr(precision, "LEAST_STEPS", steps + 1)
    training, (line,) = settled(training)
    assert training.settings.precision == "fp32"
    assert line.startswith(f"precision: float32, as stage train, of {steps} steps, is too short")


def test_a_compiled_training_is_float32(
    tmp_path: Path, pictures: Path, able: None, unmeasured: None
) -> None:
    """Its steps are others than those that could be timed."""
    training, (line,) = settled(_training(_recipe(pictures, compile=True), tmp_path / "run"))
    assert training.settings.precision == "fp32"
    assert line == "precision: float32, as steps of a compiled network are not timed beforehand"


def test_choices_that_are_called_the_same_are_all_told() -> None:
    """Of two sizes of input, say: neither hides the other."""
    cache = EngineCache()
    for number, speed in enumerate((10.0, 20.0, 30.0)):
        choice = Choice("fp32", {"fp32": speed, "bf16": 1.0}, 8, STEPS, network="tiny")
        cache.keep_choice(f"{number:032x}", 2, choice)
    told = facts()["timed_precisions"]
    assert sorted(told) == ["tiny, 8 at a time", "tiny, 8 at a time (2)", "tiny, 8 at a time (3)"]
    assert {one.split()[1] for one in told.values()} == {"10", "20", "30"}


def test_it_is_measured_once_for_all_of_a_kind(
    tmp_path: Path, pictures: Path, able: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: Iterator[tuple[float, float]] = iter([(1.5, 0.0), (0.7, 0.0)])
    monkeypatch.setattr(precision, "compare", lambda *_: Compared(next(found)[0], 0.25, 6))
    training, (line,) = settled(_training(_recipe(pictures), tmp_path / "a"))
    assert training.settings.precision == "bf16"
    assert line == (
        "precision: bfloat16, 1.50 times as fast as float32 here (measured over 6 steps)"
    )
    stage = {**TRAINED, "epochs": 4, "optimizer": {"name": "adamw", "lr": 0.3}}
    like = _training(_recipe(pictures, stages=[stage], seed=3), tmp_path / "b")
    training, (line,) = settled(like)
    assert training.settings.precision == "bf16"
    assert "1.50 times as fast as float32 here (measured for an earlier training)" in line
    (told,) = facts()["timed_precisions"].values()
    assert told.startswith("fp32 32 img/s, bf16 48 img/s: bf16 (20")
    assert [*facts()["timed_precisions"]] == ["tiny, 8 at a time"]
    assert facts()["timed_engines"] == {}
    other = _training(_recipe(pictures, stages=[{**TRAINED, "batch_size": 16}]), tmp_path / "c")
    training, (line,) = settled(other)
    assert training.settings.precision == "fp32"
    assert (
        line == "precision: float32, as bfloat16 is 0.70 times as fast here (measured over 6 steps)"
    )


@pytest.mark.parametrize(
    "changes",
    [{"stages": [{**TRAINED, "batch_size": 4}]}, {"stages": [{**TRAINED, "accumulate": 2}]},
     {"stages": [{**TRAINED, "trainable": 1}]}, {"stages": [{**TRAINED, "sizes": [32, 48]}]},
     {"stages": [{**TRAINED, "optimizer": {"name": "sgd"}}]}, {"input": {"size": 48}},
     {"model": {"name": "tiny", "weights": None, "dropout": 0.0}}, {"ema": {"decay": 0.9}}],
    ids=str,
)  # fmt: skip
def test_what_is_of_another_kind(tmp_path: Path, pictures: Path, changes: dict[str, Any]) -> None:
    own = precision.facts(_training(_recipe(pictures), tmp_path / "a"), 0)
    assert precision.facts(_training(_recipe(pictures, **changes), tmp_path / "b"), 0) != own


def test_other_machines_measure_anew(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = _training(_recipe(pictures), tmp_path / "run")
    own = precision.facts(training, 0)
    assert precision.facts(training, 0) == own
    for name, value in (
        ("cpu_flags", ["amx_bf16"]), ("cpu_name", "another"), ("usable_cpus", 64),
        ("versions", {"torch": "9"}),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(precision, name, lambda value=value: value)
            assert precision.facts(training, 0) != own, name


def test_why_bfloat16_will_not_do_is_kept_too(
    tmp_path: Path, pictures: Path, able: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "product_ratio", lambda: 127.0)
    training, said = settled(_training(_recipe(pictures), tmp_path / "a"))
    assert training.settings.precision == "fp32"
    assert said == ["precision: float32, as bfloat16 is computed bit by bit here, 127 times slower"]
    monkeypatch.setattr(precision, "measured", None)
    assert settled(_training(_recipe(pictures), tmp_path / "b"))[1] == said


def test_what_cannot_be_measured_or_kept_stops_nothing(
    tmp_path: Path, pictures: Path, able: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setattr(precision, "MARGIN", 0.0)
    training, _ = settled(_training(_recipe(pictures), tmp_path / "a"))
    assert training.settings.precision == "bf16"

    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(precision, "compare", fail)
    training, (line,) = settled(_training(_recipe(pictures), tmp_path / "b"))
    assert training.settings.precision == "fp32"
    assert line == "precision: float32, as bfloat16 could not be tried (out of luck)"


def test_a_kept_choice_of_another_kind_is_none(
    tmp_path: Path, pictures: Path, able: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "MARGIN", 0.0)
    training = _training(_recipe(pictures), tmp_path / "a")
    strange = Choice("openvino", {"fp32": 1.0, "bf16": 2.0}, 8, "apart")
    key = precision.key_of(precision.facts(training, 0))
    EngineCache().keep_choice(key, training.settings.threads, strange)
    assert "measured over" in settled(training)[1][0]


def test_the_stage_that_multiplies_most_counts(tmp_path: Path, pictures: Path) -> None:
    """The head's 30 epochs of 8 images are less than three epochs of everything."""
    head = {"name": "head", "trainable": "head", "epochs": 30, "batch_size": 8, "views": 1,
            "augment": {"crop_scale": [0.5, 1.0]}}  # fmt: skip
    whole = {"name": "all", "epochs": 3, "batch_size": 8}
    recipe = tiny.recipe(pictures, stages=[head, whole], ema=None)
    assert costliest(_training(recipe, tmp_path / "a")) == 1
    recipe = tiny.recipe(pictures, stages=[{**whole, "epochs": 9}, {**whole, "name": "b"}])
    assert costliest(_training(recipe, tmp_path / "b")) == 0


# --- trainings -----------------------------------------------------------------------------------


def _train(recipe: dict[str, Any], out: Path) -> Path:
    return retinue.train(recipe, out=out, report=False, quiet=True).folder


def _settings(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "environment.json").read_text())["settings"]
    return found


@pytest.mark.parametrize(("margin", "asked"), [(0.0, "bf16"), (1e9, "fp32")])
def test_a_measured_training_is_bit_for_bit_that_which_was_told_its_precision(
    tmp_path: Path,
    pictures: Path,
    able: None,
    monkeypatch: pytest.MonkeyPatch,
    margin: float,
    asked: str,
) -> None:
    """BatchNorm, dropout, EMA, Adam's moments, a frozen part and what comes after all of it."""
    recipe = tiny.recipe(pictures)
    recipe["stages"][1] |= {"optimizer": {"name": "adamw", "lr": 0.01}, "clip_norm": 1.0}
    monkeypatch.setattr(precision, "MARGIN", margin)
    run = _train(recipe, tmp_path / "auto")
    assert _settings(run)["precision"] == asked
    assert "measured over" in _settings(run)["why"]
    assert_same(run, _train({**recipe, "precision": asked}, tmp_path / "asked"))


@pytest.mark.slow
def test_of_several_processes_the_first_one_decides(tmp_path: Path, pictures: Path) -> None:
    """Bit for bit as if all had been told."""
    script = tmp_path / "decided.py"
    script.write_text(
        "import os, runpy, sys\n"
        "from retinue.training.planning import precision\n"
        "precision.without_bfloat16 = lambda: None\n"
        "precision.product_ratio = lambda: 1.0\n"
        "precision.LEAST_STEPS = 1\n"
        # Each for itself, they would not do the same.
        "precision.MARGIN = 0.0 if os.environ['RANK'] == '0' else 1e9\n"
        f"sys.argv[0] = {tiny.__file__!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    runs = [tmp_path / "auto", tmp_path / "told"]
    for run, own in zip(runs, ([str(script)], [tiny.__file__]), strict=True):
        launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
        said = [] if own[0] == str(script) else ["precision=bf16"]
        command = [sys.executable, *launch, *own, str(run), str(pictures), *said]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    assert _settings(runs[0])["precision"] == "bf16"
    assert "measured over" in _settings(runs[0])["why"]
    assert_same(*runs)


def test_a_training_goes_on_as_it_began_and_never_measures_again(
    tmp_path: Path, pictures: Path, able: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(pictures, ema={"decay": 0.9})
    whole = _train({**recipe, "precision": "bf16"}, tmp_path / "whole")
    monkeypatch.setattr(precision, "MARGIN", 0.0)
    run = interrupted(recipe, tmp_path / "run", monkeypatch, step=7)
    before = _settings(run)
    assert before["precision"] == "bf16"
    monkeypatch.setattr(precision, "settled", lambda *_: pytest.fail("it was settled again"))
    monkeypatch.setattr("retinue.training.planning.plan.settled", precision.settled)
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path / "none"))
    # On a machine that has no such instructions, too, and there it is said.
    monkeypatch.setattr(prepare, "without_bfloat16", without_bfloat16)
    monkeypatch.setattr(processor, "cpu_flags", lambda: ["avx2"])
    retinue.train(run, resume=True, report=False, quiet=True)
    assert _settings(run) == before
    assert_same(run, whole)
    log = (run / "train.log").read_text()
    assert "this processor has no bfloat16 instructions" in log
    assert "start anew: retinue train" in log


def test_one_that_was_killed_before_its_first_step_is_settled_when_it_goes_on(
    tmp_path: Path, pictures: Path, able: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(precision, "compare", kill)
        with pytest.raises(Killed):
            _train(_recipe(pictures), tmp_path / "run")
    assert _settings(tmp_path / "run")["precision"] == OPEN
    monkeypatch.setattr(precision, "MARGIN", 0.0)
    retinue.train(tmp_path / "run", resume=True, report=False, quiet=True)
    assert _settings(tmp_path / "run")["precision"] == "bf16"


def test_what_was_chosen_is_told_in_the_log_the_record_and_the_plan(
    tmp_path: Path, pictures: Path, able: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "compare", lambda *_: Compared(1.42, 0.25, 6))
    why = "1.42 times as fast as float32 here (measured over 6 steps)"
    plan = retinue.train(_recipe(pictures), dry_run=True, quiet=True)
    assert plan.settings.precision == "bf16"
    assert f"precision: bfloat16, {why}" in plan.notes
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path / "other"))
    run = _train(_recipe(pictures), tmp_path / "run")
    assert f"precision: bfloat16, {why}" in (run / "train.log").read_text()
    record = json.loads((run / "environment.json").read_text())
    assert (record["precision"], record["precision_chosen"]) == ("bf16", why)


def test_a_measurement_of_steps_is_in_the_precision_of_the_training(
    pictures: Path, able: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "compare", lambda *_: Compared(1.42, 0.25, 6))
    measured = bench_train(_recipe(pictures), seconds=0.01)
    assert measured.facts["precision"] == "bf16"
    assert not torch.is_autocast_enabled("cpu")
