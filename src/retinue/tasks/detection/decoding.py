"""From raw maps to boxes, and to candidates in pixels of the original image.

A level is (n, A·(5 + classes), h, w): for each of its A anchors in turn x, y, width, height,
objectness and the logits of the classes, as Darknet and Keras publish it. In a row, predictions are
ordered by level (finest first), then by y, x and anchor: 10,647 of an image of 416×416.

Maps are tensors, or NumPy arrays where a network was computed without PyTorch: the same lines are
for both, and what the two call differently stands at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from retinue.data import geometry
from retinue.errors import UsageError
from retinue.nested import is_tensor, on_host
from retinue.sample import Batch
from retinue.tasks.detection.candidates import Candidates

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Anchors = Sequence[Sequence[Sequence[float]]]
"""Levels × A × (width, height) in pixels of the network's input, finest level first."""

MOST = 30_000
"""Candidates of an image: what comes to suppression. COCO's and VOC's figures are of 100 boxes that
it leaves."""
LARGEST = 10.0
"""A logarithm of a size over the anchor's is taken as at most this: exp(10) ≈ 22,000 times."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the P predictions of an image stand, on the device of the maps, and its T anchors."""

    cell: Tensor
    """float32 (P, 2): column and row."""
    anchor: Tensor
    """float32 (P, 2): width and height in pixels."""
    stride: Tensor
    """float32 (P, 1): pixels from a cell to the next."""
    reach: Tensor
    """float32 (P, 1): 1: a centre stays within its cell; s: it may lie (s − 1)/2 beyond."""
    level: Tensor
    """int64 (P,)"""
    table: AnchorTable
    shapes: tuple[tuple[int, int, int], ...]
    """Of each level: rows, columns and anchors of a cell."""
    strides: tuple[int, ...]

    @property
    def counts(self) -> list[int]:
        """Predictions of each level."""
        return [rows * columns * anchors for rows, columns, anchors in self.shapes]

    def __len__(self) -> int:
        return len(self.cell)


