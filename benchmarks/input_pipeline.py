"""Training images per second and core: retinue's pipeline against timm's training transforms.

All sides read JPEG files, take a random resized crop of 224 × 224 (8–100 % of the area), flip,
jitter brightness, contrast and saturation (± 0.4; with `hue`, by ± 0.1 too), normalise, and stack
batches of 32 float32 images, on one thread. timm's is `timm.data.create_transform(224,
is_training=True)` on Pillow images, as its training script has it; `pillow` is the same without
torchvision in between: decode, `resize` with a box, `ImageEnhance`, hue through HSV, numpy, torch.
Ours once from the same files, and once with `data.packed=auto`, whose images were made small
before.

The sides alternate; a round is one pass of each, and gives a ratio for each pair. Time is the
process's CPU time, so that a busy machine disturbs less (`--clock wall` for the other). Printed:
the geometric mean of the ratios with its 95 % bootstrap interval.

    python benchmarks/input_pipeline.py [--data FOLDER] [--rounds 12] [--tensorflow PYTHON]
                                        [--json [FILE]]

`--tensorflow`: an interpreter that has TensorFlow, a `tf.data` pipeline of which (`tf_data.py`) is
the peer instead; without any change of colour, too.

Without a folder, it cuts photographs of two sizes, as from the web and from a camera, out of
scikit-learn's two sample pictures.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageEnhance

from results import add_json, leave
from retinue.data.colour import Colour
from retinue.data.loader import Loader
from retinue.data.options import AugmentOptions, ColourOptions
from retinue.data.packed import SmallImages, side_of
from retinue.data.views import Opening, TrainView
from retinue.errors import UsageError
from retinue.sample import BatchPlan, Preprocessing, Row, Sample
from retinue.training.features.cache import FeatureCache
from retinue.training.features.packed_images import PackedImages

BATCH = 32
JITTER = 0.4
HUE = 0.1
SIZES = {"web 500×375": (500, 375), "camera 1600×1200": (1600, 1200)}
PREPROCESSING = Preprocessing()
CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}
Pipeline = Callable[[Sequence[Path]], torch.Tensor]


def retinue_pipeline(
    hue: float, seed: int = 0, opening: Opening | None = None, jitter: float = JITTER
) -> Pipeline:
    """Decode and warp once, then one colour matrix on the batch."""
    colours = ColourOptions(brightness=jitter, contrast=jitter, saturation=jitter, hue=hue)
    view = TrainView(
        AugmentOptions(crop_scale=(0.08, 1.0), horizontal_flip=0.5),
        PREPROCESSING,
        seed,
        opening=opening,
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


def packed_images(paths: Sequence[Path], folder: Path) -> SmallImages:
    """`paths` made small, in a cache in `folder`."""
    side = side_of("auto", [PREPROCESSING.size])
    assert side is not None
    store = PackedImages(FeatureCache(folder, 10**10), side, PREPROCESSING)
    samples = [Sample(str(path)) for path in paths]
    why = store.fill(samples, store.take(samples)[1], 1, lambda done: None)
    assert why is None, why
    store.take(samples)
    return SmallImages(side, store)


def timm_pipeline(hue: float) -> Pipeline:
    """timm's own training transforms. Raises UsageError where timm is not installed."""
    from retinue.models.timm import library

    library()
    from timm.data import create_transform

    jitter = (JITTER, JITTER, JITTER, hue) if hue else JITTER
    transform = create_transform(PREPROCESSING.size[0], is_training=True, color_jitter=jitter)

    def one(path: Path) -> torch.Tensor:
        with open(path, "rb") as file:
            image = Image.open(file).convert("RGB")
        done: torch.Tensor = transform(image)
        return done

    return lambda paths: torch.stack([one(path) for path in paths])


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


