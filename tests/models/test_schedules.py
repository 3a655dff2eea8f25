import math

import pytest

from vaelab.models.schedules import Cosine, Cyclical, Linear, Schedule, at

SCHEDULES = [
    Linear(start=0.5, end=4.0, steps=40),
    Linear(start=4.0, end=0.5, steps=40),
    Cosine(start=0.5, end=4.0, steps=40),
    Cosine(start=4.0, end=0.5, steps=40),
    Cyclical(start=0.5, end=4.0, steps=40, cycles=4, ramp=0.5),
    Cyclical(start=4.0, end=0.5, steps=40, cycles=1, ramp=1.0),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_schedule_starts_at_start_and_stays_at_end_after_its_steps(schedule):
    assert schedule(0) == pytest.approx(schedule.start, abs=1e-12)
    for step in (40, 41, 10_000, math.inf):
        assert schedule(step) == pytest.approx(schedule.end, abs=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_schedule_stays_between_start_and_end(schedule):
    low, high = sorted((schedule.start, schedule.end))

    assert all(low - 1e-12 <= schedule(step) <= high + 1e-12 for step in range(100))


@pytest.mark.parametrize(("step", "weight"), [(0, 2.0), (10, 2.5), (20, 3.0), (39, 3.95), (40, 4.0)])
def test_linear_is_a_straight_line(step, weight):
    assert Linear(start=2.0, end=4.0, steps=40)(step) == pytest.approx(weight, abs=1e-12)


@pytest.mark.parametrize("step", range(0, 45, 5))
def test_cosine_is_half_a_wave(step):
    # sin^2(a / 2) = (1 - cos a) / 2: the same curve by another formula.
    expected = 2.0 + 2.0 * math.sin(math.pi / 2 * min(step / 40, 1)) ** 2

    assert Cosine(start=2.0, end=4.0, steps=40)(step) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ramp", [0.25, 0.5, 1.0])
def test_cyclical_repeats_a_ramp_and_a_plateau(ramp):
    schedule = Cyclical(start=0.0, end=1.0, steps=80, cycles=4, ramp=ramp)

    for step in range(80):
        within = step - 20 * (step // 20)
        assert schedule(step) == pytest.approx(min(within / (20 * ramp), 1.0), abs=1e-12), step


def test_cyclical_copes_with_cycles_that_are_no_whole_number_of_steps():
    schedule = Cyclical(start=0.0, end=1.0, steps=10, cycles=3, ramp=1.0)

    assert [schedule(step) for step in range(11)] == pytest.approx([0, 0.3, 0.6, 0.9, 0.2, 0.5, 0.8, 0.1, 0.4, 0.7, 1])


@pytest.mark.parametrize("step", [0, 7, math.inf])
def test_a_number_is_a_schedule_that_stands_still(step):
    assert at(0.25, step) == 0.25


def test_at_reads_a_schedule_at_the_step():
    assert at(Linear(start=0.0, end=1.0, steps=4), 1) == 0.25


def test_schedules_are_told_from_numbers():
    assert all(isinstance(schedule, Schedule) for schedule in SCHEDULES)
    assert not isinstance(1.0, Schedule)
