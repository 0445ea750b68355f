"""A second task that the package has never heard of: it finds patches and says where they are.

Everything that a task may bring is there: a format of its own, several outputs, padded targets, a
loss that owns a parameter and parts that are divided by their positives, figures of which less is
better, a table, views that are merged in the original's pixels, drawing, and a section of the
report. Importing this makes it known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from retinue.data.options import DataOptions
from retinue.data.sources.listing import Listing, Reader
from retinue.data.sources.records import Record, Records
from retinue.data.targets.boxes import Boxes
from retinue.figures import Figure
from retinue.models.network import Level, Network, Unit
from retinue.models.registry import create_model
from retinue.options import Options
from retinue.page.section import Section, TaskSections
from retinue.sample import Batch, Result, Sample
from retinue.tasks.results import Box, BoxResult
from retinue.tasks.task import Losses, Meter, Objective, Task, register_task

STRIDE = 8


class Head(nn.Module):
    """A 1×1 convolution: how likely a patch's middle lies in the cell, and where its sides are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, 5, 1)

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = self.fc(x)
        return {"heat": y[:, 0], "place": (y[:, 1:3], y[:, 3:5])}


class Finder(Network):
    """A network of the zoo, its own head put aside."""

    classifiers = ()

    def __init__(self, backbone: Network) -> None:
        super().__init__()
        self.backbone = backbone
        self.backbone.head = nn.Identity()
        self.head = Head(backbone.feature_levels[-1].channels)

    def units(self) -> list[Unit]:
        return self.backbone.units()

    @property
    def feature_levels(self) -> list[Level]:
        return self.backbone.feature_levels

    def forward(self, x: Any, *, start: int = 0) -> Any:
        return self.head(self.run(x, start=start))


class FinderOptions(Options):
    threshold: float = 0.5
    """Least score of what is reported."""


