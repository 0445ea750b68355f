"""What helps where classes are uneven, by a linear classifier on frozen features.

    python benchmarks/uneven.py FOLDER [--seeds 5] [--most 160] [--out DIR]

FOLDER has `train/` and `val/` with class folders in each. Of the training images the first class,
in an order drawn for each seed, keeps `most`, the second half as many, and so on; the even `val/`
judges. Printed are balanced accuracy and the recall of the worst class, mean and spread.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

import retinue

WAYS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "class_weights=balanced": {"task_options.class_weights": "balanced"},
    "sampler=balanced": {"stages.0.sampler": "balanced"},
    "logit_adjustment=1": {"task_options.logit_adjustment": 1.0},
    "focal=2": {"task_options.focal": 2.0},
    "focal=2, balanced weights": {
        "task_options.focal": 2.0,
        "task_options.class_weights": "balanced",
    },
}


def table(folder: Path, place: Path, seed: int, most: int) -> Path:
    """A long tail of the training images, and all others to be judged on."""
    rng = random.Random(seed)
    classes = sorted(p.name for p in (folder / "train").iterdir() if p.is_dir())
    order = list(classes)
    rng.shuffle(order)
    rows = [("path", "label", "split")]
    for k, name in enumerate(order):
        files = sorted((folder / "train" / name).iterdir())
        rng.shuffle(files)
        rows += [(f"train/{name}/{f.name}", name, "train") for f in files[: most >> k]]
    for name in classes:
        files = sorted((folder / "val" / name).iterdir())
        rows += [(f"val/{name}/{f.name}", name, "test") for f in files]
    path = place / f"tail_{seed}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--most", type=int, default=160)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    place = asked.out or Path(tempfile.mkdtemp())
    place.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for seed in range(asked.seeds):
        data = table(asked.folder, place, seed, asked.most)
        for number, (name, options) in enumerate(WAYS.items()):
            everything = {
                "data.path": str(data),
                "data.images": str(asked.folder),
                "data.split.train": 1.0,
                "data.split.val": 0.0,
                "data.split.test": 0.0,
                "cache.folder": str(place / "cache"),
                "seed": seed,
                **options,
            }
            out = place / f"run_{seed}_{number}"
            run = retinue.train(
                "linear-probe", overrides=everything, out=out, report=False, quiet=True
            )
            worst = min(row["recall"] for row in run.figures["per_class"])
            found[name].append((run.figures["balanced_accuracy"], worst))
    for name, rows in found.items():
        means = [
            f"{statistics.mean(c):.3f} ± {statistics.stdev(c):.3f}" for c in zip(*rows, strict=True)
        ]
        print(f"{name:28}{means[0]:18}{means[1]}")


if __name__ == "__main__":
    main()
