"""Composing a config from conf/ and a user's overrides, with every mistake in them said at once.

Nothing here imports torch: a misspelt key is answered at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaelab.errors import ConfigError, did_you_mean

# Hydra has settings that name code to run: callbacks, logging, variables of the environment. We have no use for them.
SETTINGS = ("hydra.run.dir", "hydra.sweep", "hydra.launcher", "hydra.sweeper", "hydra.searchpath")
FILLED_IN = ("hydra.runtime", "hydra.overrides", "hydra.job.override_dirname")  # by Hydra itself

PACKAGE = Path(__file__).parents[1]
# Beside the package in a wheel, at the top of the project in a checkout (and so in an editable install).
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parents[1] / "conf") if (path / "train.yaml").is_file())


def compose(overrides: Sequence[str] = (), *, config_dir: str | Path | None = None) -> DictConfig:
    """The config of one run: conf/train.yaml with Hydra's overrides applied and interpolations resolved.

    Args:
        overrides: as on the command line, such as "model=ae" or "latent_dim=8".
        config_dir: a folder of one's own config groups, searched as well as vaelab's.

    Raises:
        ConfigError: an override names what does not exist, with the nearest thing that does.
    """
    config = compose_with_hydra(overrides, config_dir=config_dir)
    return without_hydra(config)


def compose_with_hydra(overrides: Sequence[str], *, config_dir: str | Path | None = None) -> DictConfig:
    """The same, unresolved and with Hydra's own node `hydra` in it."""
    searched = [*overrides, *_searchpath(config_dir)]
    with hydra_of_ours():
        parsed, mistakes = _parsed(searched)
        mistakes += [mistake for override in parsed for mistake in _unsearchable(override)]
        if mistakes:
            raise ConfigError(mistakes)
        try:
            config = hydra_compose("train", searched, return_hydra_config=True)
        except Exception as error:  # Hydra fails in many ways over what it is given, not all of them its own
            raise ConfigError(_mistakes(parsed) or [_said(error)]) from error
        wrong = _foreign_settings(config) or _added_nowhere(parsed)
    if wrong:
        raise ConfigError(wrong)
    return config


def run_dir(config: DictConfig) -> str:
    """The folder that a config composed with Hydra's node names for its run.

    Raises:
        ConfigError: it holds an interpolation that leads nowhere.
    """
    try:
        return str(config.hydra.run.dir)
    except OmegaConfBaseException as error:
        raise ConfigError([unresolved(error)]) from error


@contextmanager
def hydra_of_ours() -> Iterator[None]:
    """Hydra over conf/, with the launchers and sweepers of conf/ alone.

    Hydra would hold ours against the options that it and its plugins have for those of the same names.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="vaelab"):
        store = ConfigStore.instance().repo["hydra"]
        theirs = {group: store.pop(group) for group in ("launcher", "sweeper")}
        try:
            yield
        finally:
            store |= theirs


def _searchpath(config_dir: str | Path | None) -> list[str]:
    """The override that has Hydra search a folder of one's own.

    Raises:
        ConfigError: there is no such folder.
    """
    if config_dir is None:
        return []
    if not Path(config_dir).is_dir():
        raise ConfigError([f"--config-dir {config_dir}: there is no such folder"])
    return [f"hydra.searchpath=['file://{Path(config_dir).absolute()}']"]


def without_hydra(config: DictConfig) -> DictConfig:
    """A resolved copy of `config` without Hydra's own node.

    Raises:
        ConfigError: an interpolation leads nowhere.
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
    """Which value could not be had, and why."""
    return f"{error.full_key}: {str(error).splitlines()[0]}"


@cache
def sources() -> list[tuple[str, str, str]]:
    """Group, such as "hydra.launcher", name and text of each option of conf/."""
    files = sorted(CONF.rglob("*.yaml"))
    return [(".".join(path.parent.relative_to(CONF).parts) or ".", path.stem, path.read_text()) for path in files]


def options(group: str) -> list[str]:
    """The options of a config group, such as ["ae", "vae"] of "model"."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def groups() -> list[str]:
    """The config groups of conf/, such as "model" and "hydra/launcher"."""
    return sorted({path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml")} - {"."})


def flat_keys(config: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a nested config."""
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flat_keys(value, f"{prefix}{key}.")


def _parsed(overrides: Sequence[str]) -> tuple[list[Override], list[str]]:
    """The overrides that can be read as such, and what is wrong with the others."""
    parsed: list[Override] = []
    mistakes: list[str] = []
    for override in readable(overrides, mistakes):
        if override.key_or_group.strip("= "):
            parsed.append(override)
        else:
            mistakes.append(f"{override.input_line}: not an override (it names no key); write key=value")
    return parsed, mistakes


def readable(overrides: Sequence[str], mistakes: list[str]) -> Iterator[Override]:
    """Those that can be read, one after another, in `hydra_of_ours`; `mistakes` gets what is wrong with the others."""
    loader = GlobalHydra.instance().config_loader()  # glob(...) asks it for a group's options
    parser = OverridesParser.create(loader)
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            quoted = "" if text.isascii() else ", and a value of other than plain letters in quotes: key='\"value\"'"
            mistakes.append(f"{text}: not an override ({_said(error)}); write key=value{quoted}")
        else:
            override.config_loader = loader
            yield override


