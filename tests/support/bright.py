"""A detector that needs no training: it finds bright rectangles on dark ground, each with the class
of its brightest channel. A double for what is done with detections, whatever finds them.

Importing this makes the task `bright` known; `model` writes a file of it, `saved` an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import finder
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from retinue import api, modelfile
from retinue.data import geometry
from retinue.modelfile import ModelDescription
from retinue.models.network import Network, Unit
from retinue.sample import Batch, Preprocessing, Result
from retinue.tasks.detection import forms
from retinue.tasks.detection.candidates import Candidates
from retinue.tasks.detection.tracking import Following
from retinue.tasks.results import Box, BoxResult
from retinue.tasks.task import Follower, Task, register_task

CLASSES = ("red", "green", "蓝")


class Light(Network):
    """Each channel's brightness, as it is: it sees what stands where, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def units(self) -> list[Unit]:
        return []

    def forward(self, x: Tensor, *, start: int = 0) -> Tensor:
        return self.gain * x


class Found(Candidates):
    """Candidates that are looked at as rows, too."""

    def __init__(self, rows: np.ndarray[Any, Any], size: tuple[int, int]) -> None:
        """`rows`: (k, 6) x1, y1, x2, y2 in the original's pixels, score, class."""
        super().__init__(
            rows[:, :4].astype(np.float32), rows[:, 4].astype(np.float32),
            rows[:, 5].astype(np.int64), size,
        )  # fmt: skip

    @property
    def rows(self) -> np.ndarray[Any, Any]:
        return np.concatenate([self.xyxy, self.score[:, None], self.of[:, None]], axis=1)


@register_task
class Bright(finder.Find):
    name: ClassVar[str] = "bright"
    places: ClassVar[bool] = True
    forms: ClassVar[Mapping[str, str]] = forms.FORMS

    def build(self, network: str, arguments: dict[str, Any], weights: str | None) -> Network:
        return Light()

    def decode(self, outputs: Any, batch: Batch) -> list[Any]:
        """Where brightness rises above half, to a fraction of a pixel: a side lies where what the
        resampling left of it says. The finer a view, the surer it is."""
        found = []
        for image, back, size in zip(
            outputs.permute(0, 2, 3, 1).float().cpu().numpy(), batch.to_original,
            batch.original_size.tolist(), strict=True,
        ):  # fmt: skip
            light = image.max(2)
            _, _, places, _ = cv2.connectedComponentsWithStats((light > 0.5).astype(np.uint8))
            rows = []
            for x, y, w, h, _ in places[1:].tolist():
                x1, y1, x2, y2 = _edges(light, x, y, x + w, y + h)
                xyxy = geometry.boxes_through(back, np.array([[x1, y1, x2, y2]]))[0]
                xyxy = xyxy.clip(0, np.tile(size, 2))
                of = int(image[y : y + h, x : x + w].mean((0, 1)).argmax())
                score = 1 / (1 + geometry.magnification(back, x1, y1)[0])
                rows.append([*xyxy.tolist(), score, of])
            found.append(Found(np.array(rows, np.float64).reshape(-1, 6), tuple(size)))
        return found

    def merge(self, findings: Sequence[Found]) -> Found:
        """Greedy: the surest of what overlaps, or lies in another."""
        kept: list[Any] = []
        rows = np.concatenate([finding.rows for finding in findings])
        for row in rows[np.argsort(-rows[:, 4], kind="stable")]:
            if all(_shared(row, other) < 0.5 for other in kept):
                kept.append(row)
        return Found(np.array(kept, np.float64).reshape(-1, 6), findings[0].size)

    def join(self, findings: Sequence[Found], windows: Sequence[Any]) -> Found:
        """Without what is cut off where a tile ends and the image goes on."""
        size = findings[0].size
        whole = []
        for found, window in zip(findings, windows, strict=True):
            low = np.where(np.array(window[:2]) > 0, np.array(window[:2]) + 0.5, -1)
            high = np.where(np.array(window[2:]) < size, np.array(window[2:]) - 0.5, np.inf)
            inside = (found.rows[:, :2] > low).all(1) & (found.rows[:, 2:4] < high).all(1)
            whole.append(Found(found.rows[inside], size))
        return self.merge(whole)

    def class_scores(self, finding: Found) -> Any:
        scores = np.zeros(len(self.classes))
        np.maximum.at(scores, finding.of, finding.score)
        return scores

    def evidence(self, outputs: Any, batch: Batch, of: int | None = None) -> list[Any]:
        """The light of every 8 × 8 pixels."""
        light = outputs.amax(1) if of is None else outputs[:, of]
        return list(torch.nn.functional.avg_pool2d(light[:, None], 8)[:, 0].numpy())

    def follower(self) -> Follower:
        return Following(self.classes, 0.3, lambda found, least: Candidates.joined([found]))

    def result(self, finding: Found, path: str) -> Result:
        boxes = [
            Box(self.classes[int(row[5])], row[4], tuple(row[:4]))
            for row in finding.rows[np.argsort(-finding.rows[:, 4], kind="stable")].tolist()
        ]
        return BoxResult(path, boxes, finding.size)


