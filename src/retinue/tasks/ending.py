"""The rest of a task's way as a part of the graph: from a network's outputs to its answers."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Placed(NamedTuple):
    """Where the images of a batch, all of one size, lie on the network's input: float32 (2,) each,
    x first. A point of the image is (point on the input) · `scale` + `shift`."""

    scale: Tensor
    shift: Tensor
    size: Tensor
    """Width and height of the images."""


class Ending(nn.Module):
    """From a network's outputs in eval mode to what is answered, of operations that every format
    has."""

    def forward(self, outputs: object, placed: Placed) -> dict[str, Tensor]:
        """Tensors (n, …), in a fixed number of rows each."""
        raise NotImplementedError
