"""Hydra's own ways to inspect a config: --cfg and --info."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from hydra.core.default_element import GroupDefault
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaelab.config.compose import compose_with_hydra, unresolved
from vaelab.config.loader import loader
from vaelab.errors import ConfigError


def print_config(part: str, overrides: Sequence[str], config_dir: Path | None, *, resolve: bool) -> None:
    """Print the config as Hydra composes it, unchecked: that of the "job", of "hydra" itself, or "all"."""
    config = compose_with_hydra(overrides, config_dir=config_dir)
    content: Any = OmegaConf.to_container(config, resolve=False)
    if part == "job":
        del content["hydra"]
    elif part == "hydra":
        content = {"hydra": content["hydra"]}
    try:
        typer.echo(OmegaConf.to_yaml(OmegaConf.create(content), resolve=resolve), nl=False)
    except OmegaConfBaseException as error:
        raise ConfigError([unresolved(error)]) from error


def print_info(what: str, overrides: Sequence[str], config_dir: Path | None) -> None:
    """Print the files that a config is composed of, as a list or a tree, or the places that are searched for them."""
    config = compose_with_hydra(overrides, config_dir=config_dir)  # reports what is wrong with the overrides
    with loader(config_dir) as hydra:
        if what == "searchpath":
            for place in hydra.sources(config):
                typer.echo(place)
            return
        found = hydra.defaults(overrides)
    if what == "defaults":
        for one in found.defaults:
            typer.echo(f"{one.config_path}{f' @ {one.package}' if one.package else ''}")
        return
    nodes: list[tuple[Any, int]] = [(found.defaults_tree, 0)]
    while nodes:
        node, depth = nodes.pop()
        default = getattr(node, "node", node)
        if isinstance(default, GroupDefault):
            typer.echo(f"{'  ' * depth}{default.get_override_key()}: {default.get_name() or 'null'}")
        else:
            typer.echo(f"{'  ' * depth}{default.get_config_path()}")
        nodes += [(child, depth + 1) for child in reversed(getattr(node, "children", None) or [])]
