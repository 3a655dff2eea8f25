"""What a search that is resumed is composed from: the overrides in its folder, which anybody may have written.

They are judged as parsed, by what they set. Admitted are options of conf/, values of a run's config, and how to
search; where things go is ours to say, and nothing may look into who resumes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString
from omegaconf import DictConfig, OmegaConf

from vaelab.config.compose import compose_with_hydra
from vaelab.config.conf import contents, groups, options
from vaelab.config.overrides import is_below, parse
from vaelab.errors import RunError
from vaelab.text import one_line

OURS = (
    "hydra.run",
    "hydra.sweep",
    "hydra.launcher",
    "hydra/launcher",
    "hydra.sweeper.n_trials",
    "hydra.sweeper.storage",
)
"""What says where a sweep goes and what runs it: dropped, for whoever resumes says it."""

SEARCH = ("metric", "direction", "seed", "study_name", "sampler", "pruner", "params")
"""The knobs of hydra.sweeper that a folder may set."""

AGAIN = "where that is meant, type that override after `vaelab resume` as well"


def admitted(overrides: Sequence[str], of: str, *, meant: Sequence[str] = ()) -> list[str]:
    """Those of the overrides that a search is composed from.

    Args:
        overrides: as they stand in a sweep's folder.
        of: the folder, for the message.
        meant: what whoever resumes has typed, and so is admitted whatever it is.

    Raises:
        RunError: one of them sets what a folder has no say in.
    """
    mistakes: list[str] = []
    kept: list[str] = []
    for override in parse(overrides, mistakes):
        if is_below(override.key_or_group, OURS):
            continue
        reason = None if str(override.input_line) in meant else _refusal(override)
        if reason is not None:
            mistakes.append(f"{one_line(str(override.input_line), 200)}: {reason}")
        kept.append(str(override.input_line))
    if mistakes:
        raise RunError("\n".join(f"{of} was searched with {mistake}; {AGAIN}" for mistake in mistakes))
    return kept


def require_values(config: DictConfig, of: str, *, meant: Sequence[str] = ()) -> None:
    """Refuse a config, composed and not yet resolved, with an interpolation of neither conf/ nor what was typed.

    Raises:
        RunError: it has one, which might look into the environment of whoever resumes.
    """
    ours = [compose_with_hydra(meant), *(OmegaConf.create(dict(option.content)) for option in contents())]
    known = {text for part in ours for text in _texts(OmegaConf.to_container(part, resolve=False))}
    for text in _texts(OmegaConf.to_container(config, resolve=False)):
        if "${" in text and text not in known:
            raise RunError(f"{of} was searched with {one_line(text, 100)}; {AGAIN}")


def _refusal(override: Override) -> str | None:
    """Why a folder may not set this; None where it may."""
    key = override.key_or_group
    if override.package is not None and is_below(override.package, ["hydra"]):
        return "a folder has no say in it"
    values = list(_values(override))
    if any("${" in text or "\0" in text for text in _texts(values)):
        return "it holds an interpolation"
    if key.startswith("hydra/") and not is_below(key.replace("/", "."), ["hydra.sweeper"]):
        return "a folder has no say in it"
    if key in groups():
        if isinstance(override.value(), Glob):  # which chooses among those of conf/
            return None
        names = [name for value in values for name in (value if isinstance(value, list) else [value])]
        unknown = [name for name in names if name is not None and str(name) not in options(key)]
        return f"there is no {key} {one_line(str(unknown[0]), 50)} in vaelab" if unknown else None
    if key.startswith("hydra"):
        known = [f"hydra.sweeper.{knob}" for knob in SEARCH]
        return None if is_below(key, known) else "a folder has no say in it"
    return None


def _values(override: Override) -> Iterator[Any]:
    """Every value that an override gives or sweeps over."""
    value: Any = override.value()
    if isinstance(value, ChoiceSweep):
        yield from (of.text if isinstance(of, QuotedString) else of for of in value.list)
    elif isinstance(value, Glob):
        yield from [*value.include, *value.exclude]
    elif not override.is_sweep_override():
        yield value


def _texts(content: Any) -> Iterator[str]:
    """Every text in nested containers, keys as well."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _texts(value)
    elif content is not None:
        yield str(content)
