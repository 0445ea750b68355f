"""Drawings of `retinue.evaluation.precision_recall.Curve`; see `retinue.page.plots`."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from retinue.evaluation.precision_recall import Curve, Point
from retinue.page.plots import THEME, blank, style
from retinue.page.statistics import Floats
from retinue.text import shorten

_NAMED = 3
"""Up to so many classes have a colour of their own in a drawing."""
_POINTS = 400
"""A line has no more."""


def precision_recall(
    curves: Sequence[Curve], names: Sequence[str], *, title: str, answers: str, wanted: str
) -> Figure:
    """Precision over recall, a line a class; with many classes faint ones, and their mean.
    `answers`, `wanted`: what is given and what is to be found, in the plural."""
    there = [(c, n) for c, n in zip(curves, names, strict=True) if c.objects]
    with matplotlib.rc_context(style()):
        figure = blank(4.6, 4.2)
        axes: Axes = figure.add_subplot()
        grid = np.linspace(0, 1, 201)
        drawn = [_envelope(curve, grid) for curve, _ in there]
        if len(there) <= _NAMED:
            colours = (THEME[name] for name in ("one", "two", "three"))
            for line, (_, name), colour in zip(drawn, there, colours, strict=False):
                axes.plot(grid, line, color=colour, label=shorten(name, 24))
        else:
            for line in drawn:
                axes.plot(grid, line, color=THEME["soft"], linewidth=0.8, alpha=0.35)
            axes.plot([], [], color=THEME["soft"], linewidth=0.8, alpha=0.6, label="each class")
            axes.plot(grid, np.mean(drawn, axis=0), color=THEME["one"], label="mean of the classes")
        axes.set_title(title)
        axes.set_xlabel(f"recall: found, of all {wanted}")
        axes.set_ylabel(f"precision: right, of all {answers}")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.005)
        if there:
            axes.legend(loc="lower left", fontsize=9)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        return figure


def confidence(curve: Curve, best: Point | None, *, answer: str) -> Figure:
    """Precision, recall and F1 over the least score with which an `answer` is given; the `best` F1
    is marked."""
    rows = curve.ends
    if len(rows) > _POINTS:  # evenly by the score: most have a low one
        grid = np.linspace(curve.score[rows[0]], curve.score[rows[-1]], _POINTS)
        rows = rows[np.unique(np.searchsorted(-curve.score[rows], -grid))]
    with matplotlib.rc_context(style()):
        figure = blank(4.6, 4.2)
        axes: Axes = figure.add_subplot()
        lines = {"precision": "one", "recall": "two", "f1": "three"}
        for name, colour in lines.items():
            label = "F1" if name == "f1" else name
            axes.plot(
                curve.score[rows], getattr(curve, name)[rows], color=THEME[colour], label=label
            )
        if best is not None and best.threshold is not None:
            axes.axvline(best.threshold, color=THEME["soft"], linestyle=":", linewidth=1.2)
            axes.plot([best.threshold], [best.f1], "o", color=THEME["three"], markersize=7)
        axes.set_title("What another confidence would give")
        axes.set_xlabel(f"least confidence of {answer}")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.005)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.legend(loc="best", fontsize=9)
        return figure


def _envelope(curve: Curve, grid: Floats) -> Floats:
    """The best precision at each recall of `grid` or more."""
    envelope = np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0.0)
    line: Floats = envelope[np.searchsorted(curve.recall, grid - 1e-12, side="left")]
    return line
