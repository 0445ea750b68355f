"""What fine-tuning brings for its time: `finetune` beside a probe, late blocks and all blocks.

    python benchmarks/finetune.py --data NAME=FOLDER … elpv [--seeds 0 1 2] [--out DIR]
                                  [--trainings NAME …] [--minutes 20] [--json]

Each training is a `retinue train` of its own, with an empty cache of features. FOLDER has class
folders, or `train/` and `val/` or `test/` with class folders in each; where there is no `test/`,
`val/` is the test split. Where nothing is divided, half of each class trains and half tests, drawn
anew by each seed. `elpv` is the data that `elpv-dataset` brings, divided as the demo has it. All
blocks train with the first seed alone and are stopped after `--minutes` of all cores; what they
have kept until then is judged. The figure is the top-1 of the test split. Seconds are of the wall,
and of the processor divided by the number of cores, which other work on the machine changes less.
What is already in DIR is kept, so that the command can be interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RETINUE = [sys.executable, "-m", "retinue.cli"]
PROBE, FINETUNE, LATE, ALL = "probe", "finetune", "late blocks", "all blocks"
HEAD = """
model: {name: tf_efficientnet_lite0, weights: imagenet}
stages:
  - name: head
    trainable: head
    epochs: 20
    views: 2
    optimizer: {lr: 2.0e-3, weight_decay: 1.0e-2}
  - name: rest
    from_best: true
    frozen_batchnorm: true
    optimizer: {lr: 3.0e-4, weight_decay: 2.0e-2, layer_decay: 0.85}
    schedule: {warmup_epochs: 1}
    augment:
      crop_scale: [0.5, 1.0]
      colour: {brightness: 0.2, contrast: 0.2, saturation: 0.2}
    early_stop: {patience: 6}
    clip_norm: 5.0
"""
RECIPES = {
    PROBE: "linear-probe",
    FINETUNE: "finetune",
    LATE: HEAD + "    trainable: stages.5.2\n    views: 4\n    epochs: 8\n",
    ALL: HEAD + "    trainable: all\n    epochs: 12\n",
}
"""A shipped recipe's name, or the YAML of another one."""


def changes(data: Path | None, seed: int) -> list[str]:
    """The overrides that name and divide the data."""
    if data is None:
        shares = ["train=0.6375", "val=0.1125", "test=0.25", f"seed={seed}"]
        return [f"seed={seed}", "data.format=elpv", "input.fit=squash"] + [
            f"data.split.{share}" for share in shares
        ]
    whole = [f"seed={seed}", f"data={data}", f"data.split.seed={seed}"]
    if (data / "test").is_dir():
        return whole
    return [*whole, *(f"data.split.{share}" for share in ("train=0.5", "val=0", "test=0.5"))]


def with_test(data: Path, folder: Path) -> Path:
    """`data`, or a folder in `folder` that calls its `val/` `test/`."""
    if not (data / "val").is_dir() or (data / "test").is_dir():
        return data
    placed = folder / data.name
    placed.mkdir(parents=True, exist_ok=True)
    for ours, theirs in (("train", "train"), ("test", "val")):
        if not (placed / ours).exists():
            (placed / ours).symlink_to((data / theirs).absolute())
    return placed


def processor_seconds(pid: int) -> float:
    """What the running process `pid` has taken of the processor, divided by the number of cores;
    Linux only."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has just ended
        return 0.0
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK") / (os.cpu_count() or 1)


def figures(
    training: str, data: Path | None, seed: int, folder: Path, minutes: float
) -> dict[str, Any]:
    """Top-1 of the test split, and the seconds that it took."""
    kept = folder / "judged.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)  # of a benchmark that was interrupted
    recipe = RECIPES[training]
    if "\n" in recipe:
        file = folder.parent / f"{training.replace(' ', '-')}.yaml"
        file.write_text(recipe)
        recipe = str(file)
    with tempfile.TemporaryDirectory() as cache:
        command = [*RETINUE, "train", recipe, *changes(data, seed), "--out", str(folder), "--quiet"]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        process = subprocess.Popen(
            command, env={**os.environ, "RETINUE_CACHE": cache}, stdout=subprocess.DEVNULL
        )
        stopped = False
        while process.poll() is None:
            time.sleep(1)
            if training == ALL and not stopped and processor_seconds(process.pid) > 60 * minutes:
                stopped = True
                process.send_signal(signal.SIGTERM)
        code = process.wait()
        seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code != (143 if stopped else 0):
        sys.exit(f"{' '.join(command)} ended with {code}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    done = subprocess.run(
        [*RETINUE, "evaluate", str(folder), "--split", "test", "--json"],
        stdout=subprocess.PIPE,
        check=True,
    )
    judged = json.loads(done.stdout)
    result = {
        "top1": judged["top1"],
        "images": judged["images"],
        "seconds": round(seconds, 1),
        "processor_seconds": round(spent / (os.cpu_count() or 1), 1),
        "stopped": stopped,
    }
    kept.write_text(json.dumps(result))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trainings", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/finetune-benchmark"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for given in options.data:
        name, _, path = given.partition("=")
        data = with_test(Path(path), options.out / "data") if path else None
        for training in options.trainings:
            seeds = options.seeds[:1] if training == ALL else options.seeds
            folder = options.out / name
            judged = [
                figures(
                    training, data, seed,
                    folder / f"{training.replace(' ', '-')}-{seed}", options.minutes,
                )
                for seed in seeds
            ]  # fmt: skip
            values = [result["top1"] for result in judged]
            rows.append(
                {
                    "data": name,
                    "training": training,
                    "top1": [round(value, 4) for value in values],
                    "mean": round(statistics.mean(values), 4),
                    "sd": round(statistics.stdev(values), 4) if len(values) > 1 else None,
                    "images": judged[0]["images"],
                    "seconds": [result["seconds"] for result in judged],
                    "processor_seconds": [result["processor_seconds"] for result in judged],
                    "stopped": any(result["stopped"] for result in judged),
                }
            )
            if not options.json:
                row = rows[-1]
                sd = "" if row["sd"] is None else f" ± {row['sd']:.4f}"
                print(
                    f"{name:10} {training:12} {row['mean']:.4f}{sd}  {row['top1']}"
                    f"  wall {row['seconds']} s, processor {row['processor_seconds']} s"
                    + ("  (stopped)" if row["stopped"] else ""),
                    flush=True,
                )
    if options.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
