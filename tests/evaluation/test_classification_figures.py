"""The figures of a classifier: by hand, against scikit-learn, and where they are not defined."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.evaluation import classification as c


def draw(n: int, k: int, seed: int) -> tuple[c.Labels, c.Scores]:
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.ones(k), n).astype(np.float32)
    right = rng.random(n) < 0.6
    labels = np.where(right, scores.argmax(1), rng.integers(0, k, n)).astype(np.int64)
    return labels, scores


def test_figures_by_hand() -> None:
    labels = np.array([0, 0, 1, 1])
    scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    found = c.figures(labels, scores, ["good", "bad"])
    assert found["images"] == 4
    assert found["top1"] == 0.75
    assert found["top2"] == 1.0
    assert found["loss"] == pytest.approx(-np.log([0.9, 0.4, 0.8, 0.7]).mean())
    # Four bins hold one image each: |0.9 − 1|, |0.6 − 0|, |0.8 − 1|, |0.7 − 1|.
    assert found["ece"] == pytest.approx((0.1 + 0.6 + 0.2 + 0.3) / 4)
    assert found["auc"] == 1.0
    assert found["positive"] == "bad"
    assert found["confusion"] == [[1, 1], [0, 2]]
    assert found["per_class"][0] == {
        "name": "good",
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "support": 2,
    }
    assert found["per_class"][1]["precision"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == 0.75


def test_the_threshold_curve_by_hand() -> None:
    positive = np.array([True, False, True, False])
    curve = c.threshold_curve(positive, np.array([0.9, 0.8, 0.8, 0.1]))
    assert [row["threshold"] for row in curve] == [0.9, 0.8, 0.1]
    assert [row["precision"] for row in curve] == [1.0, pytest.approx(2 / 3), 0.5]
    assert [row["recall"] for row in curve] == [0.5, 1.0, 1.0]
    assert [row["tpr"] for row in curve] == [0.5, 1.0, 1.0]
    assert [row["fpr"] for row in curve] == [0.0, 0.5, 1.0]
    assert curve[1]["f1"] == pytest.approx(0.8)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 120), st.integers(2, 7), st.integers(0, 10_000))
def test_figures_equal_scikit_learn(n: int, k: int, seed: int) -> None:
    labels, scores = draw(n, k, seed)
    names = [f"class {i}" for i in range(k)]
    found = c.figures(labels, scores, names, top_k=3)
    predicted = scores.argmax(1)
    every = list(range(k))
    assert found["top1"] == pytest.approx(reference.accuracy_score(labels, predicted))
    if k > 3:
        expected = reference.top_k_accuracy_score(labels, scores, k=3, labels=every)
        assert found["top3"] == pytest.approx(expected)
    own = scores / scores.sum(1, keepdims=True)
    assert found["loss"] == pytest.approx(
        reference.log_loss(labels, own, labels=every), rel=1e-4, abs=1e-5
    )
    assert found["confusion"] == (
        reference.confusion_matrix(labels, predicted, labels=every).tolist()
    )
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=np.nan
    )
    for i, row in enumerate(found["per_class"]):
        assert row["support"] == support[i]
        for key, value in (("precision", precision[i]), ("recall", recall[i]), ("f1", f1[i])):
            assert (row[key] is None) == bool(np.isnan(value))
            assert row[key] is None or row[key] == pytest.approx(value)
    # Guo et al.'s sum over bins, one image at a time.
    gap = [0.0] * 15
    for row, label in zip(scores, labels, strict=True):
        gap[min(int(np.ceil(row.max() * 15)) - 1, 14)] += float(row.max()) - (row.argmax() == label)
    assert found["ece"] == pytest.approx(sum(map(abs, gap)) / n, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=60))
def test_auc_and_curve_equal_scikit_learn_with_ties(rows: list[tuple[bool, int]]) -> None:
    positive = np.array([p for p, _ in rows])
    score = np.array([s / 6 for _, s in rows])
    auc = c.area_under_roc(positive, score)
    if positive.all() or not positive.any():
        assert auc is None
        return
    assert auc == pytest.approx(reference.roc_auc_score(positive, score))
    curve = c.threshold_curve(positive, score)
    fpr, tpr, thresholds = reference.roc_curve(positive, score, drop_intermediate=False)
    assert [r["threshold"] for r in curve] == pytest.approx(list(thresholds[1:]))
    assert [r["fpr"] for r in curve] == pytest.approx(list(fpr[1:]))
    assert [r["tpr"] for r in curve] == pytest.approx(list(tpr[1:]))
    precision, recall, _ = reference.precision_recall_curve(positive, score)
    assert [r["precision"] for r in curve] == pytest.approx(list(precision[:-1][::-1]))
    assert [r["recall"] for r in curve] == pytest.approx(list(recall[:-1][::-1]))


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    score = np.linspace(1, 0, 5000)
    curve = c.threshold_curve(score > 0.5, score)
    assert len(curve) <= 200
    assert curve[0]["threshold"] == 1.0
    assert curve[-1]["threshold"] == 0.0
    assert curve[-1]["fpr"] == 1.0


def test_ties_go_to_the_first_class() -> None:
    scores = np.full((4, 4), 0.25)
    labels = np.array([0, 1, 2, 3])
    assert [c.top_k_accuracy(labels, scores, k) for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]
    assert c.figures(labels, scores, list("abcd"))["top1"] == 0.25


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("k", [2, 3, 6])
def test_degenerate_splits_have_null_figures(n: int, k: int) -> None:
    scores = np.full((n, k), 1 / k, dtype=np.float32)
    labels = np.zeros(n, dtype=np.int64)
    found = c.figures(labels, scores, [str(i) for i in range(k)])
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text)["images"] == n
    assert found["per_class"][1]["recall"] is None
    if k == 2:
        assert found["auc"] is None
    if n == 0:
        assert found["top1"] is None
        assert found["loss"] is None
        assert found["ece"] is None
        assert found["balanced_accuracy"] is None


def test_a_score_of_zero_gives_a_finite_loss() -> None:
    assert c.log_loss(np.array([1]), np.array([[1.0, 0.0]])) == pytest.approx(87.3, abs=0.1)


def test_k_beyond_the_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="k is 3, of 2 classes"):
        c.top_k_accuracy(np.array([0]), np.array([[1.0, 0.0]]), 3)
