"""Pictures on a detector's page: images with what is there beside what was found, and labels that
look wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retinue.evaluation.detection_errors import MISTAKES, Kind
from retinue.evaluation.label_suspects import Suspect, suspects
from retinue.evaluation.matching import NOBODY
from retinue.page.pictures import overlay, thumbnail
from retinue.page.record import RunRecord
from retinue.page.section import ANYTHING, Section, Unexplained
from retinue.tasks.detection.drawing import Colour, Mark, colour_of, draw_marks
from retinue.tasks.detection.judged import Judged, judged
from retinue.text import shorten

TEMPLATES = Path(__file__).parent / "templates"
_WORST = 5
"""So many images with the most mistakes are shown, …"""
_OTHERS = 5
"""… and so many others, drawn evenly from the rest."""
_SIDE = 512
"""The longer side of a picture in pixels."""
_SUSPECTS = 24
_CUT = 280
"""The longer side of the part of a picture around a suspect."""
_MARGIN = 0.6
"""So much is shown around it, of its own side."""
_SAID = {
    Kind.LOCALISATION: "loose",
    Kind.CLASS: "wrong class",
    Kind.BOTH: "wrong class, loose",
    Kind.DUPLICATE: "again",
    Kind.BACKGROUND: "false",
}
_LABEL: Colour = (255, 255, 255)
_SPEAKS_AGAINST: Colour = (255, 140, 0)


@dataclass(frozen=True)
class _Place:
    """A mark in pixels of the original."""

    xyxy: Sequence[float]
    text: str
    colour: Colour


def examples(record: RunRecord) -> Section | None:
    """Images drawn twice: what is there, and what was found."""
    found = judged(record)
    if found is None:
        return None
    chosen, worst = _picked(found)
    cards = [_example(record, found, image) for image in chosen]
    explained = any(card["overlay"] for card in cards)
    values = {"cards": cards, "worst": worst, "images": len(found.rows), "explained": explained}
    return Section("examples", "What is there, and what was found", _template("examples"), values)


def to_explain(record: RunRecord) -> list[Unexplained]:
    """Those that are shown for their mistakes: where anything at all speaks for an object."""
    found = judged(record)
    if found is None:
        return []
    chosen, worst = _picked(found)
    return [Unexplained(found.rows[image].path, ANYTHING) for image in chosen[:worst]]


def label_suspects(record: RunRecord) -> Section | None:
    """Labels to be looked at again."""
    found = judged(record)
    if found is None:
        return None
    every = suspects(found.answers.of, found.errors)
    if not every:
        return None
    cards = [_suspect(record, found, one) for one in every[:_SUSPECTS]]
    values = {"cards": cards, "count": len(every)}
    return Section("suspects", "Labels to look at again", _template("suspects"), values)


def shown(found: Judged) -> list[str]:
    """The paths of the images of which the page has a picture."""
    images, of = [*_picked(found)[0]], found.answers.of
    images += [int(of.image[one.box]) for one in suspects(of, found.errors)[:_SUSPECTS]]
    return list(dict.fromkeys(found.rows[image].path for image in images))


def _template(name: str) -> Path:
    return TEMPLATES / f"{name}.html"


def _picked(found: Judged) -> tuple[list[int], int]:
    """The images to show, and how many of them are there for their mistakes."""
    of = found.answers.of
    wrong = np.isin(found.errors.kind, MISTAKES)
    mistakes = np.bincount(of.image[wrong], minlength=of.images)
    mistakes += np.bincount(of.true_image[found.errors.missed], minlength=of.images)
    order = np.argsort(-mistakes, kind="stable")
    worst = [int(k) for k in order[:_WORST] if mistakes[k]]
    rest = np.setdiff1d(np.arange(of.images), worst)
    even = np.unique(np.linspace(0, max(len(rest) - 1, 0), _OTHERS).round().astype(int))
    others = rest[even].tolist() if len(rest) else []
    return [*worst, *others], len(worst)


def _example(record: RunRecord, found: Judged, image: int) -> dict[str, Any]:
    of, told, row = found.answers.of, found.errors, found.rows[image]
    truth = [
        _Place(
            of.true_xyxy[g].tolist(),
            shorten(found.names[of.true_of[g]], 24) + _of_object(found, g),
            colour_of(found.names[of.true_of[g]], found.names),
        )
        for g in np.flatnonzero(of.true_image == image).tolist()
    ]
    boxes = [
        _Place(
            of.xyxy[b].tolist(),
            f"{shorten(found.names[of.of[b]], 24)} {100 * of.score[b]:.0f} %" + _of_box(found, b),
            colour_of(found.names[of.of[b]], found.names),
        )
        for b in np.flatnonzero((of.image == image) & found.chosen)[::-1].tolist()
    ]
    here = told.kind[of.image == image]
    right = int((here == Kind.RIGHT).sum())
    wrong = int(np.isin(here, MISTAKES).sum())
    missed = int(told.missed[of.true_image == image].sum())
    there, problem = thumbnail(row.path, record, _SIDE, _drawn(truth, row.size))
    answer, _ = thumbnail(row.path, record, _SIDE, _drawn(boxes, row.size))
    said = [f"{right} right", f"{wrong} wrong", f"{missed} missed"]
    return {
        "path": row.path,
        "file": shorten(Path(row.path).name or row.path, 48),
        "said": ", ".join(part for part in said if not part.startswith("0 ")) or "nothing there",
        "there": there,
        "found": answer,
        "overlay": overlay(row.path, ANYTHING, record),
        "problem": problem,
    }


def _of_object(found: Judged, thing: int) -> str:
    of = found.answers.of
    flags = [
        word
        for word, flag in (
            ("difficult", of.difficult[thing]),
            ("crowd", of.crowd[thing]),
            ("missed", found.errors.missed[thing]),
        )
        if flag
    ]
    return f" · {', '.join(flags)}" if flags else ""


def _of_box(found: Judged, box: int) -> str:
    said = _SAID.get(Kind(int(found.errors.kind[box])))
    return f" · {said}" if said else ""


Change = Callable[[Any], Any]
"""Of a Pillow image."""


def _drawn(places: Sequence[_Place], size: tuple[int, int]) -> Change:
    """Draws the marks on a Pillow image of the whole, whatever its scale. A small one is enlarged
    first, so that letters do not cover it."""
    return _cut(places, (0, 0, *size), size, least=_SIDE)


def _cut(
    places: Sequence[_Place], around: tuple[float, ...], size: tuple[int, int], least: int = 1
) -> Change:
    """Cuts the part `around` of an original of `size` out of a Pillow image of the whole, enlarges
    it where its longer side has fewer than `least` pixels, and draws the marks."""

    def change(picture: Any) -> Any:
        from PIL import Image

        scale = np.array([picture.width / max(size[0], 1), picture.height / max(size[1], 1)])
        low = np.floor(np.array(around[:2]) * scale).astype(int)
        high = np.maximum(np.ceil(np.array(around[2:]) * scale).astype(int), low + 1)
        part = picture.crop((*low.tolist(), *high.tolist()))
        grown = max(least / max(part.size), 1.0)
        if grown > 1:
            part = part.resize([max(round(grown * side), 1) for side in part.size])
        marks = [
            Mark(
                (grown * (np.array(place.xyxy) * np.tile(scale, 2) - np.tile(low, 2))).tolist(),
                place.text,
                place.colour,
            )
            for place in places
        ]
        return Image.fromarray(draw_marks(np.asarray(part), marks))

    return change


def _suspect(record: RunRecord, found: Judged, one: Suspect) -> dict[str, Any]:
    of = found.answers.of
    image = int(of.image[one.box])
    row = found.rows[image]
    said = found.names[of.of[one.box]]
    places = [_Place(of.xyxy[one.box].tolist(), "", _SPEAKS_AGAINST)]
    label = ""
    if one.object != NOBODY:
        label = found.names[of.true_of[one.object]]
        places.insert(0, _Place(of.true_xyxy[one.object].tolist(), "", _LABEL))
    score = 100 * float(of.score[one.box])
    words = {
        "missing": f"a {shorten(said, 30)} without a label?",
        "swapped": f"{shorten(label, 30)}, or {shorten(said, 30)}?",
        "loose": f"a loose box of {shorten(label, 30)}?",
    }[one.kind]
    around = _around([place.xyxy for place in places], row.size)
    sides = around[2] - around[0], around[3] - around[1]
    # The whole has to be decoded so large that the part is large enough.
    side = min(max(row.size), round(_CUT * max(row.size) / max(*sides, 1)))
    cut = _cut(places, around, row.size, least=_CUT)
    data, problem = thumbnail(row.path, record, side, cut)
    overlap = float(found.errors.overlap[one.box])
    fits = f", IoU {overlap:.2f}" if one.kind != "missing" else ""
    return {
        "path": row.path,
        "file": shorten(Path(row.path).name or row.path, 27),
        "words": words,
        "said": f"{shorten(said, 30)} {score:.0f} %{fits}",
        "data": data,
        "problem": problem,
    }


def _around(boxes: Sequence[Sequence[float]], size: tuple[int, int]) -> tuple[float, ...]:
    """A part of the image that shows all `boxes` with some of what is around them."""
    array = np.array(boxes)
    low, high = array[:, :2].min(axis=0), array[:, 2:].max(axis=0)
    margin = _MARGIN * max(float((high - low).max()), 1.0)
    low = np.maximum(low - margin, 0)
    high = np.minimum(high + margin, np.array(size))
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])
