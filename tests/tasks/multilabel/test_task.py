"""Multi-label classification: what it answers, merges, fits and keeps."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from flowers import batch_of

from retinue.data.targets.one_class import OneClass
from retinue.data.targets.several_labels import SeveralLabels
from retinue.errors import RetinueError, UsageError
from retinue.sample import Sample
from retinue.tasks.multilabel.meter import MultilabelMeter, probabilities
from retinue.tasks.multilabel.task import Multilabel, MultilabelOptions
from retinue.tasks.results import LabelsResult

NAMES = ["sea", "sky", "dog"]
LOGITS = torch.tensor([[3.0, 0.1, -3.0], [-1.0, -2.0, -3.0], [0.0, 5.0, 1.0]])


def task(classes: list[str] = NAMES, state: Any = None, **options: Any) -> Multilabel:
    return Multilabel(classes, MultilabelOptions(**options), state)


def samples(*targets: SeveralLabels | OneClass | None) -> list[Sample]:
    return [Sample(f"{k}.jpg", target=target) for k, target in enumerate(targets)]


def test_labels_above_their_thresholds_are_given_best_first() -> None:
    of = task(state={"thresholds": [0.5, 0.6, 0.7]})
    findings = of.decode({"logits": LOGITS.bfloat16()}, batch_of(3))
    found = [of.result(finding, f"{k}.jpg") for k, finding in enumerate(findings)]
    assert [[name for name, _ in result.answers()] for result in found] == [
        ["sea"], [], ["sky", "dog", "sea"],
    ]  # fmt: skip
    assert found[1].as_dict() == {"path": "1.jpg", "classes": []}
    assert found[1].told() == ["no label"]
    assert found[1].rows() == [["1.jpg", None, None]]
    assert isinstance(found[0], LabelsResult)
    np.testing.assert_allclose(found[0].scores, LOGITS[0].sigmoid(), atol=0.01)
    json.dumps([result.as_dict() for result in found], allow_nan=False)
    many = LabelsResult("a.jpg", [(f"c{k}", 0.9) for k in range(11)], (0.9,) * 11)
    assert many.told()[-1] == "and 3 more"
    assert len(many.fields()) == 11


def test_views_are_merged_by_mean_probability() -> None:
    own, other = (LOGITS[0].numpy(), np.array([-1.0, 2.0, 30.0], np.float32))
    merged = task().merge([own, other, other])
    mean = np.mean([probabilities(own), probabilities(other), probabilities(other)], axis=0)
    np.testing.assert_allclose(probabilities(merged), mean, rtol=1e-6)
    np.testing.assert_array_equal(task().join([own, other], [(0, 0, 1, 1)] * 2), [3.0, 2.0, 30.0])
    far = task().merge([np.full(3, 1e4, np.float32), np.full(3, -1e4, np.float32)])
    np.testing.assert_allclose(probabilities(far), 0.5)


def filled(of: Multilabel, images: int = 60) -> MultilabelMeter:
    """A class in half of the images, one in a tenth, one in none; the first two are recognised at
    logits above 1."""
    meter = of.meter()
    rng = np.random.default_rng(0)
    for k in range(images):
        there = tuple(c for c, every in enumerate((2, 10)) if k % every == 0)
        logits = np.full(3, -3.0, np.float32) + rng.normal(0, 0.1, 3).astype(np.float32)
        logits[list(there)] = 2.0
        meter.update([logits], samples(SeveralLabels(there, 3)))
    return meter


def test_thresholds_are_fitted_and_kept() -> None:
    of = task()
    meter = filled(of)
    fitted = of.fit(meter)["thresholds"]
    assert list(fitted) == NAMES
    assert fitted["sky"] == fitted["dog"], "6 and 0 images: as of all"
    assert all(0.05 < value < 0.88 for value in fitted.values())
    found = meter.compute()
    assert found["f1_micro"] == 1.0
    assert [row["threshold"] for row in found["per_class"]] == list(fitted.values())
    assert found["per_class"][2]["ap"] is None
    again = Multilabel(of.classes, of.options, json.loads(json.dumps(of.state())))
    assert again.state() == of.state()
    assert again.meter().compute() is not None
    loose = again.adjusted({"threshold": "0.01"})
    assert loose.result(np.full(3, -4.0, np.float32), "a").answers() != []
    assert again.adjusted({}).state() == of.state()
    assert task(thresholds="fixed", threshold=0.3).fit(filled(of)) == {}
    alike = task(thresholds="f1").fit(filled(of))["thresholds"]
    assert len(set(alike.values())) == 1
    nothing = task()
    assert set(nothing.fit(nothing.meter())["thresholds"].values()) == {0.5}


def test_one_label_does_not_decide_the_thresholds() -> None:
    """Scored 0.8 %, the others less: nothing likelier than that is given for it alone."""
    for how in ("f1_per_class", "f1"):
        of = task(thresholds=how)
        meter = of.meter()
        for k in range(6):
            logits = np.array([-4.9 if k == 2 else -5.7, -6.0, -6.0], np.float32)
            meter.update([logits], samples(SeveralLabels((0,) if k == 2 else (), 3)))
        assert all(0.25 < least < 0.5 for least in of.fit(meter)["thresholds"].values())
        assert of.result(np.full(3, -4.1, np.float32), "1.6 % each").answers() == []
    bold = task(threshold=0.1)
    assert all(0.05 < least < 0.1 for least in bold.fit(meter)["thresholds"].values())


@pytest.mark.parametrize(
    "wrong", [[0.5], [0.5, 2.0, 0.1], [0.5, "a", 0.1], "high", [float("nan")] * 3]
)
def test_thresholds_of_a_damaged_file_are_refused(wrong: Any) -> None:
    with pytest.raises(RetinueError, match=r"task_state\.thresholds"):
        task(state={"thresholds": wrong})


def test_a_meter_comes_to_the_same_in_parts_and_tells_its_table() -> None:
    of = task()
    whole, parts = filled(of), of.meter()
    parts.extend(filled(of, 31).rows())
    assert parts.compute()["images"] == 31
    joined = of.meter()
    joined.extend(whole.rows())
    assert joined.compute() == whole.compute()
    meter = of.meter(tables=True)
    meter.update(
        list(LOGITS.numpy()), samples(SeveralLabels((0, 2), 3), SeveralLabels((), 3, (1,)), None)
    )
    table = meter.tables()["predictions"]
    assert table["labels"].to_pylist() == [[0, 2], [], []]
    assert table["unknown"].to_pylist() == [[], [1], [0, 1, 2]]
    np.testing.assert_allclose(table["scores"].to_pylist(), LOGITS.sigmoid().numpy(), rtol=1e-6)
    assert meter.compute()["images"] == 2


def test_balanced_weights_come_from_what_is_known() -> None:
    train = samples(
        SeveralLabels((0,), 3, (2,)), SeveralLabels((0, 1), 3), SeveralLabels((0,), 3, (1,)),
        SeveralLabels((), 3),
    )  # fmt: skip
    made = Multilabel.prepared(NAMES, MultilabelOptions(positive_weights="balanced"), train)
    assert made.state() == {"positive_weights": [pytest.approx(1 / 3), 2.0, 1.0]}
    again = Multilabel(made.classes, made.options, made.state())
    weights = again.objective(again.build("mnist_cnn", {}, None)).positive_weights
    assert weights is not None
    assert weights.tolist() == pytest.approx([1 / 3, 2.0, 1.0])
    doubts = made.doubts(train, 100)
    assert doubts == ["no training image shows dog: it will not be recognised"]
    with pytest.raises(UsageError, match="none of the training images has a label"):
        Multilabel.prepared(NAMES, MultilabelOptions(), samples(SeveralLabels((), 3)))
    with pytest.raises(UsageError, match="2 weights for 3 classes"):
        task(positive_weights=[1.0, 2.0])


def test_weights_of_other_splits_do_not_keep_models_apart() -> None:
    one, other = (task(positive_weights="balanced", state={"positive_weights": [w, 1.0, 2.0]})
                  for w in (1.5, 1.6))  # fmt: skip
    assert one.state() != other.state()
    assert one.reads_like(other)
    assert not one.reads_like(task(NAMES[::-1]))


def test_figures_that_a_split_cannot_have_are_told() -> None:
    assert task().undefined(samples(SeveralLabels((0,), 3))) == {}
    assert set(task().undefined(samples(SeveralLabels((), 3)))) == {
        "map", "f1_macro", "f1_micro", "recall",
    }  # fmt: skip
    assert "loss" in task().undefined(samples(None))
    open_ = samples(SeveralLabels((0,), 3, (1,)), SeveralLabels((0, 1), 3, (2,)), None)
    assert set(task().undefined(open_)) == {"exact"}
    meter = task().meter()
    meter.update(list(LOGITS.numpy()), open_)
    assert [name for name, value in meter.compute().items() if value is None] == ["exact"]


def test_one_class_alone_is_a_question_too() -> None:
    of = task(["broken"])
    network = of.build("mnist_cnn", {}, None)
    assert network(torch.zeros(1, 3, *network.preprocessing.size))["logits"].shape == (1, 1)
    with pytest.raises(UsageError):
        task([])


def test_no_label_is_drawn_as_that() -> None:
    black = np.zeros((60, 120, 3), np.uint8)
    of = task()
    assert of.draw(black, LabelsResult("a", [], (0.1,) * 3)).any()
