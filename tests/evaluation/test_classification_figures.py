"""The figures of a classifier: by hand, against scikit-learn, and where they are not defined."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
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
    counts = c.confusion_counts(labels, scores.argmax(1))
    assert counts.true.tolist() == [0, 0, 1]
    assert counts.predicted.tolist() == [0, 1, 1]
    assert counts.count.tolist() == [1, 1, 2]
    assert found["per_class"][0] == {
        "name": "good",
        "precision": 1.0,
        "recall": 0.5,
        "specificity": 1.0,
        "f1": pytest.approx(2 / 3),
        "support": 2,
    }
    assert found["per_class"][1]["precision"] == pytest.approx(2 / 3)
    assert found["per_class"][1]["specificity"] == 0.5, "one of the two good ones was called bad"
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
    confusion = c.confusion_counts(labels, predicted)
    matrix = np.zeros((k, k), np.int64)
    matrix[confusion.true, confusion.predicted] = confusion.count
    assert matrix.tolist() == (reference.confusion_matrix(labels, predicted, labels=every).tolist())
    assert (confusion.count > 0).all(), "sparse"
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=np.nan
    )
    f1[support == 0] = np.nan  # scikit-learn: 0 where the absent class was answered
    here = np.flatnonzero(support).tolist()
    assert found["f1_macro"] == pytest.approx(
        reference.f1_score(labels, predicted, labels=here, average="macro", zero_division=0)
    )
    for i, row in enumerate(found["per_class"]):
        assert row["support"] == support[i]
        for key, value in (("precision", precision[i]), ("recall", recall[i]), ("f1", f1[i])):
            assert (row[key] is None) == bool(np.isnan(value))
            assert row[key] is None or row[key] == pytest.approx(value)
        if row["specificity"] is None:
            assert support[i] == n
        else:  # the recall of what is not of the class
            told = reference.recall_score(labels != i, predicted != i)
            assert row["specificity"] == pytest.approx(told)
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


def test_the_confusion_matrix_survives_its_file(tmp_path: Path) -> None:
    labels, scores = draw(60, 5, 3)
    counts = c.confusion_counts(labels, scores.argmax(1))
    names = ["a", "猫", "two\nlines", "d", "unseen"]
    pq.write_table(c.confusion_table(counts, names), tmp_path / "confusion.parquet")
    table = pq.read_table(tmp_path / "confusion.parquet")
    assert [str(field.type) for field in table.schema] == ["int32", "int32", "int64"]
    again, told = c.confusion_in(table)
    assert list(told) == names
    for name in ("true", "predicted", "count"):
        assert getattr(again, name).tolist() == getattr(counts, name).tolist()


def test_no_matrix_of_21843_classes_is_made() -> None:
    classes, images = 21_843, 300
    rng = np.random.default_rng(0)
    scores = rng.random((images, classes), dtype=np.float32)
    scores /= scores.sum(1, keepdims=True)
    labels = np.where(rng.random(images) < 0.5, scores.argmax(1), rng.integers(0, classes, images))
    names = [f"n{k:08d}" for k in range(classes)]
    tracemalloc.start()
    start = time.perf_counter()
    found = c.figures(labels, scores, names)
    table = c.confusion_table(c.confusion_counts(labels, scores.argmax(1)), names)
    seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6, "a dense matrix has 3.8 GB; the scores themselves have 26 MB"
    assert seconds < 2
    assert found["top1"] == (scores.argmax(1) == labels).mean()
    assert len(found["per_class"]) == classes
    assert table.num_rows <= images


def test_ranking_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores = draw(101, 7, 1)
    whole = [c.top_k_accuracy(labels, scores, k) for k in range(1, 8)]
    for size in (1, 7, 50, 7 * 101):
        monkeypatch.setattr(c, "_CHUNK", size)
        assert [c.top_k_accuracy(labels, scores, k) for k in range(1, 8)] == whole


def test_figures_hold_scalars_and_a_row_a_class() -> None:
    found = c.figures(*draw(50, 4, 0), list("abcd"))
    nested = {key for key, value in found.items() if isinstance(value, list | dict)}
    assert nested == {"per_class", "intervals"}


def test_a_class_without_images_has_no_figures_and_lowers_no_mean() -> None:
    """The answer `c` was wrong, which `a` has to bear; `d` was never seen nor said."""
    labels = np.array([0, 0, 1, 1])
    scores = np.eye(4)[[0, 2, 1, 1]]
    found = c.figures(labels, scores, list("abcd"))
    rows = {row["name"]: row for row in found["per_class"]}
    assert [rows[name]["f1"] for name in "abcd"] == [pytest.approx(2 / 3), 1.0, None, None]
    assert [rows[name]["recall"] for name in "abcd"] == [0.5, 1.0, None, None]
    assert [rows[name]["precision"] for name in "abcd"] == [1.0, 1.0, 0.0, None]
    assert [rows[name]["specificity"] for name in "abcd"] == [1.0, 1.0, 0.75, 1.0]
    assert found["f1_macro"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["balanced_accuracy"] == 0.75
    assert c.remark(found) == (
        "“c” and “d” have no images here, so they have no figures; means of the classes are over"
        " the other 2."
    )


def test_classes_that_are_absent_or_never_answered_are_named() -> None:
    one_sided = c.figures(np.array([0, 0]), np.array([[0.9, 0.1], [0.8, 0.2]]), ["cat", "dog"])
    assert one_sided["auc"] is None
    assert c.remark(one_sided) == (
        "“dog” has no images here, so it has no figures; means of the classes are those of the"
        " other one; AUC needs both."
    )
    missed = c.figures(np.array([0, 1, 2]), np.eye(3)[[0, 0, 0]], list("xyz"))
    assert c.remark(missed) == "“y” and “z” were never the answer."
    assert [row["f1"] for row in missed["per_class"]] == [0.5, 0.0, 0.0], "they were there"
    assert c.remark(c.figures(np.arange(3), np.eye(3), list("xyz"))) == ""
    nothing = c.figures(*draw(0, 3, 0), list("xyz"))
    assert c.remark(nothing) == "", "no image at all"
    many = c.figures(np.array([0]), np.eye(30)[[0]], [f"{k}" for k in range(30)])
    assert "“8” and 21 more have no images" in c.remark(many)
    for odd in ({}, {"per_class": None}, {"per_class": [3, {"name": "a"}]}):
        assert c.remark(odd) == ""


@pytest.mark.parametrize(
    ("classes", "top_k", "wanted"),
    [(2, 5, "top1 loss ece balanced_accuracy f1_macro auc"),
     (5, 5, "top1 loss ece balanced_accuracy f1_macro"),
     (6, 5, "top1 top5 loss ece balanced_accuracy f1_macro"),
     (6, 1, "top1 loss ece balanced_accuracy f1_macro")],
)  # fmt: skip
def test_every_declared_figure_is_measured(classes: int, top_k: int, wanted: str) -> None:
    names = [str(k) for k in range(classes)]
    declared = c.declared(names, top_k)
    assert " ".join(figure.name for figure in declared) == wanted
    found = c.figures(*draw(40, classes, 0), names, top_k=top_k)
    assert all(isinstance(found[figure.name], float) for figure in declared)
    assert c.declared_among(list(found), names) == declared
    if classes != top_k:
        assert c.declared_among(list(found), []) == declared, "without the names of the classes"
    assert {figure.name for figure in declared if figure.less_is_better} == {"loss", "ece"}


def test_a_score_that_is_no_number_is_never_right() -> None:
    labels = np.array([0, 1, 2])
    nowhere = np.full((3, 3), np.nan, dtype=np.float32)
    assert c.top_k_accuracy(labels, nowhere, 1) == 0.0
    assert c.top_k_accuracy(labels, nowhere, 3) == 0.0
    one = np.array([[0.5, 0.3, 0.2], [np.nan, 0.9, 0.1], [0.1, 0.2, 0.7]])
    assert c.top_k_accuracy(labels, one, 1) == pytest.approx(2 / 3)
