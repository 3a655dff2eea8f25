"""Running a sweep: its jobs, from wherever they come, through a launcher."""

import signal
import sys
import threading
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
from vaelab.config.conf import flat_keys, options
from vaelab.config.parts import check_part
from vaelab.errors import ConfigError, RunError
from vaelab.runs.folder import RunFolder, portable
from vaelab.runs.surroundings import room_for
from vaelab.sweeps import table
from vaelab.sweeps.folder import STOP, Entry, Job, Record, SweepFolder
from vaelab.sweeps.grid import Combination, Composed, compose_all, compose_grid, first_values, subfolder
from vaelab.sweeps.launchers import Launcher
from vaelab.sweeps.search.recorded import admitted, require_values
from vaelab.sweeps.search.sweepers import Optuna
from vaelab.training.services import addresses

if TYPE_CHECKING:
    from vaelab.config.experiment import Experiment


def sweep(overrides: Sequence[str], *, config_dir: str | Path | None = None, trust: Sequence[str] = ()) -> SweepFolder:
    """A run for each combination of the swept values, or for each that a search proposes, into one sweep folder.

    Where `hydra.sweep.dir=...` is the folder of this very sweep, it is gone on with.

    Raises:
        ConfigError, DataError: a job cannot run; none has been started.
        RunError: the folder is taken by something else, or by another process.
        KeyboardInterrupt, SystemExit: the sweep was stopped; its path is the argument.
    """
    try:
        first = compose_with_hydra(first_values(overrides), config_dir=config_dir)
    except ConfigError:
        if any(text.startswith("hydra/sweeper=optuna") for text in overrides):
            raise
        first = None  # as a grid, with all that is wrong with any job
    if first is not None and isinstance(sweeper := check_part("hydra.sweeper", _node(first), trust=trust), Optuna):
        return _search(sweeper, first, overrides, config_dir=config_dir, trust=trust)
    grid = compose_grid(overrides, config_dir=config_dir, trust=trust)
    launcher = _launcher(grid[0].hydra.launcher, trust)
    configs = [with_threads(job.config, launcher) for job in grid]
    names = [subfolder(job, number, len(grid)) for number, job in enumerate(grid)]
    shared = next((name for name in names if names.count(name) > 1), None)
    if shared is not None:
        raise ConfigError([f"hydra.sweep.subdir: several jobs would have the folder {shared}"])
    path = Path(grid[0].hydra.sweep.dir)
    outside = next((name for name in names if path.resolve() not in (path / name).resolve().parents), None)
    if outside is not None:
        raise ConfigError([f"hydra.sweep.subdir: {outside} is not within the sweep's folder"])
    for _ in _ready(configs, launcher, trust):
        pass
    if SweepFolder.is_one(path):
        folder = SweepFolder.open(path)
        _compare(folder, grid)
    else:
        exact = any(text.startswith("hydra.sweep.dir=") for text in overrides)
        folder = SweepFolder.create(path, _record(overrides, grid, names), configs, exact=exact)
    # Whoever typed the command means what it names.
    places = [name for config in configs for name in _meant(config)]
    with held(folder):
        unfinished = [job for job in folder.jobs if job.state not in ("done", "unreadable")]
        run(folder, launcher, unfinished, trust=[*trust, *places])
    return folder


def with_threads(config: DictConfig, launcher: Launcher) -> DictConfig:
    """The config of a job: with the launcher's `threads` where it says none, for its bits depend on them.

    So it ends in the same bits under another launcher, too, or by itself.
    """
    threads = config.get("threads") or launcher.threads_per_job()
    return OmegaConf.merge(config, {"threads": threads})  # type: ignore[return-value]


def resume(path: str | Path, overrides: Sequence[str] = (), *, trust: Sequence[str] = ()) -> SweepFolder:
    """Go on with a sweep: with what was cut off, from its checkpoints, with what failed and what never started.

    Args:
        path: the sweep's folder. Nothing in it is composed or imported; its jobs are their resolved configs, checked.
        overrides: another launcher, or its knobs, such as "hydra/launcher=joblib"; by default that of the beginning,
            but for the address of a Ray cluster.
        trust: packages of one's own whose classes the configs may name.

    Raises:
        ConfigError, DataError, RunError, KeyboardInterrupt, SystemExit: as `sweep`.
    """
    folder = SweepFolder.open(path)
    if folder.record.search is not None:
        return _resume_search(folder, overrides, trust)
    launcher = _launcher_of(folder, overrides, trust)
    unfinished = [job for job in folder.jobs if job.state not in ("done", "unreadable")]
    for job in unfinished:
        RunFolder.open(job.run.path).require_known_servers(trust)
    configs = [job.run.config for job in unfinished]
    mistakes: list[str] = []
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
        run(folder, launcher, [job for job in unfinished if job.state != "done"], trust=trust)
    return folder


def _search(
    sweeper: Optuna,
    first: DictConfig,
    overrides: Sequence[str],
    *,
    config_dir: str | Path | None,
    trust: Sequence[str],
    resumed: tuple[SweepFolder, Launcher] | None = None,
) -> SweepFolder:
    """A run for each trial of a search."""
    from vaelab.sweeps.search.search import Search, compare, described, require_metrics
    from vaelab.sweeps.search.space import Space
    from vaelab.sweeps.search.study import opened

    axes = [f"{key}={values}" for key, values in (sweeper.params or {}).items()]
    if resumed is not None:
        axes = admitted(axes, str(resumed[0].path))
    space = Space([*axes, *overrides])
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
    description = described(sweeper, _node(first), space)
    path = resumed[0].path if resumed else Path(first.hydra.sweep.dir)
    if SweepFolder.is_one(path):
        folder = SweepFolder.open(path)
        compare(folder, description, sweeper.n_trials)
    else:
        exact = any(text.startswith("hydra.sweep.dir=") for text in overrides)
        record = replace(_record(overrides, composed[:1], [""]), parameters=space.written, jobs=[], search=description)
        folder = SweepFolder.create(path, record, [], exact=exact)

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


