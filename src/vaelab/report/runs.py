"""What a report knows of runs: read from their folders as text and numbers. Nothing in them is followed or run."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vaelab.errors import RunError
from vaelab.runs.documents import MAX_INTEGER, Manifest, read_text, unsigned
from vaelab.runs.folder import PRIORS, RunFolder, require_plain
from vaelab.runs.hyperparameters import hyperparameters
from vaelab.sweeps.folder import Entry, Record, shown
from vaelab.text import clean, one_line

STATES = ("done", "pruned", "running", "interrupted", "failed", "waiting", "unreadable")
NATS = "nats per image"
MOST = 300  # characters of a text
_MARKS = {"manifest.json", "status.json", "metrics.json"}  # one of them, beside a config.yaml, makes a run folder


@dataclass(frozen=True)
class ReportedRun:
    """One run. Its texts have no control characters.

    Args:
        folder: where it is, absolute.
        name: its folder, as seen from those that were asked for.
        state: one of STATES; running also where the process was killed.
        error: of a failed run, or why it cannot be read.
        traceback: of a failed run.
        seed: None where the config has none.
        hyperparameters: as the config has them, flat, without seed and name.
        axes: what its sweep varies; None of a run that belongs to no sweep.
        sweep: the sweep's folder.
        metrics: the final ones, and the numbers of its evaluations under the same seed; NaN and infinity included.
        units: of metrics.
        command: that repeats it.
    """

    folder: Path
    name: str
    state: str
    error: str = ""
    traceback: str = ""
    seed: int | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    axes: Mapping[str, Any] | None = None
    sweep: Path | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


def find_runs(folders: Sequence[Path]) -> list[ReportedRun]:
    """All runs in these folders, at any depth, each once, in the order of their paths.

    Raises:
        RunError: a folder is not there.
    """
    for folder in folders:
        if not folder.is_dir():
            raise RunError(f"{folder} is not a folder: give run folders, sweep folders or what holds them")
    runs: dict[Path, ReportedRun] = {}
    for folder in folders:
        top = folder.resolve()  # what is in it is read as it is; a link in there is not
        for path, sweep, job in _run_folders(top):
            name = str(path.relative_to(top)) if path != top else path.name
            if len(folders) > 1 and path != top:
                name = f"{top.name}/{name}"
            if path not in runs:
                runs[path] = _read(path, clean(name, MOST), sweep, job)
    return list(runs.values())


def own_file(path: Path) -> bool:
    """Whether a file of a run is there, and neither it nor the folder it is in is a link to elsewhere."""
    return path.is_file() and not path.is_symlink() and not path.parent.is_symlink()


def _run_folders(top: Path) -> Iterator[tuple[Path, Path | None, Entry | None]]:
    """Each with its sweep and what that says of it."""
    jobs: dict[Path, tuple[Path, Entry]] = {}
    for parent, folders, files in os.walk(top):
        path = Path(parent)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if "sweep.json" in files and own_file(path / "sweep.json"):
            with suppress(RunError):  # its runs say what they are
                jobs |= {path / entry.folder: (path, entry) for entry in Record.read(path / "sweep.json").jobs}
        sweep, job = jobs.get(path, (None, None))
        if "config.yaml" in files and (job or _MARKS & set(files)):
            folders[:] = [name for name in folders if name == PRIORS]  # those fitted to it
            yield path, sweep, job


def _read(path: Path, name: str, sweep: Path | None, job: Entry | None) -> ReportedRun:
    folder = RunFolder(path)
    axes = None if job is None else {clean(key, MOST): _value(value) for key, value in job.parameters.items()}
    try:
        config = _hyperparameters(path / "config.yaml")
        status, manifest = folder.status, folder.manifest
        seed = config.pop("seed", None)
        metrics = {clean(key, MOST): value for key, value in folder.metrics.items()}
        evaluated = _evaluations(folder, seed)
        return ReportedRun(
            folder=path,
            name=name,
            state=status.state,
            error=clean(status.error, 2000),
            traceback=clean(status.traceback, 10_000),
            seed=seed if isinstance(seed, int) else None,
            hyperparameters={key: value for key, value in config.items() if key != "name"},
            axes=axes,
            sweep=sweep,
            metrics={key: value for key, (value, _) in evaluated.items()} | metrics,
            units={key: unit for key, (_, unit) in evaluated.items()},
            command=_command(path, manifest),
        )
    except Exception as error:  # a foreign file may fail in any way
        reason = one_line(str(error), 500)
        return ReportedRun(path, name, "unreadable", reason, axes=axes, sweep=sweep, command="")


def _hyperparameters(path: Path) -> dict[str, Any]:
    text = unsigned(read_text(path))
    require_plain(text)
    config = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if not isinstance(config, dict):
        raise ValueError(f"{path} is not a config: it should hold keys and values")
    return {clean(key, MOST): _value(value) for key, value in hyperparameters(config).items()}


def _evaluations(folder: RunFolder, seed: Any) -> dict[str, tuple[float, str]]:
    """The single numbers that `vaelab evaluate` has left under the run's own seed; of the newest weights each."""
    return {
        clean(name, MOST): (metric.value, clean(metric.unit, MOST))
        for evaluation in folder.evaluations
        if evaluation.seed == seed
        for name, metric in evaluation.metrics.items()
        if not isinstance(metric.value, list)
    }


def _command(path: Path, manifest: Manifest | None) -> str:
    """The command that makes the run again; none of one that has not begun."""
    if manifest is None:
        return ""
    command = shlex.join(manifest.repeat or ["vaelab", "reproduce", str(path)])
    return command if command.isprintable() else ""  # what a terminal would take for more than text


def _value(value: Any) -> Any:
    """A parameter's value: a number as it is, anything else as text."""
    if isinstance(value, int) and abs(value) >= MAX_INTEGER:
        raise ValueError("a number of more than 18 digits stands in config.yaml")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return clean(shown(value) if isinstance(value, bool | list | dict | None) else str(value), MOST)