class FinderObjective(Objective):
    """Cross entropy of the heat, (n,), and the distance of the sides, divided by the patches; how
    the two are weighed is learnt (Kendall et al., 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.balance = nn.Parameter(torch.zeros(2))

    def forward(self, outputs: Any, targets: dict[str, Any], taught: Any = None) -> Losses:
        heat, (middle, sides) = outputs["heat"], outputs["place"]
        xyxy, present = targets["xyxy"], targets["present"]
        n, height, width = heat.shape
        centre = (xyxy[..., :2] + xyxy[..., 2:]) / 2 / STRIDE
        column = centre[..., 0].long().clamp(0, width - 1)
        row = centre[..., 1].long().clamp(0, height - 1)
        cell = row * width + column
        wanted = torch.zeros(n, height * width).scatter_add_(1, cell, present.float()).clamp(max=1)
        sure = F.binary_cross_entropy_with_logits(heat.flatten(1), wanted, reduction="none").mean(1)
        got = torch.cat([middle, sides], 1).flatten(2).gather(2, cell[:, None].expand(-1, 4, -1))
        size = (xyxy[..., 2:] - xyxy[..., :2]).clamp(min=1) / STRIDE
        corner = torch.stack([column, row], -1)
        aim = torch.cat([centre - corner, size.log()], -1)
        off = (got.transpose(1, 2) - aim).abs().sum(-1) * present
        counts = present.sum(1).float()
        weigh = (-self.balance).exp()
        parts = {
            "heat": weigh[0] * sure + self.balance[0],
            "place": (weigh[1] * off.sum(1) + self.balance[1] * counts, counts),
        }
        return Losses(parts, {"patches": counts})


class FinderMeter(Meter):
    def __init__(self) -> None:
        self._rows: list[tuple[str, list[float], int, int]] = []

    def update(self, findings: Sequence[Any], samples: Sequence[Sample]) -> None:
        for found, sample in zip(findings, samples, strict=True):
            target = sample.target
            assert isinstance(target, Boxes)
            middles = (found[:, :2] + found[:, 2:4]) / 2
            distances = [
                float(np.abs(middles - (box[:2] + box[2:]) / 2).sum(1).min(initial=100.0))
                for box in target.xyxy
            ]
            self._rows.append((sample.key, distances, len(found), len(target.of)))

    def rows(self) -> Any:
        return self._rows

    def extend(self, rows: Any) -> None:
        self._rows.extend(rows)

    def compute(self) -> dict[str, Any]:
        distances = [d for _, each, _, _ in self._rows for d in each]
        wrong = [abs(found - there) for _, _, found, there in self._rows]
        return {
            "images": len(self._rows),
            "distance": float(np.mean(distances)) if distances else None,
            "miscount": float(np.mean(wrong)) if wrong else None,
        }

    def tables(self) -> dict[str, pa.Table]:
        paths, _, found, there = zip(*self._rows, strict=True)
        return {"predictions": pa.table({"path": paths, "found": found, "there": there})}


@register_task
class Find(Task):
    name: ClassVar[str] = "find"
    options_type: ClassVar[type[Options]] = FinderOptions
    default_metric: ClassVar[str] = "distance"
    formats: ClassVar[Mapping[str, str]] = {"patches": f"{__name__}:PATCHES"}
    options: FinderOptions

    def __init__(
        self, classes: Sequence[str], options: Options, state: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(classes, options)
        self._side: float = (state or {}).get("side", 16.0)
        self._threshold: float = (state or {}).get("threshold", self.options.threshold)

    @classmethod
    def prepared(cls, classes: Sequence[str], options: Options, samples: Sequence[Sample]) -> Find:
        """The usual side of a patch shapes the head's start."""
        boxes = [s.target.xyxy for s in samples if isinstance(s.target, Boxes)]
        sides = np.concatenate([b[:, 2:] - b[:, :2] for b in boxes])
        return cls(classes, options, {"side": float(np.median(sides))})

    def state(self) -> dict[str, Any]:
        return {"side": self._side, "threshold": self._threshold}

    def build(self, network: str, arguments: dict[str, Any], weights: str | None) -> Network:
        backbone = create_model(network, weights=weights, **arguments)
        made = Finder(backbone)
        with torch.no_grad():
            made.head.fc.bias[3:].fill_(float(np.log(max(self._side, 1) / STRIDE)))
        made.name, made.preprocessing = backbone.name, backbone.preprocessing
        made.arguments = {k: v for k, v in backbone.arguments.items() if k != "num_classes"}
        return made

    def objective(self, network: Network) -> Objective:
        return FinderObjective()

    def figures(self) -> Sequence[Figure]:
        return [
            Figure("distance", "Distance", "pixels", less_is_better=True, note="to the nearest"),
            Figure("miscount", "Miscounted", "count", less_is_better=True),
        ]

    def decode(self, outputs: Any, batch: Batch) -> list[Any]:
        """Float (k, 5): x1, y1, x2, y2 in the original's pixels, score."""
        heat = outputs["heat"].float().sigmoid().cpu().numpy()
        middle, sides = (part.float().cpu().numpy() for part in outputs["place"])
        found = []
        for k, back in enumerate(batch.to_original):
            rows, columns = np.nonzero(heat[k] >= self._threshold)
            x = (columns + middle[k, 0, rows, columns]) * STRIDE
            y = (rows + middle[k, 1, rows, columns]) * STRIDE
            w, h = np.exp(sides[k][:, rows, columns].clip(-5, 5)) * STRIDE / 2
            corners = np.stack([x - w, y - h, x + w, y - h, x + w, y + h, x - w, y + h], 1)
            points = np.concatenate([corners.reshape(-1, 2), np.ones((4 * len(x), 1))], 1) @ back.T
            points = (points[:, :2] / points[:, 2:]).reshape(-1, 4, 2)
            corner = np.tile(batch.original_size[k], 2)
            boxes = np.concatenate([points.min(1), points.max(1)], 1).clip(0, corner)
            found.append(np.concatenate([boxes, heat[k][rows, columns][:, None]], 1))
        return found

    def merge(self, findings: Sequence[Any]) -> Any:
        """What lies in one place in several views is one patch, at its mean."""
        rest = sorted(np.concatenate(findings).tolist(), key=lambda row: -row[4])
        merged: list[list[np.ndarray[Any, Any]]] = []
        for row in map(np.array, rest):
            middle = (row[:2] + row[2:4]) / 2
            for group in merged:
                if np.abs((group[0][:2] + group[0][2:4]) / 2 - middle).sum() < STRIDE:
                    group.append(row)
                    break
            else:
                merged.append([row])
        means = sorted((np.mean(group, axis=0) for group in merged), key=lambda row: -row[4])
        return np.array(means).reshape(-1, 5)

    def result(self, finding: Any, path: str) -> Result:
        rows = sorted(finding.tolist(), key=lambda row: -row[4])
        return BoxResult(path, [Box(self.classes[0], r[4], tuple(r[:4])) for r in rows])

    def meter(self, *, tables: bool = False) -> Meter:
        return FinderMeter()

    def fit(self, meter: Meter) -> dict[str, Any]:
        """A little lower for every validation: what is fitted is kept with the weights."""
        self._threshold = round(self._threshold * 0.99, 6)
        return self.fitted()

    def fitted(self) -> dict[str, Any]:
        return {"threshold": self._threshold}

    def draw(self, image: Any, result: Result) -> Any:
        drawn = image.copy()
        assert isinstance(result, BoxResult)
        for box in result.boxes:
            x1, y1, x2, y2 = (max(int(v), 0) for v in box.xyxy)
            drawn[y1:y2, x1:x2, 0] = 255
        return drawn

    @classmethod
    def sections(cls) -> TaskSections:
        return TaskSections(builders=(_counts,), summary=lambda record: "patches")


