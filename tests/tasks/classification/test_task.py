"""The classification task: what it refuses, what it answers, and what it merges."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from flowers import LOGITS, batch_of, findings, task
from pydantic import ValidationError

from retinue.errors import RetinueError, UsageError
from retinue.tasks.classification.task import Classification, ClassificationOptions
from retinue.tasks.results import ClassResult


@pytest.mark.parametrize("classes", [[], ["only"], ["a", "b", "a"]])
def test_too_few_or_doubled_classes_are_refused(classes: list[str]) -> None:
    with pytest.raises(UsageError):
        task(classes)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0, -1.0], [0.0, 0.0, 0.0]])
def test_impossible_class_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(UsageError, match="class_weights"):
        task(class_weights=weights)


def test_a_sketch_has_a_class_for_each_weight() -> None:
    options = ClassificationOptions(class_weights=[1.0, 2.0, 0.5])
    assert len(Classification.sketch(options).classes) == 3
    assert len(Classification.sketch(ClassificationOptions()).classes) == 2


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValidationError):
        ClassificationOptions(label_smothing=0.1)  # type: ignore[call-arg]


def test_findings_are_log_probabilities_whatever_the_precision() -> None:
    for logits in (LOGITS, LOGITS.bfloat16(), LOGITS.double()):
        found = task().decode(logits, batch_of(4))
        assert [finding.shape for finding in found] == [(3,)] * 4
        assert {finding.dtype for finding in found} == {np.dtype(np.float32)}
        expected = LOGITS.log_softmax(1).numpy()
        np.testing.assert_allclose(np.stack(found), expected, atol=0.02)


def test_a_network_of_other_classes_than_are_named_is_refused() -> None:
    with pytest.raises(RetinueError, match="gives 3 scores, and the model names 2 classes"):
        task(["a", "b"]).decode(LOGITS, batch_of(4))


def test_results_are_best_first_and_end_at_top_k() -> None:
    short = task(top_k=2)
    results = [short.result(f, f"{k}.jpg") for k, f in enumerate(findings())]
    assert all(isinstance(result, ClassResult) for result in results)
    assert [r.path for r in results] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert [name for name, _ in results[0].answers()] == ["lily", "tulip"]
    assert [name for name, _ in results[1].answers()] == ["lily", "rose"]
    assert results[0].answers()[0][1] == pytest.approx(float(LOGITS[0].softmax(0)[0]))
    assert len(task().result(findings()[0], "a").answers()) == 3
    json.dumps(results[0].as_dict(), allow_nan=False)


def test_views_are_merged_by_mean_probability() -> None:
    own, other = findings()[0], findings(torch.tensor([[0.0, 4.0, 0.0]]))[0]
    for views in ([own, other], [own, other, other], [own]):
        merged = task().merge(views)
        assert merged.dtype == np.float32
        mean = np.mean([np.exp(view) for view in views], axis=0)
        np.testing.assert_allclose(np.exp(merged), mean, rtol=1e-5)
        assert np.exp(merged).sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(task().merge([other, own]), task().merge([own, other]), rtol=1e-6)


def test_one_classifier_and_two_answer_together() -> None:
    one = np.log(np.array([0.5, 0.25, 0.25], np.float32))
    two = np.log(np.array([[0.1, 0.1, 0.8], [0.2, 0.2, 0.6], [0.6, 0.2, 0.2]], np.float32))
    for findings_ in ([one, two], [two, one]):
        merged = task().merge(findings_)
        np.testing.assert_allclose(np.exp(merged), [0.3, 0.175, 0.525], rtol=1e-5)
    weighed = task().weighed([two, one], [0.75, 0.25])
    np.testing.assert_allclose(np.exp(weighed), [0.2, 0.1375, 0.6625], rtol=1e-5)
    assert task().merge([two, two]).shape == task().weighed([two], [1.0]).shape == (3, 3)


def test_merging_extreme_views_stays_finite() -> None:
    logits = torch.tensor([[300.0, -300.0, 0.0], [-300.0, 300.0, 0.0]])
    assert np.isfinite(task().merge(findings(logits))).all()


def test_a_task_is_remade_from_its_state() -> None:
    weighed = task(class_weights=[1.0, 2.0, 0.5])
    state = {**weighed.state(), "temperature": 1.75}
    again = Classification(weighed.classes, weighed.options, json.loads(json.dumps(state)))
    assert again.state() == {"class_weights": [1.0, 2.0, 0.5], "temperature": 1.75}
    assert again.fitted() == {"temperature": 1.75}
    assert task().state() == {}


def test_the_network_has_an_output_a_class() -> None:
    network = task().build("mnist_cnn", {}, None)
    assert network(torch.zeros(1, 3, *network.preprocessing.size))["logits"].shape == (1, 3)


@pytest.mark.parametrize("temperature", ["hot", 0, -1.0, math.inf, math.nan, None])
def test_a_temperature_that_is_none_is_refused(temperature: object) -> None:
    with pytest.raises(RetinueError, match=r"key task_state\.temperature"):
        Classification(task().classes, task().options, {"temperature": temperature})
