"""Dense layers over a whole map: Keras flattens it place by place, torch channel by channel."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from retinue.weights.layout import Origin


def flattened(dense: Origin, channels: int) -> Origin:
    """`dense`, the origin of a linear layer's weight in a Keras checkpoint, where the layer takes a
    flattened map of `channels` channels: theirs (places · channels, out), ours
    (out, channels · places)."""

    def join(kernel: Tensor) -> Tensor:
        return kernel.reshape(-1, channels, kernel.shape[-1]).permute(2, 1, 0).flatten(1)

    def split(weight: Tensor) -> tuple[Tensor, ...]:
        return (weight.reshape(len(weight), channels, -1).permute(2, 1, 0).flatten(0, 1),)

    return replace(dense, join=join, split=split)
