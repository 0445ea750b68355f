"""Several processes reach the weights that one reaches with the same batch."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from warm import Warm

import retinue
from retinue import modelfile
from retinue.data.options import DataOptions
from retinue.data.sources import open_dataset
from retinue.errors import UsageError
from retinue.run.checkpoint import CheckpointStore
from retinue.tasks.task import task_type
from retinue.training.environment import build_accelerator


@pytest.fixture(scope="module")
def plain(
    tmp_path_factory: pytest.TempPathFactory, pictures: Path, torch_alone: None
) -> dict[str, Any]:
    """What makes trainings comparable: dropout draws by process, BatchNorm sees a portion. Frozen,
    it needs weights."""
    tiny.register()
    short = tiny.recipe(pictures, stages=[{"epochs": 1, "batch_size": 8}])
    out = tmp_path_factory.mktemp("weights") / "run"
    weights = retinue.train(short, out=out, report=False, quiet=True).best
    recipe = tiny.recipe(pictures)
    recipe["model"] = {"name": "tiny", "weights": str(weights), "dropout": 0.0}
    for stage in recipe["stages"]:
        stage["frozen_batchnorm"] = True
    recipe["stages"][1]["clip_norm"] = 1.0
    return recipe


def _with(recipe: dict[str, Any], *stages: dict[str, Any]) -> dict[str, Any]:
    changed = [old | new for old, new in zip(recipe["stages"], stages, strict=True)]
    return recipe | {"stages": changed}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, plain: dict[str, Any], warm: Warm) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    assert warm.train(plain, run).code == 0
    return run


def _compare(run: Path, alone: Path) -> None:
    ours, theirs = tiny.last_network(run), tiny.last_network(alone)
    start = tiny.Tiny(num_classes=3).state_dict()
    assert theirs.keys() == start.keys()
    for name, value in theirs.items():
        assert torch.allclose(ours[name], value, rtol=1e-4, atol=1e-5), name
        assert value.shape == start[name].shape
    ours_row = (run / "metrics.csv").read_text().splitlines()[-1].split(",")
    theirs_row = (alone / "metrics.csv").read_text().splitlines()[-1].split(",")
    numbers = [(float(a), float(b)) for a, b in zip(ours_row[6:], theirs_row[6:], strict=True)]
    assert all(a == pytest.approx(b, abs=1e-3) for a, b in numbers)
    figures = [modelfile.read_description(r / "best.safetensors").figures for r in (run, alone)]
    assert figures[0] == pytest.approx(figures[1], abs=1e-3)


def _world(run: Path) -> int:
    world: int = json.loads((run / "environment.json").read_text())["settings"]["world"]
    return world


def test_two_processes(tmp_path: Path, plain: dict[str, Any], alone: Path, warm: Warm) -> None:
    run = tmp_path / "run"
    outcome = warm.train(plain, run, processes=2)
    assert outcome.code == 0, outcome
    assert _world(run) == 2
    _compare(run, alone)


def test_accumulation(tmp_path: Path, plain: dict[str, Any], alone: Path, warm: Warm) -> None:
    run = tmp_path / "run"
    assert warm.train(_with(plain, {"accumulate": 2}, {"accumulate": 4}), run).code == 0
    _compare(run, alone)


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate launch"])
def test_each_launcher_starts_as_many_as_it_is_told(
    tmp_path: Path, pictures: Path, plain: dict[str, Any], warm: Warm, launcher: str
) -> None:
    """Of one short stage on cached features and one of everything."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = {
        "torchrun": ["torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"],
        "accelerate launch": [  # with --cpu it would start a single one
            *("accelerate.commands.launch", "--multi_gpu", "--num_processes=2"),
            *("--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"),
            f"--main_process_port={port}",
        ],
    }[launcher]
    short = {"epochs": None, "steps": 2}
    changes = [f"stages.{k}.{name}={value}" for k in (0, 1) for name, value in short.items()]
    changes += [f"stages.{k}.frozen_batchnorm=true" for k in (0, 1)]
    changes += [f"model.weights={plain['model']['weights']}", "model.dropout=0.0"]
    run = tmp_path / "run"
    command = [sys.executable, "-m", *launch, tiny.__file__, str(run), str(pictures)]
    done = subprocess.run(
        [*command, *(c.replace("=None", "=null") for c in changes), "stages.1.clip_norm=1.0"],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert _world(run) == 2
    # Each process has left its group when it ends, or it might be aborted there.
    assert done.stdout.split().count("left") == 2
    by_itself = tmp_path / "alone"
    assert warm.train(_with(plain, short, short), by_itself).code == 0
    _compare(run, by_itself)


@pytest.mark.slow
def test_two_machines_as_the_launcher_sees_them(
    tmp_path: Path, pictures: Path, plain: dict[str, Any], warm: Warm
) -> None:
    """A launcher on each, which find each other over TCP; here both are this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    short = {"epochs": None, "steps": 2}
    changes = [f"stages.{k}.{name}={value}" for k in (0, 1) for name, value in short.items()]
    changes += [f"stages.{k}.frozen_batchnorm=true" for k in (0, 1)]
    changes += [f"model.weights={plain['model']['weights']}", "model.dropout=0.0"]
    changes = [change.replace("=None", "=null") for change in changes]
    run = tmp_path / "run"
    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={node}",
             "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}",
             tiny.__file__, str(run), str(pictures), *changes, "stages.1.clip_norm=1.0"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for node in (0, 1)
    ]  # fmt: skip
    for node in nodes:
        _, said = node.communicate(timeout=240)
        assert node.returncode == 0, said[-3000:]
    assert _world(run) == 2
    by_itself = tmp_path / "alone"
    assert warm.train(_with(plain, short, short), by_itself).code == 0
    _compare(run, by_itself)


def test_what_spreads_a_network_over_devices_is_refused(
    tmp_path: Path, plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UsageError, match=r"FSDP is not supported.*torchrun"):
        retinue.train(plain, out=tmp_path / "run", quiet=True)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    build_accelerator("cpu", "fp32")


def test_the_figures_are_of_the_weights_that_are_kept(tmp_path: Path, warm: Warm) -> None:
    """BatchNorm's statistics differ by process, and so does what each finds unreadable."""
    data = tiny.write_pictures(tmp_path / "data")
    readers = task_type("classification").readers()
    splits = open_dataset(DataOptions(path=str(data)), readers).splits
    broken = {splits["val"][0].key, splits["val"][-1].key}
    for path in broken:
        Path(path).write_bytes(b"broken")
    run = tmp_path / "run"
    stages = [{"epochs": 1, "batch_size": 8}]
    recipe = tiny.recipe(data, stages=stages, ema={"decay": 0.5})
    recipe["data"]["on_bad_image"] = "skip"
    outcome = warm.train(recipe, run, processes=2)
    assert outcome.code == 0, outcome
    assert _world(run) == 2
    environment = json.loads((run / "environment.json").read_text())
    assert set(environment["skipped"]) == broken
    told = modelfile.read_description(run / "best.safetensors").figures
    again = retinue.evaluate(run, split="val", engine="torch")
    assert told["loss"] == pytest.approx(again["loss"], rel=1e-5)


def test_a_signal_to_one_process_stops_all_and_they_go_on(
    tmp_path: Path, plain: dict[str, Any], alone: Path, warm: Warm
) -> None:
    run = tmp_path / "run"
    outcome = warm.train(
        plain, run, moment="in a step", times=6, by=signal.SIGTERM, processes=2, rank=1
    )
    assert outcome.code == 128 + signal.SIGTERM, outcome
    assert outcome.codes == [143, 143]
    assert CheckpointStore(run / "last").load()["progress"]["steps"] == 6
    assert warm.train(run, processes=2).code == 0
    _compare(run, alone)


def test_training_figures_are_exact_after_a_kill_within_an_epoch(
    tmp_path: Path, pictures: Path, warm: Warm
) -> None:
    """The checkpoint holds the sums of both processes, and each goes on with its own part."""
    recipe = tiny.recipe(
        pictures,
        stages=[{"epochs": 2, "batch_size": 4, "optimizer": {"name": "sgd", "lr": 0.01}}],
        ema=None,
        model={"name": "tiny", "weights": None, "dropout": 0.0, "arguments": {"norm": False}},
        checkpoint={"every_steps": 1},
    )
    assert warm.train(recipe, tmp_path / "whole", processes=2).code == 0
    run = tmp_path / "run"
    assert warm.train(recipe, run, moment="in a step", times=5, processes=2).code == -9
    assert warm.train(run, processes=2).code == 0
    clock = {"seconds", "images_per_second", "waited_for_data"}
    ours, theirs = (
        [{k: v for k, v in row.items() if k not in clock} for row in tiny.rows(folder)]
        for folder in (run, tmp_path / "whole")
    )
    for row, wanted in zip(ours, theirs, strict=True):
        assert row.keys() == wanted.keys()
        for name in row:
            if name == "stage":
                continue
            assert float(row[name]) == pytest.approx(float(wanted[name]), rel=1e-6), name
