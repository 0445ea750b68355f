"""A stage made ready: what learns, what is frozen, and where the network is cut."""

from __future__ import annotations

from torch import nn

from retinue.errors import UsageError, suggest
from retinue.models.network import Network
from retinue.run.progress import Progress
from retinue.tasks.learner import Learner
from retinue.training.options import StageOptions


def first_to_learn(network: Network, trainable: str | int, where: str) -> int:
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


def is_over(stage: StageOptions, progress: Progress) -> bool:
    """Whether nothing is left to do in the stage that `progress` is in."""
    if progress.step > 0:  # taken up in an epoch, perhaps after the last of its steps
        return False
    if stage.early_stop is not None and progress.stale >= stage.early_stop.patience:
        return True
    if stage.steps is not None:
        return progress.stage_steps >= stage.steps
    return progress.epoch >= (stage.epochs or 0)


def cut_before(network: Network, first: int) -> int:
    """The last place before unit `first` at which the network can be cut."""
    return max((cut for cut in network.cuts() if cut <= first), default=0)


def freeze(network: Network, first: int) -> None:
    """Only what lies from unit `first` on gets gradients."""
    for unit in network.units()[:first]:
        unit.module.requires_grad_(False)
    for unit in network.units()[first:]:
        unit.module.requires_grad_(True)
    network.head.requires_grad_(True)


def train_mode(learner: Learner, first: int, stage: StageOptions) -> None:
    """Training mode from unit `first` on, eval mode before it (no dropout, no new statistics)."""
    learner.train()
    network = learner.network
    for unit in network.units()[:first]:
        unit.module.eval()
    if stage.frozen_batchnorm:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
