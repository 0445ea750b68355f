"""Drawings that show several runs at once; see `retinue.page.plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from retinue.page.plots import THEME, blank, style
from retinue.text import shorten

COLOURS = ("one", "two", "three", "four", "five", "six")
"""Of the runs, in their order; further ones begin again, with another kind of line."""
_LINES = ("-", "--", ":")

Points = Sequence[tuple[float, float]]


def look(place: int) -> tuple[str, str]:
    """(colour's name in the theme, kind of line) of the run at `place`, from 0."""
    return COLOURS[place % len(COLOURS)], _LINES[place // len(COLOURS) % len(_LINES)]


def overlay(
    lines: Mapping[str, Points | None], *, title: str, across: str, fractions: bool = False
) -> Figure | None:
    """A line a run, by its name, in its own colour also where others have none; None where nobody
    has one. `across`: what the horizontal axis is."""
    if not any(lines.values()):
        return None
    with matplotlib.rc_context(style()):
        figure = blank(4.5, 3.2)
        axes: Axes = figure.add_subplot()
        for place, (name, points) in enumerate(lines.items()):
            if not points:
                continue
            colour, kind = look(place)
            x, y = zip(*points, strict=True)
            marker = "o" if len(points) < 3 else None
            axes.plot(x, y, kind, color=THEME[colour], marker=marker, markersize=3.2,
                      linewidth=1.5, label=shorten(name, 30))  # fmt: skip
        axes.set_title(title)
        axes.set_xlabel(across)
        axes.set_xlim(left=0)
        if across == "epoch":
            axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        if fractions:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol=" %"))
        axes.legend(loc="best", fontsize=8.5)
        return figure


def dots(
    points: Points, *, title: str, across: str, logarithmic: bool = False, fractions: bool = False
) -> Figure:
    """A dot a trial: its figure over the value of `across`."""
    with matplotlib.rc_context(style()):
        figure = blank(4.5, 3.2)
        axes: Axes = figure.add_subplot()
        x, y = zip(*points, strict=True)
        axes.plot(x, y, "o", color=THEME["one"], alpha=0.75, markersize=6)
        axes.set_title(title)
        axes.set_xlabel(across)
        if logarithmic:
            axes.set_xscale("log")
            # Between two powers of ten there would be no tick.
            ticks = [float(f"{v:.1e}") for v in np.geomspace(min(x), max(x), 4)]
            axes.set_xticks(ticks, [f"{v:g}" for v in ticks])
            axes.minorticks_off()
        if fractions:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol=" %"))
        return figure
