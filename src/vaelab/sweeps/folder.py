"""A sweep folder: `sweep.json` says which jobs there are, and each job is a run folder in it."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from omegaconf import DictConfig
from pydantic import Field

from vaelab.errors import RunError, StorageError
from vaelab.runs.documents import State, Status, read_json, typed, write_json
from vaelab.runs.folder import RunFolder, portable
from vaelab.runs.places import TAKEN, exclusive, is_inside, place, renamed, require_own_files, unmade
from vaelab.text import one_line

if TYPE_CHECKING:
    from vaelab.sweeps.search.search import Watch

METRICS = ("test/elbo", "test/reconstruction", "test/kl", "test/mse")
STUDY = "study.db"
STOP = ".stop"
"""A file in a sweep's folder that is there while its jobs are to stop, on whatever machines they run."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep. What has become of it stands in its own folder, and only there.

    Args:
        sweep: the sweep's folder, absolute.
        folder: the run's, within it.
        number: 0 is the first.
        parameters: what the sweep varies -> this job's value.
        overrides: what the run's config was composed with.
        trial: of a search, the job's number in the study.
        watch: of a search that prunes, what the run reports to.
    """

    sweep: Path
    folder: str
    number: int
    parameters: Mapping[str, Any]
    overrides: Sequence[str]
    trial: int | None = None
    watch: "Watch | None" = None

    @property
    def run(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(self.sweep / self.folder)

    @property
    def stop(self) -> Path:
        """There while the jobs of this sweep are to stop."""
        return self.sweep / STOP

    @property
    def status(self) -> Status:
        """How it stands, by its own folder: also unreadable, with the reason as the error."""
        try:
            status = self.run.status
            if status.state == "done":
                _ = self.run.metrics
        except RunError as error:
            return Status("unreadable", error=str(error))
        return status

    @property
    def state(self) -> State:
        """waiting, running, done, pruned, interrupted, failed or unreadable; running also where the process died."""
        return self.status.state

    @property
    def error(self) -> str:
        """What a failed job failed with, or why it cannot be read."""
        return self.status.error

    @property
    def metrics(self) -> dict[str, float]:
        """The final metrics; empty until the job is done, and where they cannot be read."""
        try:
            return self.run.metrics
        except RunError:
            return {}

    @property
    def label(self) -> str:
        """Its parameters, as short as they are clear: "kl_weight=4, seed=1"."""
        label = ", ".join(f"{name}={shown(value)}" for name, value in short_names(self.parameters).items())
        return one_line(label, 300)


@dataclass
class Entry:
    """What sweep.json says of a job; how it stands is in its own folder."""

    number: int
    folder: str
    parameters: dict[str, Any]
    overrides: list[str]
    trial: Annotated[int, Field(ge=0)] | None = None


@dataclass
class Best:
    """One of the best trials of a search.

    Args:
        trial: its number in the study.
        job: its number in this sweep; None where it is another one's of a shared study.
        run: its folder.
        parameters: what was searched -> its value.
        values: a metric -> what it reached.
    """

    trial: int
    job: int | None
    run: str | None
    parameters: dict[str, Any]
    values: dict[str, float]


@dataclass
class SearchRecord:
    """What sweep.json says of a search.

    Args:
        identity: a name of its own among the sweeps of a shared study.
        n_trials: how many trials there are to be.
        metrics: what is optimised.
        trials: how many there were, and how they ended.
        best: the best of them.
    """

    identity: str
    n_trials: Annotated[int, Field(gt=0)]
    metrics: Annotated[list[str], Field(min_length=1)]
    trials: dict[str, int] = field(default_factory=dict)
    best: list[Best] = field(default_factory=list)


@dataclass
class Record:
    """What sweep.json says.

    Args:
        name: of the config.
        command: that started the sweep.
        overrides: as they were given. Nothing is ever composed from those of a grid; of those of a search, what
            `vaelab.sweeps.search.recorded` admits.
        parameters: what the sweep varies -> its values.
        launcher: its name and its knobs.
        jobs: an entry each.
        search: of a search, what it is, and what was best.
    """

    name: str
    command: list[str]
    overrides: list[str]
    parameters: dict[str, list[Any]]
    launcher: dict[str, Any]
    jobs: list[Entry]
    search: SearchRecord | None = None

    @classmethod
    def read(cls, path: Path) -> "Record":
        """What a file says.

        Raises:
            RunError: it is none that vaelab writes.
        """
        return typed(cls, read_json(path), path)

    def write(self, path: Path) -> None:
        """Replace the file as a whole."""
        write_json(path, asdict(self), sealed=True)


class SweepFolder:
    """The paths and files of one sweep: sweep.json, sweep.log and the run folders of its jobs."""

    def __init__(self, path: str | Path, record: Record) -> None:
        self.path = Path(path)
        self.record = record
        self._place: tuple[int, int] | None = None  # of the folder that is locked

    @classmethod
    def create(cls, path: str | Path, record: Record, configs: Sequence[DictConfig], *, exact: bool) -> "SweepFolder":
        """A new sweep whose jobs have these configs, at `path` or, unless `exact`, with -2, -3, ... appended.

        It appears as a whole or, where the process is killed, not at all.

        Raises:
            RunError: the folder cannot be made, or `exact` and it is taken.
        """
        wanted = Path(path)
        unfinished = wanted.absolute().with_name(f".{wanted.absolute().name}.{os.getpid()}")
        try:
            unfinished.mkdir(parents=True)
            new = cls(unfinished, record)
            for job, config in zip(record.jobs, configs, strict=True):
                new._make(job.folder, config)
            new.save()
            return cls(renamed(unfinished, wanted, TAKEN, exact=exact), record)
        except OSError as error:
            raise unmade(wanted, error) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    @classmethod
    def open(cls, path: str | Path) -> "SweepFolder":
        """The folder of a sweep that was started.

        Raises:
            RunError: `path` is no sweep folder, its sweep.json is damaged, or there are links or devices in it.
        """
        if not is_inside(path, "sweep.json"):
            raise RunError(f"{path} is not a sweep folder: it has no sweep.json; `vaelab train -m` makes them")
        folder = cls(path, Record("", [], [], {}, {}, []))
        folder._read()
        require_own_files(folder.path, files=(STUDY, STOP, "sweep.log"), folders=(".submitit",))
        return folder

    @staticmethod
    def is_one(path: str | Path) -> bool:
        """Whether `path` is the folder of a sweep."""
        return is_inside(path, "sweep.json")

    @property
    def jobs(self) -> list[Job]:
        """All jobs, in their order."""
        top = self.path.absolute()
        return [_job(top, entry) for entry in self.record.jobs]

    @property
    def unfinished(self) -> list[Job]:
        """Those that are left to do: not done, and readable."""
        return [job for job in self.jobs if job.state not in ("done", "unreadable")]

    @property
    def metrics(self) -> list[str]:
        """Which metrics are shown: those that are searched by, and the usual ones."""
        searched = [] if self.record.search is None else self.record.search.metrics
        return list(dict.fromkeys([*searched, *METRICS]))

    def add(
        self,
        config: DictConfig,
        parameters: Mapping[str, Any],
        overrides: Sequence[str],
        folder: str,
        *,
        trial: int | None = None,
    ) -> Job:
        """One more job, whose run folder has this config and has not begun.

        Raises:
            RunError: there is another run in that folder, or it is not in the sweep's.
        """
        self._make(folder, config)
        entry = Entry(len(self.record.jobs), folder, dict(parameters), list(overrides), trial)
        self.record.jobs.append(entry)
        self.save()
        return _job(self.path.absolute(), entry)

    def save(self) -> None:
        """Write sweep.json."""
        self._require_there()
        self.record.write(self.path / "sweep.json")

    def log(self, line: str) -> None:
        """Append a line to sweep.log, with the time."""
        self._require_there()
        with (self.path / "sweep.log").open("a") as file:
            file.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {one_line(line)}\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the sweep for this process; the lock is on sweep.log and goes with the process.

        Raises:
            RunError: another process holds it.
        """
        with exclusive(self.path / "sweep.log", f"{self.path} is in use: another process is running this sweep"):
            self._place = place(self.path)
            self._read()  # another process may just have let go of it
            yield

    def _read(self) -> None:
        self.record = Record.read(self.path / "sweep.json")
        self._require_inside(entry.folder for entry in self.record.jobs)

    def _make(self, folder: str, config: DictConfig) -> None:
        """The run folder of a job: whole, or as a process that was killed has left it."""
        self._require_inside([folder])
        run = RunFolder(self.path / folder)
        if (run.path / "config.yaml").is_file():
            if {path.name for path in run.path.iterdir()} == {"config.yaml", "train.log"} and run.config == portable(
                config
            ):
                return
            raise RunError(f"{run.path} is there already, and is no job of this sweep: a run never overwrites one")
        with RunFolder.claim(run.path, config, exact=True):
            pass

    def _require_inside(self, folders: Iterable[str]) -> None:
        """Refuse a job's folder that is not in the sweep's.

        Raises:
            RunError: there is one.
        """
        top = self.path.resolve()
        for folder in folders:
            if "\0" in folder or top not in (top / folder).resolve().parents:
                raise RunError(f"{self.path}: the folder of a job, {one_line(folder)}, is not in the sweep's")

    def _require_there(self) -> None:
        if self._place is not None and place(self.path) != self._place:
            raise StorageError(f"{self.path} was removed or renamed while its jobs were running")


def _job(sweep: Path, entry: Entry) -> Job:
    return Job(sweep, entry.folder, entry.number, entry.parameters, entry.overrides, entry.trial)


def short_names(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The same with each key cut to its last word, where that names one only.

    >>> short_names({"objective.kl_weight": 4, "encoder.hidden": [9], "decoder.hidden": [9]})
    {'kl_weight': 4, 'encoder.hidden': [9], 'decoder.hidden': [9]}
    """
    last = [key.rpartition(".")[2] for key in parameters]
    return {
        word if last.count(word) == 1 else key: value
        for word, (key, value) in zip(last, parameters.items(), strict=True)
    }


def shown(value: Any) -> str:
    """A parameter's value as a person would write it.

    >>> [shown(value) for value in (0.5, "vae", [400, 200], True, None)]
    ['0.5', 'vae', '[400,200]', 'true', 'null']
    """
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
