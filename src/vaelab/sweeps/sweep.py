"""Running a sweep: its jobs, from wherever they come, through a launcher."""

import signal
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from vaelab.config import stock
from vaelab.config.check import check, checked
from vaelab.config.compose import compose_with_hydra
from vaelab.config.conf import options
from vaelab.config.overrides import Overrides, is_below, parse
from vaelab.config.parts import check_part
from vaelab.errors import ConfigError, RunError
from vaelab.runs.folder import RunFolder
from vaelab.runs.surroundings import room_for
from vaelab.sweeps import table
from vaelab.sweeps.folder import STOP, Entry, Job, Record, SearchRecord, SweepFolder
from vaelab.sweeps.grid import Combination, Composed, compose_all, compose_grid, first_values, subfolder
from vaelab.sweeps.launchers import OURS, Basic, Joblib, Launcher
from vaelab.sweeps.search.recorded import admitted, require_values
from vaelab.sweeps.search.sweepers import Optuna
from vaelab.sweeps.tasks import start_server
from vaelab.training.services import addresses

if TYPE_CHECKING:
    from vaelab.config.experiment import Experiment


LAUNCHER = ("hydra/launcher", "hydra.launcher")


def sweep(overrides: Sequence[str], *, config_dir: str | Path | None = None, trust: Sequence[str] = ()) -> SweepFolder:
    """A run for each combination of the swept values, or for each that a search proposes, in one sweep folder.

    Raises:
        ConfigError, DataError: a job cannot run; none has been started.
        RunError: the folder that `hydra.sweep.dir` names is taken.
        KeyboardInterrupt, SystemExit: the sweep was stopped; its path is the argument.
    """
    given = parse(overrides, [])
    try:
        first = compose_with_hydra(first_values(overrides), config_dir=config_dir)
    except ConfigError:
        if given.sets("hydra/sweeper"):
            raise
        first = None  # as a grid, with all that is wrong with any job
    if first is not None and isinstance(sweeper := check_part("hydra.sweeper", _node(first), trust=trust), Optuna):
        return _search(sweeper, first, given, config_dir=config_dir, trust=trust)
    grid = compose_grid(overrides, config_dir=config_dir, trust=trust)
    launcher = _launcher(grid[0].hydra.launcher, trust)
    configs = [with_threads(job.config, launcher) for job in grid]
    names = [subfolder(job, number, len(grid)) for number, job in enumerate(grid)]
    shared = next((name for name, times in Counter(names).items() if times > 1), None)
    if shared is not None:
        raise ConfigError([f"hydra.sweep.subdir: several jobs would have the folder {shared}"])
    path = _new(grid[0].hydra)
    outside = next((name for name in names if path.resolve() not in (path / name).resolve().parents), None)
    if outside is not None:
        raise ConfigError([f"hydra.sweep.subdir: {outside} is not within the sweep's folder"])
    for _ in _ready(configs, launcher, trust):
        pass
    record = _record(overrides, grid, names)
    folder = SweepFolder.create(path, record, configs, exact=given.sets("hydra.sweep.dir"))
    # Whoever typed the command means what it names.
    places = [name for config in configs for name in _meant(config)]
    with held(folder):
        run(folder, launcher, folder.jobs, trust=[*trust, *dict.fromkeys(places)])
    return folder


def with_threads(config: DictConfig, launcher: Launcher) -> DictConfig:
    """Give a job's config the launcher's `threads` where it names none.

    Its bits depend on them: so it ends in the same ones under another launcher, or by itself.
    """
    threads = config.get("threads") or launcher.threads_per_job()
    return OmegaConf.merge(config, {"threads": threads})  # type: ignore[return-value]