def _unsearchable(override: Override) -> list[str]:
    """What is wrong with the folders of hydra.searchpath; a package would be imported, an address be fetched."""
    if override.key_or_group != "hydra.searchpath" or override.is_sweep_override():
        return []
    paths = override.value()
    paths = [str(path) for path in paths] if isinstance(paths, list) else []
    wrong = [path for path in paths if not Path(path.removeprefix("file://")).is_dir()]
    mistakes = [f"hydra.searchpath: {path} is no folder on this machine" for path in wrong]
    return mistakes if paths else ["hydra.searchpath should be a list of folders: hydra.searchpath=[my_conf]"]


def _foreign_settings(config: DictConfig) -> list[str]:
    """What is set of Hydra's node that vaelab does not use."""
    known = _settings()
    return [
        f"{key}: not a setting of vaelab's; of Hydra's own there are {', '.join(SETTINGS)}"
        for key, value in _leaves(config)
        if not key.startswith((*SETTINGS, *FILLED_IN)) and (key not in known or known[key] != value)
    ]


@cache
def _settings() -> dict[str, Any]:
    """Hydra's node as it is where nobody has set anything of it."""
    return dict(_leaves(_default()))


@cache
def _default() -> DictConfig:
    """The config without overrides, with Hydra's node."""
    return hydra_compose("train", [], return_hydra_config=True)


def _added_nowhere(overrides: Sequence[Override]) -> list[str]:
    """What is added beside the keys of a config: neither below one of them nor an option of a group."""
    added = [override for override in overrides if override.is_add() or override.is_force_add()]
    if not added:
        return []
    known = [*_default(), *groups()]
    wrong = [override.key_or_group for override in added if override.key_or_group.partition(".")[0] not in known]
    return [_unknown_key(key, known) for key in wrong if not _offered(key, overrides)]


def _offered(group: str, overrides: Sequence[Override]) -> list[str]:
    """The options of a group, also of one in a folder of one's own; none of what is no group."""
    search = [str(given.input_line) for given in overrides if given.key_or_group == "hydra.searchpath"]
    loader = GlobalHydra.instance().config_loader()
    return list(loader.get_group_options(group, config_name="train", overrides=search))


def _leaves(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """Every dotted key below `hydra` that holds no others, and its value."""
    nodes: list[tuple[str, Any]] = [("hydra", OmegaConf.to_container(config.hydra, resolve=False))]
    for key, value in nodes:
        if isinstance(value, Mapping) and value:
            nodes += [(f"{key}.{name}", child) for name, child in value.items()]
        else:
            yield key, value


def _mistakes(overrides: Sequence[Override]) -> list[str]:
    """What is wrong with each override, as far as each can be judged by itself."""
    mistakes: list[str] = []
    sound: list[str] = []
    keys: list[Override] = []
    for override in overrides:
        group = override.key_or_group
        if override.is_sweep_override():
            values = str(override.input_line).partition("=")[2]
            mistakes.append(
                f"{override.input_line}: several values are a sweep, which needs -m (--multirun); "
                f"one value that is a list is {group}=[{values}]"
            )
        offered = _offered(group, overrides)
        if not offered:
            keys.append(override)
            continue
        chosen = override.value()
        if chosen is None and not override.is_delete():
            mistakes.append(f"{override.input_line}: to leave a part out, write {_left_out(group)}")
            continue
        if override.is_delete() and not _composes([str(override.input_line)]):
            mistakes.append(f"{override.input_line}: no such choice to drop; to leave the part out: {_left_out(group)}")
            continue
        names = chosen.list if isinstance(chosen, ChoiceSweep) else chosen
        names = names if isinstance(names, list) else [names]
        wrong = [str(name) for name in names if name is not None and str(name) not in offered]
        mistakes += [f"{group}={name}: no such option{did_you_mean(name, offered)}" for name in wrong]
        if not wrong and not isinstance(chosen, ChoiceSweep):
            sound.append(str(override.input_line))
    known = hydra_compose("train", sound if _composes(sound) else [], return_hydra_config=True)
    flat = list(flat_keys(OmegaConf.to_container(known, resolve=False)))  # type: ignore[arg-type]
    for override in keys:
        if not override.is_add() and not override.is_force_add() and override.key_or_group not in flat:
            mistakes.append(_unknown_key(override.key_or_group, flat))
    return mistakes


def _composes(overrides: Sequence[str]) -> bool:
    try:
        hydra_compose("train", list(overrides), return_hydra_config=True)
    except Exception:  # as above
        return False
    return True


def _left_out(group: str) -> str:
    """The override that leaves a group out; Hydra has another one where a list is chosen."""
    return f"~{group}" if _composes([f"~{group}"]) else f"{group}=[]"


def _unknown_key(key: str, known: Sequence[str]) -> str:
    """`key` is not among the known ones: which of its parts is wrong, and what is near."""
    parent, _, last = key.rpartition(".")
    while parent and parent not in known:
        parent, _, last = parent.rpartition(".")
    siblings = [
        name.removeprefix(f"{parent}.") if parent else name
        for name in known
        if (name.startswith(f"{parent}.") if parent else True)
    ]
    siblings = [name for name in siblings if "." not in name and name not in ("_target_", "hydra")]
    if not parent:
        siblings += groups()
    where = f"{parent} has no {last}" if parent else f"there is no {last}"
    return f"{key}: {where}{did_you_mean(last, set(siblings))}"


def _said(error: BaseException) -> str:
    """An error in one line, with what it came from."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    cause = error.__cause__
    reason = str(cause).splitlines()[0] if cause is not None and str(cause) not in ("", "None") else ""
    lines += [reason] if reason not in " ".join(lines) else []
    return "; ".join(lines)[:400]