def _resume_search(folder: SweepFolder, overrides: Sequence[str], trust: Sequence[str]) -> SweepFolder:
    """Go on with a search.

    What it proposes is composed from the overrides in the folder that are values and choices; none looks into the
    environment or names a place.
    """
    assert folder.record.search is not None
    of_launcher = [text for text in overrides if text.startswith(("hydra/launcher=", "hydra.launcher."))]
    more = [text for text in overrides if text.startswith(("hydra.sweeper.n_trials=", "hydra.sweeper.storage="))]
    wrong = [text for text in overrides if text not in (*of_launcher, *more)]
    if wrong:
        own = "hydra/launcher, hydra.sweeper.n_trials and hydra.sweeper.storage"
        raise ConfigError([f"{text}: a search goes on as it began; only {own} can change" for text in wrong])
    launcher = _launcher_of(folder, of_launcher, trust)
    ours = [f"hydra.sweeper.n_trials={folder.record.search.n_trials}", *more]
    recorded = admitted(folder.record.overrides, str(folder.path))
    composed_of = [*recorded, *ours]
    first = compose_with_hydra(first_values(composed_of))
    require_values(first, str(folder.path))
    node = _node(first)
    if not any(text.startswith("hydra.sweeper.storage=") for text in more):
        node["storage"] = None
    if node.get("study_name") is not None and node.get("storage") is None:
        raise ConfigError([f"{folder.path} shares a study: say where it is kept, hydra.sweeper.storage=..."])
    sweeper = check_part("hydra.sweeper", node, trust=trust)
    if not isinstance(sweeper, Optuna):
        raise RunError(f"{folder.path} cannot be gone on with: its overrides are of no search")
    for job in folder.jobs:
        RunFolder.open(job.run.path).require_known_servers(trust)
    return _search(sweeper, first, composed_of, config_dir=None, trust=trust, resumed=(folder, launcher))


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
    try:
        with table.watched(folder, of) as say:
            for job in launcher.run(folder.path, jobs, trust):
                folder.save()
                folder.log(say(job))
                told(job)
    finally:
        folder.save()


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
        ConfigError: this machine has not the devices, or this is one of several processes.
        DataError: the data are missing or damaged.
    """
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
    launcher = check_part("hydra.launcher", dict(node), trust=trust)
    if not hasattr(launcher, "run"):
        raise ConfigError([f"hydra.launcher._target_={node['_target_']}: not a launcher"])
    chosen: Launcher = launcher
    return chosen


def _launcher_of(folder: SweepFolder, overrides: Sequence[str], trust: Sequence[str]) -> Launcher:
    """The launcher that a sweep was started with, or the one that `overrides` choose."""
    wrong = [text for text in overrides if not text.startswith(("hydra/launcher=", "hydra.launcher."))]
    if wrong:
        raise ConfigError(
            [f"{text}: the jobs of a sweep are as they were; only hydra/launcher can change" for text in wrong]
        )
    recorded = {key: value for key, value in folder.record.launcher.items() if key not in ("address", "_target_")}
    name = recorded.pop("name", None)
    if any(text.startswith("hydra/launcher=") for text in overrides):
        return _launcher(compose_with_hydra(overrides).hydra.launcher, trust)
    if name not in options("hydra/launcher"):
        raise RunError(
            f"{folder.path} was run by a launcher {name} that vaelab has not: choose one, hydra/launcher=..."
        )
    node = dict(compose_with_hydra([f"hydra/launcher={name}", *overrides]).hydra.launcher)
    given = {text.partition("=")[0] for text in overrides}
    node |= {key: value for key, value in recorded.items() if key in node and f"hydra.launcher.{key}" not in given}
    return _launcher(node, trust)


def _record(overrides: Sequence[str], grid: Sequence[Composed], names: Sequence[str]) -> Record:
    parameters: dict[str, list[Any]] = {}
    for job in grid:
        for key, value in job.combination.parameters.items():
            values = parameters.setdefault(key, [])
            if value not in values:
                values.append(value)
    node: Any = OmegaConf.to_container(grid[0].hydra.launcher)
    knobs = {name: knob for name, knob in node.items() if name not in ("_target_", "address")}
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


def _compare(folder: SweepFolder, grid: Sequence[Composed]) -> None:
    """Refuse the folder of another sweep.

    Raises:
        RunError: its jobs are not these.
    """
    jobs = folder.jobs
    here = f"{folder.path} is the sweep of another config"
    if len(jobs) != len(grid):
        raise RunError(f"{here}: it has {len(jobs)} jobs, and this one {len(grid)}; choose another hydra.sweep.dir")
    for job, composed in zip(jobs, grid, strict=True):
        there, now = _flat(job.run.config), _flat(portable(composed.config))
        if now.get("threads") is None:
            now["threads"] = there.get("threads")  # of the launcher that began it
        for key in sorted(there.keys() | now.keys()):
            if there.get(key) != now.get(key):
                raise RunError(
                    f"{here}: job {job.number} has {key}={there.get(key)} there and {now.get(key)} here; "
                    "choose another hydra.sweep.dir"
                )


def _flat(config: DictConfig) -> dict[str, Any]:
    """Every value by its dotted key, as it is after a time on the disk."""
    values = DictConfig(OmegaConf.create(OmegaConf.to_yaml(config, resolve=True)))
    flat = {key: OmegaConf.select(values, key) for key in flat_keys(values)}
    return {key: value for key, value in flat.items() if not isinstance(value, DictConfig)}