def resume(path: str | Path, overrides: Sequence[str] = (), *, trust: Sequence[str] = ()) -> SweepFolder:
    """Resume a sweep: what was cut off, from its checkpoints, what failed and what never started.

    Args:
        path: the sweep's folder. Nothing in it is composed or imported; its jobs are their resolved configs, checked.
        overrides: another launcher, or its knobs, such as "hydra/launcher=joblib"; by default that of the beginning,
            but for what a folder has no say in.
        trust: packages of one's own whose classes the configs may name.

    Raises:
        ConfigError, DataError, RunError, KeyboardInterrupt, SystemExit: as `sweep`.
    """
    folder, mistakes = SweepFolder.open(path), list[str]()
    given = parse(overrides, mistakes)
    if mistakes:
        raise ConfigError(mistakes)
    if folder.record.search is not None:
        return _resume_search(folder, given, trust)
    chosen = _below(given, LAUNCHER)
    if wrong := [text for text in given.texts if text not in chosen]:
        raise ConfigError(
            [f"{text}: the jobs of a sweep are as they were; only hydra/launcher can change" for text in wrong]
        )
    launcher = _launcher_of(folder, given, trust)
    unfinished = folder.unfinished
    for job in unfinished:
        RunFolder.open(job.run.path).require_known_servers(trust)
    configs = [job.run.config for job in unfinished]
    for config in configs:
        try:
            check(config, trust=trust, own=False)
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(list(dict.fromkeys(mistakes)))
    for _ in _ready(configs, launcher, trust, fetch=False):
        pass
    with held(folder):
        run(folder, launcher, folder.unfinished, trust=trust)
    return folder


def _search(
    sweeper: Optuna,
    first: DictConfig,
    given: Overrides,
    *,
    config_dir: str | Path | None,
    trust: Sequence[str],
    resumed: tuple[SweepFolder, Launcher] | None = None,
) -> SweepFolder:
    """A run for each trial of a search."""
    from vaelab.sweeps.search.search import Search, require_metrics
    from vaelab.sweeps.search.space import Space
    from vaelab.sweeps.search.study import opened

    axes = [f"{key}={values}" for key, values in (sweeper.params or {}).items()]
    if resumed is not None:
        axes = admitted(axes, str(resumed[0].path))
    space = Space([*axes, *given.texts])
    unfit = sweeper.sampler.unfit(space, len(sweeper.metrics))
    if unfit is not None:
        raise ConfigError([f"hydra.sweeper.sampler ({type(sweeper.sampler).__name__}): {unfit}"])
    ends = [Combination(space.overrides(values), space.parameters(values)) for values in space.ends()]
    composed = compose_all(ends, config_dir=config_dir, trust=trust)
    if subfolder(composed[0], 0, sweeper.n_trials) == subfolder(composed[0], 1, sweeper.n_trials):
        raise ConfigError(["hydra.sweep.subdir: several jobs would have one folder; have it contain ${hydra.job.id}"])
    launcher = resumed[1] if resumed else _launcher(first.hydra.launcher, trust)
    for number, experiment in enumerate(
        _ready([job.config for job in composed], launcher, trust, fetch=resumed is None)
    ):
        if number == 0:
            require_metrics(sweeper, experiment)
    if sweeper.storage is not None:
        opened(sweeper.storage)  # before anything is written
    if resumed is not None:
        folder = resumed[0]
        assert folder.record.search is not None
        folder.record.search.n_trials = sweeper.n_trials
    else:
        of_search = SearchRecord(uuid.uuid4().hex, sweeper.n_trials, list(sweeper.metrics))
        record = _record(given.texts, composed[:1], [""])
        record = replace(record, parameters=space.written, jobs=[], search=of_search)
        folder = SweepFolder.create(_new(first.hydra), record, [], exact=given.sets("hydra.sweep.dir"))

    def compose(job: Combination) -> Composed:
        (one,) = compose_all([job], config_dir=config_dir, trust=trust)
        return replace(one, config=with_threads(one.config, launcher))

    places = [] if resumed else [name for job in composed for name in _meant(job.config)]
    seed = composed[0].config.seed if sweeper.seed is None else sweeper.seed
    with held(folder):
        storage = opened(sweeper.storage) if sweeper.storage is not None else None
        search = Search(folder, sweeper, space, compose, seed=seed, storage=storage)
        run(folder, launcher, search.jobs(), trust=[*trust, *places], told=search.told, of=sweeper.n_trials)
        search.note()
    search.require_values()
    return folder


