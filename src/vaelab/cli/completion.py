"""Shell completion of groups, their options, and keys."""

from collections.abc import Iterator, Mapping

import typer

from vaelab.config.conf import contents, flat_keys, groups, options


def complete_override(context: typer.Context, incomplete: str) -> list[str]:
    """List the overrides that begin with `incomplete`.

    Bash passes "model", "=" and "va" as three words where other shells pass "model=va".
    """
    before = list(context.params.get("overrides") or [])
    if before and before[-1] == "=" and len(before) > 1:
        return [option for option in _options(before[-2]) if option.startswith(incomplete)]
    if incomplete == "=" and before:
        return [f"={option}" for option in _options(before[-1])]
    group, equals, _ = incomplete.partition("=")
    words = [f"{group}={option}" for option in _options(group)] if equals else [f"{word}=" for word in _words()]
    return [word for word in words if word.startswith(incomplete)]


def _options(group: str) -> list[str]:
    return options(group.lstrip("+")) if group.lstrip("+") in groups() else []


def _words() -> Iterator[str]:
    """Yield the groups, and the keys of the default config."""
    yield from groups()
    (train,) = (option.content for option in contents() if not option.group)
    yield from (key for key in train if key not in ("defaults", "hydra"))
    chosen = {group: name for entry in train["defaults"] if isinstance(entry, Mapping) for group, name in entry.items()}
    for option in contents():
        if chosen.get(option.group) == option.name and option.package != "_global_":
            found = flat_keys(option.content, f"{option.package}.")
            yield from (key for key in found if not key.endswith(("_target_", ".defaults")))
