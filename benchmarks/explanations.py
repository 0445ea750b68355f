"""Do explanations find what matters? Deletion and insertion of each method against maps that nobody
looked for: the middle of the image, random cells as coarse as a network's last map, and each pixel
at random.

    python benchmarks/explanations.py PHOTOGRAPHS [--network tf_efficientnet_lite0 …]
        [--model FILE …] [--methods gradcam gradcam++] [--images 50] [--steps 32]

Each network has the weights that it is published with; a model file may be of any task, and is
explained as suits it unless methods are named. The class asked for is the model's own best answer;
photographs in which it finds nothing are left out.
Of each map: the mean areas below the deletion curve (lower is better) and the insertion curve
(higher is better), and the second less the first, with 95 % intervals of the mean; and in how many
of the images that difference is larger than the centre's and the random cells' map's. Pixels that
go one here, one there leave noise of which no network makes anything: such a map has a low deletion
without having found anything, and a low insertion, too. Hence the difference.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import torch

from retinue import load
from retinue.arrays import ImageSize
from retinue.data.formats import meant_as_image
from retinue.explaining import check, explain, upright
from retinue.explaining.checking import STEPS, Heatmap, centre_map
from retinue.inference.predictor import Member, Predictor
from retinue.modelfile import ModelDescription
from retinue.models.registry import create_model
from retinue.tasks.classification.task import Classification

CENTRE, CELLS, NOISE = "centre", "random cells", "random pixels"


def random_map(size: ImageSize, seed: int, cells: int = 7) -> Heatmap:
    """Any one: random values in `cells` × `cells` cells, as coarse as a network's last map, spread
    over an image of `size` (width, height)."""
    values = np.random.default_rng(seed).random((cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_LINEAR), np.float32)


def predictor_of(name: str) -> Predictor:
    """The published weights, the classes by number."""
    network = create_model(name, weights="imagenet").eval()
    classes = [str(k) for k in range(1000)]
    description = ModelDescription(
        task="classification", classes=classes, network=network.name, arguments={},
        preprocessing=network.preprocessing.as_dict(),
    )  # fmt: skip
    return Predictor([Member(network, Classification(classes), description)], engine="torch")


def spread(values: np.ndarray) -> str:
    """Mean and half the width of its 95 % interval."""
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{values.mean():.3f} ± {half:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--network", nargs="+", default=[])
    parser.add_argument("--model", nargs="+", default=[])
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    found = sorted(p for p in given.photographs.rglob("*") if meant_as_image(p.name))
    paths = found[:: max(len(found) // given.images, 1)][: given.images]
    print(f"{len(paths)} of {len(found)} photographs, {given.steps} steps,",
          f"{torch.get_num_threads()} threads")  # fmt: skip
    published = given.network or ([] if given.model else ["tf_efficientnet_lite0"])
    judged = [(name, predictor_of(name), ["gradcam", "gradcam++"]) for name in published]
    judged += [(file, load(file, device="cpu", engine="torch"), ["auto"]) for file in given.model]
    for name, made, usual in judged:
        deletion: dict[str, list[float]] = defaultdict(list)
        insertion: dict[str, list[float]] = defaultdict(list)
        taken: dict[str, list[float]] = defaultdict(list)
        for number, path in enumerate(paths):
            pixels = upright(path)
            answers = made(pixels).answers()
            if not answers:
                continue
            size, target = (pixels.shape[1], pixels.shape[0]), answers[0][0]
            maps = {}
            for method in given.methods or usual:
                start = time.perf_counter()
                explained = explain(made, pixels, method=method, target=target)
                taken[explained.method].append(time.perf_counter() - start)
                maps[explained.method] = explained.heat
            maps[CENTRE] = centre_map(size)
            maps[CELLS] = random_map(size, number)
            maps[NOISE] = random_map(size, number, cells=max(size))
            for kind, heat in maps.items():
                checked = check(made, pixels, heat, target, steps=given.steps)
                deletion[kind].append(checked.deletion)
                insertion[kind].append(checked.insertion)
        print(f"\n{name}, {len(deletion[CENTRE])} photographs")
        print(f"{'map':<15}{'deletion':>16}{'insertion':>16}{'difference':>16}"
              f"{'> centre':>10}{'> cells':>10}{'ms a map':>10}")  # fmt: skip
        gap = {k: np.array(insertion[k]) - np.array(deletion[k]) for k in deletion}
        for kind in deletion:
            wins = ["" if kind == other else f"{(gap[kind] > gap[other]).mean():.0%}"
                    for other in (CENTRE, CELLS)]  # fmt: skip
            speed = f"{1000 * np.median(taken[kind]):,.0f}" if kind in taken else ""
            print(f"{kind:<15}{spread(np.array(deletion[kind])):>16}"
                  f"{spread(np.array(insertion[kind])):>16}{spread(gap[kind]):>16}"
                  f"{wins[0]:>10}{wins[1]:>10}{speed:>10}")  # fmt: skip


if __name__ == "__main__":
    main()