class AnchorTable(NamedTuple):
    """Of each of the T anchors of all levels: where its predictions are in the grid's row."""

    size: Tensor
    """float32 (T, 2): width and height in pixels."""
    level: Tensor
    """int64 (T,)"""
    start: Tensor
    """int64 (T,): the place of its prediction in cell 0, 0."""
    step: Tensor
    """int64 (T,): places from a cell to the next."""
    cells: Tensor
    """int64 (T, 2): columns and rows of its level."""
    stride: Tensor
    """float32 (T,): pixels from a cell to the next."""

    def place(self, shape: Tensor, cell: Tensor) -> Tensor:
        """The predictions of the anchors `shape` (…) in cells (…, 2) of their levels."""
        column, row = cell.unbind(-1)
        return self.start[shape] + (row * self.cells[shape, 0] + column) * self.step[shape]

    def cell(self, shape: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
        """Column and row (…, 2) in which `centre` (…, 2), in pixels, lies on the levels of the
        anchors `shape` (…): where exactly, and in whole numbers within the map."""
        import torch

        exact = centre / self.stride[shape].unsqueeze(-1)
        last = self.cells[shape] - 1
        return exact, torch.minimum(exact.floor().long().clamp(min=0), last)


def grid(
    levels: Sequence[Tensor],
    anchors: Anchors,
    strides: Sequence[int],
    scale_xy: Sequence[float] | None = None,
) -> Grid:
    """That of the maps `levels`. `scale_xy`: Darknet's `scale_x_y`, a number a level; 1 by default.
    Raises UsageError for maps that do not go with the anchors."""
    if not len(levels) == len(anchors) == len(strides):
        raise UsageError(
            f"{len(levels)} levels with {len(anchors)} rows of anchors and {len(strides)} strides",
            where="key anchors",
            mend="give a row of anchors for each level of the network, finest first",
        )
    for level, own in zip(levels, anchors, strict=True):
        if level.shape[1] % len(own):
            raise UsageError(
                f"a level of {level.shape[1]} channels with {len(own)} anchors",
                where="key anchors",
                mend="give as many anchors as the network has been built with",
            )
    return _grid(
        tuple((level.shape[2], level.shape[3]) for level in levels),
        tuple(tuple((float(w), float(h)) for w, h in own) for own in anchors),
        tuple(strides),
        tuple(scale_xy) if scale_xy else (1.0,) * len(strides),
        levels[0].device if is_tensor(levels[0]) else None,
    )


@lru_cache(maxsize=64)  # One for each size of input: what is copied to the device is copied once.
def _grid(
    sizes: tuple[tuple[int, int], ...],
    anchors: tuple[tuple[tuple[float, float], ...], ...],
    strides: tuple[int, ...],
    scale_xy: tuple[float, ...],
    device: torch.device | None,
) -> Grid:
    shapes = tuple((*size, len(own)) for size, own in zip(sizes, anchors, strict=True))
    rows: list[list[int]] = []
    each: list[npt.NDArray[np.int64]] = []
    first = 0
    for k, (tall, wide, count) in enumerate(shapes):
        row, column, one = np.indices((tall, wide, count)).reshape(3, -1)
        each.append(np.stack([column, row, len(rows) + one, np.full_like(one, k)], 1))
        rows += [[k, first + one, count, wide, tall] for one in range(count)]
        first += tall * wide * count
    places, first_of = np.concatenate(each), np.array(rows)
    anchor, level = places[:, 2], places[:, 3]
    size = np.array([shape for own in anchors for shape in own], np.float32)
    stride, reach = np.array(strides, np.float32), np.array(scale_xy, np.float32)
    columns: list[Any] = [
        places[:, :2].astype(np.float32), size[anchor], stride[level, None], reach[level, None],
        level, size, first_of[:, 0], first_of[:, 1], first_of[:, 2], first_of[:, 3:],
        stride[first_of[:, 0]],
    ]  # fmt: skip
    if device is not None:
        import torch

        # Made where gradients may pass, whoever asks first.
        with torch.inference_mode(mode=False):
            columns = [torch.from_numpy(np.ascontiguousarray(one)).to(device) for one in columns]
    cell, anchors_of, strides_of, reach_of, level_of, *table_of = columns
    table = AnchorTable(*table_of)
    return Grid(cell, anchors_of, strides_of, reach_of, level_of, table, shapes, strides)


def in_a_row(levels: Sequence[Tensor], anchors: Anchors) -> Tensor:
    """The maps as (n, P, 5 + classes), in the grid's order and at least float32."""
    rows = []
    for level, own in zip(levels, anchors, strict=True):
        n, channels = level.shape[:2]
        rows.append(_channels_last(level).reshape(n, -1, channels // len(own)))
    row: Tensor = _at_least_float32(_joined(rows, 1))
    return row


def boxes(raw: Tensor, where: Grid, index: Tensor | None = None) -> Tensor:
    """Of raw x, y, width, height (n, P, ≥ 4) the boxes x1, y1, x2, y2 in pixels of the network's
    input (n, P, 4): centre (σ(t) + cell)·stride, size exp(t)·anchor (Redmon and Farhadi, 2018,
    section 2.1). `index`, int64 (n, k): `raw` is that of these predictions alone."""
    cell, anchor, stride, reach = where.cell, where.anchor, where.stride, where.reach
    if index is not None:
        cell, anchor, stride, reach = (part[index] for part in (cell, anchor, stride, reach))
    centre = (reach * _sigmoid(raw[..., :2]) - (reach - 1) / 2 + cell) * stride
    half = _grown(raw[..., 2:4]) * anchor / 2
    made: Tensor = _joined([centre - half, centre + half], -1)
    return made


def decode(
    levels: Sequence[Tensor],
    batch: Batch,
    *,
    anchors: Anchors,
    strides: Sequence[int],
    scale_xy: Sequence[float] | None = None,
    confidence: float = 0.001,
    several_classes: bool = True,
    most: int = MOST,
) -> list[Candidates]:
    """What the maps say of each image of `batch`, in pixels of its original.

    A candidate is a box with a class whose score, objectness times the class's, is `confidence` or
    more; with `several_classes` every such class of a box, as the published Keras version has it,
    otherwise its best class alone, as the PyTorch version. Of more than `most` the best are kept,
    of equals those of finer levels. Boxes are cut off at the image's border; those beside it are
    dropped. Numbers that are not finite are handed on, for `Task.answers` to refuse.
    """
    with _inferring(levels):
        where = grid(levels, anchors, strides, scale_xy)
        raw = in_a_row(levels, anchors)
        objectness = _sigmoid(raw[..., 4])
        # A score is at most its box's objectness. What is no number is not below anything.
        there = ~(objectness < confidence)
        found = []
        for k, (width, height) in enumerate(batch.original_size.tolist()):
            rows = _places(there[k])
            scores = objectness[k, rows, None] * _sigmoid(raw[k, rows, 5:])
            placed = boxes(raw[None, k, rows], where, rows[None])[0]
            found.append(
                _candidates(
                    on_host(placed),
                    on_host(scores),
                    batch.to_original[k],
                    (width, height),
                    confidence=confidence,
                    most=most,
                    best=not several_classes,
                )
            )
    return found


def _candidates(
    placed: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    to_original: npt.NDArray[np.float64],
    size: tuple[int, int],
    *,
    confidence: float,
    most: int,
    best: bool,
) -> Candidates:
    if best and len(scores):
        of = scores.argmax(1)
        row = np.flatnonzero(~(scores[np.arange(len(of)), of] < confidence))
        of = of[row]
    else:
        row, of = np.nonzero(~(scores < confidence))
    score = scores[row, of]
    picked = first_by_score(score, most)
    row, of, score = row[picked], of[picked], score[picked]
    corners = placed[row][:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2).astype(np.float64)
    quads = geometry.apply(to_original, corners).reshape(-1, 4, 2)
    xyxy = np.concatenate([quads.min(axis=1), quads.max(axis=1)], axis=1)
    xyxy = np.clip(xyxy, 0, [*size, *size]).astype(np.float32)
    shown = ~((xyxy[:, 2:] <= xyxy[:, :2]).any(axis=1))
    return Candidates(xyxy[shown], score[shown], of[shown].astype(np.int64), size)


def first_by_score(score: npt.NDArray[np.float32], most: int) -> npt.NDArray[np.int64]:
    """The places of the `most` highest, best first, of equals the first; what is no number is
    before all."""
    if len(score) > most > 0:
        least = np.partition(-np.nan_to_num(score, nan=np.inf), most - 1)[most - 1]
        within = np.flatnonzero(~(score < -least))
    else:
        within = np.arange(len(score))
    order = np.argsort(-np.nan_to_num(score[within], nan=np.inf), kind="stable")
    return within[order[:most]]


def evidence(
    levels: Sequence[Tensor], anchors: Sequence[int], of: int | None = None
) -> list[npt.NDArray[np.float32]]:
    """Of each image the greatest score, objectness times the class's, that any box of a cell has
    for any class, or for class `of`: float32 (rows, columns) of the finest level, where a coarser
    one's cell stands for all that it covers. `anchors`: how many each level has."""
    import torch

    levels = [level if is_tensor(level) else torch.as_tensor(level) for level in levels]
    with torch.inference_mode():
        size = levels[0].shape[2:]
        most = torch.zeros((len(levels[0]), *size), device=levels[0].device)
        for level, count in zip(levels, anchors, strict=True):
            n, channels, rows, columns = level.shape
            raw = level.float().view(n, count, channels // count, rows, columns).sigmoid()
            classes = raw[:, :, 5:] if of is None else raw[:, :, 5 + of, None]
            scores = (raw[:, :, 4] * classes.amax(2)).amax(1)
            spread = torch.nn.functional.interpolate(scores[:, None], size=size, mode="nearest")
            most = torch.maximum(most, spread[:, 0])
        return list(most.cpu().numpy())


# What PyTorch and NumPy call differently.


def _inferring(levels: Sequence[Tensor]) -> AbstractContextManager[Any]:
    if not is_tensor(levels[0]):
        return nullcontext()
    import torch

    return torch.inference_mode()


def _channels_last(level: Any) -> Any:
    return level.permute(0, 2, 3, 1) if is_tensor(level) else level.transpose(0, 2, 3, 1)


def _at_least_float32(row: Any) -> Any:
    if not is_tensor(row):
        return row.astype(np.promote_types(row.dtype, np.float32), copy=False)
    import torch

    return row.to(torch.promote_types(row.dtype, torch.float32))


def _joined(parts: Sequence[Any], axis: int) -> Any:
    if not is_tensor(parts[0]):
        return np.concatenate(parts, axis)
    import torch

    return torch.cat(list(parts), axis)


def _sigmoid(x: Any) -> Any:
    if is_tensor(x):
        return x.sigmoid()
    with np.errstate(over="ignore"):  # what is too much for float32 leaves 0
        return 1 / (1 + np.exp(-x))


def _grown(x: Any) -> Any:
    """exp of `x`, or of the largest."""
    if is_tensor(x):
        return x.clamp(max=LARGEST).exp()
    return np.exp(np.minimum(x, np.float32(LARGEST)))


def _places(flags: Any) -> Any:
    """int64 (k,): where they are true."""
    return flags.nonzero().squeeze(1) if is_tensor(flags) else np.flatnonzero(flags)