class TfData:
    """The process of `tf_data.py`."""

    def __init__(self, python: str, paths: Sequence[Path], jitter: float, hue: float) -> None:
        script = Path(__file__).parent / "tf_data.py"
        how = ["--jitter", str(jitter), "--hue", str(hue)]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [python, script, *how, *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.called = self._answer()

    def seconds(self, clock: str) -> float:
        """Of one more batch of all files, by the `CLOCKS`' name."""
        assert self._process.stdin is not None
        print("another", file=self._process.stdin, flush=True)
        used, taken, *_ = map(float, self._answer().split())
        return used if clock == "cpu" else taken

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise SystemExit(f"no tf.data by {self._process.args[0]}: has it TensorFlow?")  # type: ignore[index]
        return line

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


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
        os.utime(path, ns=(10**18, 10**18))  # a file that has just been written may still change
        paths.append(path)
    return paths


def compare(
    sides: Mapping[str, Pipeline],
    paths: Sequence[Path],
    rounds: int,
    clock: Callable[[], float],
) -> dict[str, list[float]]:
    """Images per second of each side, a value a round."""
    for side in sides.values():
        side(paths)
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        # The order changes, so that none always runs in another's cache or heat.
        for name in list(sides) if number % 2 else reversed(sides):
            started = clock()
            sides[name](paths)
            speeds[name].append(len(paths) / (clock() - started))
    return speeds


def interval(ratios: Sequence[float], draws: int = 4000) -> tuple[float, float, float]:
    """Geometric mean, and its 95 % bootstrap interval."""
    logs = np.log(ratios)
    rng = np.random.default_rng(0)
    means = logs[rng.integers(0, len(logs), (draws, len(logs)))].mean(axis=1)
    low, high = np.exp(np.quantile(means, [0.025, 0.975]))
    return float(np.exp(logs.mean())), float(low), float(high)


CLAIMS = (
    # what, side, peer, target
    ("input-jpeg", "files", "timm", 2.0),
    ("input-packed", "packed", "timm", 4.0),
    ("input-pillow", "files", "pillow", None),
    ("input-packed-pillow", "packed", "pillow", None),
)
NAMES = {"timm": "timm's training transforms", "pillow": "Pillow"}


def beside_tensorflow(
    name: str, paths: Sequence[Path], python: str, rounds: int, clock: str
) -> Iterator[dict[str, Any]]:
    """The figures of a set of photographs beside `tf.data`: no colour, colour, and hue, too."""
    for case, jitter, hue in ((", no colour", 0.0, 0.0), ("", JITTER, 0.0),
                              (", with hue", JITTER, HUE)):  # fmt: skip
        ours, theirs = retinue_pipeline(hue, jitter=jitter), TfData(python, paths, jitter, hue)
        taken: dict[str, list[float]] = {"ours": [], "theirs": []}
        for number in range(rounds + 1):
            for side in ("ours", "theirs") if number % 2 else ("theirs", "ours"):
                if side == "ours":
                    began = CLOCKS[clock]()
                    ours(paths)
                    seconds = CLOCKS[clock]() - began
                else:
                    seconds = theirs.seconds(clock)
                if number:  # the first gets ready
                    taken[side].append(seconds)
        theirs.close()
        pairs = zip(taken["theirs"], taken["ours"], strict=True)
        ratio, low, high = interval([a / b for a, b in pairs])
        own, other = (len(paths) / float(np.median(taken[side])) for side in ("ours", "theirs"))
        yield {
            "claim": "input-tfdata", "case": name + case,
            "peer": f"tf.data, {theirs.called}", "ratio": ratio, "low": low, "high": high,
            "spread": "95 % interval", "target": 1.5, "ours": own, "theirs": other,
            "unit": "images/s and core",
        }  # fmt: skip


def measured(
    name: str, paths: Sequence[Path], hue: float, rounds: int, clock: Callable[[], float]
) -> Iterator[dict[str, Any]]:
    """The figures of a set of photographs."""
    with tempfile.TemporaryDirectory() as folder:
        sides = {
            "files": retinue_pipeline(hue),
            "packed": retinue_pipeline(hue, opening=packed_images(paths, Path(folder))),
            "pillow": pillow_pipeline(hue),
        }
        with contextlib.suppress(UsageError):
            sides["timm"] = timm_pipeline(hue)
        speeds = compare(sides, paths, rounds, clock)
    for claim, own, peer, target in CLAIMS:
        if peer not in speeds:
            continue
        pairs = zip(speeds[own], speeds[peer], strict=True)
        ratio, low, high = interval([a / b for a, b in pairs])
        yield {
            "claim": claim,
            "case": name + (", with hue" if hue else ""),
            "peer": NAMES[peer],
            "ratio": ratio,
            "low": low,
            "high": high,
            "spread": "95 % interval",
            "target": target,
            "ours": float(np.median(speeds[own])),
            "theirs": float(np.median(speeds[peer])),
            "unit": "images/s and core",
        }


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measures and prints; returns what `--json` prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, help="a folder of JPEGs; default: two made sets")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--clock", choices=list(CLOCKS), default="cpu")
    parser.add_argument("--tensorflow", metavar="PYTHON", help="an interpreter that has it")
    add_json(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clock = CLOCKS[options.clock]
    results: list[dict[str, Any]] = []
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
            if options.tensorflow:
                how = options.tensorflow, options.rounds, options.clock
                parts = [beside_tensorflow(name, paths, *how)]
            else:
                parts = [measured(name, paths, hue, options.rounds, clock) for hue in (0.0, HUE)]
            for result in itertools.chain(*parts):
                results.append(result)
                if options.json != "-":
                    print(line(result), flush=True)
    leave("input pipeline", results, options.json)
    return results


def line(result: Mapping[str, Any]) -> str:
    """For people."""
    how = "packed images" if "packed" in result["claim"] else "files"
    target = f"; target ≥ {result['target']:g}" if result["target"] else ""
    return (
        f"input pipeline, {result['case']}, from {how}: {result['ratio']:.2f}× {result['peer']} "
        f"(95 % interval {result['low']:.2f}–{result['high']:.2f}; {result['ours']:.0f} against "
        f"{result['theirs']:.0f} images/s and core{target})"
    )


if __name__ == "__main__":
    main()
