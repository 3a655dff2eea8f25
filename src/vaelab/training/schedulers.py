"""Learning-rate schedules: the optimizer's rates times a factor of the step.

Positional arguments are the numbers of optimizer steps of the whole run and of an epoch; options are keyword-only.
Each returns the factor as a function of the step.
"""

import math
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

Factor = Annotated[float, Field(ge=0, le=1)]
PositiveFactor = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]


def cosine(
    total_steps: int, steps_per_epoch: int, /, *, warmup_steps: Count = 0, final: Factor = 0.0
) -> Callable[[int], float]:
    """Increase linearly over `warmup_steps`, then decrease along half a cosine wave to `final` at the run's end.

    Loshchilov & Hutter (2017), equation 5, without restarts.

    >>> factor = cosine(100, 10, warmup_steps=0, final=0.0)
    >>> factor(0), round(factor(50), 6), factor(100)
    (1.0, 0.5, 0.0)
    """
    climb = warmup(total_steps, steps_per_epoch, steps=warmup_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return climb(step)
        progress = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2

    return factor


def warmup(total_steps: int, steps_per_epoch: int, /, *, steps: Count = 500) -> Callable[[int], float]:
    """Increase linearly over the first `steps`, then stay at 1 (Goyal et al. 2017, section 2.2).

    Step s < `steps` has the factor (s + 1) / (`steps` + 1), so that the first one is not 0.

    >>> factor = warmup(100, 10, steps=3)
    >>> [factor(step) for step in (0, 1, 2, 3, 99)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return lambda step: min((step + 1) / (steps + 1), 1.0)


def exponential(
    total_steps: int, steps_per_epoch: int, /, *, decay: PositiveFactor = 0.95, warmup_steps: Count = 0
) -> Callable[[int], float]:
    """Increase linearly over `warmup_steps`, then decay by a factor of `decay` per epoch, a little at every step.

    >>> factor = exponential(100, 10, decay=0.25)
    >>> factor(0), factor(5), factor(20)
    (1.0, 0.5, 0.0625)
    """
    climb = warmup(total_steps, steps_per_epoch, steps=warmup_steps)

    def factor(step: int) -> float:
        return climb(step) if step < warmup_steps else float(decay ** ((step - warmup_steps) / steps_per_epoch))

    return factor


def multistep(
    total_steps: int, steps_per_epoch: int, /, *, epochs: list[Positive], factor: Factor = 0.1
) -> Callable[[int], float]:
    """Multiply by `factor` at the end of each of `epochs`.

    >>> [multistep(100, 10, epochs=[2, 5], factor=0.5)(step) for step in (0, 19, 20, 50)]
    [1.0, 1.0, 0.5, 0.25]
    """
    return lambda step: float(factor ** sum(step >= epoch * steps_per_epoch for epoch in epochs))
