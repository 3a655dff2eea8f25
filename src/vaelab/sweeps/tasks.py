"""How jobs that are handed on are kept going: processes of this machine, tasks of Ray and of submitit."""

import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Protocol

from vaelab.errors import StorageError
from vaelab.sweeps.folder import STOP, Job

ATTEMPTS = 3


def start_server() -> None:
    """Start the process that jobs of this machine are forked from, which imports torch and Lightning; do not wait."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["vaelab.sweeps.warm"])
    forkserver.ensure_running()


class Task(Protocol):
    """A job that was handed on: a process, a future of Ray, or a job of submitit."""

    def done(self) -> bool:
        """Whether it has ended."""

    def exception(self) -> BaseException | None:
        """What it ended with, where that was not a return."""

    def result(self) -> str | None:
        """What it returned: the words of a disk that took no more."""

    def cancel(self) -> Any:
        """Do not begin it."""


def several(
    folder: Path, jobs: Iterable[Job], submit: Callable[[Sequence[Job]], Sequence[Task]], slots: int
) -> Iterator[Job]:
    """Keep `slots` jobs going; one whose process died is handed on again, until that was so ATTEMPTS times."""
    source = iter(jobs)
    going: dict[Task, Job] = {}
    attempts: Counter[int] = Counter()
    again: list[Job] = []
    try:
        while True:
            batch = again + list(islice(source, slots - len(going) - len(again)))
            attempts.update(job.number for job in batch)
            going |= dict(zip(submit(batch), batch, strict=True)) if batch else {}
            again = []
            if not going:
                return
            for task in _ended(going):
                job = going.pop(task)
                died = task.exception()
                if died is not None and attempts[job.number] < ATTEMPTS:
                    again.append(job)
                    continue
                if died is not None:
                    job.run.update_status("failed", error=f"its process died {ATTEMPTS} times, the last: {died}")
                elif (stopped := task.result()) is not None:
                    raise StorageError(stopped)
                yield job
    except BaseException:
        print("stopping the jobs after the step they are at; a second signal stops them at once", file=sys.stderr)
        with suppress(OSError):  # the disk may be full
            (folder / STOP).touch()
        for task, job in going.items():
            if job.state == "waiting":
                task.cancel()
        while going:
            for task in _ended(going):
                del going[task]
        raise


def _ended(going: Iterable[Task]) -> list[Task]:
    """Those that have ended, as soon as one has."""
    while not (ended := [task for task in going if task.done()]):
        time.sleep(0.02)
    return ended


def in_processes(
    folder: Path, jobs: Iterable[Job], trust: Sequence[str], environments: Sequence[Mapping[str, str]]
) -> Iterator[Job]:
    """As many jobs at a time as there are environments, each in a process with one of them."""
    from vaelab.sweeps.job import Process  # imports Lightning

    slots: list[Process | None] = [None] * len(environments)

    def submit(batch: Sequence[Job]) -> Sequence[Task]:
        begun = []
        for job in batch:
            slot = next(number for number, process in enumerate(slots) if process is None or process.done())
            process = slots[slot] = Process(job, trust, sys.argv, environments[slot])
            begun.append(process)
        return begun

    try:
        yield from several(folder, jobs, submit, len(slots))
    finally:
        for process in filter(None, slots):
            process.kill()


def in_a_process(job: Job, trust: Sequence[str], command: Sequence[str]) -> str | None:
    """What a worker of Ray does, which is used again and again."""
    from vaelab.sweeps.job import Process

    process = Process(job, trust, command)
    if (died := process.exception()) is not None:
        raise died
    return process.result()


def with_submitit(
    cluster: str,
    parameters: Mapping[str, Any],
    folder: Path,
    jobs: Iterable[Job],
    trust: Sequence[str],
    slots: int,
) -> Iterator[Job]:
    """Jobs of submitit on a `cluster` that it knows, so many at a time; `parameters` are its own."""
    import submitit

    # A new folder each time: submitit unpickles what it finds in it, and somebody else may have made the sweep's.
    (folder / ".submitit").mkdir(exist_ok=True)
    scratch = tempfile.mkdtemp(dir=folder / ".submitit")
    executor = submitit.AutoExecutor(scratch, cluster, **{f"{cluster}_max_num_timeout": 1000})
    executor.update_parameters(name="vaelab", **parameters)

    def submit(batch: Sequence[Job]) -> Sequence[Task]:
        given = ([value] * len(batch) for value in (trust, sys.argv))
        ports = [_free_port() for _ in batch]
        return [_Submitted(job) for job in executor.map_array(_Requeued(), batch, *given, ports)]

    try:
        yield from several(folder, jobs, submit, slots)
    finally:
        for path in Path(scratch).glob("*.pkl"):  # what is left are logs
            path.unlink()


@dataclass(frozen=True, eq=False)
class _Submitted:
    """A job of submitit as a task; of its own tasks the first one says what it returned."""

    job: Any

    def done(self) -> bool:
        return bool(self.job.done())

    def exception(self) -> BaseException | None:
        failure: BaseException | None = self.job.exception()
        return failure

    def result(self) -> str | None:
        words: str | None = self.job.task(0).result()
        return words

    def cancel(self) -> None:
        self.job.cancel()


class _Requeued:
    """`run_job`, which continues in another process where Slurm preempts the first or its time is over."""

    def __call__(self, job: Job, trust: Sequence[str], command: Sequence[str], port: int) -> str | None:
        """Run a job, or be one of its tasks; the first one says how it ended."""
        import submitit

        task = submitit.JobEnvironment()
        if task.num_tasks > 1 and "SLURM_STEP_NUM_TASKS" not in os.environ:  # the rehearsal: as torchrun would
            ranks = {"RANK": task.global_rank, "LOCAL_RANK": task.local_rank, "WORLD_SIZE": task.num_tasks}
            meeting = {"TORCHELASTIC_RUN_ID": task.job_id, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in (ranks | meeting).items()}
        from vaelab.sweeps.job import run_job  # which takes seconds to import

        try:
            return run_job(job, trust, command)
        except SystemExit:
            if task.global_rank == 0:
                raise
            return None

    def checkpoint(self, *arguments: Any) -> Any:
        """What to do then: the same; the run's own checkpoints say from where."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
