"""What a detector is fed with: varied images against Pillow, a frozen stage on its cached trunk.

    python benchmarks/detection_data.py [augmentation] [frozen] [--data FOLDER] [--rounds N]

`augmentation`: JPEG files with five boxes each to batches of 16 at 416×416, by the jitter of the
published YOLOv3 trainings (aspect ratio ± 0.3, size 0.25–2, anywhere on grey, flip, HSV
0.1/0.7/0.4), against the same recipe in Pillow and NumPy: decode, `resize` (bicubic, as published),
paste, look hue, saturation and value up in tables. Those are once by Pillow's own HSV and once by
OpenCV's, as published. One thread, processor time, the sides alternate. `--data`: a folder of
photographs; else they are cut out of scikit-learn's.

`frozen`: an epoch of the published first stage (backbone frozen; EfficientNet-B0 at 416×416, batch
16) as `retinue.train` does it, with the cached trunk and without, alternately; and the neck's own
step, forward, backward and optimiser, on features that lie in memory. Processor time of training
steps, the feed included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

import retinue
from input_pipeline import make_photographs
from retinue.data.colour import Colour
from retinue.data.loader import Loader
from retinue.data.options import AugmentOptions, ColourOptions
from retinue.data.population import Population
from retinue.data.targets.boxes import Boxes
from retinue.data.views import TrainView
from retinue.models.detector import Detector
from retinue.models.registry import create_model
from retinue.sample import BatchPlan, Preprocessing, Row, Sample
from retinue.tasks.detection.objective import DetectionObjective
from retinue.tasks.learner import Learner
from retinue.training.losses import portion_loss
from retinue.training.optim import build_optimizer
from retinue.training.options import OptimizerOptions, StageOptions
from retinue.training.stage import first_to_learn, freeze, train_mode
from retinue.training.trainer import Trainer

SIDE = 416
JITTER, SCALE, GAINS = 0.3, (0.25, 2.0), (0.1, 0.7, 0.4)
YOLO = Preprocessing(
    size=(SIDE, SIDE), mean=(0, 0, 0), std=(1, 1, 1), fit="letterbox", pad_value=128
)
Pixels = npt.NDArray[np.uint8]
Pipeline = Callable[[], None]
"""Makes all batches, one after the other."""
CLASSES = 20
BATCH = 16


# --- augmentation --------------------------------------------------------------------------------


def labelled(paths: Sequence[Path]) -> list[Sample]:
    """Five boxes an image."""
    samples = []
    for k, path in enumerate(paths):
        rng = np.random.default_rng(k)
        with Image.open(path) as image:
            size = np.array(image.size)
        low = rng.uniform(0, 0.6, (5, 2))
        high = low + rng.uniform(0.1, 0.4, (5, 2))
        xyxy = np.concatenate([low * size, high * size], axis=1)
        samples.append(
            Sample(str(path), target=Boxes.made(xyxy, rng.integers(20, size=5).tolist()))
        )
    return samples


def parts(things: Sequence[Any]) -> list[Sequence[Any]]:
    """A batch each."""
    return [things[k : k + BATCH] for k in range(0, len(things), BATCH)]


def ours(samples: Sequence[Sample]) -> Pipeline:
    """One matrix, one warp; colours on the batch."""
    colours = ColourOptions(hsv=1.0, hsv_gains=GAINS, hsv_hue="factor")
    view = TrainView(
        AugmentOptions(jitter=JITTER, fit_scale=SCALE), YOLO, 0, Population.of_samples(samples)
    )
    colour, loader = Colour(YOLO, colours, 0), Loader(view, workers=0)
    epoch = 0

    def run() -> None:
        nonlocal epoch
        epoch += 1
        rows = [Row(key, (sample,)) for key, sample in enumerate(samples)]
        plans = [BatchPlan(part, YOLO.size, epoch) for part in parts(rows)]
        for batch in loader.batches(plans):
            colour.varied(batch.images, batch.keys, batch.epoch)

    return run


def by_pillow(samples: Sequence[Sample], *, opencv: bool) -> Pipeline:
    """The published recipe, step by step."""
    rng = np.random.default_rng(0)

    def fitted(image: Image.Image) -> tuple[Image.Image, tuple[int, int, int, int], bool]:
        width, height = image.size
        first, second = rng.uniform(1 - JITTER, 1 + JITTER, 2)
        ratio, scale = width / height * first / second, rng.uniform(*SCALE)
        if ratio < 1:
            high = int(scale * SIDE)
            wide = int(high * ratio)
        else:
            wide = int(scale * SIDE)
            high = int(wide / ratio)
        image = image.resize((max(wide, 1), max(high, 1)), Image.Resampling.BICUBIC)
        left, top = int(rng.uniform(0, 1) * (SIDE - wide)), int(rng.uniform(0, 1) * (SIDE - high))
        canvas = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
        canvas.paste(image, (left, top))
        mirrored = rng.random() < 0.5
        if mirrored:
            canvas = canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return canvas, (left, top, wide, high), mirrored

    def coloured(image: Image.Image) -> Pixels:
        gains = rng.uniform(-1, 1, 3) * GAINS + 1
        levels, turn = np.arange(256), 180 if opencv else 256
        tables = [
            (levels * gains[0] % turn).astype(np.uint8),
            np.clip(levels * gains[1], 0, 255).astype(np.uint8),
            np.clip(levels * gains[2], 0, 255).astype(np.uint8),
        ]
        if opencv:
            planes = cv2.split(cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2HSV))
            changed = [cv2.LUT(p, table) for p, table in zip(planes, tables, strict=True)]
            return np.asarray(cv2.cvtColor(cv2.merge(changed), cv2.COLOR_HSV2RGB), np.uint8)
        pixels = np.array(image.convert("HSV"))
        for k, table in enumerate(tables):
            pixels[..., k] = table[pixels[..., k]]
        return np.asarray(Image.fromarray(pixels, "HSV").convert("RGB"))

    def boxes_of(
        target: Boxes, size: tuple[int, int], place: tuple[int, int, int, int], mirrored: bool
    ) -> npt.NDArray[np.float32]:
        left, top, wide, high = place
        xyxy = target.xyxy.copy()
        xyxy[:, [0, 2]] = xyxy[:, [0, 2]] * wide / size[0] + left
        xyxy[:, [1, 3]] = xyxy[:, [1, 3]] * high / size[1] + top
        if mirrored:
            xyxy[:, [0, 2]] = SIDE - xyxy[:, [2, 0]]
        xyxy = xyxy.clip(0, SIDE)
        return xyxy[((xyxy[:, 2:] - xyxy[:, :2]) > 1).all(axis=1)]

    def one(sample: Sample) -> tuple[Tensor, npt.NDArray[np.float32]]:
        with open(sample.key, "rb") as file:
            image = Image.open(file).convert("RGB")
        canvas, place, mirrored = fitted(image)
        pixels = coloured(canvas).astype(np.float32) / 255
        assert isinstance(sample.target, Boxes)
        told = boxes_of(sample.target, image.size, place, mirrored)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))), told

    def run() -> None:
        for part in parts(samples):
            torch.stack([image for image, _ in map(one, part)])

    return run


def seconds(work: Callable[[], object]) -> float:
    """Processor time."""
    began = time.process_time()
    work()
    return time.process_time() - began


def augmentation(rounds: int, data: Path | None) -> list[dict[str, Any]]:
    """A row for each other side."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        if data is None:
            paths = make_photographs(Path(folder), (500, 375))
        else:
            found = (p for p in data.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
            paths = sorted(found)[: 4 * BATCH]
        samples = labelled(paths)
        own = ours(samples)
        rows = []
        for opencv in (False, True):
            other = by_pillow(samples, opencv=opencv)
            own(), other()
            pairs = [(seconds(other), seconds(own)) for _ in range(rounds)]
            each = [a / b for a, b in pairs]
            rows.append(
                {
                    "other side": "Pillow and OpenCV's HSV" if opencv else "Pillow and NumPy",
                    "images": len(samples),
                    "ratio": round(statistics.median(each), 2),
                    "lowest": round(min(each), 2),
                    "highest": round(max(each), 2),
                    "other_ms": round(
                        1e3 * statistics.median(a for a, _ in pairs) / len(samples), 2
                    ),
                    "ours_ms": round(
                        1e3 * statistics.median(b for _, b in pairs) / len(samples), 2
                    ),
                }
            )
    return rows


# --- a frozen stage ------------------------------------------------------------------------------


def write_set(folder: Path, count: int) -> Path:
    """`count` photographs to learn from and two to judge by, with boxes, as tables."""
    samples = labelled(make_photographs(folder, (500, 375), count + 2))
    head = "filename,width,height,class,xmin,ymin,xmax,ymax"
    tables = {"train": [head], "val": [head]}
    for k, sample in enumerate(samples):
        assert isinstance(sample.target, Boxes)
        for box, of in zip(sample.target.xyxy.tolist(), sample.target.of, strict=True):
            corners = ",".join(f"{value:.1f}" for value in box)
            line = f"{Path(sample.key).name},500,375,class {of},{corners}"
            tables["train" if k < count else "val"].append(line)
    for name, lines in tables.items():
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


Marks = list[float]
"""Processor time at the beginning of each step."""


def between(marks: Marks) -> float:
    """The usual step: from one's beginning to the next one's."""
    return statistics.median(b - a for a, b in pairwise(marks))


def trained(data: Path, out: Path, cache: Path, *, cached: bool, epochs: int) -> Marks:
    """A training of the neck."""
    marks: Marks = []
    real = Trainer._loss

    def marked(self: Trainer, *arguments: Any, **keywords: Any) -> Any:
        marks.append(time.process_time())
        return real(self, *arguments, **keywords)

    stage: dict[str, Any] = {
        "name": "frozen",
        "trainable": "neck",
        "epochs": epochs,
        "batch_size": BATCH,
        "cache_features": "on" if cached else "off",
        "views": 1 if cached else None,
        "validate_every": epochs,
        "augment": {
            "jitter": JITTER,
            "fit_scale": list(SCALE),
            "colour": {"hsv": 1.0, "hsv_gains": list(GAINS), "hsv_hue": "factor"},
        },
        "optimizer": {"name": "sgd", "lr": 1e-3},
    }
    recipe = {
        "task": "detection",
        "data": {"path": str(data), "workers": 1},
        "model": {"name": "tf_efficientnet_b0", "weights": None},
        "input": {"size": SIDE},
        "cache": {"folder": str(cache)},
        "device": "cpu",
        "stages": [stage],
        "tensorboard": False,
        "checkpoint": {"every_minutes": 60},
    }
    Trainer._loss = marked  # type: ignore[method-assign]
    try:
        retinue.train(recipe, out=out, report=False, quiet=True)
    finally:
        Trainer._loss = real  # type: ignore[method-assign]
    return marks


def neck_alone(steps: int) -> Marks:
    """Features and targets lie in memory."""
    torch.manual_seed(0)
    network = create_model("yolov3", backbone="tf_efficientnet_b0", num_classes=CLASSES)
    assert isinstance(network, Detector)
    first = first_to_learn(network, "neck", "key trainable")
    objective = DetectionObjective(
        anchors=network.anchors, strides=network.strides, classes=CLASSES
    )
    learner = Learner(network, objective)
    learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand(BATCH, 3, SIDE, SIDE).to(memory_format=torch.channels_last)
    with torch.no_grad():
        state = network.eval().run(images, stop=first)
    freeze(network, first)
    train_mode(learner, first, StageOptions(trainable="neck", epochs=1))
    optimizer = build_optimizer(network, OptimizerOptions(name="sgd", lr=1e-3))
    corner = torch.rand(BATCH, 5, 2) * 250
    none = torch.zeros(BATCH, 5, dtype=torch.bool)
    targets = {
        "xyxy": torch.cat([corner, corner + 30 + torch.rand(BATCH, 5, 2) * 130], 2),
        "of": torch.randint(CLASSES, (BATCH, 5)),
        "present": ~none,
        "difficult": none,
        "crowd": none,
    }
    marks: Marks = []
    for _ in range(steps + 1):
        marks.append(time.process_time())
        losses = learner(state, targets, start=first)
        weight = torch.ones(BATCH)
        loss, _ = portion_loss(
            losses, weight, BATCH, portions=1, processes=1, over_all=lambda value: value
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return marks


def frozen(rounds: int, data: Path | None) -> list[dict[str, Any]]:
    """One row."""
    del data
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    again, kept, alone = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "data").mkdir()
        listed, cache = write_set(place / "data", 4 * BATCH), place / "cache"
        for k in range(rounds):
            off = trained(listed, place / f"off{k}", cache, cached=False, epochs=1)
            on = trained(listed, place / f"on{k}", cache, cached=True, epochs=2)
            again.append(between(off))
            kept.append(between(on))
            alone.append(between(neck_alone(4)))
    ratios = [a / b for a, b in zip(again, kept, strict=True)]
    more = [a / b - 1 for a, b in zip(kept, alone, strict=True)]
    return [
        {
            "network": "yolov3 on tf_efficientnet_b0",
            "step_with_backbone_s": round(statistics.median(again), 3),
            "step_cached_s": round(statistics.median(kept), 3),
            "neck_alone_s": round(statistics.median(alone), 3),
            "ratio": round(statistics.median(ratios), 2),
            "lowest": round(min(ratios), 2),
            "highest": round(max(ratios), 2),
            "more_than_the_neck": [round(value, 3) for value in more],
        }
    ]


PARTS: dict[str, Callable[[int, Path | None], list[dict[str, Any]]]] = {
    "augmentation": augmentation,
    "frozen": frozen,
}


def main() -> None:
    """Prints a line for each case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for name in options.parts or PARTS:
        for row in PARTS[name](options.rounds, options.data):
            print(json.dumps({name: row}))


if __name__ == "__main__":
    main()
