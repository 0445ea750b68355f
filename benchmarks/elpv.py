"""The solar-cell trainings over three splits: two linear probes, the demo, the long one.

    python benchmarks/elpv.py [--out DIR] [--seeds 10 11 12] [--trainings NAME …] [--json]

Each training is `retinue train RECIPE data.format=elpv data.split.seed=SEED` and what `TRAININGS`
adds; its figure is the top-1 of the test split, looked at once, at the end. What is already
in DIR is kept and not trained again, so that the command can be interrupted. The gains are paired:
both trainings of a seed are judged on the same test images. The second probe has what the demo has
besides its training: eight turned and mirrored views, in training and in evaluation.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import retinue

# As the demo has them: the test side of a seed is the same for all.
SHARES = {"train": 0.6375, "val": 0.1125, "test": 0.25}
PROBE, VIEWS_PROBE = "probe", "probe of 8 views"
SPLIT = {f"data.split.{name}": share for name, share in SHARES.items()}
WHOLE = {"input.fit": "squash", **SPLIT}
TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
    PROBE: ("linear-probe", WHOLE),
    VIEWS_PROBE: (
        "linear-probe",
        {
            **WHOLE,
            "stages.0.views": 8,
            "stages.0.augment": {"quarter_turns": True},
            "evaluation.tta": "dihedral",
        },
    ),
    "demo": ("elpv-efficientnet-lite0", {}),
    "long": ("elpv-efficientnet-lite0-long", {}),
}


def figures(training: str, seed: int, out: Path) -> dict[str, Any]:
    """`metrics.json` of the training, and the seconds that all of it took."""
    recipe, changes = TRAININGS[training]
    folder = out / f"{training.replace(' ', '-')}-{seed}"
    kept = folder / "wall.json"
    if not kept.is_file():
        began = time.monotonic()
        resume = (folder / "recipe.yaml").is_file()
        if resume:
            retinue.train(folder, resume=True)
        else:
            overrides = {**changes, "data.format": "elpv", "data.split.seed": seed}
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--trainings", nargs="+", default=list(TRAININGS), choices=TRAININGS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    top1: dict[str, list[float]] = {}
    rows = []
    for training in options.trainings:
        judged = [figures(training, seed, options.out) for seed in options.seeds]
        top1[training] = [f["top1"] for f in judged]
        row: dict[str, Any] = {
            "training": training,
            "seeds": options.seeds,
            "top1": [round(v, 4) for v in top1[training]],
            "mean": round(statistics.mean(top1[training]), 4),
            "sd": round(spread(top1[training]), 4),
            "auc": round(statistics.mean(f["auc"] for f in judged), 4),
            "images": [f["images"] for f in judged],
            "seconds": [f["seconds"] for f in judged],
        }
        for probe in (PROBE, VIEWS_PROBE):
            if probe in top1 and training not in (PROBE, VIEWS_PROBE):
                gains = [a - b for a, b in zip(top1[training], top1[probe], strict=True)]
                row[f"gain over the {probe}"] = [
                    round(statistics.mean(gains), 4),
                    round(spread(gains), 4),
                ]
        rows.append(row)
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(f"{row['training']:18} {row['mean']:.4f} ± {row['sd']:.4f}  {row['top1']}", end="")
        print(f"  AUC {row['auc']:.4f}  seconds {row['seconds']}")
        for name, value in row.items():
            if name.startswith("gain"):
                print(f"{'':18} {name}: {value[0]:+.4f} ± {value[1]:.4f}")


if __name__ == "__main__":
    main()
