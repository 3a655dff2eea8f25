"""Samplers for Optuna that depend on nothing but the study: a search that is resumed proposes the same."""

from collections.abc import Callable
from typing import Any

import numpy as np
from cmaes import CMA
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from vaelab.seeding import derive_seed
from vaelab.sweeps.search.space import Space

Number = FloatDistribution | IntDistribution


class PerTrial(BaseSampler):
    """A sampler made anew for each trial, and for each parameter drawn by itself, from f(seed, number of the trial).

    So what it proposes is a function of the study alone. A sampler that kept its generator would begin
    again with its first numbers in another process.

    Args:
        make: seed -> sampler.
        seed: of the search.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self.make = make
        self.seed = seed
        self.sampler: BaseSampler = RandomSampler()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make that of this trial."""
        self.sampler = self._of(trial, "trial")
        self.sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """What it proposes together."""
        return self.sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values for these."""
        return self.sampler.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        """A value for one of the others."""
        return self._of(trial, f"trial/{name}").sample_independent(study, trial, name, distribution)

    def _of(self, trial: FrozenTrial, purpose: str) -> BaseSampler:
        return self.make(derive_seed(self.seed, purpose, trial.number) % 2**32)


class CmaEsSampler(BaseSampler):
    """CMA-ES in the unit cube, by the package cmaes; choices are drawn at random.

    Trials that have a value, in the order in which they got it, are the generations. Its state is made again from
    them for each proposal, where Optuna's keeps a pickle in the storage, which whoever reads it runs.

    Args:
        space: what is searched.
        population_size: of a generation; by default that of the package.
        sigma: of the first generation.
        seed: of this proposal.
    """

    def __init__(self, space: Space, *, population_size: int | None, sigma: float, seed: int) -> None:
        self.space = space
        self.population_size = population_size
        self.sigma = sigma
        self.seed = seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The numbers."""
        return {key: number for key, number in self.space.numbers.items() if not number.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A draw from the distribution to which the generations so far lead."""
        numbers = {key: number for key, number in self.space.numbers.items() if key in search_space}
        if not numbers:
            return {}
        strategy = CMA(
            mean=np.full(len(numbers), 0.5),
            sigma=self.sigma,
            bounds=np.tile([0.0, 1.0], (len(numbers), 1)),
            population_size=self.population_size,
            seed=self.seed,
        )
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        told = sorted(
            study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)),
            key=lambda trial: (trial.datetime_complete, trial.number),
        )
        size = strategy.population_size
        for start in range(0, len(told) - size + 1, size):
            strategy.tell([(_point(numbers, other), sign * other.values[0]) for other in told[start : start + size]])
        return {key: _value(number, x) for (key, number), x in zip(numbers.items(), strategy.ask(), strict=True)}

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        """A choice."""
        return RandomSampler(seed=self.seed).sample_independent(study, trial, name, distribution)


def _point(numbers: dict[str, Number], trial: FrozenTrial) -> NDArray[np.float64]:
    """Where a trial lies in the unit cube."""
    point = []
    for key, number in numbers.items():
        low, high = _range(number)
        value = np.log(trial.params[key]) if number.log else trial.params[key]
        point.append((value - low) / (high - low))
    return np.array(point)


def _value(number: Number, x: float) -> float | int:
    """The value of a parameter at x in [0, 1]."""
    low, high = _range(number)
    value = low + x * (high - low)
    value = float(np.exp(value)) if number.log else value
    if number.step:
        value = number.low + round((value - number.low) / number.step) * number.step
    value = min(max(value, number.low), number.high)
    return int(value) if isinstance(number, IntDistribution) else float(value)


def _range(number: Number) -> tuple[float, float]:
    """The ends, on the parameter's scale; each of a few values has as much room as the others."""
    half = (number.step or 0) / 2
    low, high = number.low - half, number.high + half
    return (float(np.log(low)), float(np.log(high))) if number.log else (low, high)
