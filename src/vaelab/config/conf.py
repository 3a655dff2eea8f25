"""Read conf/ once: its groups and options, and which class each key admits."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

PACKAGE = Path(__file__).parents[1]
# Beside the package in a wheel, at the top of the project in a checkout (and so in an editable install).
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parents[1] / "conf") if (path / "train.yaml").is_file())


class Option(NamedTuple):
    """One file of conf/.

    Args:
        group: such as "model" or "hydra/launcher"; empty for train.yaml.
        name: such as "vae", or "papers/burda_2015_vae" of a folder within the group.
        package: where its content goes: "_global_", or the key of the group.
        content: keys and values.
    """

    group: str
    name: str
    package: str
    content: Mapping[str, Any]


@cache
def contents() -> tuple[Option, ...]:
    """Return every file of conf/."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = []
    for path in sorted(CONF.rglob("*.yaml")):
        text, (group, name) = path.read_text(), _place(path)
        header = re.search(r"^# @package (\S+)", text, re.MULTILINE)
        package = header[1] if header else group.replace("/", ".")
        found.append(Option(group, name, package, yaml.load(text, loader) or {}))
    return tuple(found)


def _place(path: Path) -> tuple[str, str]:
    """Return the group and the name of a file's option. Only Hydra's own groups lie within each other."""
    parts = path.relative_to(CONF).with_suffix("").parts
    depth = len(parts) - 1 if parts[0] == "hydra" else min(1, len(parts) - 1)
    return "/".join(parts[:depth]), "/".join(parts[depth:])


@cache
def groups() -> list[str]:
    """Return the config groups, such as "model" and "hydra/launcher"."""
    return sorted({_place(path)[0] for path in CONF.rglob("*.yaml")} - {""})


@cache
def options(group: str) -> list[str]:
    """Return the options of a group, such as ["ae", "vae"] of "model"."""
    return sorted(name for of, name in map(_place, CONF.rglob("*.yaml")) if of == group)


def flat_keys(config: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of a nested config."""
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flat_keys(value, f"{prefix}{key}.")


@cache
def shipped_targets() -> Mapping[str, frozenset[str]]:
    """Return the names that a `_target_` may have without --trust, and at which keys: those that conf/ uses.

    A place is a key, such as "encoder", or a prefix: "callbacks." admits every key below it. Options of a group that is
    not a key of the config, such as term, are admitted where other options place them.
    """
    (train,) = (option.content for option in contents() if not option.group)
    chosen = {group for entry in train["defaults"] if isinstance(entry, Mapping) for group in entry}
    keys = {*train, *chosen} - {"defaults"} | {"hydra"}
    within: dict[str, set[str]] = {}
    for option in contents():
        for group, place in _placed(option):
            within.setdefault(group, set()).add(place)
    places: dict[str, set[str]] = {}
    for option in contents():
        first = option.package.partition(".")[0]
        own = {option.package} if first in keys else set()
        for path, target in _targets(option.content):
            if option.package == "_global_":
                found = {path}
            elif path:
                found = {f"{place}." for place in own} | within.get(option.group, set())
            else:
                found = own | within.get(option.group, set())
            places.setdefault(target, set()).update(found)
    return {name: frozenset(found) for name, found in places.items()}


def may_stand(target: str, path: str) -> bool:
    """Whether conf/ uses a class of this name at a key, or at an equivalent one."""
    return any(covers(place, path) for place in shipped_targets().get(target, ()))


def covers(place: str, path: str) -> bool:
    """Whether a place of `shipped_targets` admits the key `path`."""
    return path == place or (place.endswith(".") and path.startswith(place))


def _placed(option: Option) -> Iterator[tuple[str, str]]:
    """Yield groups whose options this one places elsewhere (`- /schedule@objective.kl_weight: linear`), and where."""
    for entry in option.content.get("defaults", []):
        for choice in entry if isinstance(entry, Mapping) else ():
            group, at, key = str(choice).removeprefix("override ").partition("@")
            if not (at and group.startswith("/")):
                continue
            if option.package == "_global_":
                yield group[1:], f"{key.partition('.')[0]}."
            else:
                yield group[1:], f"{option.package}.{key}"


def _targets(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield key and value of every `_target_` in a nested config."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield path, node["_target_"]
        for key, child in node.items():
            yield from _targets(child, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for child in node:
            yield from _targets(child, path)
