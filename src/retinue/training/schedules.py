"""Learning-rate schedules, as factors of the base rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from retinue.training.options import ScheduleOptions, StageOptions


def warmup_steps(schedule: ScheduleOptions, steps_per_epoch: int) -> int:
    """How many steps the rate rises for."""
    if schedule.warmup_steps is not None:
        return schedule.warmup_steps
    return round(schedule.warmup_epochs * steps_per_epoch)


def factor(schedule: ScheduleOptions, step: int, total: int, steps_per_epoch: int) -> float:
    """What the rate is multiplied with in `step` (from 0) of `total` steps: of the stage, or of the
    training if the schedule goes over that.

    Warm-up reaches 1 with the first step after it; what follows goes from 1 over the remaining
    steps, or, counted from the start, over all of them. Cosine: Loshchilov & Hutter, "SGDR", 2017,
    eq. 5, without restarts.
    """
    if schedule.hold == "epoch":
        step -= step % steps_per_epoch
    warmup = min(warmup_steps(schedule, steps_per_epoch), total)
    if step < warmup:
        risen = float((step / warmup) ** schedule.warmup_power)
        return schedule.warmup_start + (1 - schedule.warmup_start) * risen
    flat = round(schedule.flat_epochs * steps_per_epoch)
    begin = warmup if schedule.counted_from == "warmup" else 0
    progress = min((step - begin) / max(total - begin - flat, 1), 1.0)
    final = schedule.final
    match schedule.name:
        case "constant":
            return 1.0
        case "cosine":
            return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
        case "poly":
            return final + (1 - final) * float((1 - progress) ** schedule.power)
        case "step":
            passed = sum(step >= milestone * total for milestone in schedule.milestones)
            return float(schedule.gamma**passed)


def span(stages: Sequence[StageOptions], epoch_steps: Sequence[int], index: int) -> tuple[int, int]:
    """How many steps of stage `index` came before it, and how many there are in all, as its
    schedule counts them. `epoch_steps`: the steps of an epoch of each stage, by which the epochs of
    the others are turned into steps of this one."""
    own = epoch_steps[index]
    here = stages[index].total_steps(own)
    if stages[index].schedule.over == "stage":
        return 0, here
    counted = zip(stages, epoch_steps, strict=True)
    steps = [round(stage.total_steps(each) / each * own) for stage, each in counted]
    return sum(steps[:index]), sum(steps)
