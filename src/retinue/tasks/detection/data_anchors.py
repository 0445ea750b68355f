"""`retinue data anchors`: which anchors fit a data set's boxes at the network's input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from retinue.data.box_check import SIDE
from retinue.data.options import DataOptions
from retinue.data.sources import open_dataset
from retinue.data.sources.listing import Readers
from retinue.errors import UsageError
from retinue.sample import Preprocessing
from retinue.tasks.detection import anchors
from retinue.tasks.detection.anchors import Recall, Sizes
from retinue.tasks.detection.shown import shown_sizes
from retinue.text import counted

Levels = list[list[tuple[float, float]]]


@dataclass(frozen=True, slots=True)
class FittedAnchors:
    """What was found."""

    anchors: Levels
    """Widths and heights in pixels of the input, a list a level, the finest first."""
    fit: Recall
    """How well they cover the boxes."""
    published: Recall
    """How well YOLOv3's own do, brought to the input's size."""
    boxes: int
    input_side: int
    doubts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        count = sum(map(len, self.anchors))
        return (
            f"<FittedAnchors {count} of {counted(self.boxes, 'box', 'boxes')} at"
            f" {self.input_side} pixels: IoU {self.fit.mean_iou:.2f} in the mean, published"
            f" {self.published.mean_iou:.2f}>"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "anchors": self.anchors,
            "input_size": self.input_side,
            "boxes": self.boxes,
            "fit": self.fit._asdict(),
            "published": self.published._asdict(),
            "doubts": self.doubts,
            "notes": self.notes,
        }

    def rows(self) -> Iterator[tuple[str, str]]:
        """(what, value) for a table."""
        yield "boxes to train on", f"{self.boxes:,}, at an input of {self.input_side}"
        for number, level in enumerate(self.anchors):
            yield f"level {number}", ", ".join(f"{w:g} × {h:g}" for w, h in level)
        for what, fit in (("these", self.fit), ("published", self.published)):
            yield (
                f"{what}: fit",
                f"IoU {fit.mean_iou:.3f} in the mean; 0.5 or more with {fit.within_half:.1%}, a"
                f" factor below 4 with {fit.within_ratio:.1%} of the boxes",
            )
        pairs = [[[w, h] for w, h in level] for level in self.anchors]
        yield "in a recipe", f"task_options.anchors={pairs}".replace(" ", "")


def fit_anchors(
    options: DataOptions,
    readers: Readers,
    *,
    side: int | None = None,
    levels: int = 3,
    each: int = 3,
    plot: Path | None = None,
) -> FittedAnchors:
    """`each` anchors for each of `levels` levels, from the training boxes of the data that
    `options` lead to, as they come to a square input of `side` pixels; `plot`: an image of them to
    be written. Raises UsageError."""
    if plot is not None and plot.suffix.lower() != ".png":
        raise UsageError("a plot is written as PNG", where=repr(str(plot)), mend="call it NAME.png")
    dataset = open_dataset(options, readers)
    side = SIDE if side is None else side
    sizes = shown_sizes(dataset.splits["train"], Preprocessing((side, side), fit="letterbox"))
    found = anchors.fitted(sizes, levels, each=each)
    ratio = side / SIDE
    published = [[(w * ratio, h * ratio) for w, h in level] for level in anchors.PUBLISHED]
    result = FittedAnchors(
        found,
        anchors.recall(sizes, found),
        anchors.recall(sizes, published),
        len(sizes),
        side,
        anchors.doubts(found),
        list(dataset.notes),
    )
    if plot is not None:
        _draw(sizes, found, plot)
    return result


def _draw(sizes: Sizes, found: Levels, path: Path) -> None:
    """All boxes' widths and heights as points, and the anchors among them."""
    import matplotlib
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    from retinue.page.plots import THEME, blank, png, style

    with matplotlib.rc_context(style()):
        figure = blank(6.0, 6.0)
        axes = figure.add_subplot()
        axes.scatter(sizes[:, 0], sizes[:, 1], s=4, color=THEME["soft"], alpha=0.3, linewidths=0)
        for colour, level in zip(cycle(("one", "two", "three")), found, strict=False):
            wide, tall = zip(*level, strict=True)
            axes.scatter(wide, tall, s=60, marker="s", facecolors="none", edgecolors=THEME[colour])
        axes.set(xscale="log", yscale="log", xlabel="width", ylabel="height")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(base=2))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
            axis.set_minor_locator(NullLocator())
        axes.set_title("boxes at the input, in pixels, and anchors")
        png(figure, path)
