"""Where the jobs of a sweep run. Each launcher takes jobs as it has room for them and gives them back when they end.

How a job ended stands in its folder. A process that dies takes nothing with it: its job goes on elsewhere from its
last checkpoint.
"""

import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, cast

from pydantic import Field

from vaelab.errors import StorageError
from vaelab.sweeps.folder import STOP, Job

Count = Annotated[int, Field(gt=0)]
Cores = Annotated[int, Field(gt=0, le=1024)]
AllCores = Literal[-1]
Gpus = Annotated[float, Field(ge=0)]
WholeGpus = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(pattern=r"^[\w.,:=/@+&|()*-]+$", max_length=200)]
"""What goes into a line of a Slurm script."""

ATTEMPTS = 3


class Launcher(Protocol):
    """Runs jobs."""

    remote: bool
    """Whether jobs run on machines whose devices this one does not have."""

    def threads_per_job(self) -> int:
        """Of torch, for a job whose config does not say."""

    def run(self, folder: Path, jobs: Iterable[Job], trust: Sequence[str]) -> Iterator[Job]:
        """Run the jobs of the sweep in `folder`, each given back when it has ended, in whatever order that is.

        `jobs` is asked for the next one only where there is room for it, so that a search can wait for results.

        Raises:
            KeyboardInterrupt, SystemExit: the sweep was stopped, and every job with it.
        """


@dataclass(frozen=True, kw_only=True)
class Basic:
    """One job after the other, in this process."""

    remote = False

    def threads_per_job(self) -> int:
        """As many as torch takes by itself: jobs have the machine in turns."""
        import torch

        return torch.get_num_threads()

    def run(self, folder: Path, jobs: Iterable[Job], trust: Sequence[str]) -> Iterator[Job]:
        """Run the jobs."""
        from vaelab.sweeps.job import run_job

        for job in jobs:
            run_job(job, trust)
            yield job