def _resume_search(folder: SweepFolder, given: Overrides, trust: Sequence[str]) -> SweepFolder:
    """Continue a search.

    What it proposes is composed from the overrides in the folder that are values and choices; none looks into the
    environment or names a place, but for those that are given again.
    """
    assert folder.record.search is not None
    recorded = folder.record.overrides
    more = _below(given, ["hydra.sweeper.n_trials", "hydra.sweeper.storage"])
    meant = [text for text in given.texts if text in recorded] + _below(given, ["hydra.searchpath"])
    known = {*_below(given, LAUNCHER), *more, *meant}
    if wrong := [text for text in given.texts if text not in known]:
        changeable = "hydra/launcher, hydra.sweeper.n_trials and hydra.sweeper.storage"
        raise ConfigError([f"{text}: a search is resumed as it began; only {changeable} can change" for text in wrong])
    launcher = _launcher_of(folder, given, trust)
    n_trials = f"hydra.sweeper.n_trials={folder.record.search.n_trials}"
    composed_of = admitted(recorded, str(folder.path), meant=meant)
    composed_of += [n_trials, *more, *(text for text in meant if text not in composed_of)]
    first = compose_with_hydra(first_values(composed_of))
    require_values(first, str(folder.path), meant=first_values(["hydra/sweeper=optuna", *meant]))
    node = _node(first)
    if not given.sets("hydra.sweeper.storage"):
        node["storage"] = None
    if node.get("study_name") is not None and node.get("storage") is None:
        raise ConfigError([f"{folder.path} shares a study: say where it is kept, hydra.sweeper.storage=..."])
    sweeper = check_part("hydra.sweeper", node, trust=trust)
    if not isinstance(sweeper, Optuna):
        raise RunError(f"{folder.path} cannot be resumed: its overrides are of no search")
    for job in folder.jobs:
        RunFolder.open(job.run.path).require_known_servers(trust)
    resumed = (folder, launcher)
    return _search(sweeper, first, parse(composed_of, []), config_dir=None, trust=trust, resumed=resumed)


def run(
    folder: SweepFolder,
    launcher: Launcher,
    jobs: Iterable[Job],
    *,
    trust: Sequence[str] = (),
    told: Callable[[Job], None] = lambda job: None,
    of: int | None = None,
) -> None:
    """Run `jobs` of a sweep.

    Args:
        folder: the sweep's, held.
        launcher: what runs them.
        jobs: asked for the next one when there is room for it.
        trust: packages of one's own whose classes the configs may name.
        told: called with each job that has ended, with which `jobs` may decide what comes next.
        of: how many jobs there will be; by default, as many as there are.
    """
    going: dict[int, Job] = {}

    def handed_on() -> Iterator[Job]:
        for job in jobs:
            going[job.number] = job
            yield job

    with table.watched(folder, going, of) as say:
        for job in launcher.run(folder.path, handed_on(), trust):
            del going[job.number]
            folder.log(say(job))
            told(job)


@contextmanager
def held(folder: SweepFolder) -> Iterator[None]:
    """Have a sweep for this process alone, which a signal stops.

    Raises:
        RunError: another process has it; a StorageError where the disk takes no more.
    """
    with room_for(folder.path), folder.locked(), _stoppable(folder):
        (folder.path / STOP).unlink(missing_ok=True)
        yield


