"""The drawings on a detector's page."""

from __future__ import annotations

import numpy as np
from detections import scene

from retinue.evaluation.detections import gathered
from retinue.evaluation.matching import match
from retinue.evaluation.precision_recall import Curve, average_precision, best_f1, curves, pooled
from retinue.page.plots import svg
from retinue.tasks.detection import plots


def test_a_few_classes_are_named_and_many_are_faint_with_their_mean() -> None:
    for classes, labels in ((3, ["cat 0", "cat 1"]), (9, ["each class", "mean of the classes"])):
        founds, truths = scene(40, classes, flags=False)
        of = gathered(founds, truths, classes)
        drawn = plots.precision_recall(curves(of, match(of)), [f"cat {k}" for k in range(classes)])
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
    (line,) = plots.precision_recall([one], ["cat"]).axes[0].get_lines()
    drawn = np.mean(np.asarray(line.get_ydata()))
    assert abs(drawn - (average_precision(one) or 0)) < 0.02


def test_the_best_f1_is_marked_on_its_curve() -> None:
    founds, truths = scene(40, 3, flags=False)
    of = gathered(founds, truths, 3)
    together = pooled(of, match(of))
    best = best_f1(together)
    assert best is not None
    lines = plots.confidence(together, best).axes[0].get_lines()
    by_label = {str(line.get_label()): line for line in lines}
    assert np.asarray(by_label["F1"].get_ydata()).max() <= best.f1 + 1e-9
    assert any(line.get_xdata()[0] == best.threshold for line in lines)
    assert "svg" in svg(plots.confidence(together, None), name="x", label="x")


def test_every_object_is_in_a_bin_whatever_its_size() -> None:
    sides = np.array([0.1, 3.0, 20.0, 20.0, 500.0, 1e5])
    (axes,) = plots.sizes(sides, np.array([True, False, True, True, False, True])).axes
    every, found = axes.containers
    assert sum(bar.get_height() for bar in every) == 6
    assert sum(bar.get_height() for bar in found) == 4
    (axes,) = plots.sizes(np.array([50.0]), np.array([False])).axes
    assert sum(bar.get_height() for bar in axes.containers[0]) == 1


def test_of_many_boxes_a_curve_keeps_those_with_high_scores() -> None:
    """Of 20,000 boxes only 20 score above 0.5."""
    score = np.sort(np.concatenate([np.linspace(0.5, 1, 20), np.linspace(0, 0.1, 20_000)]))[::-1]
    right = score > 0.5
    of = Curve(score, np.cumsum(right), np.cumsum(~right), 30)
    lines = {str(x.get_label()): x for x in plots.confidence(of, None).axes[0].get_lines()}
    x = np.asarray(lines["recall"].get_xdata())
    assert (x >= 0.5).sum() == 20
    assert len(x) <= 400
    assert x.min() == 0