@dataclass(frozen=True, kw_only=True)
class Joblib:
    """Several at a time on this machine, in joblib's processes (loky), which are used again and again."""

    n_jobs: Count | AllCores = -1
    threads: Cores | None = None
    remote = False

    def workers(self) -> int:
        """How many processes."""
        from joblib import cpu_count

        return int(cpu_count()) if self.n_jobs == -1 else self.n_jobs

    def threads_per_job(self) -> int:
        """As said, or the worker's share of the cores."""
        from joblib import cpu_count

        return self.threads or max(1, int(cpu_count()) // self.workers())

    def run(self, folder: Path, jobs: Iterable[Job], trust: Sequence[str]) -> Iterator[Job]:
        """Run the jobs."""
        from joblib.externals.loky import ProcessPoolExecutor
        from joblib.externals.loky.process_executor import BrokenProcessPool

        # A pool a worker: loky ends all processes of a pool where one has died.
        pools: list[ProcessPoolExecutor] = []
        idle: list[ProcessPoolExecutor] = []

        def hand_on(job: Job) -> Task:
            if not idle:
                environment = {"OMP_NUM_THREADS": str(self.threads_per_job())}
                idle.append(ProcessPoolExecutor(1, initializer=_by_itself, env=environment))
                pools.append(idle[-1])
            pool = idle.pop()
            task = pool.submit(_run_elsewhere, job, trust, sys.argv)
            task.add_done_callback(
                lambda task: None if isinstance(task.exception(), BrokenProcessPool) else idle.append(pool)
            )
            return cast(Task, task)

        try:
            yield from _several(folder, jobs, lambda batch: [hand_on(job) for job in batch], self.workers())
        finally:
            for pool in pools:
                pool.shutdown(kill_workers=True)


@dataclass(frozen=True, kw_only=True)
class Ray:
    """Tasks of Ray, on this machine or on a cluster."""

    address: str | None = None
    n_jobs: Count | None = None
    cpus: Cores = 1
    gpus: Gpus = 0
    remote = True

    def __post_init__(self) -> None:
        """Refuse where Ray is not installed."""
        _require("ray", 'hydra/launcher=ray needs Ray: pip install "vaelab[ray]"')

    def threads_per_job(self) -> int:
        """One a core that a job asks for."""
        return self.cpus

    def run(self, folder: Path, jobs: Iterable[Job], trust: Sequence[str]) -> Iterator[Job]:
        """Run the jobs."""
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)  # it speaks of its own starting and stopping
        ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR)
        try:
            task = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0)(_run_elsewhere)
            slots = self.n_jobs or max(1, int(ray.cluster_resources().get("CPU", 1) // self.cpus))

            def submit(batch: Sequence[Job]) -> Sequence[Task]:
                return [task.remote(job, trust, sys.argv).future() for job in batch]

            yield from _several(folder, jobs, submit, slots)
        finally:
            ray.shutdown()


@dataclass(frozen=True, kw_only=True)
class SubmititLocal:
    """A new process a job on this machine, by submitit, as it would be on Slurm."""

    n_jobs: Count = 2
    timeout_min: Count = 1440
    cpus_per_task: Cores = 1
    remote = False

    def __post_init__(self) -> None:
        """Refuse where submitit is not installed."""
        _require("submitit", 'hydra/launcher=submitit_local needs submitit: pip install "vaelab[slurm]"')

    def threads_per_job(self) -> int:
        """One a core that a job asks for."""
        return self.cpus_per_task

    def run(self, folder: Path, jobs: Iterable[Job], trust: Sequence[str]) -> Iterator[Job]:
        """Run the jobs."""
        parameters = {"timeout_min": self.timeout_min, "cpus_per_task": self.cpus_per_task}
        yield from _with_submitit("local", parameters, folder, jobs, trust, self.n_jobs)


@dataclass(frozen=True, kw_only=True)
class SubmititSlurm:
    """Jobs of Slurm, by submitit. One that is preempted or out of time is queued again and goes on."""

    n_jobs: Count = 64
    timeout_min: Count = 1440
    cpus_per_task: Cores = 4
    gpus_per_node: WholeGpus = 0
    mem_gb: Count = 8
    partition: Text | None = None
    account: Text | None = None
    qos: Text | None = None
    constraint: Text | None = None
    remote = True

    def __post_init__(self) -> None:
        """Refuse where submitit is not installed."""
        _require("submitit", 'hydra/launcher=submitit_slurm needs submitit: pip install "vaelab[slurm]"')

    def threads_per_job(self) -> int:
        """One a core that a job asks for."""
        return self.cpus_per_task

    def run(self, folder: Path, jobs: Iterable[Job], trust: Sequence[str]) -> Iterator[Job]:
        """Run the jobs."""
        parameters = {
            "timeout_min": self.timeout_min,
            "cpus_per_task": self.cpus_per_task,
            "gpus_per_node": self.gpus_per_node,
            "mem_gb": self.mem_gb,
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "slurm_qos": self.qos,
            "slurm_constraint": self.constraint,
        }
        parameters = {name: value for name, value in parameters.items() if value is not None}
        yield from _with_submitit("slurm", parameters, folder, jobs, trust, self.n_jobs)


class Task(Protocol):
    """A job that was handed on: a future of loky or Ray, or a job of submitit."""

    def done(self) -> bool:
        """Whether it has ended."""

    def exception(self) -> BaseException | None:
        """What it ended with, where that was not a return."""

    def result(self) -> str | None:
        """What it returned: what a disk has stopped it with."""

    def cancel(self) -> Any:
        """Do not begin it."""


def _several(
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
        time.sleep(0.05)
    return ended


def _run_elsewhere(job: Job, trust: Sequence[str], command: Sequence[str]) -> str | None:
    """What a process that a launcher has started is given to do."""
    from vaelab.sweeps.job import run_elsewhere  # which takes seconds to import

    return run_elsewhere(job, trust, command)


def _by_itself() -> None:
    """Keep the terminal's Ctrl-C from a worker, which its sweep tells to stop, and have it end with the sweep."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    parent = os.getppid()

    def follow() -> None:
        # While it has a job there is a handler: the job is stopped first, with a checkpoint.
        while os.getppid() == parent or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _with_submitit(
    cluster: str,
    parameters: Mapping[str, Any],
    folder: Path,
    jobs: Iterable[Job],
    trust: Sequence[str],
    slots: int,
) -> Iterator[Job]:
    import submitit

    # A new folder each time: submitit unpickles what it finds in it, and somebody else may have made the sweep's.
    (folder / ".submitit").mkdir(exist_ok=True)
    scratch = tempfile.mkdtemp(dir=folder / ".submitit")
    executor = submitit.AutoExecutor(scratch, cluster, **{f"{cluster}_max_num_timeout": 1000})
    executor.update_parameters(name="vaelab", **parameters)

    def submit(batch: Sequence[Job]) -> Sequence[Task]:
        tasks: Sequence[Task] = executor.map_array(
            _Requeued(), batch, *([given] * len(batch) for given in (trust, sys.argv))
        )
        return tasks

    try:
        yield from _several(folder, jobs, submit, slots)
    finally:
        for path in Path(scratch).glob("*.pkl"):  # what is left are logs
            path.unlink()


class _Requeued:
    """`_run_elsewhere`, which goes on in another process where Slurm preempts the first or its time is over."""

    def __call__(self, *arguments: Any) -> str | None:
        return _run_elsewhere(*arguments)

    def checkpoint(self, *arguments: Any) -> Any:
        """What to do then: the same; the run's own checkpoints say from where."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


def _require(package: str, message: str) -> None:
    if find_spec(package) is None:
        raise ValueError(message)
