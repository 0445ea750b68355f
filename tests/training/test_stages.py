"""What a stage says of its samples, steps, sizes and validations is what a training does."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny
import torch

import retinue
from retinue import modelfile
from retinue.errors import Interrupted, RetinueError, UsageError
from retinue.modelfile import MODEL_FILE
from retinue.run.checkpoint import CheckpointStore
from retinue.run.recorder import Recorder
from retinue.training import stage_samples, trainer
from retinue.training.features.frozen import FrozenPart
from retinue.training.guards import SignalExchange
from retinue.training.options import StageOptions
from retinue.training.session import Run
from retinue.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("torch_alone")
SHAPE = {"blue 猫": 18, "green": 9, "red": 3}


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes in a train, val and test split; 18, 9 and 3 images to learn from."""
    root = tmp_path_factory.mktemp("uneven") / "data"
    for split, share in (("train", 1.0), ("val", 1 / 3), ("test", 1 / 3)):
        tiny.write_pictures(root / split, each=18, side=24)
        for name, count in SHAPE.items():
            for path in sorted((root / split / name).iterdir())[round(count * share) :]:
                path.unlink()
    return root


class Step(NamedTuple):
    stage: str
    epoch: int
    keys: list[int]
    files: list[str]
    sides: set[int]
    cached: bool


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """Every step that a training does."""
    done: list[Step] = []
    real = Trainer._step

    def step(self: Trainer, stage: StageOptions, portions: Any) -> None:
        done.append(
            Step(
                stage.name,
                self.progress.epoch,
                [k for batch in portions for k in batch.keys.tolist()],
                ["/".join(Path(s.key).parts[-3:]) for batch in portions for s in batch.samples],
                {batch.inputs.shape[2] for batch in portions},
                self.data.cached is not None,
            )
        )
        real(self, stage, portions)

    monkeypatch.setattr(Trainer, "_step", step)
    return done


def _recipe(data: Path, *stages: dict[str, Any], **changes: Any) -> dict[str, Any]:
    base = {"epochs": 1, "batch_size": 6, "optimizer": {"name": "sgd", "lr": 0.01}}
    named = [base | {"name": f"s{k}"} | stage for k, stage in enumerate(stages)]
    network = {"name": "tiny", "weights": None, "dropout": 0.0}
    return tiny.recipe(data, stages=named, **{"ema": None, "model": network, **changes})


def _train(recipe: dict[str, Any], out: Path) -> Run:
    return retinue.train(recipe, out=out, report=False, quiet=True)


def _interrupted(recipe: dict[str, Any], out: Path, after: int) -> None:
    """A training that stops after its `after`th step."""
    asked: list[int] = []
    real = Trainer._step

    def step(self: Trainer, *arguments: Any) -> None:
        real(self, *arguments)
        asked.append(1)

    def largest(self: SignalExchange, number: int) -> int:
        return 15 if len(asked) == after else number

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_step", step)
        patch.setattr(SignalExchange, "largest", largest)
        with pytest.raises(Interrupted):
            _train(recipe, out)


def _classes(step: Step) -> Counter[str]:
    return Counter(file.split("/")[1] for file in step.files)


