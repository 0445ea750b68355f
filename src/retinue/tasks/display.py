"""Results in a notebook: as HTML that needs nothing else, as a table of pandas, and as what
`supervision` takes. Both of these are imported when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from retinue.errors import RetinueError
from retinue.sample import Part, Result
from retinue.text import counted, shorten, visible

SIDE = 480
"""Longer side of a picture that is shown with its answer, in pixels."""
_SMALL = 200
"""The same, of one among many."""
_BARS = 8
"""So many answers are spelt out."""
_TOGETHER = 24
"""So many results of many are shown."""

_FONT = "font:14px/1.45 system-ui,sans-serif"


def html(result: Result, *, side: int = SIDE) -> str:
    """The result as HTML: its picture, where its file is still there, with the parts that were
    found drawn in, and the answers with bars. Coloured for light and dark alike."""
    picture, size = (
        _picture(result.path, side) if getattr(result, "pictured", True) else ("", (0, 0))
    )
    parts = result.parts()
    drawn = _marks(parts, size) if picture and parts else ""
    shown = ""
    if picture:
        shown = (
            '<div style="position:relative;display:inline-block;max-width:100%">'
            f'<img src="{picture}" alt="" style="display:block;max-width:100%;border-radius:6px">'
            f"{drawn}</div>"
        )
    called = result.called()
    name = escape(
        shorten(called.replace("\\", "/").rsplit("/", 1)[-1], 40 if side > _SMALL else 24)
    )
    return (
        f'<div style="display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start;{_FONT}">'
        f'{shown}<div style="min-width:190px"><div style="opacity:.65;margin-bottom:4px"'
        f' title="{escape(visible(called))}">{name}'
        f"</div>{_bars(result)}</div></div>"
    )


def html_of_many(results: Sequence[Result], told: str) -> str:
    """The first of `results` side by side, and `told`, what there is in all."""
    cards = "".join(
        f'<div style="width:{_SMALL}px;overflow:hidden">{html(one, side=_SMALL)}</div>'
        for one in results[:_TOGETHER]
    )
    more = len(results) - _TOGETHER
    rest = f'<div style="opacity:.65">and {more:,} more</div>' if more > 0 else ""
    return (
        f'<div style="{_FONT}"><div style="margin-bottom:8px"><b>{escape(told)}</b></div>'
        f'<div style="display:flex;flex-wrap:wrap;gap:16px">{cards}</div>{rest}</div>'
    )


def figures_html(title: str, said: str, rows: Sequence[tuple[str, str, str]]) -> str:
    """A table of figures: what each is called, its value and its interval."""
    cells = "".join(
        f'<tr><td style="text-align:left;padding:3px 24px 3px 0">{escape(name)}</td>'
        f'<td style="text-align:right;padding:3px 24px 3px 0"><b>{escape(value)}</b></td>'
        f'<td style="text-align:left;padding:3px 0;opacity:.65">{escape(interval)}</td></tr>'
        for name, value, interval in rows
    )
    return (
        f'<div style="{_FONT}"><div><b>{escape(visible(title))}</b></div>'
        f'<div style="opacity:.65;margin-bottom:6px">{escape(said)}</div>'
        f'<table style="border-collapse:collapse">{cells}</table></div>'
    )


def _picture(path: str, side: int) -> tuple[str, tuple[int, int]]:
    """(`data:` address, size of the upright original); nothing of what is no image any more."""
    from retinue.data import decode
    from retinue.page.pictures import data_address, small

    try:
        if not Path(path).is_file():
            return "", (0, 0)
        content = decode.read_bytes(path)
        return data_address(small(content, side, path)), decode.Encoded(content, path=path).size
    except (OSError, ValueError, RetinueError):  # the answer is shown all the same
        return "", (0, 0)


def _marks(parts: Sequence[Part], size: tuple[int, int]) -> str:
    width, height = size
    rows = []
    for part in parts:
        x1, y1, x2, y2 = part.xyxy
        wide, high = max(x2 - x1, 0), max(y2 - y1, 0)
        place = f'x="{x1:.1f}" y="{y1:.1f}" width="{wide:.1f}" height="{high:.1f}"'
        rows.append(
            f'<rect {place} fill="none" stroke="{_colour(part.name)}" stroke-width="2"'
            f' vector-effect="non-scaling-stroke"><title>{escape(visible(part.name))}'
            f" {part.score:.1%}</title></rect>"
        )
    return (
        f'<svg viewBox="0 0 {width} {height}" aria-hidden="true"'
        ' style="position:absolute;inset:0;width:100%;height:100%">' + "".join(rows) + "</svg>"
    )


def _bars(result: Result) -> str:
    answers = result.answers()
    colours = {part.name for part in result.parts()}
    rows = []
    for name, score in answers[:_BARS]:
        colour = _colour(name) if colours else "#4a86e8"
        rows.append(
            '<div style="margin-bottom:5px"><div style="display:flex;gap:12px;'
            f'justify-content:space-between"><span>{escape(shorten(name, 40))}</span>'
            f'<span style="opacity:.65">{score:.1%}</span></div>'
            '<div style="height:4px;border-radius:2px;background:rgba(128,128,128,.22)">'
            f'<div style="height:4px;border-radius:2px;width:{100 * min(max(score, 0), 1):.1f}%;'
            f'background:{colour}"></div></div></div>'
        )
    if len(answers) > _BARS:
        rows.append(f'<div style="opacity:.65">and {len(answers) - _BARS:,} more</div>')
    return "".join(rows) or '<div style="opacity:.65">nothing found</div>'


def _colour(name: str) -> str:
    """The same for a name everywhere."""
    hue = sum((k + 1) * ord(letter) for k, letter in enumerate(name)) * 47 % 360
    return f"hsl({hue},70%,48%)"


# --- other libraries -----------------------------------------------------------------------------


def table(results: Iterable[Result]) -> Any:
    """A `pandas.DataFrame` with the columns and rows of `predictions.csv`.

    Raises RetinueError where pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise RetinueError("pandas is not installed", mend="pip install pandas") from None

    known = list(results)
    columns = list(dict.fromkeys(column for one in known for column in one.columns()))
    rows = [
        dict(zip(one.columns(), row, strict=False))
        for one in known
        # What found nothing has a row with its path alone, as in the file.
        for row in one.rows() or [[one.path]]
    ]
    return pd.DataFrame(rows, columns=columns)


