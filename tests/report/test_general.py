"""What every task's page says: times, speeds, the model card, pictures of the training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import section
from PIL import Image

Maker = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("undrawn")

CARD: dict[str, Any] = {
    "network": "tiny", "parameters": 3377413, "macs": 385_000_000, "file_bytes": 13_600_000,
    "input": [224, 192], "prepared": "RGB, squashed",
    "weights": {"name": "imagenet", "licence": "Apache-2.0", "source": "pip install x"},
    "speed": {"latency_ms": 12.34, "images_per_second": 123.4, "batch": 32, "engine": "openvino",
              "device": "cpu", "views": 1},
}  # fmt: skip


def change(run: Path, **values: Any) -> None:
    file = run / "environment.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_times_have_every_part_and_the_whole(run_maker: Maker) -> None:
    run = run_maker(["a", "b"], images=40)
    timings = {"total_s": 284.0, "frozen_s": 90.0, "training_s": 95.0, "validation_s": 10.5,
               "evaluation_s": 41.0}  # fmt: skip
    change(run, timings=timings)
    shown = section(run, "run")
    assert (
        "frozen part, computed once 1 min 30 s training 1 min 35 s validation 10.5 s"
        " final evaluation 41.0 s estimates, checkpoints and the rest 47.5 s total 4 min 44 s"
    ) in shown
    change(run, timings={**timings, "frozen_of_stages_s": {"head": 30.0, "last blocks": 60.0}})
    change(run, plan={"stages": [{"name": "head"}], "judged": 40, "total_s": 250.0})
    shown = section(run, "run")
    assert "total 4 min 44 s as estimated before the first step 4 min 10 s" in shown
    assert "judged" not in shown
    assert "computed once 1 min 30 s (head 30.0 s, last blocks 1 min 00 s) training" in shown
    assert "of stages" not in shown
    change(run, timings={"training_s": 95.0, "evaluation_s": 41.0, "other_s": 2.0}, plan=None)
    shown = section(run, "run")
    assert "training 1 min 35 s final evaluation 41.0 s other 2.0 s Speed" in shown, "an older run"
    change(run, timings={"training_s": "long", "total_s": None})
    assert "Time, machine" not in section(run, "figures")


def test_what_steps_waited_for_is_told_where_they_did(run_maker: Maker) -> None:
    run = run_maker(["a", "b"], images=40)
    assert "Waiting" not in section(run, "run"), "an older run"
    nothing = {"steps": 50.0, "data": 0.2, "host": 0.0, "images": 4000.0}
    change(run, waited={"head": nothing, "last blocks": {}})
    assert "Waiting" not in section(run, "run")
    change(run, waited={"head": nothing, "last blocks": {**nothing, "data": 19.0, "host": 10.0}})
    assert (
        "Waiting stage last blocks, for its data 38 % of 50.0 s"
        " stage last blocks, for Python to say what comes next 20 % of 50.0 s Speed"
    ) in section(run, "run")


def test_no_value_of_the_machine_floods_the_page(run_maker: Maker) -> None:
    run = run_maker(["a", "b"], images=40)
    change(run, recipe={f"stages.0.key{k}": k for k in range(100)}, odd=list(range(1000)),
           compiled=True)  # fmt: skip
    shown = section(run, "run")
    assert "stages.0.key1" not in shown, "the recipe has its own section"
    assert "… (all of it in environment.json)" in shown
    assert "compiled yes" in shown
    assert len(shown) < 1500


def test_a_speed_says_what_it_is_of(run_maker: Maker) -> None:
    run = run_maker(["a", "b"], images=40)
    change(run, trunk={"head": {"units": 18, "engine": "openvino"}, "last blocks": None})
    shown = section(run, "run")
    assert (
        "training, stage head 240 cached features, not images, a second (median of 3 epochs)"
        in shown
    )
    assert "training, stage last blocks 240 images a second (median of 5 epochs)" in shown
    assert "final evaluation 512 images a second, read and decoded" in shown
    assert "512 images a second with openvino, reading and decoding included" in section(
        run, "figures"
    )


def test_the_model_card(run_maker: Maker) -> None:
    run = run_maker(["a", "b"], images=40)
    assert section(run, "model") == "", "an older run has none"
    change(run, model=CARD, cpu="A CPU")
    shown = section(run, "model")
    for said in (
        "network tiny", "parameters 3,377,413", "385,000,000 for one image", "model file 13.6 MB",
        "224 × 192 pixels (height × width)", "RGB, squashed", "one image alone 12.3 ms",
        "32 images together 123 images a second", "openvino, cpu, 2 threads, A CPU; from decoded",
        "the weights “imagenet” (pip install x), licence Apache-2.0",
    ):  # fmt: skip
        assert said in shown
    assert "model" not in section(run, "run").split("Machine")[1].split("Versions")[0]
    speed = {**CARD["speed"], "views": 8, "latency_ms": 1234.0}
    change(run, model={**CARD, "speed": speed, "weights": {"name": "w.pth"}})
    shown = section(run, "model")
    assert "1.23e+03 ms" not in shown
    assert "1,234 ms of 8 views" in shown
    assert "“w.pth”, whose licence is not known here" in shown
    change(run, model={"network": None, "speed": None, "macs": None, "weights": None})
    shown = section(run, "model")
    assert "began from random weights" in shown
    assert "MACs" not in shown


def test_pictures_of_a_stage_say_what_they_are(run_maker: Maker) -> None:
    run = run_maker(["a", "b"], images=40)
    assert "Stage head" in section(run, "batches")
    sheet = np.zeros((100, 204, 3), np.uint8)
    sheet[:, :100] = (250, 10, 10)
    Image.fromarray(sheet).save(run / "plots" / "batch_head.png")
    pictures = [
        {"place": [0, 0, 100, 100], "classes": ["<a>"], "name": "x.png", "mixed": False},
        {"place": [104, 0, 100, 100], "classes": ["a", "b"], "name": "y.png", "mixed": True},
        {"place": [104, 0, 100, 100], "classes": [], "name": "z.png"},
    ]
    told = run / "plots" / "batch_head.json"
    told.write_text(json.dumps({"stage": "head", "pictures": pictures}))
    shown = section(run, "batches")
    assert "Stage head: 3 images of the train split <a> “a” and “b”, with another mixed in" in shown
    assert "no label" in shown
    told.write_text(json.dumps({"pictures": [{**pictures[0], "place": [150, 0, 100, 100]}]}))
    assert "there is no part" in section(run, "batches")
    first = Image.new("RGB", (9, 9))
    first.save(run / "plots" / "batch_aaa.png")
    first.save(run / "plots" / "batch_last blocks.png")
    shown = section(run, "batches")
    assert [shown.index(f"Stage {name}") for name in ("head", "last blocks", "aaa")] == sorted(
        shown.index(f"Stage {name}") for name in ("head", "last blocks", "aaa")
    ), "in the recipe's order"
    told.write_text("{")
    assert "batch_head.png: " in section(run, "batches")
