"""A second task, which the package has never heard of, goes through the whole frame: samples with
boxes, the loader, cached features with a tap, trainer, checkpoint, model file and predictor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor, nn

import retinue
from retinue.data.sources import Dataset
from retinue.errors import Interrupted
from retinue.models.network import Network, Unit
from retinue.options import Options
from retinue.sample import Batch, Box, Result, Sample
from retinue.tasks import task as tasks
from retinue.tasks.task import Meter, Task
from retinue.training import session, trainer

SIDE = 48


class _Tap(nn.Module):
    """Runs a block and keeps what went in beside what came out."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.block(x), x


class _Last(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self.block(x[0]), *x[1:]


class _BoxHead(nn.Module):
    """One box an image, as fractions of the input, from the last map and the tap."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear((16 * 4 + 8 * 16), 4)

    def forward(self, x: tuple[Tensor, ...]) -> Tensor:
        last, tap = x
        pool = nn.functional.adaptive_avg_pool2d
        flat = torch.cat([pool(last, 2).flatten(1), pool(tap, 4).flatten(1)], 1)
        return self.fc(flat).sigmoid()


class Locator(Network):
    """A backbone of the zoo, whose stem's map the head sees too."""

    def __init__(self) -> None:
        super().__init__()
        backbone = tiny.Tiny(num_classes=2)
        self.stem = backbone.stem
        self.middle = _Tap(backbone.middle)
        self.last = _Last(backbone.last)
        self.head = _BoxHead()

    def units(self) -> list[Unit]:
        links = {"middle": self.middle, "last": self.last}  # each takes, or gives, a tap
        return [
            Unit("stem", self.stem),
            *(Unit(name, module, joins=True) for name, module in links.items()),
        ]

    def forward(self, x: Any, *, start: int = 0) -> Tensor | dict[str, Tensor]:
        boxes = self.head(self.run(x, start=start))
        return {"boxes": boxes} if self.training else boxes


class LocateOptions(Options):
    scale: float = 1.0
    """Of the loss."""


class _Distance(Meter):
    def __init__(self) -> None:
        self.errors: list[float] = []
        self.paths: list[str] = []

    def update(self, outputs: Tensor, batch: Batch) -> None:
        assert batch.boxes is not None
        assert batch.weight is not None
        each = (outputs.cpu() * 32 - batch.boxes[:, 0].cpu()).abs().mean(1)
        kept = batch.weight.cpu() > 0
        self.errors += each[kept].tolist()
        self.paths += [p for p, k in zip(batch.paths, kept.tolist(), strict=True) if k]

    def compute(self) -> dict[str, Any]:
        return {"distance": sum(self.errors) / max(len(self.errors), 1), "images": len(self.errors)}

    def table(self) -> pa.Table:
        return pa.table({"path": self.paths, "distance": self.errors})


class Locate(Task):
    name: ClassVar[str] = "locate"
    options_type: ClassVar[type[Options]] = LocateOptions
    lower_is_better: ClassVar[frozenset[str]] = frozenset({"distance"})
    default_metric: ClassVar[str] = "distance"

    def build(self, network: str, arguments: dict[str, Any], weights: str | None) -> Network:
        return Locator_with_facts()

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        assert batch.boxes is not None
        return {"l1": (outputs["boxes"] - batch.boxes[:, 0] / 32).abs().mean(1)}

    def decode(self, outputs: Tensor, batch: Batch) -> list[Result]:
        assert batch.to_original is not None
        results = []
        for path, box, matrix in zip(batch.paths, outputs, batch.to_original, strict=True):
            x1, y1, x2, y2 = (box.double() * 32).tolist()
            corners = matrix @ torch.tensor([[x1, x2], [y1, y2], [1, 1]], dtype=torch.float64)
            (a, b), (c, d) = corners[0].tolist(), corners[1].tolist()
            results.append(Result(path, boxes=[Box(self.classes[0], 1.0, (a, c, b, d))]))
        return results

    def meter(self) -> Meter:
        return _Distance()

    def draw(self, image: npt.NDArray[np.uint8], result: Result) -> npt.NDArray[np.uint8]:
        return image.copy()


def Locator_with_facts() -> Network:  # noqa: N802
    network = Locator()
    network.name = "tiny"
    network.arguments = {}
    network.preprocessing = tiny.registry.find("tiny").preprocessing
    return network


def _dataset(folder: Path) -> Dataset:
    rng = np.random.default_rng(1)
    samples: list[Sample] = []
    folder.mkdir()
    for number in range(40):
        x, y = rng.integers(2, 24, 2)
        w, h = rng.integers(10, 20, 2)
        pixels = np.full((SIDE, SIDE, 3), 30, np.uint8)
        pixels[y : y + h, x : x + w] = 220
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        boxes = np.array([[x, y, x + w, y + h]], np.float32)
        samples.append(Sample(str(path), boxes=boxes, box_labels=np.zeros(1, np.int64)))
    splits: dict[str, list[Sample]] = {"train": samples[:32], "val": samples[32:]}
    return Dataset(("patch",), splits, folder, ["found 40 patches"])


@pytest.fixture
def _locate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(tasks._TASKS, "locate", Locate)
    dataset = _dataset(tmp_path / "data")
    monkeypatch.setattr(session, "open_dataset", lambda options: dataset)


def _recipe(stages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return tiny.recipe(
        "unused", task="locate", task_options={"scale": 1.0}, stages=list(stages), ema=None
    )


HEAD = {
    "name": "head",
    "trainable": "head",
    "epochs": 40,
    "batch_size": 8,
    "views": 4,
    "augment": {"translate": 0.1},
    "optimizer": {"name": "adamw", "lr": 0.01},
}


@pytest.mark.usefixtures("_locate")
def test_a_task_of_boxes_trains_on_cached_features_with_a_tap(tmp_path: Path) -> None:
    run = retinue.train(_recipe([HEAD]), out=tmp_path / "run", report=False, quiet=True)
    assert run.figures["task"] == "locate"
    assert run.figures["split"] == "val"
    rows = (run.folder / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("val_distance")
    distances = [float(row.split(",")[column]) for row in rows[1:]]
    assert distances[-1] < 0.6 * distances[0]
    assert run.figures["distance"] == pytest.approx(min(distances), rel=0.05)

    predictor = retinue.load(run.best, engine="torch")
    sample = _dataset(tmp_path / "other").splits["val"][0]
    (box,) = predictor(sample.path).boxes or []
    assert sample.boxes is not None
    wanted = sample.boxes[0]
    # In pixels of the original picture, which is 48 wide while the input is 32.
    assert np.abs(np.array(box.xyxy) - wanted).mean() < 6


@pytest.mark.usefixtures("_locate")
def test_boxes_follow_the_pixels_into_every_epoch_without_a_cache(tmp_path: Path) -> None:
    stage = {**HEAD, "epochs": 20, "views": None, "cache_features": "off"}
    run = retinue.train(_recipe([stage]), out=tmp_path / "run", report=False, quiet=True)
    rows = (run.folder / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("val_distance")
    assert float(rows[-1].split(",")[column]) < 0.8 * float(rows[1].split(",")[column])


@pytest.mark.usefixtures("_locate")
def test_it_is_interrupted_and_resumed_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe([{**HEAD, "epochs": 4}])
    whole = retinue.train(recipe, out=tmp_path / "whole", report=False, quiet=True)
    real = trainer.Trainer._check_signal

    def at_step_7(self: trainer.Trainer) -> None:
        if self.progress.steps == 7:
            self.interruptions.signal = 15
        real(self)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_check_signal", at_step_7)
        with pytest.raises(Interrupted):
            retinue.train(recipe, out=tmp_path / "run", report=False, quiet=True)
    again = retinue.train(tmp_path / "run", resume=True, report=False, quiet=True)
    assert again.best.read_bytes()[-4000:] == whole.best.read_bytes()[-4000:]
    assert again.figures["distance"] == whole.figures["distance"]
