"""The jobs of a grid: one for each combination of the values that Hydra's override grammar sweeps over."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from omegaconf import DictConfig, OmegaConf

from vaelab.config.check import check
from vaelab.config.compose import compose_with_hydra, without_hydra
from vaelab.config.overrides import parse
from vaelab.errors import ConfigError
from vaelab.sweeps.folder import short_names, shown


@dataclass(frozen=True)
class Combination:
    """What one job is composed from, and of that what the sweep varies."""

    overrides: Sequence[str]
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Composed:
    """A combination and its config.

    Args:
        combination: what it was composed from.
        config: the run's, resolved.
        hydra: Hydra's own node, unresolved.
    """

    combination: Combination
    config: DictConfig
    hydra: DictConfig


def combinations(overrides: Sequence[str]) -> list[Combination]:
    """The product of all axes, the last one varying fastest; where a key is given twice, the later one counts.

    >>> [job.parameters for job in combinations(["latent_dim=2,8", "seed=range(1,3)", "name=x"])][:3]
    [{'latent_dim': 2, 'seed': 1}, {'latent_dim': 2, 'seed': 2}, {'latent_dim': 8, 'seed': 1}]

    Raises:
        ConfigError: an axis has no values, one value twice, or more than can be counted.
    """
    axes: dict[str, list[str]] = {}
    swept: dict[str, str] = {}  # the key with its + -> the parameter
    mistakes: list[str] = []
    for override in parse(overrides, mistakes):
        key, text = override.get_key_element(), str(override.input_line)
        swept.pop(key, None)
        axes[key] = [text]
        if not override.is_sweep_override():
            continue
        if not override.is_discrete_sweep():
            mistakes.append(
                f"{text}: a grid needs single values, as in {key}=1,2 or {key}=range(0,10,2); "
                "hydra/sweeper=optuna searches an interval"
            )
            continue
        swept[key] = override.key_or_group
        axes[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        if not axes[key]:
            mistakes.append(f"{text}: there is no value in it")
        twice = [value for value, times in Counter(axes[key]).items() if times > 1]
        if twice:
            mistakes.append(f"{text}: {twice[0]} is in it twice; a job is trained once, so give each value once")
    if mistakes:
        raise ConfigError(mistakes)
    value = OverridesParser.create().parse_override
    return [
        Combination(
            texts, {swept[key]: value(text).value() for key, text in zip(axes, texts, strict=True) if key in swept}
        )
        for texts in product(*axes.values())
    ]


def first_values(overrides: Sequence[str]) -> list[str]:
    """The overrides with each axis at its first value; what is no override is left out.

    >>> first_values(["latent_dim=2,8", "optimizer.lr=interval(1e-4,1e-2)", "name=x"])
    ['latent_dim=2', 'optimizer.lr=0.0001', 'name=x']
    """
    firsts: list[str] = []
    for override in parse(overrides, []):
        if not override.is_sweep_override():
            firsts.append(str(override.input_line))
        elif isinstance(interval := override.value(), IntervalSweep):
            firsts.append(f"{override.get_key_element()}={interval.start}")
        else:
            firsts += [f"{override.get_key_element()}={value}" for value in islice(override.sweep_string_iterator(), 1)]
    return firsts


def compose_grid(
    overrides: Sequence[str], *, config_dir: str | Path | None = None, trust: Sequence[str] = ()
) -> list[Composed]:
    """Each job of a grid, composed and checked. Axes that the config itself has, in `hydra.sweeper.params`, come first.

    Raises:
        ConfigError: every mistake in any of them.
    """
    jobs, mistakes = combinations(overrides), list[str]()
    try:
        first = compose_with_hydra(jobs[0].overrides, config_dir=config_dir)
        if first.hydra.sweeper.params:
            axes = [f"{key}={values}" for key, values in first.hydra.sweeper.params.items()]
            jobs = combinations([*axes, *overrides])
    except ConfigError as error:
        mistakes += error.mistakes
    try:
        composed = compose_all(jobs, config_dir=config_dir, trust=trust)
    except ConfigError as error:
        mistakes += error.mistakes
    if mistakes:
        raise ConfigError(list(dict.fromkeys(mistakes)))
    return composed


def compose_all(
    jobs: Iterable[Combination], *, config_dir: str | Path | None = None, trust: Sequence[str] = ()
) -> list[Composed]:
    """Each of these jobs, composed and checked.

    Raises:
        ConfigError: every mistake in any of them.
    """
    composed, mistakes = list[Composed](), list[str]()
    for job in jobs:
        try:
            config = compose_with_hydra(job.overrides, config_dir=config_dir)
            own = without_hydra(config)
            check(own, trust=trust)
            composed.append(Composed(job, own, config.hydra))
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(list(dict.fromkeys(mistakes)))
    return composed


def subfolder(job: Composed, number: int, of: int) -> str:
    """A job's folder within the sweep's: what `hydra.sweep.subdir` says of its number and its id.

    The id is the number and the parameters, such as "07_kl_weight=4,seed=1".
    """
    parameters = ",".join(f"{name}={shown(value)}" for name, value in short_names(job.combination.parameters).items())
    words = re.sub(r"[^\w=,.+\[\]-]+", "_", parameters)[:100]
    name = f"{number:0{len(str(of - 1))}}_{words}".rstrip("_.")
    OmegaConf.update(job.hydra, "job.num", number, force_add=True)
    OmegaConf.update(job.hydra, "job.id", name, force_add=True)
    return str(job.hydra.sweep.subdir)