def _counts(record: Any) -> Section | None:
    table = record.table("predictions.parquet")
    if table is None:
        return None
    template = Path(__file__).with_name("finder_section.html")
    return Section("counts", "How many were found", template, {"rows": table.to_pylist()})


# --- the format ----------------------------------------------------------------------------------


def _find(options: DataOptions, asked: bool) -> Path | None:
    path = Path(str(options.path))
    return path if asked or path.suffix == ".json" else None


def _read(path: Path, options: DataOptions) -> Listing:
    records = []
    for entry in json.loads(path.read_text(encoding="utf-8")):
        target = Boxes.made(entry["boxes"], entry["names"])
        place = path.parent / entry["file"]
        records.append(Record(place, entry["file"], target, entry.get("split")))
    return Listing("patches", path.parent, Records.of(records))


PATCHES = Reader("patches", _find, _read)


def write_pictures(root: Path, count: int = 40, side: int = 48) -> Path:
    """`count` pictures with one to three bright patches each; the list of them."""
    rng = np.random.default_rng(1)
    root.mkdir(parents=True)
    entries = []
    for number in range(count):
        pixels = rng.integers(20, 60, (side, side, 3)).astype(np.uint8)
        boxes = []
        for corner in rng.permutation(4)[: rng.integers(1, 4)].tolist():
            w, h = rng.integers(10, 18, 2)
            x = int(rng.integers(0, side // 2 - w + 1)) + side // 2 * (corner % 2)
            y = int(rng.integers(0, side // 2 - h + 1)) + side // 2 * (corner // 2)
            pixels[y : y + h, x : x + w] = rng.integers(180, 240, 3)
            boxes.append([x, y, int(x + w), int(y + h)])
        file = f"{number:02d}.png"
        Image.fromarray(pixels).save(root / file)
        split = "train" if number < 0.6 * count else "val" if number < 0.8 * count else "test"
        names = ["patch"] * len(boxes)
        entries.append({"file": file, "boxes": boxes, "names": names, "split": split})
    (root / "patches.json").write_text(json.dumps(entries), encoding="utf-8")
    return root / "patches.json"


def recipe(data: Path | str, **changes: Any) -> dict[str, Any]:
    """Two stages: the head on cached features, mosaics among them; then everything, at two sizes,
    with an average of the weights."""
    optimizer = {"name": "adamw", "lr": 0.01, "objective_lr_scale": 0.5}
    values: dict[str, Any] = {
        "task": "find",
        "task_options": {"threshold": 0.3},
        "model": {"name": "tiny", "weights": None, "dropout": 0.0},
        "data": {"path": str(data), "workers": 1},
        "stages": [
            {
                "name": "head",
                "trainable": "head",
                "epochs": 2,
                "batch_size": 8,
                "views": 2,
                "augment": {"mosaic": 0.5},
                "optimizer": optimizer,
            },
            {
                "name": "all",
                "trainable": "all",
                "epochs": 3,
                "batch_size": 8,
                "sizes": [32, 48],
                "augment": {"mosaic": 0.3, "translate": 0.1},
                "optimizer": optimizer,
            },
        ],
        "ema": {"decay": 0.8},
        "device": "cpu",
        "tensorboard": False,
        "evaluation": {"batch_size": 4, "tta": "flip"},
    }
    values.update(changes)
    return values
