"""A figure that nothing can give is refused before the training begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

import retinue
from retinue.data.sources import Dataset
from retinue.data.targets.one_class import OneClass
from retinue.errors import UsageError
from retinue.sample import Sample
from retinue.tasks.classification.task import Classification
from retinue.training import prepare
from retinue.training.preflight import refuse_undefined
from retinue.training.recipe import load_recipe

pytestmark = pytest.mark.usefixtures("torch_alone")


def _train(recipe: Any, out: Path) -> None:
    retinue.train(recipe, out=out, report=False, quiet=True)


@pytest.mark.parametrize(
    ("metric", "expected"), [("top9", "no figure 'top9'"), ("auc", "no figure 'auc'")]
)
def test_a_figure_that_only_other_data_has_is_refused_before_the_network_is_built(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, metric: str, expected: str
) -> None:
    monkeypatch.setattr(prepare, "_network", lambda *_, **__: pytest.fail("it was built"))
    recipe = tiny.recipe(pictures, evaluation={"metric": metric})
    with pytest.raises(UsageError, match=rf"{expected}.*key evaluation\.metric.*top1"):
        _train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("labels", "metric", "said"),
    [
        ([0, 0, 0], "auc", r"auc is not defined on the validation split.*class 'b'.*top1, loss"),
        ([1, 1], "auc", r"no image of class 'a'"),
        ([None, None], None, "top1 is not defined.*none of its images has a label"),
        ([None], "loss", "none of its images has a label, key evaluation.metric, give the split"),
        ([0, 1, None], "auc", None),
        ([0], "balanced_accuracy", None),
        ([], "auc", None),
    ],
)
def test_a_figure_that_the_validation_split_cannot_have_is_refused(
    labels: list[int | None], metric: str | None, said: str | None
) -> None:
    task = Classification(("a", "b"))
    val = [
        Sample(str(k), target=None if label is None else OneClass(label))
        for k, label in enumerate(labels)
    ]
    recipe = load_recipe(
        {
            "model": {"name": "mnist_cnn", "weights": None},
            "stages": [{"epochs": 1}],
            "evaluation": {"metric": metric},
        }
    )
    dataset = Dataset(("a", "b"), {"train": val, "val": val})
    if said is None:
        refuse_undefined(recipe, task, dataset)
    else:
        with pytest.raises(UsageError, match=said):
            refuse_undefined(recipe, task, dataset)


@pytest.mark.parametrize("classes", ["ab", "abc", "abcdefg"])
@pytest.mark.parametrize("labels", [[], [None], [0, 0], [0, 1], [1, None], [0, 1, 0, 1, None]])
def test_what_is_not_defined_is_what_the_meter_has_no_figure_for(
    classes: str, labels: list[int | None]
) -> None:
    task = Classification(tuple(classes))
    samples = [
        Sample(str(k), target=None if label is None else OneClass(label))
        for k, label in enumerate(labels)
    ]
    meter = task.meter()
    even = np.log(np.full(len(classes), 1 / len(classes), np.float32))
    meter.update([even] * len(samples), samples)
    figures = meter.compute()
    none = {figure.name for figure in task.figures() if figures.get(figure.name) is None}
    assert set(task.undefined(samples)) == none


def test_before_the_start_a_run_is_refused_whose_metric_no_epoch_could_give(
    tmp_path: Path,
) -> None:
    data = tiny.write_pictures(tmp_path / "data", each=4)
    rows = ["path,label,split"]
    for k in range(4):
        rows += [f"red/{k:02d}.png,red,train", f"green/{k:02d}.png,green,{['train', 'val'][k > 1]}"]
    (data / "labels.csv").write_text("\n".join(rows))
    recipe = tiny.recipe(data / "labels.csv", evaluation={"metric": "auc"})
    with pytest.raises(UsageError, match="auc is not defined on the validation split"):
        _train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    three = tiny.recipe(data, evaluation={"metric": "auc"})
    (data / "labels.csv").unlink()
    with pytest.raises(UsageError, match="the validation gives no figure 'auc'"):
        _train(three, tmp_path / "run")
