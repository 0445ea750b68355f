"""A stage made ready: what learns, what is frozen, and where the network is cut."""

from __future__ import annotations

import torch
from torch import nn

from retinue.errors import RetinueError, UsageError, suggest
from retinue.models.anatomy import unit_macs
from retinue.models.network import Network
from retinue.run.progress import Progress
from retinue.tasks.learner import Learner
from retinue.training.options import StageOptions, share_of


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
    share = share_of(trainable)
    if share is not None:
        return _first_within(network, share, where)
    if trainable in names:
        return names.index(trainable)
    if trainable in network.landmarks:
        return network.landmarks[trainable]
    raise UsageError(
        f"the network has no unit {trainable!r}",
        where=where,
        mend=suggest(trainable, names) or f"its units are {', '.join(names)}",
    )


def is_over(stage: StageOptions, progress: Progress) -> bool:
    """Whether nothing is left to do in the stage that `progress` is in."""
    if progress.step > 0:  # taken up in an epoch, perhaps after the last of its steps
        return False
    if is_stopped(stage, progress):
        return True
    if stage.steps is not None:
        return progress.stage_steps >= stage.steps
    return progress.epoch >= (stage.epochs or 0)


def is_stopped(stage: StageOptions, progress: Progress) -> bool:
    """Whether its `early_stop` ends the stage that `progress` is in."""
    return stage.early_stop is not None and progress.stale >= stage.early_stop.patience


def _first_within(network: Network, share: float, where: str) -> int:
    """The first of the last units that cost, with the head, at most `share` of the multiply-adds of
    a forward pass, at the size that the network's weights are for."""
    try:
        with torch.random.fork_rng(devices=[]):
            macs = unit_macs(network, network.preprocessing.size)
    except (RetinueError, RuntimeError) as error:
        raise UsageError(
            f"what the units of the network cost cannot be counted ({error})",
            where=where,
            mend="name a unit from which on everything learns",
        ) from error
    allowed = share * sum(macs)
    first, cost = len(macs) - 1, macs[-1]
    while first > 0 and cost + macs[first - 1] <= allowed:
        first -= 1
        cost += macs[first]
    return first


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
