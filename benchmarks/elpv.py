"""The three solar-cell trainings over three splits: the linear probe, the demo, the long one.

    python benchmarks/elpv.py [--out DIR] [--seeds 0 1 2] [--recipes NAME …] [--json]

Each training is `retinue train RECIPE data.format=elpv data.split.seed=SEED`; its figure is the
top-1 of the test split, which is looked at once, at the end. What is already in DIR is kept and
not trained again, so that the command can be interrupted. The gain is paired: both trainings of a
seed are judged on the same test images.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import retinue

PROBE = "linear-probe"
RECIPES = (PROBE, "elpv-efficientnet-lite0", "elpv-efficientnet-lite0-long")
SPLIT = {"train": 0.6375, "val": 0.1125, "test": 0.25}


def figures(recipe: str, seed: int, out: Path) -> dict[str, Any]:
    """`metrics.json` of the training, and the seconds that all of it took."""
    folder = out / f"{recipe}-{seed}"
    kept = folder / "wall.json"
    if not kept.is_file():
        began = time.monotonic()
        resume = (folder / "recipe.yaml").is_file()
        if resume:
            retinue.train(folder, resume=True)
        else:
            overrides = {"data.format": "elpv", "data.split": {**SPLIT, "seed": seed}}
            retinue.train(recipe, out=folder, overrides=overrides)
        seconds = None if resume else round(time.monotonic() - began, 1)
        kept.write_text(json.dumps({"seconds": seconds}))
    judged = json.loads((folder / "metrics.json").read_text())
    assert judged["split"] == "test"
    return {**judged, **json.loads(kept.read_text())}


def spread(values: list[float]) -> float:
    """Standard deviation over the splits (n − 1)."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/elpv"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    top1: dict[str, list[float]] = {}
    rows = []
    for recipe in options.recipes:
        judged = [figures(recipe, seed, options.out) for seed in options.seeds]
        top1[recipe] = [f["top1"] for f in judged]
        row = {
            "recipe": recipe,
            "seeds": options.seeds,
            "top1": [round(v, 4) for v in top1[recipe]],
            "mean": round(statistics.mean(top1[recipe]), 4),
            "sd": round(spread(top1[recipe]), 4),
            "auc": round(statistics.mean(f["auc"] for f in judged), 4),
            "images": [f["images"] for f in judged],
            "seconds": [f["seconds"] for f in judged],
        }
        if PROBE in top1 and recipe != PROBE:
            gains = [a - b for a, b in zip(top1[recipe], top1[PROBE], strict=True)]
            row["gain"] = round(statistics.mean(gains), 4)
            row["gain_sd"] = round(spread(gains), 4)
        rows.append(row)
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        gain = f"  gain {row['gain']:+.4f} ± {row['gain_sd']:.4f}" if "gain" in row else ""
        print(
            f"{row['recipe']:30} {row['mean']:.4f} ± {row['sd']:.4f}  {row['top1']}{gain}"
            f"  seconds {row['seconds']}"
        )


if __name__ == "__main__":
    main()
