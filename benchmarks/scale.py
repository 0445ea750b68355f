"""How time and memory grow with the data set: its index, `data check`, the first step of `train`.

    python benchmarks/scale.py [ROWS …] [--check] [--train] [--keep FOLDER] [--json [FILE]]

One folder of 20,000 small JPEGs, and symbolic links to it, make as large a data set as is wanted.
Each figure is of a process of its own, which prints its seconds, those that it took of the
processor, which other work on the machine changes less, and its greatest memory; the ratio is that
of the processor's seconds a row against the data set before.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from results import add_json, leave
from retinue import api
from retinue.data.options import DataOptions
from retinue.data.sources import Dataset, open_dataset
from retinue.tasks.task import task_type
from retinue.training.trainer import Trainer

FILES, CLASSES = 20_000, 1000
ROWS = (10_000, 100_000, 1_280_000)


def make(root: Path, rows: int) -> None:
    """A table of `rows` images, and the same as class folders."""
    from PIL import Image

    files = root / "files"
    if not files.is_dir():
        files.mkdir(parents=True)
        first = files / "000000.jpg"
        Image.effect_noise((32, 32), 60).convert("RGB").save(first, quality=80)
        content = first.read_bytes()
        for k in range(1, FILES):
            (files / f"{k:06d}.jpg").write_bytes(content)
        settled = time.time() - 60  # what has just been written may still change
        for k in range(FILES):
            os.utime(files / f"{k:06d}.jpg", (settled, settled))
    for data, links in (
        (root / "table", -(-rows // FILES)),
        (root / f"folder{rows}", rows // FILES),
    ):
        data.mkdir(exist_ok=True)
        for k in range(max(links, 2)):
            link = data / f"part{k:03d}"
            if not link.exists():
                link.symlink_to(files, target_is_directory=True)
    with open(root / f"{rows}.csv", "w", encoding="utf-8") as table:
        table.write("path,label\n")
        for k in range(rows):
            table.write(f"table/part{k // FILES:03d}/{k % FILES:06d}.jpg,class {k % CLASSES}\n")


def index(root: Path, rows: int) -> int:
    """The index of the table: read, matched with files, divided."""
    assert sum(map(len, _opened(path=str(root / f"{rows}.csv")).splits.values())) == rows
    return rows


def folder(root: Path, rows: int) -> int:
    """The index of class folders."""
    found = _opened(path=str(root / f"folder{rows}"), format="folder")
    return sum(map(len, found.splits.values()))


def written(root: Path, rows: int) -> int:
    """The index, and its splits.csv."""
    _opened(path=str(root / f"{rows}.csv")).write_splits(root / "splits.csv")
    return rows


def _opened(**options: str) -> Dataset:
    return open_dataset(DataOptions(**options), task_type("classification").readers())


def check(root: Path, rows: int) -> int:
    """data check."""
    api.check_data(root / f"{rows}.csv")
    return rows


def train(root: Path, rows: int) -> int:
    """The first step of train, by a tiny network."""

    class FirstStepError(Exception):
        """Not an error: as far as is measured."""

    step = Trainer._step

    def first(*given: Any) -> None:
        step(*given)
        raise FirstStepError

    Trainer._step = first
    recipe = {
        "model": {"name": "mnist_cnn", "weights": None},
        "data": {"path": str(root / f"{rows}.csv"), "workers": 2},
        "stages": [{"name": "all", "trainable": "all", "epochs": 1, "batch_size": 32}],
        "device": "cpu",
        "tensorboard": False,
    }
    with contextlib.suppress(FirstStepError):
        api.train(recipe, out=root / "run", report=False, quiet=True)
    return rows


PARTS = {
    "index": (index, "index of the table"),
    "written": (written, "index, and its splits.csv"),
    "folder": (folder, "index of class folders"),
    "check": (check, "data check"),
    "scan": (train, "first step of train, images looked at"),
    "train": (train, "first step of train, these remembered"),
}


TARGETS = {"index": (20.0, 2.0), "train": (60.0, None)}
"""Seconds and GB, of the greatest data set."""


def results(part: str, rows: int, seconds: float, used: float, peak: float) -> list[dict[str, Any]]:
    """As benchmarks/README.md tells: seconds and memory of a part."""
    most = TARGETS.get(part, (None, None)) if rows >= ROWS[-1] else (None, None)
    case = f"{PARTS[part][1]}, {rows:,} rows"
    nothing = {"claim": "scale", "ratio": None, "low": None, "high": None, "better": "less"}
    return [
        {**nothing, "case": case, "ours": seconds, "unit": "s", "target": most[0],
         "note": f"{used:.1f} s of the processor"},
        {**nothing, "case": f"{case}, memory", "ours": peak, "unit": "GB", "target": most[1]},
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("rows", nargs="*", type=int, default=list(ROWS))
    parser.add_argument("--check", action="store_true", help="also data check: each image decoded")
    parser.add_argument("--train", action="store_true", help="also the first step of a training")
    parser.add_argument("--keep", type=Path, help="a folder for the data, to be used again")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    add_json(parser)
    asked = parser.parse_args()
    if asked.part:
        start, imported = time.perf_counter(), time.process_time()
        count = PARTS[asked.part][0](asked.keep, asked.rows[0])
        seconds = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(count, seconds, used.ru_utime + used.ru_stime - imported, used.ru_maxrss / 1e6)
        return
    parts = ["index", "written", "folder", *["check"] * asked.check]
    parts += ["scan", "train"] if asked.train else []
    before: dict[str, tuple[int, float]] = {}
    told: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        root = (asked.keep or Path(temporary)).absolute()
        env = {**os.environ, "RETINUE_CACHE": str(root / "cache")}
        for rows in asked.rows:
            make(root, rows)
            for part in parts:
                command = [sys.executable, __file__, str(rows), "--part", part, "--keep", str(root)]
                answer = subprocess.run(
                    command, check=True, stdout=subprocess.PIPE, text=True, env=env
                )
                count, seconds, used, peak = map(float, answer.stdout.split()[-4:])
                line = f"{count:>11,.0f}  {PARTS[part][1]:<38} {seconds:7.2f} s"
                line += f", processor {used:7.2f} s, {peak:5.2f} GB"
                told += results(part, int(count), seconds, used, peak)
                if part in before:
                    fewer, faster = before[part]
                    decades = math.log10(count / fewer)
                    each = (used / count) / (faster / fewer)
                    line += f"  × {each ** (1 / decades):.2f} a row and decade"
                before[part] = int(count), used
                if asked.json != "-":
                    print(line, flush=True)
    leave("scale", told, asked.json)


if __name__ == "__main__":
    main()
