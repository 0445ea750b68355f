"""Drawings of precision against recall, whatever was found."""

from __future__ import annotations

import numpy as np
from detections import scene

from retinue.evaluation.detections import gathered
from retinue.evaluation.matching import match
from retinue.evaluation.precision_recall import Curve, average_precision, best_f1, curves, pooled
from retinue.page.curve_plots import confidence, precision_recall
from retinue.page.plots import svg

WORDS = {"title": "Precision and recall", "answers": "boxes", "wanted": "objects"}


def test_a_few_classes_are_named_and_many_are_faint_with_their_mean() -> None:
    for classes, labels in ((3, ["cat 0", "cat 1"]), (9, ["each class", "mean of the classes"])):
        founds, truths = scene(40, classes, flags=False)
        of = gathered(founds, truths, classes)
        drawn = precision_recall(
            curves(of, match(of)), [f"cat {k}" for k in range(classes)], **WORDS
        )
        (axes,) = drawn.axes
        assert [text.get_text() for text in axes.get_legend().get_texts()] == labels
        for line in axes.get_lines():
            y = np.asarray(line.get_ydata())
            assert (np.diff(y) <= 1e-12).all()
            assert ((y >= 0) & (y <= 1)).all()


def test_the_area_under_a_drawn_line_is_the_average_precision() -> None:
    founds, truths = scene(60, 2, flags=False)
    of = gathered(founds, truths, 2)

    one, _ = curves(of, match(of))
    (line,) = precision_recall([one], ["cat"], **WORDS).axes[0].get_lines()
    drawn = np.mean(np.asarray(line.get_ydata()))
    assert abs(drawn - (average_precision(one) or 0)) < 0.02


def test_the_best_f1_is_marked_on_its_curve() -> None:
    founds, truths = scene(40, 3, flags=False)
    of = gathered(founds, truths, 3)
    together = pooled(of, match(of))
    best = best_f1(together)
    assert best is not None
    lines = confidence(together, best, answer="a box").axes[0].get_lines()
    by_label = {str(line.get_label()): line for line in lines}
    assert np.asarray(by_label["F1"].get_ydata()).max() <= best.f1 + 1e-9
    assert any(line.get_xdata()[0] == best.threshold for line in lines)
    assert "svg" in svg(confidence(together, None, answer="a box"), name="x", label="x")


def test_of_many_boxes_a_curve_keeps_those_with_high_scores() -> None:
    """Of 20,000 boxes only 20 score above 0.5."""
    score = np.sort(np.concatenate([np.linspace(0.5, 1, 20), np.linspace(0, 0.1, 20_000)]))[::-1]
    right = score > 0.5
    of = Curve(score, np.cumsum(right), np.cumsum(~right), 30)
    lines = {
        str(x.get_label()): x for x in confidence(of, None, answer="a box").axes[0].get_lines()
    }
    x = np.asarray(lines["recall"].get_xdata())
    assert (x >= 0.5).sum() == 20
    assert len(x) <= 400
    assert x.min() == 0
