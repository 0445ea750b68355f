"""Handwritten digits from the data that scikit-learn brings: one by one, and scattered over
canvases.

1,797 digits of 8 × 8 pixels (Alpaydin & Kaynak, 1998, "Optical Recognition of Handwritten Digits").
They are cut once, in file order, so that the digits of one split are in no image of another.
Each canvas has two to seven of them, 22 to 72 pixels high, turned by up to 15 degrees, in ink of
some colour on paper of another, some of them over one another, between strokes and blots that are
no digits. Canvases are painted when they are read; the same number gives the same canvas.
"""

from __future__ import annotations

import gzip
import importlib.util
import math
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from retinue.data.options import DataOptions
from retinue.data.random import draw
from retinue.data.sources.listing import Listing, Reader
from retinue.data.sources.records import Record, Records
from retinue.data.targets.boxes import Boxes
from retinue.data.targets.one_class import OneClass
from retinue.errors import RetinueError
from retinue.sample import Matrix, Pixels

CLASSES = tuple("0123456789")
SIDE = 192
"""Of a canvas, in pixels."""
CANVASES = {"train": 600, "val": 100, "test": 200}
SHARES = {"train": (0.0, 0.7), "val": (0.7, 0.8), "test": (0.8, 1.0)}
"""From where to where in the file a split's digits come."""
INK = 0.3
"""What counts as part of a digit: this share of full ink."""
_FIELDS = 65
"""Of a line of the file: 64 values from 0 to 16, and the digit."""


class _Digits(NamedTuple):
    ink: npt.NDArray[np.float32]
    """float32 (n, 8, 8), 0–1."""
    of: npt.NDArray[np.int64]
    """(n,) 0–9."""


class _Glyph(NamedTuple):
    """One digit on a canvas."""

    number: int
    """Its place among the digits."""
    matrix: Matrix
    """From pixels of the digit to those of the canvas."""
    box: tuple[float, float, float, float]
    """x1, y1, x2, y2 of its ink."""


def _find(options: DataOptions, asked: bool) -> Path | None:
    """The file inside scikit-learn. Raises `RetinueError` if that is not installed."""
    if not asked and (options.path != "digits" or Path("digits").exists()):
        return None
    spec = importlib.util.find_spec("sklearn")
    place = None if spec is None or spec.origin is None else Path(spec.origin).parent
    file = None if place is None else place / "datasets" / "data" / "digits.csv.gz"
    if file is None or not file.is_file():
        raise RetinueError(
            "the handwritten digits are not installed",
            where="key data.format",
            mend="pip install 'retinue[demo]'",
        )
    return file


@cache
def _digits(file: Path) -> _Digits:
    try:
        with gzip.open(file, "rt", encoding="ascii") as lines:
            rows = np.loadtxt(lines, delimiter=",", dtype=np.float32)
    except (OSError, ValueError) as error:
        raise RetinueError(f"cannot read the digits: {error}", where=repr(str(file))) from None
    if rows.ndim != 2 or rows.shape[1] != _FIELDS:
        raise RetinueError(f"not {_FIELDS} values a line", where=repr(str(file)))
    ink = (rows[:, :-1] / 16).reshape(-1, 8, 8).astype(np.float32)
    return _Digits(ink, rows[:, -1].astype(np.int64))


def _read(file: Path, options: DataOptions) -> Listing:
    digits = _digits(file)
    records = []
    for split, count in CANVASES.items():
        for number in range(count):
            glyphs = scattered(file, split, number)
            boxes = Boxes.made(
                [glyph.box for glyph in glyphs],
                [CLASSES[digits.of[glyph.number]] for glyph in glyphs],
            )
            name = f"{split}-{number:04d}.png"
            records.append(
                Record(None, name, boxes, split=split, read=partial(paint, file, split, number))
            )
    return Listing("digits", file.parent, Records.of(records))


def _read_one_by_one(file: Path, options: DataOptions) -> Listing:
    digits = _digits(file)
    known = [OneClass(name) for name in CLASSES]
    records = []
    for split in SHARES:
        for number in _of_split(digits, split):
            name, target = f"{split}/{number:04d}.png", known[digits.of[number]]
            shown = partial(_alone, file, number)
            records.append(Record(None, name, target, split=split, read=shown))
    return Listing("digits", file.parent, Records.of(records))


def _alone(file: Path, number: int) -> Pixels:
    """Digit `number`, in white on black: RGB uint8 (8, 8, 3)."""
    grey = np.round(255 * _digits(file).ink[number]).astype(np.uint8)
    pixels: Pixels = np.repeat(grey[..., None], 3, axis=2)
    return pixels


def _of_split(digits: _Digits, split: str) -> range:
    """The places of a split's digits in the file."""
    low, high = (math.floor(share * len(digits.of)) for share in SHARES[split])
    return range(low, high)


