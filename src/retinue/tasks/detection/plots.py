"""The drawings on a detector's page; see `retinue.page.plots`."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from retinue.data.box_sizes import LARGE, SMALL
from retinue.evaluation.detections import Flags, Floats
from retinue.evaluation.precision_recall import Curve, Point
from retinue.page.plots import THEME, blank, style
from retinue.text import shorten

_NAMED = 3
"""Up to so many classes have a colour of their own in a drawing."""
_POINTS = 400
"""A line has no more."""
_SIDES = 2.0 ** np.arange(2, 12.5, 0.5)
"""Borders of the bins of objects' sides, in pixels."""


def precision_recall(curves: Sequence[Curve], names: Sequence[str]) -> Figure:
    """Precision over recall, a line a class; with many classes faint ones, and their mean."""
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
        axes.set_title("Precision and recall at IoU 0.5")
        axes.set_xlabel("recall: found, of all objects")
        axes.set_ylabel("precision: right, of all boxes")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.005)
        if there:
            axes.legend(loc="lower left", fontsize=9)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        return figure


def confidence(curve: Curve, best: Point | None) -> Figure:
    """Precision, recall and F1 of all boxes over the confidence; the `best` F1 is marked."""
    rows = curve.ends
    if len(rows) > _POINTS:  # evenly by the score: most boxes have a low one
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
        axes.set_xlabel("least confidence of a box")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.005)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.legend(loc="best", fontsize=9)
        return figure


def sizes(sides: Floats, found: Flags) -> Figure:
    """How many objects of each size there are, and how many of them were found. `sides`: (g,) the
    root of each object's area, in pixels of the original."""
    with matplotlib.rc_context(style()):
        figure = blank(4.6, 3.4)
        axes: Axes = figure.add_subplot()
        low = int(np.clip(np.searchsorted(_SIDES, sides.min(), "right") - 1, 0, len(_SIDES) - 2))
        high = int(np.clip(np.searchsorted(_SIDES, sides.max(), "left"), low + 1, len(_SIDES) - 1))
        borders = _SIDES[low : high + 1]
        inside = np.clip(sides, borders[0], borders[-1])
        every, _ = np.histogram(inside, borders)
        right, _ = np.histogram(inside[found], borders)
        widths = np.diff(borders) * 0.92
        axes.bar(borders[:-1], every, widths, align="edge", color=THEME["soft"], alpha=0.3,
                 label="objects")  # fmt: skip
        axes.bar(borders[:-1], right, widths, align="edge", color=THEME["one"], label="found")
        axes.set_xscale("log", base=2)
        for border in (SMALL, LARGE):
            if borders[0] < border < borders[-1]:
                axes.axvline(border, color=THEME["soft"], linestyle="--", linewidth=0.9, zorder=3)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.set_title("Sizes of the objects")
        axes.set_xlabel("side (root of the area), pixels")
        axes.set_ylabel("objects")
        axes.legend(loc="best", fontsize=9)
        return figure


def _envelope(curve: Curve, grid: Floats) -> Floats:
    """The best precision at each recall of `grid` or more."""
    envelope = np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0.0)
    line: Floats = envelope[np.searchsorted(curve.recall, grid - 1e-12, side="left")]
    return line
