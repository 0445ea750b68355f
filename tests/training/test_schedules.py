from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.training.options import ScheduleOptions, StageOptions
from retinue.training.planning.lengths import with_epochs
from retinue.training.schedules import factor, span


def test_cosine_goes_from_one_over_a_half_to_the_final_fraction() -> None:
    schedule = ScheduleOptions(name="cosine", final=0.1)
    assert factor(schedule, 0, 100, 10) == pytest.approx(1.0)
    assert factor(schedule, 50, 100, 10) == pytest.approx(0.55)
    assert factor(schedule, 100, 100, 10) == pytest.approx(0.1)


def test_warm_up_is_linear_and_comes_before_the_schedule() -> None:
    schedule = ScheduleOptions(name="cosine", warmup_epochs=2, warmup_start=0.2)
    assert factor(schedule, 0, 100, 10) == pytest.approx(0.2)
    assert factor(schedule, 10, 100, 10) == pytest.approx(0.6)
    assert factor(schedule, 20, 100, 10) == pytest.approx(1.0)
    assert factor(schedule, 60, 100, 10) == pytest.approx(0.5)


def test_step_falls_at_each_milestone() -> None:
    schedule = ScheduleOptions(name="step", milestones=(0.5, 0.75), gamma=0.1)
    got = [factor(schedule, step, 100, 10) for step in (0, 49, 50, 74, 75, 99)]
    assert got == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_poly_by_hand() -> None:
    schedule = ScheduleOptions(name="poly", power=2)
    assert factor(schedule, 25, 100, 10) == pytest.approx(0.75**2)


@given(
    name=st.sampled_from(["constant", "cosine", "step", "poly"]),
    warmup=st.floats(0, 20),
    total=st.integers(1, 300),
    data=st.data(),
)
def test_the_factor_stays_between_nothing_and_one(
    name: str, warmup: float, total: int, data: st.DataObject
) -> None:
    schedule = ScheduleOptions(name=name, warmup_epochs=warmup)  # type: ignore[arg-type]
    step = data.draw(st.integers(0, total - 1))
    assert 0 <= factor(schedule, step, total, 7) <= 1


def test_a_warm_up_in_steps_on_a_curve_that_is_counted_from_the_start() -> None:
    """The shares of a published rate: step / 1000, then ½ · (1 + cos(π step / n))."""
    schedule = ScheduleOptions(warmup_steps=1000, warmup_start=0, counted_from="start")
    got = [factor(schedule, step, 4000, 7) for step in (0, 1, 500, 999, 1000, 2000, 3000, 4000)]
    half = 0.5**0.5
    assert got == pytest.approx([0, 0.001, 0.5, 0.999, (1 + half) / 2, 0.5, (1 - half) / 2, 0])
    after = ScheduleOptions(warmup_steps=1000, warmup_start=0)
    got = [factor(after, step, 4000, 7) for step in (999, 1000, 2500, 4000)]
    assert got == pytest.approx([0.999, 1, 0.5, 0])


def test_a_warm_up_is_given_in_epochs_or_in_steps() -> None:
    with pytest.raises(ValueError, match="give warmup_epochs or warmup_steps, not both"):
        ScheduleOptions(warmup_steps=10, warmup_epochs=1)


def test_a_shorter_stage_warms_up_for_fewer_steps() -> None:
    stage = StageOptions(epochs=10, schedule=ScheduleOptions(warmup_steps=100))
    assert with_epochs(stage, 5).schedule.warmup_steps == 50
    assert with_epochs(stage, 20).schedule.warmup_steps == 100


def test_a_quadratic_warm_up_is_slow_at_first() -> None:
    schedule = ScheduleOptions(warmup_epochs=2, warmup_start=0.1, warmup_power=2)
    assert factor(schedule, 10, 100, 10) == pytest.approx(0.1 + 0.9 * 0.25)
    assert factor(schedule, 20, 100, 10) == pytest.approx(1.0)


def test_it_ends_flat_and_can_be_held_for_an_epoch() -> None:
    schedule = ScheduleOptions(final=0.01, flat_epochs=2, hold="epoch")
    got = [factor(schedule, step, 100, 10) for step in (0, 9, 40, 49, 80, 99)]
    assert got == pytest.approx([1, 1, 0.505, 0.505, 0.01, 0.01])


def test_over_the_training_a_stage_goes_on_where_the_one_before_it_ended() -> None:
    over = {"name": "cosine", "over": "training", "warmup_epochs": 1, "warmup_start": 0.1}
    stages = [
        StageOptions(name="frozen", epochs=5, schedule=over),
        StageOptions(name="all", epochs=15, batch_size=16, schedule=over),
    ]
    assert span(stages, [10, 20], 0) == (0, 200)
    assert span(stages, [10, 20], 1) == (100, 400)
    # Epoch 5 of 20, by the steps of either.
    last = factor(stages[0].schedule, 50, 200, 10)
    assert factor(stages[1].schedule, 100, 400, 20) == pytest.approx(last)
    # Not warmed up again.
    assert factor(stages[1].schedule, 101, 400, 20) < last


def test_a_stage_alone_counts_its_own_steps() -> None:
    stages = [StageOptions(name="a", steps=7), StageOptions(name="b", epochs=3)]
    assert span(stages, [10, 20], 1) == (0, 60)
