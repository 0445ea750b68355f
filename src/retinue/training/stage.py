"""A stage made ready: what learns, what is frozen, and where the network is cut."""

from __future__ import annotations

from torch import nn

from retinue.errors import UsageError, suggest
from retinue.models.network import Network
from retinue.training.options import StageOptions


def cut_of(network: Network, trainable: str | int, where: str) -> int:
    """The index of the first unit that learns; the number of units if only the head does."""
    names = [unit.name for unit in network.units()]
    if trainable == "all":
        return 0
    if trainable == "head":
        return len(names)
    if isinstance(trainable, int):
        if trainable > len(names):
            raise UsageError(
                f"the network has {len(names)} units, {trainable} cannot learn",
                where=where,
                mend="trainable: all",
            )
        return len(names) - trainable
    if trainable in names:
        return names.index(trainable)
    raise UsageError(
        f"the network has no unit {trainable!r}",
        where=where,
        mend=suggest(trainable, names) or f"its units are {', '.join(names)}",
    )


def freeze(network: Network, cut: int) -> None:
    """Only what lies from unit `cut` on gets gradients."""
    for unit in network.units()[:cut]:
        unit.module.requires_grad_(False)
    for unit in network.units()[cut:]:
        unit.module.requires_grad_(True)
    network.head.requires_grad_(True)


def train_mode(network: Network, cut: int, stage: StageOptions) -> None:
    """Training mode from unit `cut` on, eval mode before it (no dropout, no new statistics)."""
    network.train()
    for unit in network.units()[:cut]:
        unit.module.eval()
    if stage.frozen_batchnorm:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