@lru_cache(maxsize=4096)
def scattered(file: Path, split: str, number: int) -> list[_Glyph]:
    """The digits of canvas `number` of `split`, those on top last."""
    digits = _digits(file)
    own = _of_split(digits, split)
    rng = draw(0, 0, number, f"digits {split}")
    glyphs: list[_Glyph] = []
    wanted = int(rng.integers(2, 8))
    for _ in range(8 * wanted):
        if len(glyphs) == wanted:
            break
        which = int(rng.integers(own.start, own.stop))
        height = math.exp(rng.uniform(*np.log([22, 72])))
        angle, aspect = math.radians(rng.uniform(-15, 15)), math.exp(rng.uniform(-0.2, 0.2))
        x, y = rng.uniform(height / 2, SIDE - height / 2, size=2)
        matrix = _posed(height / 8, angle, aspect, x, y)
        box = _outline(_inked(digits.ink[which], matrix))
        # Over one another, but each can be told.
        if box is not None and all(_covered(box, other.box) < 0.3 for other in glyphs):
            glyphs.append(_Glyph(which, matrix, box))
    return glyphs


def paint(file: Path, split: str, number: int) -> Pixels:
    """Canvas `number` of `split`: RGB uint8 (`SIDE`, `SIDE`, 3)."""
    rng = draw(0, 1, number, f"digits {split}")
    paper, dark = rng.uniform(150, 255, size=3), bool(rng.random() < 0.3)
    slope = rng.uniform(-40, 40, size=(2, 1, 1, 1))
    down, across = np.mgrid[0:SIDE, 0:SIDE][..., None] / SIDE - 0.5
    canvas = paper + slope[0] * down + slope[1] * across
    canvas = canvas + rng.normal(0, rng.uniform(1, 8), size=canvas.shape)
    for _ in range(int(rng.integers(2, 7))):
        _clutter(canvas, rng)
    digits = _digits(file)
    for glyph in scattered(file, split, number):
        ink = _inked(digits.ink[glyph.number], glyph.matrix)[..., None]
        canvas = canvas * (1 - ink) + rng.uniform(0, 90, size=3) * ink
    if dark:
        canvas = 255 - canvas
    painted: Pixels = np.clip(canvas, 0, 255).astype(np.uint8)
    return painted


def _posed(scale: float, angle: float, aspect: float, x: float, y: float) -> Matrix:
    """A digit's middle, at 4, 4 of its own pixels, comes to x, y."""
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    linear = np.array([[cos * aspect, -sin], [sin * aspect, cos]])
    matrix: Matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = np.array([x, y]) - linear @ [4, 4]
    return matrix


def _inked(ink: npt.NDArray[np.float32], matrix: Matrix) -> npt.NDArray[np.float32]:
    """How much of each pixel of the canvas is the digit's: 0–1, (`SIDE`, `SIDE`)."""
    # cv2 counts from the pixels' centres.
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    centred = np.linalg.inv(half) @ matrix @ half
    warped = cv2.warpAffine(ink, centred[:2], (SIDE, SIDE), flags=cv2.INTER_CUBIC)
    # The scan is soft at this size: steeper, so that strokes have an edge.
    steep: npt.NDArray[np.float32] = np.clip((warped - 0.25) * 2.5, 0, 1).astype(np.float32)
    return steep


def _outline(ink: npt.NDArray[np.float32]) -> tuple[float, float, float, float] | None:
    there = ink > INK
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _covered(box: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The share of the smaller box that lies in the other."""
    wide = min(box[2], other[2]) - max(box[0], other[0])
    tall = min(box[3], other[3]) - max(box[1], other[1])
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
    return max(wide, 0) * max(tall, 0) / min(areas)


def _clutter(canvas: npt.NDArray[np.float64], rng: np.random.Generator) -> None:
    """A stroke or a blot that is no digit, in place."""
    colour = rng.uniform(40, 220, size=3).tolist()
    at = [tuple(map(int, point)) for point in rng.uniform(0, SIDE, size=(2, 2))]
    if rng.random() < 0.6:
        cv2.line(canvas, at[0], at[1], colour, int(rng.integers(1, 4)), cv2.LINE_AA)
    else:
        axes = tuple(map(int, rng.uniform(4, 24, size=2)))
        filled = -1 if rng.random() < 0.5 else 2
        turn = float(rng.uniform(0, 180))
        cv2.ellipse(canvas, at[0], axes, turn, 0, 360, colour, filled, cv2.LINE_AA)


DIGITS = Reader("digits", _find, _read, class_order=CLASSES, installed=True)
"""Canvases, for who looks for digits."""
ONE_BY_ONE = Reader("digits", _find, _read_one_by_one, class_order=CLASSES, installed=True)
"""The digits themselves, for who tells them apart."""
