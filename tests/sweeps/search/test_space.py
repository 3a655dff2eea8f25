"""Search spaces, in Hydra's grammar."""

import math

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from vaelab.errors import ConfigError
from vaelab.sweeps.search.space import Space


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("optimizer.lr=interval(1e-4,1e-2)", FloatDistribution(1e-4, 1e-2)),
        ("optimizer.lr=interval(0,1)", FloatDistribution(0, 1)),
        ("optimizer.lr=tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("latent_dim=int(interval(2,32))", IntDistribution(2, 32)),
        ("latent_dim=tag(int,interval(2,32))", IntDistribution(2, 32)),
        ("latent_dim=tag(log,int(interval(2,32)))", IntDistribution(2, 32, log=True)),
        ("latent_dim=range(2,9)", IntDistribution(2, 8)),
        ("latent_dim=range(2,9,3)", IntDistribution(2, 8, step=3)),
        ("latent_dim=range(9,2,-3)", IntDistribution(3, 9, step=3)),
        ("latent_dim=tag(log,range(2,9))", IntDistribution(2, 8, log=True)),
        ("objective.kl_weight=range(0.5,1.1,0.1)", FloatDistribution(0.5, 1.0, step=0.1)),
        ("latent_dim=2,8", CategoricalDistribution(["2", "8"])),
        ("latent_dim=shuffle(2,8)", CategoricalDistribution(["2", "8"])),
        ("encoder.hidden=choice([400],[200,200])", CategoricalDistribution(["[400]", "[200,200]"])),
        ("optimizer=glob(s*)", CategoricalDistribution(["sgd", "soap"])),
    ],
)
def test_what_is_written_is_what_is_drawn_from(text: str, distribution: object) -> None:
    assert list(Space([text]).distributions.values()) == [distribution]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optimizer.lr=interval(2,1)", "interval(1,2)"),
        ("optimizer.lr=interval(1,1)", "below"),
        ("optimizer.lr=interval(0,inf)", "finite"),
        ("optimizer.lr=tag(log,interval(0,1))", "log needs an interval above 0"),
        ("optimizer.lr=tag(lgo,interval(1,2))", "there is no tag lgo"),
        ("latent_dim=tag(int,interval(0.5,2))", "integers"),
        ("latent_dim=range(2,2)", "no value"),
        ("latent_dim=range(2,9,0)", "step not 0"),
        ("latent_dim=tag(log,range(2,9,3))", "steps of 1"),
        ("latent_dim=tag(log,choice(2,4))", "log is for numbers"),
        ("model=glob(nothing*)", "no value"),
        ("seed=1,2,3", "the luckiest seed"),
        ("hydra.sweeper.n_trials=1,2", "settings of the sweep"),
        ("latent_dim=3", "nothing to search"),
        ("latent_dim", "not an override"),
    ],
)
def test_what_cannot_be_searched_is_said(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        Space([text])
    assert len(error.value.mistakes) == 1
    assert words in error.value.mistakes[0]


def test_the_ends_have_each_choice_and_both_ends_of_each_range() -> None:
    space = Space(["a=interval(1,2)", "b=x,y,z", "c=range(3,9)", "d=7"])
    assert space.ends() == [
        {"a": 1.0, "b": "x", "c": 3},
        {"a": 2.0, "b": "x", "c": 3},
        {"a": 1.0, "b": "y", "c": 3},
        {"a": 1.0, "b": "z", "c": 3},
        {"a": 1.0, "b": "x", "c": 8},
    ]
    assert space.overrides(space.ends()[0]) == ["d=7", "a=1.0", "b=x", "c=3"]


def test_the_size_is_the_number_of_combinations() -> None:
    assert Space(["a=1,2", "b=range(0,1,0.1)", "c=range(1,4)"]).size == 60
    assert Space(["a=1,2", "b=interval(0,1)"]).size == math.inf


def test_parameters_are_what_the_text_means() -> None:
    space = Space(["+encoder.hidden=[400],[200,200]", "x=a,null", "latent_dim=1", "latent_dim=3,4"])
    values = {"+encoder.hidden": "[200,200]", "x": "null", "latent_dim": "4"}
    assert space.parameters(values) == {"encoder.hidden": [200, 200], "x": None, "latent_dim": 4}
    assert space.fixed == []
