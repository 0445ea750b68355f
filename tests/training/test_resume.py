"""A training that is killed goes on as if nothing had happened: bit for bit, on the CPU."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny
from interrupted import assert_same, rows_of
from warm import IN_A_CHECKPOINT, Warm

import retinue
from retinue.errors import RetinueError, UsageError
from retinue.run.checkpoint import CheckpointStore
from retinue.run.folder import RunFolder


def _recipe(pictures: Path, **changes: Any) -> dict[str, Any]:
    """The last stage keeps a share of what it began with."""
    recipe = tiny.recipe(pictures, **changes)
    recipe["stages"][1]["start_half_life"] = 2
    return recipe


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, pictures: Path, warm: Warm) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert warm.train(_recipe(pictures), run).code == 0
    assert len(rows_of(run)) == 5
    return run


KILLS = [
    ("before the first checkpoint", 1),
    ("in the cache's building", 1),
    ("before cached rows count", 1),
    ("in a step", 3),
    ("before a checkpoint counts", 2),
    (IN_A_CHECKPOINT, 2),
    ("in validation", 1),
    ("before the model file is replaced", 1),
    ("between stages", 2),
    ("in a step", 5),
    ("in the final evaluation", 1),
]


def test_killed_at_every_moment(
    tmp_path: Path, pictures: Path, undisturbed: Path, warm: Warm
) -> None:
    """SIGKILLs over the life of one run, each where it hurts: between any two of them the training
    comes further."""
    run = tmp_path / "run"
    recipe = _recipe(
        pictures, checkpoint={"every_steps": 1}, cache={"folder": str(tmp_path / "cache")}
    )
    for number, (moment, times) in enumerate(KILLS):
        begun = (recipe, run) if number == 0 else (run,)
        outcome = warm.train(*begun, moment=moment, times=times)
        assert outcome.code == -signal.SIGKILL, (number, moment, outcome)
    outcome = warm.train(run)
    assert outcome.code == 0, outcome
    assert_same(run, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(
    tmp_path: Path, pictures: Path, undisturbed: Path, warm: Warm, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    outcome = warm.train(_recipe(pictures), run, moment="in a step", times=6, by=number)
    assert outcome.code == 128 + number, outcome
    assert f"retinue train {run} --resume" in outcome.said
    before = CheckpointStore(run / "last").load()["progress"]["steps"]
    assert before >= 4  # a first epoch was over
    assert warm.train(run).code == 0
    assert_same(run, undisturbed)


def test_sigterm_while_a_checkpoint_is_written(
    tmp_path: Path, pictures: Path, undisturbed: Path, warm: Warm
) -> None:
    run = tmp_path / "run"
    recipe = _recipe(pictures, checkpoint={"every_steps": 1})
    outcome = warm.train(
        recipe, run, moment="before a checkpoint counts", times=7, by=signal.SIGTERM
    )
    assert outcome.code == 143, outcome
    assert warm.train(run).code == 0
    assert_same(run, undisturbed)


@pytest.mark.usefixtures("only_torch")
def test_a_disk_that_fills_up_ends_clearly_and_loses_nothing(
    tmp_path: Path,
    pictures: Path,
    undisturbed: Path,
    monkeypatch: pytest.MonkeyPatch,
    only_torch: None,
) -> None:
    run = tmp_path / "run"
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(1)
        if len(calls) > 40:
            raise OSError(28, "No space left on device")
        real(descriptor)

    recipe = _recipe(pictures, checkpoint={"every_steps": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RetinueError, match="No space left") as raised:
            retinue.train(recipe, out=run, report=False, quiet=True)
    assert str(run) in str(raised.value)
    retinue.train(run, resume=True, report=False, quiet=True)
    assert_same(run, undisturbed)


def test_a_finished_run_resumed_changes_nothing(undisturbed: Path) -> None:
    before = (undisturbed / "best.safetensors").read_bytes()
    run = retinue.train(undisturbed, resume=True, report=False, quiet=True)
    assert (undisturbed / "best.safetensors").read_bytes() == before
    assert run.figures["split"] == "test"


def test_resuming_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run folder.*recipe\.yaml"):
        retinue.train(tmp_path, resume=True)


def test_resuming_elsewhere_is_refused(undisturbed: Path) -> None:
    with pytest.raises(UsageError, match="its own folder"):
        retinue.train(undisturbed, resume=True, out=undisturbed.parent / "elsewhere")
    with pytest.raises(UsageError, match="only a run folder"):
        retinue.train({"model": "tiny"}, resume=True)


def test_two_trainings_in_one_folder_are_refused(
    tmp_path: Path, pictures: Path, warm: Warm
) -> None:
    run = tmp_path / "run"
    assert warm.train(_recipe(pictures), run, moment="in a step", times=2).code == -9
    with RunFolder.open(run).locked():
        outcome = warm.train(run)
    assert outcome.code == 1
    assert "another training is at work" in outcome.said
    assert (run / "recipe.yaml").is_file()
    assert warm.train(run).code == 0


def test_two_starts_into_one_empty_folder_keep_out_of_each_others_way(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one comes while the first has the folder, but has not written into it; it fails,
    and the first one's files are still there."""
    wish = tmp_path / "run"
    wish.mkdir()
    first = RunFolder.create(wish, "run")
    second = RunFolder.create(wish, "run")
    assert first.path == wish
    assert second.path == tmp_path / "run-2"
    first.write("recipe.yaml", "kept")
    second.remove()
    assert not second.path.exists()
    assert (first.path / "recipe.yaml").read_text() == "kept"
    first.remove()
    assert wish.is_dir()  # it was there before
    assert not any(wish.iterdir())


def test_a_new_folder_is_claimed_at_once(tmp_path: Path) -> None:
    """Or another start would find it empty before this one has written into it."""
    made = RunFolder.create(tmp_path / "run", "run")
    assert any(made.path.iterdir())
    made.remove()
    assert not made.path.exists()
