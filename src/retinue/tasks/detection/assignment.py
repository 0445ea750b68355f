"""Which predictions learn which object, and which learn that there is none.

Everything is worked out on the device, for all images at once and without reading anything back:
each object has a fixed number of slots, and a slot is matched or it is not. Of objects that claim
one prediction the one that fits it best has it, so that none learns a blend of two.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from retinue.tasks.detection.decoding import Grid
from retinue.tasks.detection.loss_options import Rule as Rule
from retinue.tasks.detection.overlap import covered_matrix, iou_matrix, size_iou

WITHIN_REGION = 0.5
"""A prediction of which more than this share lies in a region of unknown objects may be one."""
MOST = 10
"""The most predictions that an object gets dynamically."""
RADIUS = 2.5
"""In cells: how far from an object's centre a prediction may stand that is matched dynamically."""
_AT_ONCE = 16
"""So many objects of each image are compared with all its predictions at once."""


class Targets(NamedTuple):
    """The objects of a batch, up to m an image."""

    xyxy: Tensor
    """float32 (n, m, 4): in pixels of the network's input."""
    of: Tensor
    """int64 (n, m)"""
    learnt: Tensor
    """bool (n, m): those that are to be found."""
    region: Tensor
    """bool (n, m): those that are none themselves, but tell where objects may be."""

    @classmethod
    def of_batch(cls, targets: dict[str, Tensor]) -> Targets:
        """As `Boxes` collates them: what is `difficult` or a `crowd` is a region."""
        region = targets["difficult"] | targets["crowd"]
        present = targets["present"]
        return cls(targets["xyxy"].float(), targets["of"], present & ~region, present & region)

    @property
    def centre(self) -> Tensor:
        """(n, m, 2)"""
        return (self.xyxy[..., :2] + self.xyxy[..., 2:]) / 2

    @property
    def size(self) -> Tensor:
        """Width and height (n, m, 2)."""
        return self.xyxy[..., 2:] - self.xyxy[..., :2]


class Matches(NamedTuple):
    """S slots an image; no prediction is matched twice."""

    prediction: Tensor
    """int64 (n, S): its place in the grid's row; 0 where nothing is matched."""
    item: Tensor
    """int64 (n, S): the object that it learns."""
    matched: Tensor
    """bool (n, S)"""

    def spread(self, values: Tensor, count: int) -> Tensor:
        """`values` (n, S) of the slots at the places of their predictions (n, count), and 0."""
        place = torch.where(self.matched, self.prediction, count)
        row = values.new_zeros(len(values), count + 1)
        return row.scatter(1, place, values)[:, :count]


def best(targets: Targets, where: Grid) -> Matches:
    """As published: an object is learnt by the anchor, of all levels, whose width and height agree
    best with its own, in the cell that its centre lies in."""
    table = where.table
    fit = size_iou(targets.size.unsqueeze(2), table.size)
    fit, shape = fit.max(-1)
    _, cell = table.cell(shape, targets.centre)
    return _claimed(table.place(shape, cell), targets, targets.learnt, fit, where)


def ratio(targets: Targets, where: Grid, *, most: float, neighbours: bool) -> Matches:
    """As YOLOv5 has it: by every anchor of which neither width nor height differ by a factor of
    `most` or more, and by the one that fits best in any case. `neighbours`: also in the next cell
    to the left or right and above or below, whichever the centre is nearer to."""
    table = where.table
    n, m, count = *targets.of.shape, len(table.size)
    size = targets.size.unsqueeze(2)
    factor = size.clamp(min=1e-6) / table.size
    near = torch.maximum(factor, 1 / factor).amax(-1) < most
    fit = size_iou(size, table.size)
    near |= fit.argmax(-1, keepdim=True) == torch.arange(count, device=fit.device)
    wanted = near & targets.learnt.unsqueeze(2)
    shape = torch.arange(count, device=fit.device).expand(n, m, count)
    exact, cell = table.cell(shape, targets.centre.unsqueeze(2))
    cells, wants, fits = [cell], [wanted], [fit]
    if neighbours:
        side = torch.where(exact - cell < 0.5, -1, 1)
        for axis in (0, 1):
            step = torch.zeros_like(side)
            step[..., axis] = side[..., axis]
            beside = cell + step
            inside = ((beside >= 0) & (beside < table.cells[shape])).all(-1)
            cells.append(torch.where(inside.unsqueeze(-1), beside, cell))
            wants.append(wanted & inside)
            # Whose centre lies in the cell itself goes first.
            fits.append(fit - 1)
    place = torch.stack([table.place(shape, one) for one in cells], -1)
    return _claimed(place, targets, torch.stack(wants, -1), torch.stack(fits, -1), where)


