"""Staged fine-tuning with the frozen part cached in eight views against the same without a cache.

    python benchmarks/staged_cache.py DATA [--network NAME] [--seeds 0 1 2] [--out DIR]

DATA has class folders in `train/` and `val/` or `test/`. The recipe has augmentation in both its
stages: the head alone, then the head and the last block, 30 epochs together. The cached one keeps
eight views of each image; the other draws a new one in every epoch and runs the whole network.
The two alternate, each a `retinue train` of its own with an empty cache of features; everything is
timed, start and judging of the last epochs too. The figures: the ratio of the seconds with its
spread over the seeds, and the top-1 of both. What is already in DIR is kept, so that the command
can be interrupted. Exits with 1 if the cached one is less than 3 times as fast, or if its mean
top-1 is below the other's by more than the seeds' spread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TARGET = 3.0
RECIPE = """
task: classification
model: {{name: {network}, weights: imagenet}}
stages:
  - name: head
    trainable: head
    epochs: 10
    cache_features: {cache}
    views: {views}
    augment: {{crop_scale: [0.5, 1.0], colour: {{brightness: 0.2, contrast: 0.2, saturation: 0.2}}}}
    optimizer: {{lr: 2.0e-3, weight_decay: 1.0e-2}}
  - name: last
    trainable: {last}
    epochs: 20
    cache_features: {cache}
    views: {views}
    augment: {{crop_scale: [0.5, 1.0], colour: {{brightness: 0.2, contrast: 0.2, saturation: 0.2}}}}
    frozen_batchnorm: true
    optimizer: {{lr: 3.0e-4, weight_decay: 2.0e-2}}
"""
KINDS = {"cached": ("on", "8"), "uncached": ("off", "null")}


def training(
    kind: str, data: Path, seed: int, folder: Path, network: str, last: str
) -> dict[str, Any]:
    """Seconds of the wall and of all processors, and the final top-1."""
    kept = folder.with_suffix(".json")
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    cache, views = KINDS[kind]
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.with_suffix(".yaml")
    file.write_text(RECIPE.format(network=network, last=last, cache=cache, views=views))
    with tempfile.TemporaryDirectory() as caches:
        before, began = os.times(), time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "retinue.cli", "train", str(file), str(data), f"seed={seed}",
             "--out", str(folder), "--quiet"],
            env={**os.environ, "RETINUE_CACHE": caches}, stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        wall, after = time.monotonic() - began, os.times()
    spent = after.children_user + after.children_system
    spent -= before.children_user + before.children_system
    figures = json.loads((folder / "metrics.json").read_text())
    result = {"top1": figures["top1"], "wall": round(wall, 1), "processor": round(spent, 1)}
    kept.write_text(json.dumps(result))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", default="tf_efficientnet_lite0")
    parser.add_argument("--last", default="stages.6.0", help="the first unit that learns")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/staged-cache-benchmark"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    done: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for seed in options.seeds:
        for kind in KINDS:
            result = training(
                kind,
                options.data,
                seed,
                options.out / f"{kind}-{seed}",
                options.network,
                options.last,
            )
            done[kind].append(result)
            print(f"seed {seed}  {kind:9} {result}", flush=True)
    judged = {kind: [run["top1"] for run in runs] for kind, runs in done.items()}
    means = {kind: statistics.mean(values) for kind, values in judged.items()}
    spread = max(max(values) - min(values) for values in judged.values())
    ratios = {
        clock: sorted(
            without[clock] / cached[clock]
            for cached, without in zip(done["cached"], done["uncached"], strict=True)
        )
        for clock in ("wall", "processor")
    }
    for clock, values in ratios.items():
        middle = statistics.median(values)
        print(f"{clock:9} {middle:.2f} ({values[0]:.2f}–{values[-1]:.2f}), target {TARGET}")
    top1 = ", ".join(f"{kind} {mean:.4f}" for kind, mean in means.items())
    print(f"top-1     {top1}, spread {spread:.4f}")
    if options.json:
        options.json.write_text(json.dumps({"runs": done, "ratios": ratios}, indent=2))
    fast = statistics.median(ratios["wall"]) >= TARGET
    sys.exit(0 if fast and means["cached"] >= means["uncached"] - spread else 1)


if __name__ == "__main__":
    main()
