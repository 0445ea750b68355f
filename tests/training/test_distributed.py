"""Several processes reach the weights that one reaches with the same batch."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

import retinue
from retinue import modelfile
from retinue.data.options import DataOptions
from retinue.data.sources import open_dataset
from retinue.training.checkpoint import CheckpointStore


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return CheckpointStore(run / "last").load()["network"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> list[str]:
    """What makes trainings comparable: dropout draws by process, BatchNorm sees a portion. Frozen,
    it needs weights."""
    tiny.register()
    short = tiny.recipe(pictures, stages=[{"epochs": 1, "batch_size": 8}])
    out = tmp_path_factory.mktemp("weights") / "run"
    weights = retinue.train(short, out=out, report=False, quiet=True).best
    return [
        f"model.weights={weights}",
        "model.dropout=0.0",
        "stages.0.frozen_batchnorm=true",
        "stages.1.frozen_batchnorm=true",
        "stages.1.clip_norm=1.0",
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, pictures: Path, plain: list[str]) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    command = [sys.executable, tiny.__file__, str(run), str(pictures), *plain]
    subprocess.run(command, check=True, timeout=120)
    return run


def _compare(run: Path, alone: Path) -> None:
    ours, theirs = _weights(run), _weights(alone)
    start = tiny.Tiny(num_classes=3).state_dict()
    for name, value in theirs.items():
        assert torch.allclose(ours[name], value, rtol=1e-4, atol=1e-5), name
        assert value.shape == start[name].shape
    ours_row = (run / "metrics.csv").read_text().splitlines()[-1].split(",")
    theirs_row = (alone / "metrics.csv").read_text().splitlines()[-1].split(",")
    numbers = [(float(a), float(b)) for a, b in zip(ours_row[5:], theirs_row[5:], strict=True)]
    assert all(a == pytest.approx(b, abs=1e-3) for a, b in numbers)
    figures = [modelfile.read_description(r / "best.safetensors").figures for r in (run, alone)]
    assert figures[0] == pytest.approx(figures[1], abs=1e-3)


def _two_processes(run: Path, data: Path, *overrides: str, launcher: str = "torchrun") -> None:
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
    command = [sys.executable, "-m", *launch, tiny.__file__, str(run), str(data), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((run / "environment.json").read_text())["settings"]["world"] == 2


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate launch"])
def test_two_processes(
    tmp_path: Path, pictures: Path, plain: list[str], alone: Path, launcher: str
) -> None:
    _two_processes(tmp_path / "run", pictures, *plain, launcher=launcher)
    _compare(tmp_path / "run", alone)


def test_the_figures_are_of_the_weights_that_are_kept(tmp_path: Path) -> None:
    """BatchNorm's statistics differ by process, and so does what each finds unreadable."""
    data = tiny.write_pictures(tmp_path / "data")
    splits = open_dataset(DataOptions(path=str(data))).splits
    broken = {splits["val"][0].path, splits["val"][-1].path}
    for path in broken:
        Path(path).write_bytes(b"broken")
    run = tmp_path / "run"
    changes = ["data.on_bad_image=skip", "stages=[{epochs: 1, batch_size: 8}]", "ema.decay=0.5"]
    _two_processes(run, data, *changes)
    environment = json.loads((run / "environment.json").read_text())
    assert set(environment["skipped"]) == broken
    told = modelfile.read_description(run / "best.safetensors").figures
    again = retinue.evaluate(run, split="val", engine="torch")
    assert told["loss"] == pytest.approx(again["loss"], rel=1e-5)


def test_accumulation(tmp_path: Path, pictures: Path, plain: list[str], alone: Path) -> None:
    run = tmp_path / "run"
    portions = ["stages.0.accumulate=2", "stages.1.accumulate=4"]
    command = [sys.executable, tiny.__file__, str(run), str(pictures), *plain, *portions]
    subprocess.run(command, check=True, timeout=120)
    _compare(run, alone)