def _same(one: Path, other: Path) -> None:
    ours, theirs = tiny.last_network(one), tiny.last_network(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


# --- samplers and epochs -------------------------------------------------------------------------


def test_shuffled_is_what_a_stage_does_unless_it_says_otherwise(
    tmp_path: Path, uneven: Path, steps: list[Step]
) -> None:
    _train(_recipe(uneven, {}), tmp_path / "run")
    seen = Counter(file for step in steps for file in step.files)
    assert len(seen) == 30
    assert set(seen.values()) == {1}


@pytest.mark.parametrize("cached", [True, False])
def test_a_balanced_sampler_shows_every_class_as_often(
    tmp_path: Path, uneven: Path, steps: list[Step], cached: bool
) -> None:
    stage: dict[str, Any] = {"sampler": {"name": "balanced"}, "epochs": 2}
    if cached:
        stage |= {"trainable": "head", "views": 2}
    _train(_recipe(uneven, stage), tmp_path / "run")
    assert len(steps) == 2 * 30 // 6
    for step in steps:
        assert _classes(step) == dict.fromkeys(SHAPE, 2)
        assert step.cached == cached
    # The three of the smallest class came again and again, under keys of their own.
    shown = [pair for step in steps[:5] for pair in zip(step.keys, step.files, strict=True)]
    keys = [key for key, file in shown if "/red/" in file]
    assert len(keys) == len(set(keys)) == 10
    assert len({key % 30 for key in keys}) == 3


def test_class_pairs_have_several_images_of_each_class(
    tmp_path: Path, uneven: Path, steps: list[Step]
) -> None:
    stage = {"sampler": {"name": "class_pairs", "images": 3}, "steps": 6, "epochs": None}
    _train(_recipe(uneven, stage), tmp_path / "run")
    for step in steps:
        assert sorted(_classes(step).values()) == [3, 3]
        assert len(set(step.files)) == 6


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (
            {"sampler": {"name": "class_pairs", "images": 3}, "batch_size": 7},
            r"needs a batch_size of a multiple of 3, not 7, key stages\.1\.sampler, batch_size=6",
        ),
        (
            {"sampler": {"name": "class_pairs", "images": 1}, "batch_size": 4},
            r"wants 4 classes in a batch, but there are only 3, key stages\.1\.sampler",
        ),
        ({"sampler": {"name": "shards"}}, r"do not lie in shards, key stages\.1\.sampler"),
    ],
)
def test_a_sampler_that_the_data_does_not_allow_is_refused_before_the_first_step(
    tmp_path: Path, uneven: Path, stage: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        _train(_recipe(uneven, {}, stage), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_epoch_may_have_fewer_or_more_steps_than_there_are_batches(
    tmp_path: Path, uneven: Path, steps: list[Step]
) -> None:
    stages = [{"epochs": 3, "epoch_steps": 2}, {"epochs": 1, "epoch_steps": 7}]
    run = _train(_recipe(uneven, *stages), tmp_path / "run")
    assert [row["step"] for row in tiny.rows(run.folder)] == ["2", "4", "6", "13"]
    assert [(step.stage, step.epoch) for step in steps] == [
        *(("s0", k // 2) for k in range(6)),
        *[("s1", 0)] * 7,
    ]
    # Epochs follow each other in one stream: a pass shows everything once.
    assert len({file for step in steps[:5] for file in step.files}) == 30
    again = Counter(file for step in steps[6:] for file in step.files)
    assert set(again.values()) == {1, 2}
    assert len({key for step in steps[6:] for key in step.keys}) == 42  # drawn in another way


def test_validations_may_begin_late_and_be_rare(tmp_path: Path, uneven: Path) -> None:
    stages = [
        {"epochs": 6, "epoch_steps": 1, "validate_from": 2, "validate_every": 3},
        {"epochs": 2, "epoch_steps": 1, "validate_from": 9},
        {"epochs": None, "steps": 3, "epoch_steps": 2, "validate_from": 9},
    ]
    run = _train(_recipe(uneven, *stages), tmp_path / "run")
    rows = tiny.rows(run.folder)
    judged = [k for k, row in enumerate(rows, 1) if row["val_top1"]]
    assert judged == [2, 5, 6, 8, 10]  # the last epoch of a stage always is
    for row in rows:
        values = [value for name, value in row.items() if name.startswith("val_")]
        assert all(values) or not any(values)
        assert row["train_loss"]
    described = modelfile.read_description(run.best)
    assert described.figures["top1"] == max(float(rows[k - 1]["val_top1"]) for k in judged)


def test_epochs_that_are_not_judged_are_no_stale_ones(tmp_path: Path, uneven: Path) -> None:
    stage = {
        "epochs": 12, "epoch_steps": 1, "validate_every": 2, "early_stop": {"patience": 2},
        "optimizer": {"name": "sgd", "lr": 1e-9},
    }  # fmt: skip
    run = _train(_recipe(uneven, stage), tmp_path / "run")
    # Epochs 2, 4, 6 …: the first of them is the best, the two after it are not better.
    assert len(tiny.rows(run.folder)) == 6


# --- the stage's own samples ---------------------------------------------------------------------


def test_stages_may_learn_from_a_part_and_from_the_validation_split(
    tmp_path: Path, uneven: Path, steps: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [
        {"data": {"name": "subset", "share": 1 / 3}, "batch_size": 5},
        {},
        {"data": {"name": "with_validation"}},
    ]
    recipe = _recipe(uneven, *stages)
    whole = _train(recipe, tmp_path / "whole")
    first, second, third = (
        {f for step in steps if step.stage == name for f in step.files}
        for name in ("s0", "s1", "s2")
    )
    assert Counter(f.split("/")[1] for f in first) == {"blue 猫": 6, "green": 3, "red": 1}
    assert len(second) == 6
    assert second <= first  # those of the stage before it
    val = {"/".join(p.parts[-3:]) for p in (uneven / "val").rglob("*.png")}
    assert len(third) == 18  # three batches
    assert third <= first | val
    assert third & val
    lines = (whole.folder / "stages" / "s2.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 20  # ten and ten
    assert not (whole.folder / "stages" / "s1.jsonl").exists()

    # Taken up in the last stage, it repeats what was written down.
    _interrupted(recipe, tmp_path / "run", after=4)
    monkeypatch.setitem(
        stage_samples._CHANGES, stage_samples.Subset, lambda *_: pytest.fail("asked again")
    )
    monkeypatch.setitem(
        stage_samples._CHANGES, stage_samples.WithValidation, lambda *_: pytest.fail("asked again")
    )
    retinue.train(tmp_path / "run", resume=True, report=False, quiet=True)
    _same(tmp_path / "run", whole.folder)


def test_an_image_of_a_stage_that_is_gone_is_named(tmp_path: Path, uneven: Path) -> None:
    recipe = _recipe(uneven, {"data": {"name": "subset", "share": 0.5}})
    _interrupted(recipe, tmp_path / "run", after=1)
    path = tmp_path / "run" / "stages" / "s0.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[3] = json.dumps({**json.loads(lines[3]), "key": "gone.png"})
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(RetinueError, match=r"'gone\.png' is not in the data.*s0\.jsonl, line 4"):
        retinue.train(tmp_path / "run", resume=True, report=False, quiet=True)


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes", [[24, 32, 40], {"min": 24, "max": 40, "step": 8}], ids=["list", "range"]
)
def test_each_step_draws_one_of_the_sizes(
    tmp_path: Path, uneven: Path, steps: list[Step], sizes: Any
) -> None:
    stage = {"sizes": sizes, "epochs": 3, "accumulate": 2}
    run = _train(_recipe(uneven, stage), tmp_path / "run")
    assert all(len(step.sides) == 1 for step in steps)  # all portions of a step have one
    drawn = Counter(side for step in steps for side in step.sides)
    assert set(drawn) == {24, 32, 40}
    assert modelfile.read_description(run.best).preprocessing["size"] == [32, 32]


def test_sizes_and_views_are_cached_alike(
    tmp_path: Path, uneven: Path, steps: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each view at each size is computed once, for this and for any later training."""
    computed: list[tuple[int, ...]] = []
    real = FrozenPart.fields

    def fields(self: FrozenPart, engine: Any, inputs: Any, *taught: Any) -> Any:
        computed.append(tuple(inputs.shape))
        return real(self, engine, inputs, *taught)

    monkeypatch.setattr(FrozenPart, "fields", fields)
    stage = {
        "trainable": "last", "sizes": [24, 32], "epochs": 4, "views": 2,
        "augment": {"crop_scale": [0.5, 1.0]}, "optimizer": {"name": "sgd", "lr": 0.05},
    }  # fmt: skip
    cache = {"folder": str(tmp_path / "cache")}
    run = _train(_recipe(uneven, stage, cache=cache), tmp_path / "run")
    images = Counter(shape[2] for shape in computed for _ in range(shape[0]))
    assert images == {24: 2 * 30, 32: 2 * 30 + 10}  # and the validation split, at the input's size
    assert {(step.cached, *step.sides) for step in steps} == {(True, 6), (True, 8)}
    computed.clear()
    again = _train(_recipe(uneven, stage, cache=cache), tmp_path / "again")
    assert computed == []
    _same(again.folder, run.folder)


def test_at_several_sizes_cached_features_teach_what_the_images_do(
    tmp_path: Path, uneven: Path
) -> None:
    stage = {
        "trainable": "last", "sizes": [24, 32], "epochs": 2,
        "augment": {"horizontal_flip": 0.0}, "optimizer": {"name": "sgd", "lr": 0.05},
    }  # fmt: skip
    runs = [
        _train(_recipe(uneven, stage | {"cache_features": wish}), tmp_path / wish).folder
        for wish in ("on", "off")
    ]
    cached, plain = (tiny.learnt(run) for run in runs)
    assert plain.norm() > 0.03
    assert (cached - plain).norm() < 0.05 * plain.norm()


# --- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every_steps", "saved"),
    [
        (3, [0, 3, 6, 9, 10, 10, 12, 15, 18, 18, 18]),
        (None, [0, 10, 10, 18, 18]),
        (100, [0, 10, 10, 18, 18]),
    ],
)
def test_checkpoints_count_the_steps_of_the_whole_training(
    tmp_path: Path,
    uneven: Path,
    monkeypatch: pytest.MonkeyPatch,
    every_steps: int | None,
    saved: list[int],
) -> None:
    """And one is written where a stage begins and ends, and at the end of all."""
    told: list[int] = []
    real = CheckpointStore.save

    def save(self: CheckpointStore, state: dict[str, Any]) -> Path:
        told.append(state["progress"]["steps"])
        return real(self, state)

    monkeypatch.setattr(CheckpointStore, "save", save)
    stages = [{"epochs": 2}, {"epochs": 2, "epoch_steps": 4, "accumulate": 3}]
    checkpoint = {"every_steps": every_steps, "every_minutes": 1000}
    _train(_recipe(uneven, *stages, checkpoint=checkpoint), tmp_path / "run")
    assert told == saved


# --- figures -------------------------------------------------------------------------------------


def _judging(monkeypatch: pytest.MonkeyPatch, figures: list[dict[str, float]]) -> None:
    """Validations that say these."""
    told = iter(figures)
    real = trainer.validate

    def validate(*arguments: Any, **options: Any) -> Any:
        _, state = real(*arguments, **options)
        return next(told), state

    monkeypatch.setattr(trainer, "validate", validate)


def test_the_least_calibration_error_is_kept(
    tmp_path: Path, uneven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [0.3, 0.2, 0.25, 0.22]
    _judging(monkeypatch, [{"ece": v, "top1": v} for v in values])
    recipe = _recipe(uneven, {"epochs": 4, "epoch_steps": 1})
    recipe["evaluation"] = {"metric": "ece"}
    run = _train(recipe, tmp_path / "run")
    assert modelfile.read_description(run.best).figures["ece"] == 0.2
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["kept"] == {"epoch": 2, "figures": {"ece": 0.2, "top1": 0.2}}


@pytest.mark.parametrize(("metric", "epochs"), [("ece", 4), ("top1", 3)])
def test_early_stop_knows_which_way_is_better(
    tmp_path: Path, uneven: Path, monkeypatch: pytest.MonkeyPatch, metric: str, epochs: int
) -> None:
    values = [0.3, 0.2, 0.195, 0.19, 0.1]
    _judging(monkeypatch, [{"ece": v, "top1": v} for v in values])
    stop = {"patience": 2, "min_delta": 0.02}
    recipe = _recipe(uneven, {"epochs": 5, "epoch_steps": 1, "early_stop": stop})
    recipe["evaluation"] = {"metric": metric}
    run = _train(recipe, tmp_path / "run")
    assert len(tiny.rows(run.folder)) == epochs


def test_a_stage_may_begin_from_the_best_weights(
    tmp_path: Path, uneven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, torch.Tensor]] = []
    real = Trainer._begin

    def begin(self: Trainer, *arguments: Any) -> None:
        real(self, *arguments)
        begun.append({k: v.clone() for k, v in self.network.state_dict().items()})

    monkeypatch.setattr(Trainer, "_begin", begin)
    kept: list[dict[str, torch.Tensor]] = []
    write = Recorder.write_best

    def written(self: Any, tensors: dict[str, torch.Tensor], *others: Any) -> None:
        kept.append({k: v.clone() for k, v in tensors.items()})
        write(self, tensors, *others)

    monkeypatch.setattr(Recorder, "write_best", written)
    for best in (True, False):
        begun.clear()
        kept.clear()
        stages = [{"epochs": 3, "epoch_steps": 1}, {"epoch_steps": 1, "from_best": best}]
        with monkeypatch.context() as patch:
            _judging(patch, [{"top1": v} for v in (0.1, 0.3, 0.2, 0.1)])
            _train(_recipe(uneven, *stages), tmp_path / f"run{best}")
        assert len(kept) == 2
        same = [torch.equal(begun[1][name], kept[1][name]) for name in kept[1]]
        assert all(same) == best


def test_of_equally_good_epochs_the_latest_is_kept(
    tmp_path: Path, uneven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _judging(monkeypatch, [{"top1": v} for v in (0.1, 0.3, 0.3, 0.2)])
    run = _train(_recipe(uneven, {"epochs": 4, "epoch_steps": 1}), tmp_path / "run")
    assert json.loads((run.folder / "environment.json").read_text())["kept"]["epoch"] == 3


@pytest.mark.parametrize(
    ("keep", "every_minutes", "written"),
    [("last", 1000, [1, 3, 5]), ("last", 0, [1, 2, 3, 4, 5]), ("best", 1000, [1, 2, 4])],
)
def test_of_last_weights_a_file_is_written_now_and_then_and_where_a_stage_ends(
    tmp_path: Path,
    uneven: Path,
    monkeypatch: pytest.MonkeyPatch,
    keep: str,
    every_minutes: int,
    written: list[int],
) -> None:
    """The figures of the epochs tell which of them wrote it; each is in place after a kill."""
    values = [0.1, 0.2, 0.15, 0.3, 0.25]
    _judging(monkeypatch, [{"top1": v} for v in values])
    told: list[int] = []
    write = Recorder.write_best

    def written_now(self: Recorder, tensors: Any, figures: dict[str, float], state: Any) -> None:
        write(self, tensors, figures, state)
        assert modelfile.read_description(self.run.path / MODEL_FILE).figures == figures
        told.append(values.index(figures["top1"]) + 1)

    monkeypatch.setattr(Recorder, "write_best", written_now)
    stages = [{"epochs": 3, "epoch_steps": 1}, {"epochs": 2, "epoch_steps": 1}]
    recipe = _recipe(uneven, *stages, checkpoint={"every_minutes": every_minutes})
    recipe["evaluation"] = {"keep": keep, "batch_size": 16}
    run = _train(recipe, tmp_path / "run")
    assert told == written
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["kept"]["epoch"] == written[-1]


def test_the_model_file_holds_the_share_of_what_its_stage_began_with(
    tmp_path: Path, uneven: Path
) -> None:
    recipe = tiny.recipe(uneven, evaluation={"keep": "last", "batch_size": 16})
    recipe["stages"] = [{**recipe["stages"][1], "epochs": 2, "start_half_life": 3}]
    run = _train(recipe, tmp_path / "run")
    state = CheckpointStore(run.folder / "last").load()["ema"]
    kept = modelfile.read(run.best)[1]
    weights = [name for name in kept if name.endswith("weight")]
    assert weights
    share = 0.5 ** (state[""] / 3)
    for name in weights:
        average = state[f"network.{name}"]
        start = state[f"start of network.{name}"]
        assert not torch.equal(average, start)
        torch.testing.assert_close(kept[name], torch.lerp(average, start, share))
