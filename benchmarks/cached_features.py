"""A head-only epoch on cached features against one that runs the frozen backbone again.

    python benchmarks/cached_features.py [--network NAME] [--images N] [--json]

Both are the same training (same images, head, batches, optimiser, no augmentation), through
`retinue.train`; only `cache_features` differs. The two alternate, several rounds in one process;
the figure is the ratio of their epochs' times (training steps, without validation), with the
spread over the rounds. What computing the features once costs is printed, too.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import retinue

TARGET = 20.0
CLASSES = 4
BATCH = 32


def write_pictures(folder: Path, count: int) -> None:
    """Smooth random JPEGs of 320 × 240, `CLASSES` folders of them."""
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        path = folder / f"class {i % CLASSES}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((320, 240), Image.Resampling.BICUBIC).save(path, quality=90)


def train(data: Path, out: Path, *, network: str, cached: bool, epochs: int) -> dict[str, Any]:
    """Seconds of each epoch, and of everything around them."""
    run = retinue.train(
        {
            "task": "classification",
            "data": {"path": str(data), "split": {"train": 0.8, "val": 0.1, "test": 0.1}},
            "model": {"name": network, "weights": None},
            "stages": [
                {
                    "name": "head",
                    "trainable": "head",
                    "epochs": epochs,
                    "batch_size": BATCH,
                    "cache_features": "on" if cached else "off",
                    "augment": {"horizontal_flip": 0.0},
                }
            ],
        },
        out=out,
        report=False,
        quiet=True,
    )
    with open(run.folder / "metrics.csv", encoding="utf-8", newline="") as file:
        ends = [float(row["seconds"]) for row in csv.DictReader(file)]
    lengths = [end - start for start, end in zip([0.0, *ends], ends, strict=False)]
    environment = json.loads((run.folder / "environment.json").read_text("utf-8"))
    return {
        "epochs": lengths,
        "once": environment["timings"]["frozen_s"],
        "trunk": environment.get("trunk"),
    }


def measure(network: str, images: int, rounds: int) -> dict[str, Any]:
    """The figures, as printed."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_pictures(place / "data", images)
        # Load the libraries and fill the file cache before anything is timed.
        train(place / "data", place / "warm", network=network, cached=True, epochs=1)
        again, kept, once = [], [], []
        for i in range(rounds):
            off = train(place / "data", place / f"off{i}", network=network, cached=False, epochs=2)
            on = train(place / "data", place / f"on{i}", network=network, cached=True, epochs=6)
            # The first epoch of each warms allocators up.
            again.append(statistics.median(off["epochs"][1:]))
            kept.append(statistics.median(on["epochs"][1:]))
            once.append(on["once"])
    ratios = [a / k for a, k in zip(again, kept, strict=True)]
    return {
        "network": network,
        "training_images": int(images * 0.8),
        "rounds": rounds,
        "seconds_an_epoch_backbone": round(statistics.median(again), 4),
        "seconds_an_epoch_cached": round(statistics.median(kept), 4),
        "seconds_to_compute_once": round(statistics.median(once), 2),
        "ratio": round(statistics.median(ratios), 1),
        "ratio_least": round(min(ratios), 1),
        "ratio_most": round(max(ratios), 1),
        "target": TARGET,
        "trunk": on["trunk"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="tf_efficientnet_lite0")
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.network, options.images, options.rounds)
    if options.json:
        print(json.dumps(found))
        return
    verdict = "reached" if found["ratio"] >= TARGET else "MISSED"
    print(
        f"cached features, {found['network']}, head only, {found['training_images']} images: "
        f"{found['seconds_an_epoch_backbone']:.2f} s an epoch with the backbone, "
        f"{found['seconds_an_epoch_cached']:.3f} s cached: {found['ratio']}× "
        f"({found['ratio_least']}–{found['ratio_most']} in {found['rounds']} rounds; "
        f"target {TARGET:g}×, {verdict}); computing the features once took "
        f"{found['seconds_to_compute_once']} s"
    )


if __name__ == "__main__":
    main()
