"""Class activation maps: the last map's channels, added up by how much each speaks for the class.

The network runs in two halves with the map between them (`Network.halves`), so that nothing is
hooked into it: what a method needs are values and gradients of a tensor that it holds itself, which
no operation in place behind it can change.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from retinue.errors import UsageError
from retinue.explaining.looking import Cells, Look, gradients
from retinue.inference.tracing import evaluating
from retinue.models.network import Halves

_AT_ONCE = 32
"""Masked images that Score-CAM shows the network together."""


class Activation(NamedTuple):
    """The last map of the image, and the gradient of what speaks for the class by it."""

    value: Tensor
    """(channels, rows, columns)"""
    gradient: Tensor
    """(channels, rows, columns)"""


def activation(look: Look) -> Activation:
    """Raises UsageError where the network has no such map, or the task no number for a class."""
    with gradients(look.network):
        halves, leaf = _at_the_map(look)
        leaf.requires_grad_()
        # Behind a clone, so that what works in place leaves the values as they are.
        support = look.support(halves.second(leaf.clone()))
        (gradient,) = torch.autograd.grad(support.sum(), leaf)
        value, slope = (halves.as_map(x.detach()).float()[0] for x in (leaf, gradient))
    return Activation(value, slope)


def gradcam(look: Look) -> Cells:
    """Grad-CAM (Selvaraju et al., 2017, equations 1 and 2): a channel counts as much as its
    gradient does in the mean over all places; what speaks against the class is left out."""
    value, gradient = activation(look)
    return _added(value, gradient.mean((1, 2)))


def gradcam_plus_plus(look: Look) -> Cells:
    """Grad-CAM++ (Chattopadhay et al., 2018, equations 10, 11 and 19): the positive gradients of a
    channel, each weighed so that a class which shows several times counts at each place.

    The class's number goes through an exponential, whose derivatives are powers of the gradient
    times one factor for the whole image; the factor goes when the map is scaled.
    """
    value, gradient = activation(look)
    square, cube = gradient.square(), gradient.pow(3)
    below = 2 * square + value.sum((1, 2), keepdim=True) * cube
    alpha = torch.where(below != 0, square / torch.where(below != 0, below, 1), 0)
    return _added(value, (alpha * gradient.clamp(min=0)).sum((1, 2)))


def scorecam(look: Look) -> Cells:
    """Score-CAM (Wang et al., 2020, algorithm 1): a channel counts as much as the class's number
    rises when the image is shown through it alone, as a softmax over the channels. No gradients;
    the network sees as many images as the map has channels."""
    with torch.inference_mode(), evaluating(look.network):
        halves, state = _at_the_map(look)
        value = halves.as_map(state).float()[0]
        low, high = value.amin((1, 2), keepdim=True), value.amax((1, 2), keepdim=True)
        told = (high > low).flatten().nonzero().flatten()  # an even channel masks nothing
        masks = ((value - low) / torch.where(high > low, high - low, 1))[told]
        numbers = []
        for some in torch.split(masks, _AT_ONCE):
            wide = F.interpolate(some[:, None], look.size, mode="bilinear", align_corners=False)
            numbers.append(look.support(look.network(look.inputs * wide)))
        if not numbers:
            return _added(value, torch.zeros(len(value)))
        rise = torch.cat(numbers) - look.support(look.network(torch.zeros_like(look.inputs)))
        return _added(value[told], rise.softmax(0))


def _at_the_map(look: Look) -> tuple[Halves, Tensor]:
    """The halves of the network at the last map of the image that has more than one cell, since one
    tells nothing apart, and what holds the map. UsageError if there is none."""
    cut = None
    while True:
        halves = look.network.halves(look.size, cut)
        with torch.no_grad():
            state = halves.first(look.inputs.clone()).clone()
        if halves.as_map(state)[0, 0].numel() > 1:
            return halves, state
        if not halves.earlier:
            raise UsageError(
                "the last map is of a single cell, which tells nothing apart",
                where=f"{look.network.name or 'the network'}, images of "
                f"{look.size[0]} × {look.size[1]} pixels",
                mend="a model for larger images tells more",
            )
        cut = halves.earlier[-1]


def _added(value: Tensor, weights: Tensor) -> Cells:
    cells: Cells = (value * weights.to(value)[:, None, None]).sum(0).clamp(min=0).cpu().numpy()
    return cells
