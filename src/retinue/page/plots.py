"""The report's drawings, by matplotlib's object API (no pyplot, no shared state).

Each function returns a `Figure`; `png` writes it for the run folder, `svg` turns it into themed
markup for the page: the colours of `THEME` become CSS variables, so that one drawing serves light
and dark, screen and paper.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from retinue.evaluation.classification import Confusion
from retinue.figures import wilson
from retinue.files import replacing
from retinue.page.record import RunRecord, number
from retinue.page.statistics import Floats, coarse
from retinue.text import shorten

THEME = {
    "ink": "#1c2128",
    "soft": "#5c6670",
    "line": "#d4d9df",
    "one": "#2463c7",
    "two": "#c4620a",
    "three": "#1c8057",
    "four": "#8a3fb8",
    "five": "#b02a63",
    "six": "#0b7285",
}
"""CSS variable → its colour in the light theme, which is also the colour in the PNG files."""

_FAR = 20
"""Learning rates that differ by more than this factor do not share a linear axis."""
_MOST_SIDE_BY_SIDE = 3
_WEIGHTY = 30
"""A bin of so many images is drawn in full strength."""
_CJK = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Hiragino Sans", "Microsoft YaHei", "SimHei")


@cache
def _families() -> list[str]:
    known = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _CJK if name in known)]


def style() -> Any:  # matplotlib types the keys as literals
    """What a drawing is made under: `matplotlib.rc_context(style())`."""
    return {
        "font.family": _families(),
        "font.size": 9.5,
        "text.parse_math": False,  # a class may be called $x$
        "text.color": THEME["ink"],
        "axes.labelcolor": THEME["soft"],
        "axes.edgecolor": THEME["line"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.titlesize": 10.5,
        "axes.titlelocation": "left",
        "axes.titlecolor": THEME["ink"],
        "grid.color": THEME["line"],
        "grid.linewidth": 0.6,
        "xtick.color": THEME["line"],
        "ytick.color": THEME["line"],
        "xtick.labelcolor": THEME["soft"],
        "ytick.labelcolor": THEME["soft"],
        "legend.frameon": False,
        "legend.labelcolor": THEME["ink"],
        "lines.linewidth": 1.8,
        "lines.solid_capstyle": "round",
        "svg.fonttype": "none",
        "svg.hashsalt": "retinue",
    }


def blank(width: float, height: float) -> Figure:
    """An empty drawing of so many inches."""
    return Figure(figsize=(width, height), layout="constrained")


def curves(
    rows: Sequence[dict[str, Any]],
    keys: Sequence[str],
    *,
    title: str,
    fractions: bool,
    kept: float | None = None,
) -> Figure | None:
    """One line for each of `keys` over the epochs of `rows`; None when nothing was measured.

    Where the stage changes there is a dashed line, and each stage's name stands above its part;
    the epoch `kept` is marked.
    """
    epochs = [float(row["epoch"]) for row in rows]
    with matplotlib.rc_context(style()):
        figure = blank(4.5, 3.2)
        axes: Axes = figure.add_subplot()
        drawn = 0
        for key, colour in zip(keys, _cycle(len(keys)), strict=True):
            points = [(e, v) for e, row in zip(epochs, rows, strict=True)
                      if (v := number(row.get(key))) is not None]  # fmt: skip
            if not points:
                continue
            drawn += 1
            x, y = zip(*points, strict=True)
            marker = "o" if len(points) < 25 else None
            axes.plot(x, y, color=colour, marker=marker, markersize=3.2, label=_plain(key))
            if kept is not None and kept in x and key.startswith("val_"):
                axes.plot([kept], [y[x.index(kept)]], "o", color=colour, markersize=9,
                          fillstyle="none", markeredgewidth=1.6)  # fmt: skip
        if not drawn:
            return None
        # All curves of a training span its epochs, however seldom something was measured.
        axes.update_datalim([(epoch, y[-1]) for epoch in (epochs[0], epochs[-1])])
        axes.autoscale_view()
        _mark_stages(axes, rows, epochs)
        axes.set_title(title, pad=18)
        axes.set_xlabel("epoch")
        _epoch_axis(axes)
        if fractions:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol=" %"))
        axes.legend(loc="best", fontsize=9)
        return figure


def learning_rate(
    rows: Sequence[dict[str, Any]], schedules: Mapping[str, str] | None = None
) -> Figure | None:
    """The learning rate over the epochs. `schedules`: stage → name of its schedule.

    The axis is linear, as rates mostly fall along a cosine, which a logarithm would make a cliff;
    it is logarithmic where they fall by factors (`step`). Stages whose rates lie far apart have an
    axis each, side by side.
    """
    parts: list[tuple[str, list[tuple[float, float]]]] = []
    for row in rows:
        rate, stage = number(row.get("lr")), str(row.get("stage", ""))
        if rate is not None:
            if not parts or parts[-1][0] != stage:
                parts.append((stage, []))
            parts[-1][1].append((float(row["epoch"]), rate))
    if not parts:
        return None
    peaks = [peak for _, points in parts if (peak := max(rate for _, rate in points)) > 0]
    apart = bool(peaks) and max(peaks) > _FAR * min(peaks)
    groups = [[part] for part in parts] if apart and len(parts) <= _MOST_SIDE_BY_SIDE else [parts]
    with matplotlib.rc_context(style()):
        figure = blank(4.5, 3.2)
        epochs = [sum(len(points) for _, points in group) for group in groups]
        widths = [max(count / sum(epochs), 0.25) for count in epochs]
        drawn = figure.subplots(1, len(groups), width_ratios=widths, squeeze=False)[0]
        for axes, group, width in zip(drawn, groups, widths, strict=True):
            _rates(axes, group, schedules or {}, apart=apart and len(group) > 1)
            _epoch_axis(axes, ticks=max(2, round(8 * width)))
        figure.suptitle("Learning rate", x=0.01, ha="left", fontsize=10.5)
        figure.supxlabel("epoch", fontsize=9.5, color=THEME["soft"])
        return figure


def _rates(
    axes: Axes,
    parts: Sequence[tuple[str, list[tuple[float, float]]]],
    schedules: Mapping[str, str],
    *,
    apart: bool,
) -> None:
    """The stages' (epoch, rate) on one pair of axes."""
    for stage, points in parts:
        x, y = zip(*points, strict=True)
        if apart:  # a logarithm has no place for 0
            y = tuple(rate if rate > 0 else math.nan for rate in y)
        falls = schedules.get(stage) == "step"
        marker = "o" if len(points) < 25 and not falls else None
        axes.plot(x, y, color=THEME["three"], marker=marker, markersize=3.2,
                  drawstyle="steps-mid" if falls else "default")  # fmt: skip
    rates = [rate for _, points in parts for _, rate in points if rate > 0]
    steps = all(schedules.get(stage) == "step" for stage, _ in parts)
    if rates and (apart or (steps and max(rates) > _FAR * min(rates))):
        lowest = min(max(rate for _, rate in points) for _, points in parts) / _FAR
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(lowest, min(rates) / 2) if apart else None)
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}".replace("e-0", "e-")))
    marks = [{"stage": stage} for stage, points in parts for _ in points]
    _mark_stages(axes, marks, [epoch for _, points in parts for epoch, _ in points])


