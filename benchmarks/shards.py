"""Crops per second and core from TFRecord shards: against the `tfrecord` package and Pillow.

Both read the same shards of JPEGs and make the same random crops of 224 × 224 of them (8–100 % of
the area, drawn once), as uint8 arrays, on one thread. Ours reads in the order of the sampler
`shards`, and checks every image's bytes; the other side reads file after file with
`tfrecord_loader`, which checks nothing, decodes with Pillow and resamples with `resize` and a box.
That both give the same pictures is looked at before anything is timed.

The sides alternate; a round is one pass of each, and gives one ratio. Time is the process's CPU
time. Printed: the geometric mean of the ratios with its 95 % bootstrap interval.

    python benchmarks/shards.py [--data FOLDER] [--rounds 12] [--json]

`tfrecord` is no dependency, since it needs an LGPL part: `pip install --target DIR tfrecord`, and
DIR in PYTHONPATH. Without a folder of shards, photographs of two sizes are written as shards.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from input_pipeline import SIZES, interval, make_photographs
from retinue.data import geometry
from retinue.data.loader import Loader
from retinue.data.options import AugmentOptions, DataOptions, ShardsOptions, SplitOptions
from retinue.data.population import Population
from retinue.data.samplers import make_sampler
from retinue.data.sources import open_dataset
from retinue.data.views import TrainView
from retinue.sample import BatchPlan, Preprocessing, Row, Sample
from retinue.tasks.task import task_type

PREPROCESSING = Preprocessing(interpolation="bilinear")
SIDE = PREPROCESSING.size[0]
Crops = Mapping[str, npt.NDArray[np.uint8]]
"""By what each image is called."""
Boxes = Mapping[str, tuple[float, float, float, float]]


class Ours:
    """The samples, and the view that draws and makes their crops."""

    def __init__(self, folder: Path) -> None:
        options = DataOptions(
            path=str(folder), split=SplitOptions(train=1, val=0, test=0, given="ignore")
        )
        dataset = open_dataset(options, task_type("classification").readers())
        self.samples: Sequence[Sample] = dataset.splits["train"]
        sampler = make_sampler(
            ShardsOptions(), Population.of_samples(self.samples), batch_size=len(self.samples)
        )
        (order,) = sampler.epoch(0)
        self.rows = [Row(int(k), (self.samples[int(k)],)) for k in order]
        augment = AugmentOptions(crop_scale=(0.08, 1.0), horizontal_flip=0.0)
        self.loader = Loader(TrainView(augment, PREPROCESSING, 0), workers=0)
        self.boxes: dict[str, tuple[float, float, float, float]] = {}

    def __call__(self) -> Crops:
        found = {}
        for start in range(0, len(self.rows), 32):
            plan = BatchPlan(self.rows[start : start + 32], PREPROCESSING.size)
            (batch,) = self.loader.batches([plan])
            pixels = batch.images.permute(0, 2, 3, 1).numpy()
            for k, sample in enumerate(batch.samples):
                found[sample.name] = pixels[k]
                if sample.name not in self.boxes:
                    corners = np.array([[0.0, 0.0], [SIDE, SIDE]])
                    ends = geometry.apply(batch.to_original[k], corners).ravel().tolist()
                    self.boxes[sample.name] = (ends[0], ends[1], ends[2], ends[3])
        return found


def theirs(folder: Path, boxes: Boxes) -> Callable[[], Crops]:
    """The usual loop over the package's examples."""
    from tfrecord.reader import tfrecord_loader

    files = sorted(p for p in folder.rglob("*") if "tfrecord" in p.name)
    wanted = {"image/encoded": "byte", "image/class/label": "int"}

    def run() -> Crops:
        found = {}
        for file in files:
            shard = file.relative_to(folder).as_posix()
            for number, example in enumerate(tfrecord_loader(str(file), None, wanted), 1):
                name = f"{shard}/{number}"
                image = Image.open(io.BytesIO(example["image/encoded"])).convert("RGB")
                box = boxes[name]
                crop = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)
                found[name] = np.asarray(crop)
        return found

    return run


