"""The jobs of a grid: one for each combination of the values that Hydra's override grammar sweeps over."""

import re
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
from vaelab.errors import ConfigError, did_you_mean
from vaelab.sweeps.folder import short_names, shown


@dataclass(frozen=True)
class Combination:
    """What one job is composed from, and of that what the sweep varies."""

    overrides: Sequence[str]
    parameters: Mapping[str, Any]


_Place = Combination  # on one axis


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


def combinations(overrides: Sequence[str], paired: Sequence[Sequence[str]] = ()) -> list[Combination]:
    """The product of all axes, the last one varying fastest; where a key is given twice, the later one counts.

    Args:
        overrides: of which some sweep over values.
        paired: groups of parameters that vary together, as by `zip`; they count as one axis.

    >>> [job.parameters for job in combinations(["latent_dim=2,8", "seed=range(1,3)", "name=x"])][:3]
    [{'latent_dim': 2, 'seed': 1}, {'latent_dim': 2, 'seed': 2}, {'latent_dim': 8, 'seed': 1}]

    Raises:
        ConfigError: an axis has no values or one value twice, or paired axes do not have as many.
    """
    texts: dict[str, list[str]] = {}  # the key with its + -> an override for each value
    swept: dict[str, str] = {}  # the same key -> the parameter
    mistakes: list[str] = []
    for override in parse(overrides, mistakes):
        key, text = override.get_key_element(), str(override.input_line)
        swept.pop(key, None)
        texts[key] = [text]
        if not override.is_sweep_override():
            continue
        if not override.is_discrete_sweep():
            mistakes.append(
                f"{text}: a grid needs single values, as in {key}=1,2 or {key}=range(0,10,2); "
                "hydra/sweeper=optuna searches an interval"
            )
            continue
        swept[key] = override.key_or_group
        texts[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        if not texts[key]:
            mistakes.append(f"{text}: there is no value in it")
    together = _together(swept, texts, paired, mistakes)
    parser, axes = OverridesParser.create(), list[list[_Place]]()
    for key in texts:
        keys = together.get(key, [key])
        if key != keys[0]:
            continue
        axes.append([])
        for row in zip(*(texts[of] for of in keys), strict=False):  # uneven rows are a mistake by now
            values = {
                swept[of]: parser.parse_override(text).value()
                for of, text in zip(keys, row, strict=True)
                if of in swept
            }
            if any(_same(values, place.parameters) for place in axes[-1]):
                mistakes.append(f"{' '.join(row)} is in the sweep twice; a job is trained once, so give it once")
            axes[-1].append(_Place(row, values))
    if mistakes:
        raise ConfigError(mistakes)
    return [
        Combination(
            [text for place in places for text in place.overrides],
            {key: value for place in places for key, value in place.parameters.items()},
        )
        for places in product(*axes)
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
    mistakes: list[str] = []
    axes: list[str] = []
    paired: Any = []
    try:
        sweeper = compose_with_hydra(first_values(overrides), config_dir=config_dir).hydra.sweeper
        axes = [f"{key}={values}" for key, values in (sweeper.params or {}).items()]
        paired = OmegaConf.to_container(sweeper.get("zip") or OmegaConf.create([]))
    except ConfigError as error:
        mistakes += error.mistakes
    try:
        jobs = combinations([*axes, *overrides], [paired] if paired and isinstance(paired[0], str) else paired)
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


def _together(
    swept: Mapping[str, str], texts: Mapping[str, Sequence[str]], paired: Sequence[Sequence[str]], mistakes: list[str]
) -> dict[str, list[str]]:
    """The keys that each paired key varies with, itself included."""
    together: dict[str, list[str]] = {}
    key_of = {parameter: key for key, parameter in swept.items()}
    for group in paired:
        unknown = [name for name in group if name not in key_of]
        if unknown:
            near = did_you_mean(unknown[0], key_of)
            mistakes.append(f"hydra.sweeper.zip: {unknown[0]} is not swept over{near}")
            continue
        keys = [key_of[name] for name in group]
        if len({*keys}) < len(keys) or any(key in together for key in keys):
            mistakes.append(f"hydra.sweeper.zip=[{','.join(group)}] names a parameter twice")
        counts = {name: len(texts[key_of[name]]) for name in group}
        if len({*counts.values()}) > 1:
            said = ", ".join(f"{name} has {count}" for name, count in counts.items())
            mistakes.append(f"hydra.sweeper.zip: paired parameters need as many values: {said}")
        together |= {key: sorted(keys, key=list(texts).index) for key in keys}
    return together


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two places on an axis have the same values, however they are written."""
    return bool(one) and all(
        value == other[key] and isinstance(value, bool) == isinstance(other[key], bool) for key, value in one.items()
    )
