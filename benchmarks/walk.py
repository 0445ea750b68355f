"""One image's way: which files of the package are handed the image, from its path to the loss, and
from its path to the answer.

    python benchmarks/walk.py

A file counts if one of its functions is called with the image in whatever form it has there: a
sample, a row or plan of samples, encoded bytes, pixels, a batch, the network's input or its target.
The network itself (`models/`) is left out: how many files that is depends on the family. Listed are
all files of which a function runs in that step or answer; those that are handed the image are
marked.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import retinue

ROOT = Path(retinue.__file__).parent
FORMS = {"Sample", "Row", "BatchPlan", "Encoded", "Decoded", "Entry", "Batch", "Item", "Rendered"}


def _is_image(value: Any, depth: int = 0) -> bool:
    if type(value).__name__ in FORMS:
        return True
    if isinstance(value, np.ndarray):
        return value.dtype == np.uint8 and value.ndim >= 3
    if isinstance(value, torch.Tensor):
        return value.ndim == 4
    if isinstance(value, bytes):
        return len(value) > 100 and value[:2] in (b"\xff\xd8", b"\x89P")
    if isinstance(value, list | tuple) and depth < 2:
        return any(_is_image(part, depth + 1) for part in value[:4])
    return False


def walked(work: Callable[[], Any]) -> tuple[list[str], list[str]]:
    """The files that are handed an image while `work` runs, in the order of the first time; and
    all files of which anything runs."""
    files: dict[str, None] = {}
    every: dict[str, None] = {}

    def look(frame: Any, event: str, _: Any) -> None:
        if event != "call":
            return
        path = Path(frame.f_code.co_filename)
        if not path.is_relative_to(ROOT):
            return
        name = str(path.relative_to(ROOT))
        if name.startswith("models/"):
            return
        every[name] = None
        if name in files:
            return
        count = frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount
        arguments = [frame.f_locals.get(n) for n in frame.f_code.co_varnames[:count]]
        if any(_is_image(argument) for argument in arguments):
            files[name] = None

    threading.setprofile(look)
    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return list(files), list(every)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        rng = np.random.default_rng(0)
        for name in ("a", "b"):
            (root / "data" / name).mkdir(parents=True)
            for k in range(10):
                pixels = rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / "data" / name / f"{k}.jpg")
        recipe = {
            "model": {"name": "mnist_cnn", "weights": None},
            "data": {"path": str(root / "data"), "workers": 0, "on_bad_image": "skip"},
            "input": {"size": 28},
            "stages": [{"steps": 1, "batch_size": 4, "augment": {
                "crop_scale": [0.5, 1.0], "colour": {"brightness": 0.1, "contrast": 0.1}}}],
            "device": "cpu", "tensorboard": False,
        }  # fmt: skip
        run = retinue.train(recipe, out=root / "run", report=False, quiet=True)
        from retinue.training import trainer

        whole = trainer.Trainer._epoch
        found: list[list[str]] = []

        def epoch(self: Any, stage: Any) -> None:
            found.extend(walked(lambda: self._step(stage, next(self._steps(stage, 1)))))
            self.progress.step = self.progress.stage_steps = self.total
            whole(self, stage)

        trainer.Trainer._epoch = epoch  # type: ignore[method-assign]
        retinue.train(recipe, out=root / "again", report=False, quiet=True)
        trainer.Trainer._epoch = whole  # type: ignore[method-assign]
        picture = str(root / "data" / "a" / "0.jpg")
        predictor = retinue.load(run.folder, engine="torch")
        predicted = walked(lambda: predictor(picture))
        for title, (files, every) in (("training", found), ("predict", predicted)):
            print(f"{title}: {len(files)} files are handed the image, {len(every)} run")
            for file in every:
                print(f"  {file}{'  *' if file in files else ''}")


if __name__ == "__main__":
    main()