def detections(parts: Sequence[Part], classes: Sequence[str] | None) -> Any:
    """`supervision.Detections` of what was found; see `BoxResult.to_supervision`."""
    sv = _supervision()
    ids = _numbered([part.name for part in parts], classes)
    tracks = [part.track for part in parts]
    return sv.Detections(
        xyxy=np.array([part.xyxy for part in parts], np.float32).reshape(-1, 4),
        confidence=np.array([part.score for part in parts], np.float32),
        class_id=np.array(ids, np.int64),
        tracker_id=np.array([-1 if t is None else t for t in tracks], np.int64)
        if any(t is not None for t in tracks)
        else None,
        data={"class_name": np.array([part.name for part in parts], dtype=str)},
    )


def classifications(answers: Sequence[tuple[str, float]], classes: Sequence[str] | None) -> Any:
    """`supervision.Classifications` of the answers; see `ClassResult.to_supervision`."""
    sv = _supervision()
    ids = _numbered([name for name, _ in answers], classes)
    return sv.Classifications(
        class_id=np.array(ids, np.int64),
        confidence=np.array([score for _, score in answers], np.float32),
    )


def _numbered(names: Sequence[str], classes: Sequence[str] | None) -> list[int]:
    order = sorted(set(names)) if classes is None else list(classes)
    place = {name: k for k, name in enumerate(order)}
    if missing := [name for name in names if name not in place]:
        raise RetinueError(
            f"the class {missing[0]!r} is not among the {counted(len(order), 'class', 'classes')}",
            mend="give the model's own: `classes=model.classes`",
        )
    return [place[name] for name in names]


def _supervision() -> Any:
    try:
        import supervision
    except ImportError:
        raise RetinueError("supervision is not installed", mend="pip install supervision") from None
    return supervision
