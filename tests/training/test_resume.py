"""A training that is killed goes on as if nothing had happened: bit for bit, on the CPU."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch

import retinue
from retinue import modelfile
from retinue.errors import Interrupted, RetinueError, UsageError
from retinue.training.checkpoint import CheckpointStore

SCRIPT = Path(tiny.__file__)
KILLS = 10


def _start(out: Path, data: Path, *rest: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), str(out), str(data), *rest]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def _final(run: Path) -> dict[str, torch.Tensor]:
    """Everything that the last checkpoint and the model file hold."""
    state = CheckpointStore(run / "last").load()
    tensors = {f"network {k}": v for k, v in state["network"].items()}
    tensors |= {f"ema {k}": v for k, v in state["ema"].items() if isinstance(v, torch.Tensor)}
    tensors |= {f"best {k}": v for k, v in modelfile.read(run / "best.safetensors")[1].items()}
    return tensors


def _same(run: Path, reference: Path) -> None:
    ours, theirs = _final(run), _final(reference)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    ours_figures, theirs_figures = _figures(run), _figures(reference)
    assert ours_figures == theirs_figures


def _figures(run: Path) -> list[dict[str, str]]:
    """`metrics.csv` without what a clock measured."""
    header, *rows = (run / "metrics.csv").read_text(encoding="utf-8").splitlines()
    names = header.split(",")
    clock = {"seconds", "images_per_second"}
    return [
        {n: v for n, v in zip(names, row.split(","), strict=True) if n not in clock} for row in rows
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    process = _start(run, pictures)
    assert process.wait(120) == 0, process.stderr
    assert len(_figures(run)) == 5
    return run


def test_killed_at_random_moments(tmp_path: Path, pictures: Path) -> None:
    """At least ten SIGKILLs over the life of one run: before the first checkpoint, while features
    are cached, within epochs, while checkpoints are written."""
    # On a busy machine several steps pass between two looks, so there are plenty.
    longer = "stages.1.epochs=10"
    undisturbed = tmp_path / "undisturbed"
    assert _start(undisturbed, pictures, longer).wait(120) == 0
    run = tmp_path / "run"
    draw = random.Random(7)
    kills = 0
    arguments = [longer, "checkpoint.every_steps=1"]
    steps_at_kill = []
    deadline = time.monotonic() + 240
    while kills < KILLS:
        assert time.monotonic() < deadline
        resuming = (run / "recipe.yaml").is_file()
        process = _start(run, pictures, *(["--resume"] if resuming else arguments))
        # Wait until the work has come further, so that every kill hits another place.
        begun = _mark(run)
        patience = time.monotonic() + 60
        while process.poll() is None and _mark(run) == begun and time.monotonic() < patience:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.05))
        if process.poll() is not None:
            assert process.returncode == 0, process.communicate()[1]
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        steps_at_kill.append(_mark(run))
    assert kills >= KILLS, f"only {kills} kills before the end: {steps_at_kill}"
    process = _start(run, pictures, "--resume")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert not (run / "cache").exists()
    _same(run, undisturbed)


def _mark(run: Path) -> str:
    """Something that changes whenever the training comes further."""
    try:
        return (run / "last" / "current").read_text(encoding="utf-8")
    except FileNotFoundError:
        return "begun" if (run / "environment.json").is_file() else ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(
    tmp_path: Path, pictures: Path, undisturbed: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    process = _start(run, pictures)
    _wait_for(lambda: (run / "metrics.csv").is_file(), process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert f"retinue train {run} --resume" in errors
    before = CheckpointStore(run / "last").load()["progress"]["steps"]
    assert before >= 4  # a first epoch was over
    process = _start(run, pictures, "--resume")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    _same(run, undisturbed)


def test_sigterm_while_a_checkpoint_is_written(
    tmp_path: Path, pictures: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = torch.save, []

    def interrupted(*args: object, **kwargs: object) -> None:
        calls.append(1)
        if len(calls) == 9:  # past the first stage's start and its cached features
            os.kill(os.getpid(), signal.SIGTERM)
        real(*args, **kwargs)  # type: ignore[arg-type]

    run = tmp_path / "run"
    recipe = tiny.recipe(pictures, checkpoint={"every_steps": 1})
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", interrupted)
        with pytest.raises(Interrupted) as raised:
            retinue.train(recipe, out=run, report=False, quiet=True)
    assert raised.value.exit_code == 143
    retinue.train(run, resume=True, report=False, quiet=True)
    _same(run, undisturbed)


def test_a_disk_that_fills_up_ends_clearly_and_loses_nothing(
    tmp_path: Path, pictures: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(1)
        if len(calls) > 40:
            raise OSError(28, "No space left on device")
        real(descriptor)

    recipe = tiny.recipe(pictures, checkpoint={"every_steps": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RetinueError, match="No space left") as raised:
            retinue.train(recipe, out=run, report=False, quiet=True)
    assert str(run) in str(raised.value)
    retinue.train(run, resume=True, report=False, quiet=True)
    _same(run, undisturbed)


def test_a_finished_run_resumed_changes_nothing(undisturbed: Path) -> None:
    before = (undisturbed / "best.safetensors").read_bytes()
    run = retinue.train(undisturbed, resume=True, report=False, quiet=True)
    assert (undisturbed / "best.safetensors").read_bytes() == before
    assert run.figures["split"] == "test"


def test_resuming_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run folder.*recipe\.yaml"):
        retinue.train(tmp_path, resume=True)


def test_resuming_with_overrides_is_refused(undisturbed: Path) -> None:
    with pytest.raises(UsageError, match="no overrides"):
        retinue.train(undisturbed, resume=True, seed=3)
    with pytest.raises(UsageError, match="no other folder"):
        retinue.train(undisturbed, resume=True, out=undisturbed.parent / "elsewhere")
    with pytest.raises(UsageError, match="only a run folder"):
        retinue.train({"model": "tiny"}, resume=True)


def test_two_trainings_in_one_folder_are_refused(tmp_path: Path, pictures: Path) -> None:
    run = tmp_path / "run"
    process = _start(run, pictures)
    _wait_for(lambda: (run / "last" / "current").is_file(), process)
    try:
        with pytest.raises(RetinueError, match="another training is at work"):
            retinue.train(run, resume=True, quiet=True)
    finally:
        process.kill()
        process.wait()


def _wait_for(condition: object, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