def _epoch_axis(axes: Axes, ticks: int = 8) -> None:
    """Whole epochs, a single one in the middle."""
    axes.margins(x=0.03)
    left, right = axes.get_xlim()
    if right - left < 1:
        axes.set_xlim(round(left) - 0.5, round(left) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=ticks, min_n_ticks=1))


def calibration(
    bins: Sequence[dict[str, Any]],
    *,
    answer: str = "confidence (highest score)",
    right: str = "share that was right",
    of: str = "images",
) -> Figure:
    """Accuracy against confidence: each bin at its own means, as large as it has images, with its
    95 % interval; below, how many images each bin has.

    `bins`: as `evaluation.calibration.binned` makes them; what its axes are called.
    """
    filled = [b for b in bins if b["images"]]
    most = max((b["images"] for b in filled), default=1)
    with matplotlib.rc_context(style()):
        figure = blank(4.6, 4.4)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], "--", color=THEME["soft"], linewidth=1.2, label="ideal")
        for b in filled:
            x, y, n = b["confidence"], b["accuracy"], b["images"]
            # What few images say is drawn as lightly as it weighs.
            weight = 0.35 + 0.65 * min(1.0, n / _WEIGHTY)
            upper.vlines(x, *wilson(y * n, n), color=THEME["one"], linewidth=1.4, alpha=weight)
            upper.scatter([x], [y], s=14 + 130 * n / most, color=THEME["one"], alpha=weight,
                          linewidths=0, zorder=3, clip_on=False)  # fmt: skip
        upper.plot([], [], "o-", color=THEME["one"], markersize=6, linewidth=1.4,
                   label="bin of answers, 95 % interval")  # fmt: skip
        upper.set_ylim(0, 1)
        upper.set_xlim(0, 1)
        upper.set_ylabel(right)
        figure.legend(loc="outside upper center", ncols=2, fontsize=8.5, columnspacing=1.2)
        centres = [(b["low"] + b["high"]) / 2 for b in filled]
        counts = [b["images"] for b in filled]
        bars = lower.bar(centres, counts, width=0.9 / len(bins), color=THEME["soft"], alpha=0.6)
        if most < 10_000:
            lower.bar_label(bars, fmt="{:.0f}", fontsize=7, color=THEME["soft"], padding=1)
        lower.margins(y=0.25)
        lower.set_xlabel(answer)
        lower.set_ylabel(of)
        lower.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
        for axis in (upper.xaxis, upper.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        return figure


def roc(curve: Sequence[dict[str, Any]], auc: float) -> Figure:
    """The receiver operating characteristic; `curve` as `threshold_curve` makes it."""
    x = [0.0, *(row["fpr"] for row in curve)]
    y = [0.0, *(row["tpr"] for row in curve)]
    with matplotlib.rc_context(style()):
        figure = blank(4.4, 4.2)
        axes: Axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], "--", color=THEME["soft"], linewidth=1.2)
        axes.plot(x, y, color=THEME["one"])
        axes.fill_between(x, y, color=THEME["one"], alpha=0.08)
        axes.set_title(f"ROC, area {auc:.3f}")
        axes.set_xlabel("false alarms, of all negatives")
        axes.set_ylabel("found, of all positives")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.005)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        return figure