@contextmanager
def _stoppable(folder: SweepFolder) -> Iterator[None]:
    """Have Ctrl-C, SIGTERM and SIGUSR1 stop the sweep, and say with it what can be resumed."""
    from vaelab.training.signals import SIGNALS  # imports Lightning

    def stop(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt if signum == signal.SIGINT else SystemExit(128 + signal.SIGTERM)

    main = threading.current_thread() is threading.main_thread()
    before = {signum: signal.signal(signum, stop) for signum in SIGNALS} if main else {}
    try:
        yield
    except KeyboardInterrupt as stopped:
        stopped.args = (str(folder.path),)
        raise
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _ready(
    configs: Iterable[DictConfig], launcher: Launcher, trust: Sequence[str], *, fetch: bool = True
) -> "Iterator[Experiment]":
    """Find, before the first job starts, what data or devices are not there.

    Raises:
        ConfigError: this machine does not have the devices, or this is one of several processes.
        DataError: the data are missing or damaged.
    """
    if isinstance(launcher, Basic | Joblib):
        start_server()  # which takes as long as what follows here
    from vaelab.runs.launch import require_one  # imports Lightning, for which no mistake should wait
    from vaelab.runs.ready import ready

    require_one()
    # One job for each choice of data and devices.
    needs = {OmegaConf.to_yaml({"data": config.data, "trainer": config.trainer}): config for config in configs}
    for config in needs.values():
        what = checked(config, trust=trust, own=fetch)
        ready(what, devices=not launcher.remote)
        yield what.experiment


def _meant(config: DictConfig) -> Iterator[str]:
    """The servers that a run logs to, and the classes of Lightning and torch that it names."""
    yield from stock.names(config)
    yield from (address for _, address in addresses(config))


def _node(config: DictConfig) -> dict[str, Any]:
    """What a config composed with Hydra's node says of the sweeper."""
    node: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    return dict(node)


def _launcher(node: Any, trust: Sequence[str]) -> Launcher:
    """The launcher that `hydra.launcher` describes.

    Raises:
        ConfigError: every mistake in it, or an extra that is not installed.
    """
    node = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
    launcher = check_part("hydra.launcher", node, trust=trust)
    if not hasattr(launcher, "run"):
        raise ConfigError([f"hydra.launcher._target_={node['_target_']}: not a launcher"])
    chosen: Launcher = launcher
    return chosen


def _launcher_of(folder: SweepFolder, given: Overrides, trust: Sequence[str]) -> Launcher:
    """The launcher that a sweep was started with, or the one that is given."""
    chosen = _below(given, LAUNCHER)
    if given.sets("hydra/launcher"):
        return _launcher(compose_with_hydra(chosen).hydra.launcher, trust)
    recorded = {key: value for key, value in folder.record.launcher.items() if key not in OURS}
    name = recorded.pop("name", None)
    if name not in options("hydra/launcher"):
        raise RunError(f"{folder.path} was run by an unknown launcher, {name}: choose one, hydra/launcher=...")
    node: Any = OmegaConf.to_container(compose_with_hydra([f"hydra/launcher={name}", *chosen]).hydra.launcher)
    kept = {key: value for key, value in recorded.items() if key in node and not given.sets(f"hydra.launcher.{key}")}
    return _launcher(node | kept, trust)


def _below(given: Overrides, keys: Sequence[str]) -> list[str]:
    """The overrides that set one of these keys, or part of one."""
    return [text for override, text in zip(given, given.texts, strict=True) if is_below(override.key_or_group, keys)]


def _new(hydra: DictConfig) -> Path:
    """Where the folder of a new sweep goes.

    Raises:
        RunError: there is a sweep already.
    """
    path = Path(hydra.sweep.dir)
    if SweepFolder.is_one(path):
        raise RunError(f"{path} is a sweep already: `vaelab resume {path}` continues it")
    return path


def _record(overrides: Sequence[str], grid: Sequence[Composed], names: Sequence[str]) -> Record:
    parameters: dict[str, list[Any]] = {}
    for job in grid:
        for key, value in job.combination.parameters.items():
            values = parameters.setdefault(key, [])
            if value not in values:
                values.append(value)
    node: Any = OmegaConf.to_container(grid[0].hydra.launcher)
    knobs = {name: knob for name, knob in node.items() if name not in OURS}
    return Record(
        name=str(grid[0].config.name),
        command=sys.argv,
        overrides=list(overrides),
        parameters=parameters,
        launcher={"name": grid[0].hydra.runtime.choices["hydra/launcher"]} | knobs,
        jobs=[
            Entry(number, name, dict(job.combination.parameters), list(job.combination.overrides))
            for number, (job, name) in enumerate(zip(grid, names, strict=True))
        ],
    )
