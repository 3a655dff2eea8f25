"""A sweep folder: `sweep.json` says which jobs there are, and each job is a run folder in it."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from pydantic import TypeAdapter, ValidationError

from vaelab.errors import RunError
from vaelab.runs.folder import RunFolder, exclusive, write_text

if TYPE_CHECKING:
    from vaelab.sweeps.search.search import Watch

METRICS = ("test/elbo", "test/reconstruction", "test/kl", "test/mse")
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
    def state(self) -> str:
        """waiting, running, done, pruned, interrupted or failed; running also where the process was killed."""
        return str(self.run.read_json("status").get("state", "waiting"))

    @property
    def error(self) -> str:
        """What a failed job failed with."""
        return str(self.run.read_json("status").get("error", ""))

    @property
    def metrics(self) -> dict[str, float]:
        """The final metrics; empty until the job is done."""
        return self.run.metrics

    @property
    def label(self) -> str:
        """Its parameters, as short as they are clear: "kl_weight=4, seed=1"."""
        return ", ".join(f"{name}={shown(value)}" for name, value in short_names(self.parameters).items())


@dataclass
class Entry:
    """What sweep.json says of a job; its state is a copy, as it was when a job last ended."""

    number: int
    folder: str
    parameters: dict[str, Any]
    overrides: list[str]
    state: str = "waiting"
    trial: int | None = None


@dataclass
class Record:
    """What sweep.json holds. The overrides and the command are for people: nothing is ever composed from them.

    Args:
        name: of the config.
        command: that started the sweep.
        overrides: as they were given.
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
    search: dict[str, Any] | None = None


class SweepFolder:
    """The paths and files of one sweep: sweep.json, sweep.log and the run folders of its jobs."""

    def __init__(self, path: str | Path, record: Record) -> None:
        self.path = Path(path)
        self.record = record

    @classmethod
    def create(cls, path: str | Path, record: Record, configs: Sequence[DictConfig], *, exact: bool) -> "SweepFolder":
        """A new sweep whose jobs have these configs, at `path` or, unless `exact`, with -2, -3, ... appended.

        It appears as a whole or, where the process is killed, not at all.

        Raises:
            RunError: the folder cannot be made, or `exact` and it is taken.
        """
        wanted = Path(path)
        unfinished = wanted.with_name(f".{wanted.name}.{os.getpid()}")
        try:
            unfinished.mkdir(parents=True)
            for job, config in zip(record.jobs, configs, strict=True):
                run = RunFolder(unfinished / job.folder)
                run.path.mkdir(parents=True)
                run.write_config(config)
            cls(unfinished, record).save()
            return cls(_renamed(unfinished, wanted, exact=exact), record)
        except OSError as error:
            raise RunError(f"the sweep folder {wanted} cannot be made: {error.strerror}") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    @classmethod
    def open(cls, path: str | Path) -> "SweepFolder":
        """The folder of a sweep that was started.

        Raises:
            RunError: `path` is no sweep folder, or its sweep.json is damaged.
        """
        file = Path(path) / "sweep.json"
        if not file.is_file():
            raise RunError(f"{path} is not a sweep folder: it has no sweep.json; `vaelab train -m` makes them")
        try:
            record = TypeAdapter(Record).validate_json(file.read_text(), strict=True)
        except (ValidationError, ValueError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise RunError(f"{file} cannot be read: {reason}") from error
        for job in record.jobs:
            inside = (Path(path) / job.folder).resolve()
            if Path(path).resolve() not in inside.parents:
                raise RunError(f"{file}: the folder of job {job.number}, {job.folder}, is not in the sweep's")
        return cls(path, record)

    @staticmethod
    def is_one(path: str | Path) -> bool:
        """Whether `path` is the folder of a sweep."""
        return (Path(path) / "sweep.json").is_file()

    @property
    def jobs(self) -> list[Job]:
        """All jobs, in their order."""
        return [
            Job(self.path.absolute(), entry.folder, entry.number, entry.parameters, entry.overrides, entry.trial)
            for entry in self.record.jobs
        ]

    @property
    def metrics(self) -> list[str]:
        """Which metrics are shown: those that are searched by, and the usual ones."""
        return list(dict.fromkeys([*(self.record.search or {}).get("metrics", []), *METRICS]))

    def add(
        self,
        config: DictConfig,
        parameters: Mapping[str, Any],
        overrides: Sequence[str],
        folder: str,
        *,
        trial: int | None = None,
    ) -> Job:
        """One more job, whose run folder has this config and has not begun."""
        run = RunFolder(self.path / folder)
        run.path.mkdir(parents=True, exist_ok=True)
        run.write_config(config)
        number = len(self.record.jobs)
        self.record.jobs.append(Entry(number, folder, dict(parameters), list(overrides), trial=trial))
        self.save()
        return self.jobs[-1]

    def save(self) -> None:
        """Write sweep.json, with the states that the jobs' own folders tell."""
        for entry, job in zip(self.record.jobs, self.jobs, strict=True):
            if entry.state != "done":
                entry.state = job.state
        write_text(self.path / "sweep.json", json.dumps(asdict(self.record), indent=2) + "\n")

    def log(self, line: str) -> None:
        """Append a line to sweep.log, with the time."""
        with (self.path / "sweep.log").open("a") as file:
            file.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {line}\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the sweep for this process; the lock is on sweep.log and goes with the process.

        Raises:
            RunError: another process holds it.
        """
        with exclusive(self.path / "sweep.log", f"{self.path} is in use: another process is running this sweep"):
            yield


def _renamed(unfinished: Path, wanted: Path, *, exact: bool) -> Path:
    """Where a folder came to lie: at `wanted` or, unless `exact`, with -2, -3, ... appended."""
    candidate, number = wanted, 1
    while True:
        try:
            return unfinished.rename(candidate)
        except OSError:
            if not candidate.exists():
                raise
            if exact:
                raise RunError(f"{wanted} is there already and is not a sweep: choose another folder") from None
        number += 1
        candidate = wanted.with_name(f"{wanted.name}-{number}")


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