def dynamic(targets: Targets, where: Grid, placed: Tensor, raw: Tensor) -> Matches:
    """SimOTA (Ge et al., 2021, "YOLOX", section 2.3): of the predictions whose cells have their
    centre in an object or within 2.5 cells of its centre, those that cost least: class, 3 times
    −log IoU, and more than all that where only one of the two holds. So many as the 10 best IoUs
    add up to, at least one. `placed` are the predictions' boxes (n, P, 4), `raw` what they say."""
    most = min(MOST, len(where))
    centre = (where.cell + 0.5) * where.stride
    places, wants, prices = [], [], []
    for k in range(len(placed)):
        xyxy, learnt = targets.xyxy[k], targets.learnt[k]
        ious = iou_matrix(xyxy, placed[k])
        inside = (centre > xyxy[:, None, :2]).all(-1) & (centre < xyxy[:, None, 2:]).all(-1)
        apart = (centre - targets.centre[k, :, None]).abs().amax(-1)
        close = apart < RADIUS * where.stride.squeeze(1)
        able = (inside | close) & learnt[:, None]
        cost = _class_cost(raw[k], targets.of[k]) - 3 * ious.clamp(min=1e-8).log()
        cost = cost + 1e5 * ~(inside & close)
        cost = cost.masked_fill(~able, torch.inf)
        number = (ious * able).topk(most, 1).values.sum(1).long().clamp(min=1)
        price, place = cost.topk(most, 1, largest=False)
        places.append(place)
        wants.append((torch.arange(most, device=place.device) < number[:, None]) & price.isfinite())
        prices.append(price)
    place, price = torch.stack(places), torch.stack(prices)
    return _claimed(place, targets, torch.stack(wants), -price.nan_to_num(posinf=0), where)


def _class_cost(raw: Tensor, of: Tensor) -> Tensor:
    """Cross entropy over the classes, of the m objects against the P predictions (m, P), where a
    class has the geometric mean of its own probability and objectness."""
    score = (raw[:, 4:5].sigmoid() * raw[:, 5:].sigmoid()).sqrt().clamp(1e-7, 1 - 1e-7)
    missed, hit = -(1 - score).log(), -score.log()
    return missed.sum(1) + (hit - missed)[:, of].T


def _claimed(place: Tensor, targets: Targets, wanted: Tensor, fit: Tensor, where: Grid) -> Matches:
    """The matches of slots (n, m, …) at the predictions `place`: of several that are wanted at one,
    the one with the highest `fit`; of equals that of the smaller object, then of the first."""
    n, m = targets.of.shape
    item = torch.arange(m, device=place.device).view(1, m, 1)
    slots = math.prod(place.shape[2:])
    place, wanted, fit = (each.reshape(n, m, slots) for each in (place, wanted, fit))
    area = targets.size.prod(-1).unsqueeze(2).expand_as(fit)
    item = item.expand_as(place).flatten(1)
    place, wanted, fit, area = (each.flatten(1) for each in (place, wanted, fit, area))
    order = area.argsort(dim=1, stable=True)
    order = order.gather(1, fit.gather(1, order).argsort(dim=1, descending=True, stable=True))
    turn = torch.arange(place.shape[1], device=place.device).expand_as(order)
    rank = torch.empty_like(order).scatter(1, order, turn)
    # What nobody wants goes to a place behind the row.
    place = torch.where(wanted, place, len(where))
    first = torch.full((n, len(where) + 1), place.shape[1], device=place.device)
    first = first.scatter_reduce(1, place, rank, "amin")
    matched = wanted & (first.gather(1, place) == rank)
    return Matches(torch.where(matched, place, 0), item, matched)


def negatives(
    matches: Matches,
    targets: Targets,
    where: Grid,
    placed: Tensor,
    *,
    ignore_above: float,
    same_level: bool,
) -> Tensor:
    """Which predictions, of boxes `placed` (n, P, 4), learn that there is no object: bool (n, P).

    Not those that are matched; nor those that have an IoU above `ignore_above` with an object
    (`same_level`: one whose best anchor is of the prediction's level); nor those of which more than
    half lies in a region of unknown objects.
    """
    count = len(where)
    taken = matches.spread(matches.matched.int(), count).bool()
    table = where.table
    own = table.level[size_iou(targets.size.unsqueeze(2), table.size).argmax(-1)]
    for start in range(0, targets.of.shape[1], _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        xyxy = targets.xyxy[:, some]
        close = iou_matrix(placed, xyxy) > ignore_above
        if same_level:
            close &= where.level[None, :, None] == own[:, None, some]
        within = covered_matrix(placed, xyxy) > WITHIN_REGION
        known, region = targets.learnt[:, None, some], targets.region[:, None, some]
        taken |= ((close & known) | (within & region)).any(-1)
    return ~taken