def refuse_unlike(ours: Crops, others: Crops) -> float:
    """The mean difference of both sides' pixels, in levels of 255; more than a few would be other
    crops."""
    assert ours.keys() == others.keys()
    gaps = [float(np.abs(ours[k].astype(int) - others[k]).mean()) for k in ours]
    mean = float(np.mean(gaps))
    if mean > 4 or max(gaps) > 16:
        sys.exit(
            f"the sides do not show the same: {mean:.1f} levels apart, {max(gaps):.1f} at most"
        )
    return mean


def compare(folder: Path, rounds: int) -> tuple[list[float], list[float], float]:
    """Crops per second of both sides, a value a round, and how far apart they are."""
    ours = Ours(folder)
    first = ours()
    other = theirs(folder, {name: _within(box) for name, box in ours.boxes.items()})
    gap = refuse_unlike(first, other())
    speeds: tuple[list[float], list[float]] = ([], [])
    sides: Sequence[Callable[[], Crops]] = (ours, other)
    for number in range(rounds):
        for k in (0, 1) if number % 2 else (1, 0):
            started = time.process_time()
            count = len(sides[k]())
            speeds[k].append(count / (time.process_time() - started))
    return *speeds, gap


def _within(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Rounding may bring a corner a hair out of the image, which Pillow refuses."""
    x1, y1, x2, y2 = (round(value, 3) for value in box)
    return max(x1, 0.0), max(y1, 0.0), x2, y2


def _shards(folder: Path, size: tuple[int, int]) -> Path:
    """Of photographs in two classes, as TF-Slim has them, without names of files."""
    import struct

    from retinue.data.sources.tfrecord import masked
    from retinue.data.written_shards import encoded

    place = folder / f"{size[0]}"
    place.mkdir()
    paths = make_photographs(folder, size, 64)
    for shard in range(2):
        with open(place / f"train-{shard:05d}-of-00002.tfrecord", "wb") as file:
            for k, path in enumerate(paths[shard::2]):
                values = {"image/encoded": [path.read_bytes()], "image/class/label": [k % 2]}
                content = encoded(values)
                head = struct.pack("<Q", len(content))
                file.write(head + struct.pack("<I", masked(head)) + content)
                file.write(struct.pack("<I", masked(content)))
    return place


def main(arguments: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measures and prints; returns what `--json` prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, help="a folder of TF-Slim's shards")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("tfrecord") is None:
        print("shards: left out, the package tfrecord is not there (see benchmarks/shards.py)")
        return []
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as made:
        if options.data is not None:
            sets = {options.data.name: options.data}
        else:
            sets = {name: _shards(Path(made), size) for name, size in SIZES.items()}
        for name, folder in sets.items():
            ours, others, gap = compare(folder, options.rounds)
            ratio, low, high = interval([a / b for a, b in zip(ours, others, strict=True)])
            results.append(
                {
                    "benchmark": "shards",
                    "case": name,
                    "retinue_crops_per_second_and_core": float(np.median(ours)),
                    "tfrecord_and_pillow_crops_per_second_and_core": float(np.median(others)),
                    "ratio": ratio,
                    "ratio_low": low,
                    "ratio_high": high,
                    "levels_apart": gap,
                    "target": 2.0,
                }
            )
            if not options.json:
                print(
                    f"shards, {name}: {ratio:.2f}× tfrecord's and Pillow's (95 % interval"
                    f" {low:.2f}–{high:.2f}; {np.median(ours):.0f} against {np.median(others):.0f}"
                    f" crops/s and core, {gap:.1f} levels apart; target ≥ 2)",
                    flush=True,
                )
    if options.json:
        json.dump(results, sys.stdout, indent=2)
        print()
    return results


if __name__ == "__main__":
    main()
