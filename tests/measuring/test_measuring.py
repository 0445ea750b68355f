"""Trainings, their input and answers are measured as they are, and nothing stays of it."""

from __future__ import annotations

import json
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch

import retinue
from retinue.cli.app import run
from retinue.errors import UsageError
from retinue.inference.predictor import Predictor
from retinue.measuring import answering, machine
from retinue.measuring import input as measuring_input
from retinue.measuring import training as measuring_training
from retinue.measuring.answering import bench_post, bench_predict
from retinue.measuring.input import bench_data
from retinue.measuring.machine import TURNS
from retinue.measuring.training import LEAST, WARM, Clocked, bench_train
from retinue.models.anatomy import unit_macs
from retinue.models.registry import create_model
from retinue.training.trainer import Trainer

SHORT = 0.05


@pytest.fixture(autouse=True)
def _small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SIDE", 256)
    monkeypatch.setattr(machine, "SECONDS", 0.01)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    tiny.register()
    return tiny.write_pictures(tmp_path_factory.mktemp("pictures") / "data")


@pytest.fixture(scope="module")
def model(pictures: Path) -> Path:
    recipe = _recipe(pictures, epochs=1)
    return retinue.train(recipe, out=pictures.parent / "run", report=False, quiet=True).folder


def _recipe(data: Path, **stage: Any) -> dict[str, Any]:
    values = {"name": "own", "batch_size": 8, "epochs": 2, "trainable": "all", **stage}
    return tiny.recipe(data, stages=[values], ema=None)


def ticking() -> SimpleNamespace:
    """A clock on which a second passes between any two looks."""
    ticks = count()
    return SimpleNamespace(perf_counter=lambda: float(next(ticks)))


