"""Compose a config from conf/ and a user's overrides, and report every mistake in them at once.

Nothing here imports torch, so that a misspelt key is reported immediately.
"""

from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from vaelab.config.conf import contents, groups
from vaelab.config.loader import Loader, loader
from vaelab.config.overrides import Overrides, keys_of, options_of, parse, said, unknown_key, unsearchable, wrong
from vaelab.errors import ConfigError

# Others of Hydra's settings name code to run or change the process: callbacks, logging, environment variables.
SETTINGS = ("hydra.run.dir", "hydra.sweep", "hydra.launcher", "hydra.sweeper", "hydra.searchpath")
FILLED_IN = ("hydra.runtime", "hydra.overrides", "hydra.job.override_dirname")  # by Hydra itself


def compose(overrides: Sequence[str] = (), *, config_dir: str | Path | None = None) -> DictConfig:
    """Compose the config of one run: conf/train.yaml with Hydra's overrides applied and interpolations resolved.

    Args:
        overrides: as on the command line, such as "model=ae" or "latent_dim=8". One that sets the `_target_` of a part
            starts from that class's defaults: keys of the class before it are dropped, except those in `overrides`.
        config_dir: a folder with config groups of your own, searched after vaelab's.

    Raises:
        ConfigError: an override names what does not exist; the message has the nearest name that does.
    """
    return without_hydra(compose_with_hydra(overrides, config_dir=config_dir))


def compose_with_hydra(overrides: Sequence[str], *, config_dir: str | Path | None = None) -> DictConfig:
    """`compose`, unresolved and with Hydra's own node `hydra`."""
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError([f"--config-dir {config_dir}: there is no such folder"])
    mistakes: list[str] = []
    parsed = parse(overrides, mistakes)
    mistakes += unsearchable(parsed)
    if mistakes:
        raise ConfigError(mistakes)
    with loader(config_dir) as hydra:
        try:
            config = hydra.compose(parsed.texts)
        except Exception as error:  # Hydra raises errors of many kinds over bad input, not all its own
            raise ConfigError(wrong(parsed, hydra) or [said(error)]) from error
        mistakes = _foreign_settings(config) or _added_nowhere(parsed, hydra) or list(_misplaced(config, hydra))
    if mistakes:
        raise ConfigError(mistakes)
    for path in parsed.classes():
        _start_anew(config, path, parsed)
    return config


def run_dir(config: DictConfig) -> str:
    """Return the run's folder from a config composed with Hydra's node.

    Raises:
        ConfigError: it has an interpolation that cannot be resolved.
    """
    try:
        return str(config.hydra.run.dir)
    except OmegaConfBaseException as error:
        raise ConfigError([unresolved(error)]) from error


def without_hydra(config: DictConfig) -> DictConfig:
    """Return a resolved copy of `config` without Hydra's own node.

    Raises:
        ConfigError: an interpolation cannot be resolved.
    """
    try:
        values = OmegaConf.to_container(config, resolve=False)
        assert isinstance(values, dict)
        values.pop("hydra", None)
        resolved = OmegaConf.to_container(OmegaConf.create(values), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError([unresolved(error)]) from error
    assert isinstance(resolved, dict)
    return OmegaConf.create(resolved)


def unresolved(error: OmegaConfBaseException) -> str:
    """Say which value could not be resolved, and why."""
    return f"{error.full_key}: {str(error).splitlines()[0]}"


def _foreign_settings(config: DictConfig) -> list[str]:
    """List the settings of Hydra's node that vaelab does not use."""
    known = _settings()
    return [
        f"{key}: not a setting that vaelab uses; of Hydra's there are {', '.join(SETTINGS)}"
        for key, value in _leaves(config)
        if not key.startswith((*SETTINGS, *FILLED_IN)) and (key not in known or known[key] != value)
    ]


@cache
def _settings() -> dict[str, Any]:
    """Return Hydra's node with its default settings."""
    return dict(_leaves(_default()))


@cache
def _default() -> DictConfig:
    """Return the config without overrides, with Hydra's node."""
    with loader() as hydra:
        return hydra.compose([])


def _added_nowhere(overrides: Overrides, hydra: Loader) -> list[str]:
    """List added keys that are neither below a key of the config nor an option of a group."""
    added = [override.key_or_group for override in overrides if override.is_add() or override.is_force_add()]
    if not added:
        return []
    top = ({*_default()} | {*groups()}) - _whole()
    nowhere = [key for key in added if key.partition(".")[0] not in top and not options_of(key, overrides, hydra)]
    return [unknown_key(key, keys_of(_default())) for key in nowhere]


@cache
def _whole() -> set[str]:
    """Return the groups whose options set keys of the whole config, such as model and experiment."""
    return {option.group for option in contents() if option.package == "_global_"}


def _misplaced(config: DictConfig, hydra: Loader) -> Iterator[str]:
    """Find options in the user's folder that lack the `@package _global_` line."""
    added = {*config} & {*groups()} - {*_default()}
    for group in added & _whole() if added else ():
        name = config.hydra.runtime.choices.get(group)
        places = [path.removeprefix("file://") for path in hydra.sources(config)]
        file = next((path for path in (Path(p, group, f"{name}.yaml") for p in places) if path.is_file()), None)
        if file is None:
            continue
        content = file.read_bytes()
        if b"@package _global_" in content:
            if content.startswith(BOM_UTF8):
                yield f"{file} begins with a byte order mark, which hides its first line: save it as UTF-8 without one"
        elif not content.removeprefix(BOM_UTF8).strip():
            yield f"{file} is empty: an option of {group} starts with # @package _global_, then has keys of the config"
        else:
            yield f"{file}: its first line should be `# @package _global_`, so that its keys are those of the config"


def _start_anew(config: DictConfig, path: str, overrides: Overrides) -> None:
    """Drop the keys of a part that belong to the class before and are not among the overrides."""
    node = OmegaConf.select(config, path)
    if not isinstance(node, DictConfig):
        return
    with open_dict(node):
        for key in list(node):
            typed = any(f"{given.key_or_group}.".startswith(f"{path}.{key}.") for given in overrides)
            if not typed:
                del node[key]


def _leaves(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """Yield the leaves below `hydra`: dotted keys and values."""
    nodes: list[tuple[str, Any]] = [("hydra", OmegaConf.to_container(config.hydra, resolve=False))]
    for key, value in nodes:
        if isinstance(value, Mapping) and value:
            nodes += [(f"{key}.{name}", child) for name, child in value.items()]
        else:
            yield key, value
