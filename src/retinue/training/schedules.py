"""Learning-rate schedules, as factors of the base rate."""

from __future__ import annotations

import math

from retinue.training.options import ScheduleOptions


def warmup_steps(schedule: ScheduleOptions, steps_per_epoch: int) -> int:
    """How many steps the rate rises for."""
    return round(schedule.warmup_epochs * steps_per_epoch)


def factor(schedule: ScheduleOptions, step: int, total: int, steps_per_epoch: int) -> float:
    """What the rate is multiplied with in `step` (from 0) of a stage of `total` steps.

    Warm-up is linear and reaches 1 with the first step after it; what follows goes from 1 over the
    remaining steps. Cosine: Loshchilov & Hutter, "SGDR", 2017, eq. 5, without restarts.
    """
    warmup = min(warmup_steps(schedule, steps_per_epoch), total)
    if step < warmup:
        return schedule.warmup_start + (1 - schedule.warmup_start) * step / warmup
    progress = (step - warmup) / max(total - warmup, 1)
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
