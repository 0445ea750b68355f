"""What a network learns by, whatever its task; `retinue.tasks.task` offers it, too."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

Part = Tensor | tuple[Tensor, Tensor]
"""A part of the loss: (n,), a value an image, of which the mean by the images' weights is taken; or
sums (n,) with counts (n,), of which Σ sums / max(Σ counts, 1) is, over the whole portion; or both
(n, k), of which the k fractions are added up."""


class Losses(NamedTuple):
    """What an objective says of a batch."""

    parts: dict[str, Part]
    """Added up, they are the loss."""
    running: dict[str, Tensor]
    """Figures to show of the training batches, (n,) each; averaged over an epoch."""


class Objective(nn.Module):
    """What a network learns by. It may own parameters; they learn along, and are no part of the
    model file."""

    def forward(self, outputs: Any, targets: dict[str, Any], taught: Any = None) -> Losses:
        """`outputs`: what the network returns in training mode; `targets`: as the kind of target
        collates them; `taught`: what a teacher returns in eval mode for the same images, if there
        is one."""
        raise NotImplementedError
