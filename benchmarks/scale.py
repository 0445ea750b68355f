"""How time and memory grow with the data set: its index, `data check`, the first step of `train`.

    python benchmarks/scale.py [ROWS …] [--check] [--train] [--keep FOLDER]

One folder of 20,000 small JPEGs, and symbolic links to it, make as large a data set as is wanted.
Each figure is of a process of its own, which prints its seconds and its greatest memory; the ratio
is that of the seconds a row against the data set before.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    links = -(-rows // FILES)
    for data in (root / "table", root / "folder"):
        data.mkdir(exist_ok=True)
        for k in range(links):
            link = data / f"part{k:03d}"
            if not link.exists():
                link.symlink_to(files, target_is_directory=True)
    with open(root / f"{rows}.csv", "w", encoding="utf-8") as table:
        table.write("path,label\n")
        for k in range(rows):
            table.write(f"table/part{k // FILES:03d}/{k % FILES:06d}.jpg,class {k % CLASSES}\n")


def index(root: Path, rows: int) -> None:
    """The table read, matched with files, divided and written down."""
    from retinue.data.options import DataOptions
    from retinue.data.sources import open_dataset
    from retinue.tasks.task import task_type

    readers = task_type("classification").readers()
    start = time.perf_counter()
    dataset = open_dataset(DataOptions(path=str(root / f"{rows}.csv")), readers)
    found = time.perf_counter()
    dataset.write_splits(root / "splits.csv")
    written = time.perf_counter()
    assert sum(map(len, dataset.splits.values())) == rows
    print(f"index {found - start:.2f} s, splits.csv {written - found:.2f} s", end="")


def folder(root: Path, rows: int) -> None:
    """The same images as class folders."""
    from retinue.data.options import DataOptions
    from retinue.data.sources import open_dataset
    from retinue.tasks.task import task_type

    options = DataOptions(path=str(root / "folder"), format="folder")
    start = time.perf_counter()
    dataset = open_dataset(options, task_type("classification").readers())
    images = sum(map(len, dataset.splits.values()))
    print(f"folders of {images:,}: {time.perf_counter() - start:.2f} s", end="")


def check(root: Path, rows: int) -> None:
    """`retinue data check`."""
    import retinue

    start = time.perf_counter()
    retinue.check_data(root / f"{rows}.csv")
    print(f"data check {time.perf_counter() - start:.2f} s", end="")


def train(root: Path, rows: int) -> None:
    """`train` of a tiny network up to its first step."""
    import retinue
    from retinue.training.trainer import Trainer

    class FirstStepError(Exception):
        """Not an error: as far as is measured."""

    step = Trainer._step

    def first(*given: object) -> None:
        step(*given)
        raise FirstStepError

    Trainer._step = first
    start = time.perf_counter()
    recipe = {
        "model": {"name": "mnist_cnn", "weights": None},
        "data": {"path": str(root / f"{rows}.csv"), "workers": 2},
        "stages": [{"name": "all", "trainable": "all", "epochs": 1, "batch_size": 32}],
        "device": "cpu",
        "tensorboard": False,
    }
    with contextlib.suppress(FirstStepError):
        retinue.train(recipe, out=root / "run", report=False, quiet=True)
    print(f"first step of train {time.perf_counter() - start:.2f} s", end="")


PARTS = {"index": index, "folder": folder, "check": check, "train": train}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, default=list(ROWS))
    parser.add_argument("--check", action="store_true", help="also data check: each image decoded")
    parser.add_argument("--train", action="store_true", help="also the first step of a training")
    parser.add_argument("--keep", type=Path, help="a folder for the data, to be used again")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        PARTS[asked.part](asked.keep, asked.rows[0])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f", peak {peak:.2f} GB")
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = (asked.keep or Path(temporary)).absolute()
        for rows in asked.rows:
            make(root, rows)
            parts = ["index", "folder", *["check"] * asked.check, *["train"] * asked.train]
            for part in parts:
                command = [sys.executable, __file__, str(rows), "--part", part, "--keep", str(root)]
                print(f"{rows:>9,}", end=" ", flush=True)
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
