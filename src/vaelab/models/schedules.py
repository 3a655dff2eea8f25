"""Weights that change while training runs: step -> weight.

A schedule is called with the optimizer's step (0 before the first update) and, for evaluation, with
`math.inf`, where it gives its final value. A plain number is a schedule that stands still; `at` reads both.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

from pydantic import Field

Fraction = Annotated[float, Field(gt=0, le=1)]
Steps = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@runtime_checkable
class Schedule(Protocol):
    """A weight as a function of the optimizer's step."""

    def __call__(self, step: float) -> float:
        """The weight at `step`; its final value at `math.inf`."""


@dataclass(frozen=True, kw_only=True)
class Linear:
    """start + (end - start) * min(step / steps, 1): a straight line, then constant (Bowman et al. 2016).

    Examples:
        >>> weight = Linear(start=0, end=1, steps=100)
        >>> weight(0), weight(25), weight(1000)
        (0.0, 0.25, 1.0)
    """

    start: Weight = 0.0
    end: Weight = 1.0
    steps: Steps

    def __call__(self, step: float) -> float:
        """The weight at `step`."""
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """start + (end - start) * (1 - cos(pi * min(step / steps, 1))) / 2: half a cosine wave, then constant.

    Examples:
        >>> weight = Cosine(start=0, end=4, steps=100)
        >>> weight(0), weight(50), weight(100)
        (0.0, 2.0, 4.0)
    """

    start: Weight = 0.0
    end: Weight = 1.0
    steps: Steps

    def __call__(self, step: float) -> float:
        """The weight at `step`."""
        wave = (1.0 - math.cos(math.pi * min(step / self.steps, 1.0))) / 2.0
        return self.start + (self.end - self.start) * round(wave, 15)


@dataclass(frozen=True, kw_only=True)
class Cyclical:
    """`cycles` ramps of steps / cycles steps each, then constant at `end` (Fu et al. 2019, equation 6).

    Within a cycle the weight climbs in a line from `start` to `end` over the first `ramp` of it and stays
    there for the rest.

    Examples:
        >>> weight = Cyclical(start=0, end=1, steps=100, cycles=4, ramp=0.5)
        >>> [round(weight(step), 6) for step in (0, 5, 12.5, 24, 25, 30, 100)]
        [0.0, 0.4, 1.0, 1.0, 0.0, 0.4, 1.0]
    """

    start: Weight = 0.0
    end: Weight = 1.0
    steps: Steps
    cycles: Steps = 4
    ramp: Fraction = 0.5

    def __call__(self, step: float) -> float:
        """The weight at `step`."""
        if step >= self.steps:
            return float(self.end)
        position = step * self.cycles / self.steps % 1.0
        return self.start + (self.end - self.start) * min(position / self.ramp, 1.0)


def at(weight: float | Schedule, step: float) -> float:
    """The weight at `step`, of a number or a schedule."""
    return weight(step) if callable(weight) else weight
