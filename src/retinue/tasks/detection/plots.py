"""The drawings on a detector's page; see `retinue.page.plots`."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from retinue.data.box_sizes import LARGE, SMALL
from retinue.evaluation.detections import Flags, Floats
from retinue.page.plots import THEME, blank, style

_SIDES = 2.0 ** np.arange(2, 12.5, 0.5)
"""Borders of the bins of objects' sides, in pixels."""


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
