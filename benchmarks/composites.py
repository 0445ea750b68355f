"""Images of several things, made of photographs of one each: to try multi-label classification on.

    python benchmarks/composites.py FOLDER OUT

FOLDER has `train/` and `val/` with class folders in each. OUT gets pictures of 2 × 2 places, each
with a photograph with probability 0.4 and grey noise otherwise, and `labels.csv`: 400 to train on,
100 to choose by, 200 of `val/` to judge by. `retinue train multi-label data=OUT/labels.csv`
"""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 128
PICTURES = {"train": 400, "val": 100, "test": 200}


def main(folder: Path, out: Path) -> None:
    """Write them."""
    out.mkdir(parents=True, exist_ok=True)
    drawn, noise = random.Random(0), np.random.default_rng(0)
    own = _photographs(folder / "train")
    random.Random(1).shuffle(own)
    cut = len(own) * 4 // 5
    sources = {"train": own[:cut], "val": own[cut:], "test": _photographs(folder / "val")}
    rows = [("path", "labels", "split")]
    for split, count in PICTURES.items():
        for number in range(count):
            grey = noise.integers(90, 140, (2 * SIDE, 2 * SIDE, 3), dtype=np.uint8)
            picture, there = Image.fromarray(grey), set()
            for place in ((0, 0), (0, SIDE), (SIDE, 0), (SIDE, SIDE)):
                if drawn.random() < 0.4:
                    name, file = drawn.choice(sources[split])
                    picture.paste(Image.open(file).convert("RGB").resize((SIDE, SIDE)), place)
                    there.add(name)
            picture.save(out / f"{split}{number}.jpg", quality=90)
            rows.append((f"{split}{number}.jpg", "|".join(sorted(there)), split))
    with (out / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def _photographs(folder: Path) -> list[tuple[str, Path]]:
    """(class, file) of all."""
    classes = sorted(place for place in folder.iterdir() if place.is_dir())
    return [(place.name, file) for place in classes for file in sorted(place.iterdir())]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
