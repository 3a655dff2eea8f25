"""What chooses the jobs of a sweep: the parts of `hydra/sweeper`. None of them imports Optuna before it is needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    from vaelab.sweeps.search.space import Space

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0)]
Several = Annotated[int, Field(gt=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Metric = Annotated[str, Field(pattern="^[^/]+/.+$")]
Direction = Literal["minimize", "maximize"]
Axes = Mapping[str, Any] | None


class Sampler(Protocol):
    """Proposes parameters."""

    def unfit(self, space: "Space", metrics: int) -> str | None:
        """Why it cannot search `space` for so many metrics; None where it can."""
        return None

    def sampler(self, space: "Space", seed: int) -> "BaseSampler":
        """Optuna's. It is made anew for each trial, and has no memory but the study."""


class Pruner(Protocol):
    """Decides whether a run is worth its time."""

    def pruner(self) -> "BasePruner":
        """Optuna's."""


@dataclass(frozen=True, kw_only=True)
class Basic:
    """Every combination of the values that are swept over.

    Args:
        params: axes besides those that are typed.
        zip: parameters that vary together, or several groups of them.
    """

    params: Axes = None
    zip: list[str] | list[list[str]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class TPE(Sampler):
    """Tree-structured Parzen estimator (Bergstra et al. 2011; Watanabe 2023)."""

    n_startup_trials: Count = 10
    multivariate: bool | None = None
    constant_liar: bool = True

    def sampler(self, space: "Space", seed: int) -> "BaseSampler":
        """Optuna's."""
        from optuna.samplers import TPESampler

        return TPESampler(
            n_startup_trials=self.n_startup_trials,
            multivariate=self.multivariate,
            constant_liar=self.constant_liar,
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class Random(Sampler):
    """Each parameter uniformly on its own scale."""

    def sampler(self, space: "Space", seed: int) -> "BaseSampler":
        """Optuna's."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)


@dataclass(frozen=True, kw_only=True)
class CMAES(Sampler):
    """Covariance matrix adaptation evolution strategy (Hansen 2016)."""

    population_size: Several | None = None
    sigma: Share = 0.1667

    def unfit(self, space: "Space", metrics: int) -> str | None:
        """It needs numbers, and one thing to optimise."""
        if metrics > 1:
            return "it optimises one metric; hydra/sweeper/sampler=nsga2 or tpe takes several"
        if not space.numbers:
            return "it searches numbers, interval(...) or range(...), and there are choices only"
        return None

    def sampler(self, space: "Space", seed: int) -> "BaseSampler":
        """Of ours, on the package cmaes: Optuna's keeps a pickle in the storage."""
        from vaelab.sweeps.search.proposals import CmaEsSampler

        return CmaEsSampler(space, population_size=self.population_size, sigma=self.sigma, seed=seed)


@dataclass(frozen=True, kw_only=True)
class NSGA2(Sampler):
    """The genetic algorithm NSGA-II (Deb et al. 2002)."""

    population_size: Several = 20
    crossover_prob: Probability = 0.9
    swapping_prob: Probability = 0.5
    mutation_prob: Probability | None = None

    def sampler(self, space: "Space", seed: int) -> "BaseSampler":
        """Optuna's."""
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(
            population_size=self.population_size,
            crossover_prob=self.crossover_prob,
            swapping_prob=self.swapping_prob,
            mutation_prob=self.mutation_prob,
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class Median:
    """End a run whose best value so far is worse than the median of the others at the same epoch."""

    n_startup_trials: Count = 5
    n_warmup_steps: Count = 0
    interval_steps: Positive = 1

    def pruner(self) -> "BasePruner":
        """Optuna's."""
        from optuna.pruners import MedianPruner

        return MedianPruner(self.n_startup_trials, self.n_warmup_steps, self.interval_steps)


@dataclass(frozen=True, kw_only=True)
class SuccessiveHalving:
    """Asynchronous successive halving (Li et al. 2020): at each rung of epochs only the best go on."""

    min_resource: Positive = 1
    reduction_factor: Several = 4

    def pruner(self) -> "BasePruner":
        """Optuna's."""
        from optuna.pruners import SuccessiveHalvingPruner

        return SuccessiveHalvingPruner(self.min_resource, self.reduction_factor)


@dataclass(frozen=True, kw_only=True)
class Optuna:
    """A search: each job's parameters are chosen by what those before it have reached.

    Raises:
        ValueError: two knobs that do not go together.
    """

    metric: Metric | Annotated[list[Metric], Field(min_length=1)] = "val/loss"
    direction: Direction | Annotated[list[Direction], Field(min_length=1)] = "minimize"
    n_trials: Positive = 20
    sampler: Any
    pruner: Any = None
    seed: Seed | None = None
    storage: Name | None = None
    study_name: Name | None = None
    params: Axes = None

    extra = "optuna"

    def __post_init__(self) -> None:
        """Refuse what each knob allows but not all together."""
        if isinstance(self.direction, list) and len(self.direction) != len(self.metrics):
            raise ValueError(f"{len(self.metrics)} metrics, and {len(self.direction)} directions")
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError("metric names one twice")
        if not hasattr(self.sampler, "sampler"):
            raise ValueError("sampler: not a part of hydra/sweeper/sampler")
        if self.pruner is not None and not hasattr(self.pruner, "pruner"):
            raise ValueError("pruner: not a part of hydra/sweeper/pruner")
        if self.pruner is not None and len(self.metrics) > 1:
            raise ValueError("a run is pruned by one metric: with several, hydra/sweeper/pruner=null")
        if self.pruner is not None and not self.metrics[0].startswith("val/"):
            raise ValueError(f"a run is pruned by what it validates with, val/..., not by {self.metrics[0]}")
        if (self.storage is None) != (self.study_name is None):
            raise ValueError("a storage that sweeps share needs the name of the study as well: storage and study_name")

    @property
    def metrics(self) -> Sequence[str]:
        """What is optimised."""
        return [self.metric] if isinstance(self.metric, str) else self.metric

    @property
    def directions(self) -> Sequence[Direction]:
        """Of each metric."""
        return [self.direction] * len(self.metrics) if isinstance(self.direction, str) else self.direction
