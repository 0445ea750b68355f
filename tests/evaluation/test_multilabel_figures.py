"""Figures of any number of labels an image, against scikit-learn and numbers worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, log_loss, precision_score

from retinue.evaluation.multilabel import (
    Labelled,
    average_precision,
    best_threshold,
    best_thresholds,
    declared,
    declared_among,
    figures,
    held_back,
    remark,
)


def told(seed: int, images: int = 40, classes: int = 4, *, ties: bool = False) -> Labelled:
    rng = np.random.default_rng(seed)
    labels = rng.random((images, classes)) < rng.random(classes)
    scores = np.clip(0.5 * labels + rng.random((images, classes)) * 0.6, 0, 1)
    if ties:
        scores = scores.round(1)
    return Labelled(labels, np.ones_like(labels), scores)


@given(st.integers(0, 10_000), st.booleans())
def test_average_precision_is_that_of_scikit_learn(seed: int, ties: bool) -> None:
    of = told(seed, ties=ties)
    names = list("abcd")
    rows = figures(of, names, np.full(4, 0.5))["per_class"]
    theirs = []
    for k, row in enumerate(rows):
        if not of.labels[:, k].any():
            assert row["ap"] is None
            continue
        theirs.append(average_precision_score(of.labels[:, k], of.scores[:, k]))
        assert row["ap"] == pytest.approx(theirs[-1], abs=1e-12)
    found = figures(of, names, np.full(4, 0.5))["map"]
    assert found == (pytest.approx(np.mean(theirs), abs=1e-12) if theirs else None)


@given(st.integers(0, 10_000))
def test_the_other_figures_are_those_of_scikit_learn(seed: int) -> None:
    of = told(seed)
    thresholds = np.array([0.3, 0.5, 0.6, 0.9])
    found = figures(of, list("abcd"), thresholds)
    said = of.scores >= thresholds
    shown = of.labels.any(axis=0)
    if not shown.all():
        return
    quiet = {"zero_division": 0}
    assert found["f1_micro"] == pytest.approx(f1_score(of.labels, said, average="micro", **quiet))
    assert found["f1_macro"] == pytest.approx(f1_score(of.labels, said, average="macro", **quiet))
    if said.any():
        micro = precision_score(of.labels, said, average="micro", **quiet)
        assert found["precision"] == pytest.approx(micro)
    assert found["exact"] == pytest.approx((said == of.labels).all(axis=1).mean())
    flat = log_loss(of.labels.ravel(), np.clip(of.scores.ravel(), 1e-38, 1), labels=[False, True])
    if (of.scores < 1).all():
        assert found["loss"] == pytest.approx(flat, rel=1e-6)
    for name, (low, high) in found["intervals"].items():
        assert low - 1e-12 <= found[name] <= high + 1e-12, name
    json.dumps(found, allow_nan=False)


def test_by_hand() -> None:
    """Scores 0.9 0.8 0.7 0.6 with labels 1 0 1 0: at recall ½ precision 1, at recall 1 ⅔."""
    labels = np.array([[1, 0, 1, 0]], bool).T
    of = Labelled(labels, np.ones_like(labels), np.array([[0.9, 0.8, 0.7, 0.6]]).T)
    assert average_precision(of.curves[0]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert best_thresholds(of) == [pytest.approx(0.65)], "above it F1 is 4/5"
    assert best_threshold(of) == pytest.approx(0.65)
    (row,) = figures(of, ["a"], np.array([0.65]))["per_class"]
    assert (row["precision"], row["recall"], row["f1"]) == (2 / 3, 1.0, 0.8)


def test_a_few_images_of_a_class_do_not_decide() -> None:
    """One class of 200 images is best cut at 0.5; another has a single one, at 0.95. Alone it would
    be cut just below that, and with many of its own it is."""
    rng = np.random.default_rng(0)
    first = rng.random(200) < 0.5
    score = np.where(first, rng.uniform(0.45, 1, 200), rng.uniform(0, 0.55, 200))

    def both(single: int) -> Labelled:
        second = np.arange(200) < single
        other = np.where(second, 0.95, np.where(np.arange(200) < 2 * single, 0.8, 0.0))
        labels = np.stack([first, second], axis=1)
        return Labelled(labels, np.ones_like(labels), np.stack([score, other], axis=1))

    alone = best_thresholds(both(1), prior=0)
    assert alone is not None
    assert 0.8 < alone[1] < 0.95
    shrunk = best_thresholds(both(1))
    assert shrunk is not None
    assert 0.4 < shrunk[1] < 0.6
    own = best_thresholds(both(100))
    assert own is not None
    assert 0.8 < own[1] < 0.95
    assert best_thresholds(Labelled(*(np.zeros((3, 2), bool),) * 2, np.zeros((3, 2)))) is None


def test_a_few_labels_in_all_do_not_decide() -> None:
    """One label in six images: a sixth of the way in logits, by hand. With 500 on either side, 100
    of 101 parts of it."""
    labels = np.zeros((6, 3), bool)
    labels[2, 1] = True
    one = Labelled(labels, np.ones_like(labels), np.full(labels.shape, 0.005))
    (held,) = held_back([0.005], one, 0.5)
    assert held == pytest.approx(1 / (1 + (0.995 / 0.005) ** (1 / 6)))
    assert 0.29 < held < 0.3
    assert held_back([0.005], one, 0.005) == [pytest.approx(0.005)]
    assert held_back([0.2, 0.3], one, 0.5, doubt=0) == [0.2, 0.3]
    # What is there and what is not are the same to it, and what is not known is nothing.
    other = Labelled(~labels, np.ones_like(labels), one.scores)
    assert held_back([0.995], other, 0.5) == [pytest.approx(1 - held)]
    assert held_back([0.005], Labelled(labels, ~labels, one.scores), 0.5) == [0.5]
    many = np.arange(1000).reshape(500, 2) % 2 == 0
    (kept,) = held_back([0.2], Labelled(many, np.ones_like(many), many * 1.0), 0.5)
    assert kept == pytest.approx(1 / (1 + 4 ** (100 / 101)))
    assert all(0 < t < 1 for t in held_back([0.0, 1.0], one, 0.0) + held_back([0.5], one, 1.0))


def test_what_is_not_known_counts_nowhere() -> None:
    of = told(7)
    hidden = np.random.default_rng(1).random(of.labels.shape) < 0.3
    known = figures(Labelled(of.labels, ~hidden, of.scores), list("abcd"), np.full(4, 0.5))
    other = Labelled(of.labels ^ hidden, ~hidden, np.where(hidden, 0.123, of.scores))
    assert figures(other, list("abcd"), np.full(4, 0.5)) == known
    assert [row["images"] for row in known["per_class"]] == (~hidden).sum(axis=0).tolist()


def test_classes_without_images_have_no_figures_and_are_named() -> None:
    labels = np.array([[1, 0], [0, 0], [1, 0]], bool)
    scores = np.array([[0.9, 0.9], [0.2, 0.1], [0.4, 0.1]])
    found = figures(Labelled(labels, np.ones_like(labels), scores), ["a", "b"], np.full(2, 0.5))
    assert found["per_class"][1] | {"ap": None, "recall": None, "f1": None} == found["per_class"][1]
    assert found["map"] == 1.0
    assert remark(found) == (
        "“b” is in no image here, so it has no figures; means of the classes are those of the"
        " other one."
    )
    none = np.zeros((3, 2), bool)
    empty = figures(Labelled(none, ~none, scores), ["a", "b"], np.full(2, 0.5))
    assert (empty["map"], empty["f1_micro"], empty["recall"]) == (None, None, None)
    assert empty["precision"] == 0.0
    nothing = Labelled(none[:0], none[:0], scores[:0])
    assert figures(nothing, ["a", "b"], np.full(2, 0.5))["loss"] is None


def test_figures_are_declared() -> None:
    found = figures(told(3), list("abcd"), np.full(4, 0.5))
    names = [figure.name for figure in declared()]
    assert set(names) <= set(found)
    assert [figure.name for figure in declared_among(["loss", "map"], [])] == ["map", "loss"]
