"""Training images per second and core: retinue's pipeline against the usual one on Pillow.

Both read JPEG files, take a random resized crop of 224 × 224 (8–100 % of the area), flip, jitter
brightness, contrast and saturation (± 0.4; with `hue`, by ± 0.1 too), normalise, and stack batches
of 32 float32 images, on one thread. The other side does what torchvision's transforms do with
Pillow images: decode, `resize` with a box, `ImageEnhance`, hue through HSV, numpy, torch.

The sides alternate; a round is one pass of each, and gives one ratio. Time is the process's CPU
time, so that a busy machine disturbs less (`--clock wall` for the other). Printed: the geometric
mean of the ratios with its 95 % bootstrap interval.

    python benchmarks/input_pipeline.py [--data FOLDER] [--rounds 12] [--json]

Without a folder, it cuts photographs of two sizes, as from the web and from a camera, out of
scikit-learn's two sample pictures.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageEnhance

from retinue.data.colour import Colour
from retinue.data.loader import Loader
from retinue.data.options import AugmentOptions, ColourOptions
from retinue.data.views import TrainView
from retinue.sample import BatchPlan, Preprocessing, Row, Sample

BATCH = 32
JITTER = 0.4
HUE = 0.1
SIZES = {"web 500×375": (500, 375), "camera 1600×1200": (1600, 1200)}
PREPROCESSING = Preprocessing()
Pipeline = Callable[[Sequence[Path]], torch.Tensor]


def retinue_pipeline(hue: float, seed: int = 0) -> Pipeline:
    """Decode and warp once, then one colour matrix on the batch."""
    colours = ColourOptions(brightness=JITTER, contrast=JITTER, saturation=JITTER, hue=hue)
    view = TrainView(
        AugmentOptions(crop_scale=(0.08, 1.0), horizontal_flip=0.5), PREPROCESSING, seed
    )
    colour = Colour(PREPROCESSING, colours, seed)
    loader = Loader(view, workers=0)
    epoch = 0

    def run(paths: Sequence[Path]) -> torch.Tensor:
        nonlocal epoch
        epoch += 1
        rows = [Row(key, (Sample(str(path)),)) for key, path in enumerate(paths)]
        (batch,) = loader.batches([BatchPlan(rows, PREPROCESSING.size, epoch)])
        return colour.varied(batch.images, batch.keys, batch.epoch)

    return run


def pillow_pipeline(hue: float, seed: int = 0) -> Pipeline:
    """What `torchvision.transforms` does with Pillow images, without its overhead."""
    rng = random.Random(seed)
    mean = torch.tensor(PREPROCESSING.mean)[:, None, None]
    std = torch.tensor(PREPROCESSING.std)[:, None, None]

    def crop_box(width: int, height: int) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = width * height * rng.uniform(0.08, 1.0)
            ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if w <= width and h <= height:
                x, y = rng.randint(0, width - w), rng.randint(0, height - h)
                return x, y, x + w, y + h
        side = min(width, height)
        x, y = (width - side) // 2, (height - side) // 2
        return x, y, x + side, y + side

    def shift_hue(image: Image.Image) -> Image.Image:
        h, s, v = image.convert("HSV").split()
        values = np.array(h, dtype=np.uint8)
        values += np.array(rng.uniform(-hue, hue) * 255).astype(np.int32).astype(np.uint8)
        return Image.merge("HSV", (Image.fromarray(values, "L"), s, v)).convert("RGB")

    def enhance(kind: type) -> Callable[[Image.Image], Image.Image]:
        return lambda image: kind(image).enhance(rng.uniform(1 - JITTER, 1 + JITTER))

    jitters = [
        enhance(k) for k in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    ]
    if hue:
        jitters.append(shift_hue)

    def one(path: Path) -> torch.Tensor:
        with open(path, "rb") as file:
            image = Image.open(file).convert("RGB")
        box = crop_box(*image.size)
        size = (PREPROCESSING.size[1], PREPROCESSING.size[0])
        image = image.crop(box).resize(size, Image.Resampling.BILINEAR)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for jitter in rng.sample(jitters, len(jitters)):
            image = jitter(image)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return tensor.to(torch.float32).div_(255).sub_(mean).div_(std)

    return lambda paths: torch.stack([one(path) for path in paths])


def make_photographs(folder: Path, size: tuple[int, int], count: int = BATCH) -> list[Path]:
    """JPEGs of this width and height: random windows of scikit-learn's photographs."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    sources = [Image.fromarray(image) for image in load_sample_images().images]
    paths = []
    for k in range(count):
        source = sources[k % len(sources)]
        share = rng.uniform(0.7, 1.0)
        w, h = source.width * share, source.height * share
        x, y = rng.uniform(0, source.width - w), rng.uniform(0, source.height - h)
        image = source.resize(size, Image.Resampling.BICUBIC, box=(x, y, x + w, y + h))
        path = folder / f"{size[0]}_{k}.jpg"
        image.save(path, quality=90)
        paths.append(path)
    return paths


def compare(
    paths: Sequence[Path], hue: float, rounds: int, clock: Callable[[], float]
) -> tuple[list[float], list[float]]:
    """Images per second of both sides, a value a round."""
    sides = (retinue_pipeline(hue), pillow_pipeline(hue))
    for side in sides:
        side(paths)
    speeds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        # The order changes, so that neither always runs in the other's cache or heat.
        for k in (0, 1) if number % 2 else (1, 0):
            started = clock()
            sides[k](paths)
            speeds[k].append(len(paths) / (clock() - started))
    return speeds


def interval(ratios: Sequence[float], draws: int = 4000) -> tuple[float, float, float]:
    """Geometric mean, and its 95 % bootstrap interval."""
    logs = np.log(ratios)
    rng = np.random.default_rng(0)
    means = logs[rng.integers(0, len(logs), (draws, len(logs)))].mean(axis=1)
    low, high = np.exp(np.quantile(means, [0.025, 0.975]))
    return float(np.exp(logs.mean())), float(low), float(high)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measures and prints; returns what `--json` prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, help="a folder of JPEGs; default: two made sets")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        if options.data is not None:
            found = sorted(
                p for p in options.data.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg")
            )
            if not found:
                parser.error(f"no JPEGs in {options.data}")
            sets = {str(options.data.name): random.Random(0).sample(found, min(BATCH, len(found)))}
        else:
            sets = {name: make_photographs(Path(folder), size) for name, size in SIZES.items()}
        for name, paths in sets.items():
            for hue in (0.0, HUE):
                ours, theirs = compare(paths, hue, options.rounds, clock)
                ratio, low, high = interval([a / b for a, b in zip(ours, theirs, strict=True)])
                result = {
                    "benchmark": "input pipeline",
                    "case": name + (", with hue" if hue else ""),
                    "retinue_images_per_second_and_core": float(np.median(ours)),
                    "pillow_images_per_second_and_core": float(np.median(theirs)),
                    "ratio": ratio,
                    "ratio_low": low,
                    "ratio_high": high,
                    "target": 3.0,
                }
                results.append(result)
                if not options.json:
                    print(
                        f"input pipeline, {result['case']}: {ratio:.2f}× Pillow's "
                        f"(95 % interval {low:.2f}–{high:.2f}; "
                        f"{np.median(ours):.0f} against {np.median(theirs):.0f} images/s and core; "
                        "target ≥ 3)",
                        flush=True,
                    )
    if options.json:
        json.dump(results, sys.stdout, indent=2)
        print()
    return results


if __name__ == "__main__":
    main()