def test_a_measured_training_tells_of_no_epochs(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its length is made up: `epoch 1/47620  0 s left` would mean nothing."""
    told: list[str] = []
    monkeypatch.setattr("retinue.training.trainer.epoch_line", lambda named, *_, **__: named)
    monkeypatch.setattr(Trainer, "_tell_epoch", lambda _, line: told.extend([line]))
    ended = measuring_training.Measuring._end_epoch

    def slow(self: Any, stage: Any) -> None:
        self.progress.epoch_seconds = 2.0  # long enough for a line
        told.append("ended")
        ended(self, stage)

    monkeypatch.setattr(measuring_training.Measuring, "_end_epoch", slow)
    bench_train(_recipe(pictures), seconds=SHORT)
    assert set(told) == {"ended"}


def test_a_step_is_the_sum_of_its_parts(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else the machine does: a second passes between any two looks at the clock."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring_training, "time", ticking())
    found = bench_train(_recipe(pictures, accumulate=2), seconds=SHORT)
    assert list(found.parts) == [
        "waiting for images", "colour", "forward", "backward", "optimiser", "the rest",
    ]  # fmt: skip
    assert min(found.parts.values()) >= 0
    assert min(found.parts[part] for part in ("forward", "backward", "optimiser")) > 0
    seconds = sum(found.parts.values())
    assert found.images_per_second.median * seconds == pytest.approx(1)
    network = create_model(tiny.recipe(pictures)["model"]["name"], num_classes=3)
    flops = 6 * sum(unit_macs(network, tuple(found.facts["size"])))
    expected = flops / (found.parts["forward"] + found.parts["backward"])
    assert found.flops == pytest.approx(expected, rel=1e-6)
    assert list(tmp_path.iterdir()) == []


def test_speed_and_parts_agree_where_a_step_is_slow_now_and_then(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where something else has the processor for a while."""
    inner = Clocked._loss
    seen = count()

    def uneven(self: Clocked, *given: Any) -> Any:
        time.sleep(0.2 if next(seen) % 5 == 4 else 0.0)
        return inner(self, *given)

    monkeypatch.setattr(Clocked, "_loss", uneven)
    found = bench_train(_recipe(pictures), seconds=1.0)
    assert sum(found.parts.values()) == pytest.approx(1 / found.images_per_second.median)
    found = bench_data(_recipe(pictures), seconds=SHORT)
    alone = found.others["images_per_second_and_core"].median
    assert sum(found.parts.values()) == pytest.approx(1 / alone)


@pytest.mark.usefixtures("only_torch")
def test_what_is_cached_is_no_part_of_a_step(pictures: Path) -> None:
    still = {"horizontal_flip": 0.0}
    found = bench_train(_recipe(pictures, trainable="head", augment=still), seconds=SHORT)
    assert found.facts["cached"] is True
    assert "colour" not in found.parts
    network = create_model(tiny.recipe(pictures)["model"]["name"], num_classes=3)
    flops = 6 * unit_macs(network, tuple(found.facts["size"]))[-1]
    compute = found.parts["forward"] + found.parts["backward"]
    assert found.flops == pytest.approx(flops / compute, rel=1e-6)


def test_images_are_told_apart_from_steps(pictures: Path) -> None:
    found = bench_data(_recipe(pictures), seconds=SHORT)
    assert list(found.parts) == ["read", "decode", "render", "colour"]
    assert min(found.parts.values()) > 0
    assert found.images_per_second.low > 0


def test_the_parts_of_an_image_by_hand(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is looked at twice for reading an image, twice for decoding it, twice for the batch
    and twice for its colour."""
    monkeypatch.setattr(measuring_input, "time", ticking())
    found = bench_data(_recipe(pictures), seconds=SHORT)
    batch = (8 * 4 + 1) + 1
    expected = {"read": 8, "decode": 8, "render": 8 * 2 + 1, "colour": 1}
    assert found.parts == pytest.approx({part: took / 8 for part, took in expected.items()})
    assert found.others["images_per_second_and_core"].median == pytest.approx(8 / batch)


def test_what_makes_no_sense_is_refused(pictures: Path, model: Path) -> None:
    for seconds in (0.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="seconds must be a positive number, not"):
            bench_data(_recipe(pictures), seconds=seconds)
        with pytest.raises(UsageError, match="seconds must be a positive number, not"):
            bench_post(model, [], seconds=seconds)
    with pytest.raises(UsageError, match="no stage 'tail'"):
        bench_train(_recipe(pictures), stage="tail")
    with pytest.raises(UsageError, match="none of the images can be read"):
        bench_predict(model, [__file__], seconds=SHORT)


def test_answers_are_measured(
    model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["bench", "predict", str(model), str(pictures), "--engine", "torch"]
    assert run([*line, "--device", "cpu", "--seconds", "0.05", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["part"] == "predict"
    assert list(told["shares"]) == ["decode", "preprocess", "network", "postprocess"]
    assert sum(told["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert told["share_of_matrix_product"] > 0
    assert told["peak_memory_bytes"]["process"] > 0
    post = ["bench", "post", str(model), str(pictures), "--batch-size", "3", "--seconds", "0.05"]
    assert run([*post, "--engine", "torch"]) == 0
    out = capsys.readouterr().out
    assert "images a second" in out
    assert "merging" in out


def test_the_machine_is_measured_by_turns_with_the_work(
    pictures: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the steps right after it, which find their images read ahead, do not count."""
    told: list[str] = []

    def product(*_: Any) -> float:
        told.append("product")
        return float(len(told))

    step = Trainer._step

    def stepping(self: Trainer, *given: Any) -> None:
        told.append("step")
        step(self, *given)

    monkeypatch.setattr(measuring_training, "matrix_product", product)
    monkeypatch.setattr(measuring_training, "time", ticking())
    monkeypatch.setattr(Trainer, "_step", stepping)
    found = bench_train(_recipe(pictures), seconds=100.0)
    turns = [part.split("step") for part in " ".join(told).split("product")]
    lengths = [len(part) - 1 for part in turns]
    assert lengths[0] == WARM + LEAST
    assert len(lengths) == TURNS + 1
    assert found.images_per_second.count == sum(lengths) - WARM * (TURNS + 1)
    assert found.matrix_product == [k + 1 for k, what in enumerate(told) if what == "product"][-1]
    told.clear()
    images = [str(path) for path in sorted(pictures.rglob("*.png"))[:4]]
    monkeypatch.setattr(answering, "matrix_product", product)
    outputs = Predictor.outputs
    monkeypatch.setattr(
        Predictor, "outputs", lambda self, x: told.append("step") or outputs(self, x)
    )
    bench_predict(model, images, batch_size=4, engine="torch", device="cpu", seconds=SHORT)
    products = [k for k, what in enumerate(told) if what == "product"]
    assert len(products) == TURNS
    assert min(b - a for a, b in zip([0, *products], products, strict=False)) > answering.LEAST


def test_an_engine_is_told_with_the_threads_that_it_has(model: Path, pictures: Path) -> None:
    pytest.importorskip("openvino")
    images = [str(path) for path in sorted(pictures.rglob("*.png"))[:4]]
    found = bench_predict(model, images, batch_size=4, engine="openvino", seconds=SHORT)
    assert (found.facts["engine"], found.facts["threads"]) == ("openvino", 1)


def test_an_exported_file_does_not_know_what_it_computes(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    file = retinue.export(model, "torchscript", out=tmp_path / "net.torchscript").path
    images = [str(path) for path in sorted(pictures.rglob("*.png"))[:4]]
    found = bench_predict(file, images, batch_size=4, device="cpu", seconds=SHORT)
    assert found.flops is None
    assert found.matrix_product is not None
    assert found.share is None


def test_the_older_name_still_works(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (["benchmark", "--help"], ["bench", "formats", "--help"]):
        assert run(line) == 0
        assert "Compare the formats and engines" in capsys.readouterr().out
