"""What the samplers propose, with Optuna itself and functions whose minimum is known."""

import math
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import Trial, TrialState

from vaelab.sweeps.search.proposals import PerTrial
from vaelab.sweeps.search.space import Space
from vaelab.sweeps.search.sweepers import CMAES, NSGA2, TPE, Random, Sampler

NUMBERS = ["x=interval(-5,5)", "y=tag(log,interval(1e-4,1e2))"]
MIXED = [*NUMBERS, "n=range(0,30,3)", "kind=a,b,c"]


def searched(
    sampler: Sampler, overrides: list[str], value: Callable[[dict[str, Any]], float], trials: int, seed: int = 0
) -> list[dict[str, Any]]:
    space = Space(overrides)
    study = optuna.create_study(sampler=PerTrial(lambda seed: sampler.sampler(space, seed), seed))
    for _ in range(trials):
        trial = study.ask()
        study.tell(trial, value(space.suggest(trial)))
    return [trial.params for trial in study.trials]


def bowl(values: dict[str, Any]) -> float:
    """Least at x = 1, y = 0.1."""
    return float((values["x"] - 1) ** 2 + (math.log10(values["y"]) + 1) ** 2)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("sampler", [TPE(n_startup_trials=3), Random(), CMAES(), NSGA2(population_size=4)], ids=repr)
def test_a_search_that_is_cut_off_anywhere_proposes_what_it_would_have(sampler: Sampler) -> None:
    """Also where it was killed between the parameters of a trial."""
    expected = searched(sampler, MIXED, bowl, 12)
    space, storage = Space(MIXED), InMemoryStorage()

    def study() -> optuna.Study:
        return optuna.create_study(
            storage=storage,
            study_name="search",
            load_if_exists=True,
            sampler=PerTrial(lambda seed: sampler.sampler(space, seed), 0),
        )

    for number in range(12):
        cut_off = study().ask()
        cut = Space(MIXED[: number % 5] or MIXED)
        cut.suggest(cut_off)
        again = study()
        trial = Trial(again, storage.get_trial_id_from_study_id_trial_number(0, number))
        again.tell(trial, bowl(space.suggest(trial)))
    assert [trial.params for trial in study().trials] == expected


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_cma_es_finds_a_minimum_far_better_than_chance(direction: str) -> None:
    space = Space(NUMBERS)
    study = optuna.create_study(direction=direction, sampler=PerTrial(lambda seed: CMAES().sampler(space, seed), 1))
    sign = 1 if direction == "minimize" else -1
    for _ in range(150):
        trial = study.ask()
        study.tell(trial, sign * bowl(space.suggest(trial)))
    best = sign * study.best_value
    assert best < 1e-3
    assert best < 0.1 * min(map(bowl, searched(Random(), NUMBERS, bowl, 150)))


def test_cma_es_takes_integers_within_their_range_and_leaves_out_what_failed() -> None:
    space = Space(["n=tag(log,int(interval(1,64)))", "m=range(0,30,3)", "kind=a,b"])
    study = optuna.create_study(sampler=PerTrial(lambda seed: CMAES().sampler(space, seed), 0))
    for number in range(60):
        trial = study.ask()
        values = space.suggest(trial)
        if number % 3 == 0:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, abs(math.log2(float(values["n"])) - 4) + abs(float(values["m"]) - 9))
    assert all(1 <= trial.params["n"] <= 64 and trial.params["m"] in range(0, 30, 3) for trial in study.trials)
    assert {trial.params["kind"] for trial in study.trials} == {"a", "b"}
    assert study.best_value < 1


def test_a_log_interval_is_drawn_evenly_in_its_logarithm() -> None:
    """Of 300 draws of six decades about 50 lie in each: binomial, five standard deviations."""
    proposed = searched(Random(), ["y=tag(log,interval(1e-4,1e2))"], lambda values: 0.0, 300)
    decades = [math.floor(math.log10(point["y"])) for point in proposed]
    deviation = math.sqrt(300 * 1 / 6 * 5 / 6)
    assert all(abs(decades.count(decade) - 50) < 5 * deviation for decade in range(-4, 2))


def test_nsga2_finds_the_front_of_two_metrics() -> None:
    """f = (x^2, (x - 2)^2): the front is 0 <= x <= 2, a fifth of the range."""
    space = Space(["x=interval(-5,5)", "y=interval(0,1)"])
    sampler = NSGA2(population_size=10)
    study = optuna.create_study(
        directions=["minimize"] * 2, sampler=PerTrial(lambda seed: sampler.sampler(space, seed), 0)
    )
    for _ in range(160):
        trial = study.ask()
        x = float(space.suggest(trial)["x"])  # type: ignore[arg-type]
        study.tell(trial, [x**2, (x - 2) ** 2])
    late = [trial.params["x"] for trial in study.trials[-60:]]
    assert sum(0 <= x <= 2 for x in late) >= 24  # by chance 12


@pytest.mark.parametrize(
    ("sampler", "overrides", "metrics", "words"),
    [
        (CMAES(), ["kind=a,b"], 1, "choices only"),
        (CMAES(), NUMBERS, 2, "one metric"),
    ],
)
def test_what_a_sampler_cannot_search_is_said(sampler: Sampler, overrides: list[str], metrics: int, words: str) -> None:
    assert words in str(sampler.unfit(Space(overrides), metrics))
