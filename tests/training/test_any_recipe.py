"""Everything composes: whatever the schema allows trains, or is refused before its first step in
words; for every task that comes with the package."""

from __future__ import annotations

import csv
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from drawn_recipes import recipes
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image

import retinue
from retinue import modelfile
from retinue.errors import RetinueError, UsageError
from retinue.figures import refuse_not_finite
from retinue.tasks.shipped import SHIPPED

pytestmark = pytest.mark.usefixtures("only_torch")
SIDE = 48


def _picture(path: Path, rng: np.random.Generator) -> None:
    width, height = rng.integers(SIDE, 2 * SIDE, 2).tolist()
    Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)


def _classes(root: Path) -> Path:
    return tiny.write_pictures(root / "classes", each=6, side=SIDE)


def _labels(root: Path) -> Path:
    rng = np.random.default_rng(1)
    rows = [["path", "a", "b", "c", "split"]]
    for number in range(18):
        _picture(root / f"{number}.png", rng)
        said = [("1", "0", "")[k] for k in rng.choice(3, 3, p=[0.45, 0.45, 0.1])]
        rows.append([f"{number}.png", *said, ("train", "val", "test")[max(number - 11, 0) // 3]])
    rows[13][1:4] = ["1", "1", "0"]
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root / "labels.csv"


def _boxes(root: Path) -> Path:
    rng = np.random.default_rng(2)
    rows = [["filename", "class", "xmin", "ymin", "xmax", "ymax", "split"]]
    for number in range(18):
        _picture(root / f"{number}.png", rng)
        split = ("train", "val", "test")[max(number - 11, 0) // 3]
        for _ in range(number % 3 + 1):
            x, y, w, h = rng.integers(4, 22, 4).tolist()
            rows.append([f"{number}.png", "ab"[x % 2], *map(str, (x, y, x + w, y + h)), split])
    with (root / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root / "boxes.csv"


DATA: dict[str, Callable[[Path], Path]] = {
    "classification": _classes,
    "multilabel": _labels,
    "detection": _boxes,
}
SMALL_DETECTOR = {
    "name": "yolov3",
    "weights": None,
    "arguments": {"backbone": "mobilenet_v1_025", "widths": [4, 8, 8]},
}
CLASSIFIER = {"name": "tiny", "weights": None, "head": None}
SOME = 0.3
"""At least this share of what is drawn has to train: else little would be tried."""


def _base(task: str, data: Path, cache: Path) -> dict[str, Any]:
    model = SMALL_DETECTOR if task == "detection" else CLASSIFIER
    own = {"objectness_prior": 0.01} if task == "detection" else {}
    return {
        "model": model,
        "task_options": own,
        "data": {"path": str(data), "workers": 0},
        "cache": {"folder": str(cache)},
        "device": "cpu",
        "tensorboard": False,
    }


def _train(recipe: dict[str, Any], out: Path) -> str:
    """`trained`, or the words of the refusal."""
    refusal = None
    try:
        run = retinue.train(recipe, out=out, report=False, quiet=True)
    except UsageError as error:
        refusal = str(error)
    if refusal is not None:
        assert not (out / "metrics.csv").is_file(), f"refused after its first step: {refusal}"
        return refusal
    refuse_not_finite(run.figures, "drawn", mend="")
    assert json.loads((out / "metrics.json").read_text())["images"] >= 1
    described = modelfile.read_description(run.best)
    assert described.task == recipe["task"]
    predictor = retinue.load(run.best, engine="torch")
    answer = predictor(np.full((40, 60, 3), 90, np.uint8))
    json.dumps(answer.as_dict(), allow_nan=False)
    return "trained"


def _compose(task: str, root: Path, examples: int, *, fresh: bool) -> None:
    data = DATA[task](root)
    seen: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        derandomize=not fresh,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if fresh else (Phase.generate,),
    )
    @given(recipes(task, _base(task, data, root / "cache")))
    def each(recipe: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory(dir=root) as place:
            try:
                outcome = _train(recipe, Path(place) / "run")
            except RetinueError as error:
                raise AssertionError(f"{error}: {json.dumps(recipe['stages'])}") from error
        seen[outcome] += 1

    each()
    assert seen["trained"] >= SOME * seen.total(), seen


@pytest.mark.parametrize("task", SHIPPED)
def test_whatever_the_schema_allows_trains_or_is_refused(task: str, tmp_path: Path) -> None:
    _compose(task, tmp_path, 2 if task == "detection" else 5, fresh=False)


@pytest.mark.slow
@pytest.mark.parametrize("task", SHIPPED)
def test_many_that_are_drawn_anew(task: str, tmp_path: Path) -> None:
    _compose(task, tmp_path, 20 if task == "detection" else 60, fresh=True)