def _edges(light: Any, x1: int, y1: int, x2: int, y2: int) -> tuple[float, float, float, float]:
    """The sides of a rectangle of whole pixels, moved by what its neighbours have of its light."""
    inside = light[y1:y2, x1:x2].max()

    def share(part: Any) -> float:
        return float(np.median(part) / inside) if part.size else 0.0

    height, width = light.shape
    left = 1 - share(light[y1:y2, x1]) - (share(light[y1:y2, x1 - 1]) if x1 else 0)
    top = 1 - share(light[y1, x1:x2]) - (share(light[y1 - 1, x1:x2]) if y1 else 0)
    right = 1 - share(light[y1:y2, x2 - 1]) - (share(light[y1:y2, x2]) if x2 < width else 0)
    bottom = 1 - share(light[y2 - 1, x1:x2]) - (share(light[y2, x1:x2]) if y2 < height else 0)
    return x1 + left, y1 + top, x2 - right, y2 - bottom


def _shared(one: Any, other: Any) -> float:
    """Of the smaller one's area, what it shares with the other."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:4], other[2:4])
    areas = [(row[2] - row[0]) * (row[3] - row[1]) for row in (one, other)]
    return float(np.prod(np.clip(high - low, 0, None)) / max(min(areas), 1e-9))


def model(path: Path, *, size: tuple[int, int] = (64, 64), fit: Any = "letterbox") -> Path:
    """A model file of it, whose input is of `size` (height, width)."""
    prepared = Preprocessing(
        size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear", fit, pad_value=0
    )  # fmt: skip
    description = ModelDescription(
        task="bright", classes=list(CLASSES), network="light", arguments={},
        preprocessing=prepared.as_dict(),
    )  # fmt: skip
    modelfile.write(path, Light().state_dict(), description)
    return path


def picture(
    size: tuple[int, int], boxes: Sequence[tuple[int, int, int, int, int]]
) -> np.ndarray[Any, Any]:
    """RGB uint8 of `size` (width, height): `boxes` (x1, y1, x2, y2, class) on black."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    for x1, y1, x2, y2, of in boxes:
        pixels[y1:y2, x1:x2, of] = 255
    return pixels


def saved(path: Path, boxes: Any, size: tuple[int, int] = (64, 48), **more: Any) -> str:
    """A file of such a picture; `more`: Pillow's, of `save`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(size, boxes)).save(path, **more)
    return str(path)


def predict(model: Path, sources: Any, **more: Any) -> api.Predictions:
    """By PyTorch on the CPU."""
    return api.predict(model, sources, engine="torch", device="cpu", **more)


__all__ = [
    "CLASSES", "Bright", "Found", "Light", "Task", "model", "picture", "predict", "saved",
]  # fmt: skip