def threshold(curve: Sequence[dict[str, Any]]) -> Figure:
    """Precision, recall and accuracy over the threshold (`curve` with `accuracy` added)."""
    with matplotlib.rc_context(style()):
        figure = blank(4.4, 4.2)
        axes: Axes = figure.add_subplot()
        x = [row["threshold"] for row in curve]
        colours = {"precision": "one", "recall": "two", "accuracy": "three"}
        for name, colour in colours.items():
            axes.plot(x, [row[name] for row in curve], color=THEME[colour], label=name)
        axes.axvline(0.5, color=THEME["soft"], linestyle=":", linewidth=1.2)
        axes.set_title("What another threshold would give")
        axes.set_xlabel("threshold")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.005)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.legend(loc="lower center", fontsize=9)
        return figure


def confusion(counts: Confusion, classes: Sequence[str], *, most_named: int = 30) -> Figure:
    """The row-normalised matrix; classes are named, and cells hold numbers, up to `most_named`."""
    k = len(classes)
    named = k <= most_named
    shares = coarse(counts, k, side=160)
    side = 2.4 + 0.42 * k if named else 6.5
    with matplotlib.rc_context({**style(), "axes.grid": False}):
        figure = blank(side, side)
        axes: Axes = figure.add_subplot()
        axes.imshow(_tinted(shares), extent=(-0.5, k - 0.5, k - 0.5, -0.5), interpolation="nearest")
        if named:
            names = [shorten(name, 18) for name in classes]
            axes.set_xticks(range(k), names, rotation=45, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(k), names)
            for i, j, n in zip(counts.true, counts.predicted, counts.count, strict=True):
                axes.text(j, i, f"{n}", ha="center", va="center", fontsize=8)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        return figure


def draw(record: RunRecord, name: str, figure: Figure, label: str) -> dict[str, Any]:
    """Writes `plots/<name>.png` of the run; returns the same drawing as `svg` for the page."""
    png(figure, record.folder / "plots" / f"{name}.png")
    return {"svg": Markup(svg(figure, name=name, label=label)), "label": label}


def png(figure: Figure, path: Path) -> Path:
    """Writes `path`; whatever was there stays until the new file is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _drawing(), replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=144, facecolor="white")
    return path


def svg(figure: Figure, *, name: str, label: str) -> str:
    """Markup to be put into a page: no prolog, no metadata, transparent, coloured by CSS variables.

    `name` keeps its ids apart from those of other drawings on the page; `label` is what a screen
    reader says (plain text).
    """
    buffer = io.StringIO()
    with _drawing():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"font(-family)?: ([^;\"]*?)'DejaVu Sans'[^;\"]*", _page_font, text)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", text)
    for variable, colour in THEME.items():
        text = text.replace(colour, f"var(--{variable})")
    # The size is the column's; the viewBox keeps the proportions.
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height|xmlns(:\w+)?|version)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(label)}">{rest}'


@contextmanager
def _drawing() -> Iterator[None]:
    """A name in a script that no font here has is drawn as boxes, and not complained of: in the
    page the browser's own fonts show it."""
    with matplotlib.rc_context(style()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        yield


def _page_font(match: re.Match[str]) -> str:
    return f"font{match[1] or ''}: {match[2]}var(--sans)"


def _tinted(shares: Floats) -> Floats:
    """(rows, columns, 4): the theme's first colour, as opaque as the share is large."""
    rgb = [int(THEME["one"][i : i + 2], 16) / 255 for i in (1, 3, 5)]
    image = np.empty((*shares.shape, 4))
    image[..., :3] = rgb
    image[..., 3] = np.sqrt(shares) * 0.85  # the root, so that rare confusions are seen
    return image


def _cycle(n: int) -> list[str]:
    colours = [THEME["two"], THEME["one"], THEME["three"], THEME["soft"]]
    return [colours[i % len(colours)] for i in range(n)]


def _plain(key: str) -> str:
    prefix, _, rest = key.partition("_")
    side = {"train": "training", "val": "validation"}.get(prefix)
    return side if side else rest or prefix


def _mark_stages(axes: Axes, rows: Sequence[dict[str, Any]], epochs: Sequence[float]) -> None:
    stages = [str(row.get("stage", "")) for row in rows]
    starts = [i for i in range(len(rows)) if i == 0 or stages[i] != stages[i - 1]]
    for n, i in enumerate(starts):
        if n:
            axes.axvline(epochs[i] - 0.5, color=THEME["soft"], linestyle="--", linewidth=0.9)
        left = epochs[i] - 0.5 if n else epochs[0]
        if len(starts) <= 6:
            axes.annotate(shorten(stages[i], 22), (left, 1.0), xycoords=("data", "axes fraction"),
                          xytext=(2, 4), textcoords="offset points", fontsize=8.5,
                          color=THEME["soft"])  # fmt: skip
