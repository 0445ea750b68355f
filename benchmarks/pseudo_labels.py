"""What labels of its own bring a model that has few: some images of each class have one, the rest
is labelled by the model, learnt from, and then judged (transductive).

    python benchmarks/pseudo_labels.py FOLDER [--labelled 5] [--draws 5] [--out DIR] [--json]

FOLDER has class folders. One of the labelled images of each class is not learnt from and chooses
nothing: the last weights are tested. Other draws take other images. Gains are over no
pseudo-labels, of the same draw. What is already in DIR is kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import retinue
from spread import told

HEAD: dict[str, Any] = {
    "name": "head",
    "trainable": "head",
    "epochs": 40,
    "views": 4,
    "validate_every": 4,
    "optimizer": {"lr": 2e-3, "weight_decay": 1e-2},
    "augment": {"crop_scale": [0.5, 1.0]},
}
OWN = {
    "none": [{"name": "longer"}],
    "hard, all": [{"name": "own", "data": {"name": "pseudo_labels", "of": "test"}}],
    "hard, 0.5": [
        {"name": "own", "data": {"name": "pseudo_labels", "of": "test", "confidence": 0.5}}
    ],
    "hard, 0.9": [
        {"name": "own", "data": {"name": "pseudo_labels", "of": "test", "confidence": 0.9}}
    ],
    "soft, all": [
        {"name": "own", "data": {"name": "pseudo_labels", "of": "test", "labels": "soft"}}
    ],
}
"""What follows the head's own stage; the same length in each case."""


def write_table(root: Path, labelled: int, draw: int, table: Path) -> None:
    """The rows of one draw: `test` is what is not labelled."""
    generator = np.random.default_rng(draw)
    with table.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        for folder in sorted(path for path in root.iterdir() if path.is_dir()):
            paths = sorted(folder.iterdir())
            for k, place in enumerate(generator.permutation(len(paths)).tolist()):
                split = "val" if k == 0 else "train" if k < labelled else "test"
                path = paths[place].relative_to(root).as_posix()
                rows.writerow([path, folder.name, split])


def train(own: str, rounds: int, table: Path, root: Path, draw: int, place: Path) -> float:
    """Top-1 of what was not labelled."""
    done = place / "metrics.json"
    if not done.is_file():
        recipe = {
            "task_options": {"calibration": "none"},
            "data": {"path": str(table.absolute()), "images": str(root.absolute())},
            "model": {"name": "tf_efficientnet_lite0", "weights": "imagenet"},
            "stages": [HEAD, *({**HEAD, **stage} for stage in OWN[own])],
            "rounds": {"times": rounds, "first": OWN[own][0]["name"]},
            "evaluation": {"split": "test", "keep": "last"},
            "tensorboard": False,
            "seed": draw,
        }
        shutil.rmtree(place, ignore_errors=True)  # of one that was interrupted
        retinue.train(recipe, out=place, report=False, quiet=True)
    return float(json.loads(done.read_text("utf-8"))["top1"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labelled", type=int, default=5)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--rounds", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    out = asked.out or Path(tempfile.mkdtemp(prefix="pseudo-labels-"))
    out.mkdir(parents=True, exist_ok=True)
    for rounds in asked.rounds:
        without: list[float] = []
        for own in OWN:
            found = []
            for draw in range(asked.draws):
                of = f"{draw}-of-{asked.labelled}"
                table = out / f"{of}.csv"
                write_table(asked.folder, asked.labelled, draw, table)
                place = out / f"{own.replace(', ', '-')}-{rounds}-{of}"
                found.append(train(own, rounds, table, asked.folder, draw, place))
            without = without or found
            gain = told([a - b for a, b in zip(found, without, strict=True)])
            line = {"labels": own, "rounds": rounds, "top1": told(found), "gain": gain}
            if asked.json:
                print(json.dumps(line), flush=True)
                continue
            top1 = f"{line['top1']['mean']:.3f} ± {line['top1']['sd']:.3f}"
            print(f"{own:12} {rounds} rounds  {top1}  gain {gain['mean']:+.3f} ± {gain['sd']:.3f}",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
