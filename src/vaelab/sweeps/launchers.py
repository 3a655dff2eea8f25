"""Where the jobs of a sweep run. A launcher takes jobs as it has room for them and yields each once it has ended.

How a job ended stands in its folder. A process that dies takes nothing with it: its job continues in another one from
its last checkpoint.
"""

import logging
import math
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from multiprocessing import forkserver
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

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

OURS = ("_target_", "address", "setup", "additional_parameters")
"""What a sweep's folder has no say in: servers to connect to, and what a cluster executes."""

ATTEMPTS = 3


def start_server() -> None:
    """Start the process that jobs of this machine are forked from, which imports torch and Lightning; do not wait."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["vaelab.sweeps.warm"])
    forkserver.ensure_running()


class Launcher(Protocol):
    """Runs jobs."""

    remote: bool
    """Whether jobs run on machines whose devices this one does not have."""

    def threads_per_job(self) -> int:
        """Of torch, for a job whose config does not say."""

    def run(self, folder: Path, jobs: Iterable[Job], trust: Sequence[str]) -> Iterator[Job]:
        """Run the jobs of the sweep in `folder`; yield each when it has ended, in whatever order.

        `jobs` is asked for the next one only where there is room for it, so that a search can wait for results.

        Raises:
            KeyboardInterrupt, SystemExit: the sweep was stopped, and every job with it.
        """


@dataclass(frozen=True, kw_only=True)
class Basic:
    """One job after the other, each with all devices and as many threads as torch takes by itself."""

    remote = False

    def threads_per_job(self) -> int:
        """As many as torch takes by itself: jobs have the machine in turns."""
        import torch

        return torch.get_num_threads()

    def run(self, folder: Path, jobs: Iterable[Job], trust: Sequence[str]) -> Iterator[Job]:
        """Run the jobs."""
        yield from _in_processes(folder, jobs, trust, [{}])


@dataclass(frozen=True, kw_only=True)
class Joblib:
    """Several at a time on this machine, which share its cores and its GPUs.

    With fewer jobs than GPUs each has as many whole ones; with more, several jobs share one.

    Args:
        n_jobs: at a time; -1 is one a GPU or, without GPUs, one a core.
        threads: of each job; None shares the cores out.
    """

    n_jobs: Count | AllCores = -1
    threads: Cores | None = None
    remote = False

    def workers(self) -> int:
        """How many jobs at a time."""
        return len(visible_devices()) or _cores() if self.n_jobs == -1 else self.n_jobs

    def threads_per_job(self) -> int:
        """As said, or the job's share of the cores."""
        return self.threads or max(1, _cores() // self.workers())

    def run(self, folder: Path, jobs: Iterable[Job], trust: Sequence[str]) -> Iterator[Job]:
        """Run the jobs."""
        shares = divided(visible_devices(), self.workers())
        yield from _in_processes(folder, jobs, trust, [{"CUDA_VISIBLE_DEVICES": share} for share in shares])


@dataclass(frozen=True, kw_only=True)
class Ray:
    """Tasks of Ray, on this machine or on a cluster: the Ray that the program has started, or else one of our own.

    Args:
        address: of a cluster: auto, or ray://host:10001; None starts Ray here.
        n_jobs: at a time; None is as many as there are resources for.
        cpus: of each job, which are also its threads.
        gpus: of each job; a fraction shares one; None divides those of the cluster among the jobs.
    """

    address: str | None = None
    n_jobs: Count | None = None
    cpus: Cores = 1
    gpus: Gpus | None = None
    remote = True
    extra = "ray"

    def threads_per_job(self) -> int:
        """One a core that a job asks for."""
        return self.cpus

    def run(self, folder: Path, jobs: Iterable[Job], trust: Sequence[str]) -> Iterator[Job]:
        """Run the jobs."""
        import ray

        started = not ray.is_initialized()
        if started:
            logging.getLogger("ray").setLevel(logging.ERROR)  # it reports its own starting and stopping
            ray.init(self.address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        try:
            slots, gpus = self._divided(ray.cluster_resources())
            task = ray.remote(num_cpus=self.cpus, num_gpus=gpus, max_retries=0)(_in_a_process)

            def submit(batch: Sequence[Job]) -> Sequence[Task]:
                return [task.remote(job, trust, sys.argv).future() for job in batch]

            yield from _several(folder, jobs, submit, slots)
        finally:
            if started:
                ray.shutdown()

    def _divided(self, resources: Mapping[str, float]) -> tuple[int, float]:
        """How many jobs at a time, and the GPUs of each."""
        gpus = resources.get("GPU", 0)
        most = resources.get("CPU", 1) // self.cpus
        if gpus and self.gpus != 0:
            most = min(most, gpus // (self.gpus or 1))
        slots = self.n_jobs or max(1, int(most))
        if self.gpus is not None:
            return slots, self.gpus
        share = gpus / slots
        return slots, math.floor(share) if share >= 1 else math.floor(share * 1e4) / 1e4  # Ray counts in 1e-4


@dataclass(frozen=True, kw_only=True)
class _Submitit:
    """What the jobs of submitit have in common; each is a new process.

    Args:
        n_jobs: in the queue at a time.
        timeout_min: of a job.
        cpus_per_task: which are also a task's threads.
        tasks_per_node: processes of a job: trainer.devices of a run on several devices.
        gpus_per_node: of a job.
    """

    n_jobs: Count
    timeout_min: Count = 1440
    cpus_per_task: Cores
    tasks_per_node: Count = 1
    gpus_per_node: WholeGpus = 0

    def __post_init__(self) -> None:
        """Refuse where submitit is not installed."""
        if find_spec("submitit") is None:
            raise ValueError('this launcher needs submitit: pip install "vaelab[slurm]"')

    def threads_per_job(self) -> int:
        """One a core that a task asks for."""
        return self.cpus_per_task

    def parameters(self) -> dict[str, Any]:
        """Those of submitit's executor."""
        names = ("timeout_min", "cpus_per_task", "tasks_per_node", "gpus_per_node")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class SubmititLocal(_Submitit):
    """On this machine, as it would be on Slurm."""

    n_jobs: Count = 2
    cpus_per_task: Cores = 1
    remote = False

    def run(self, folder: Path, jobs: Iterable[Job], trust: Sequence[str]) -> Iterator[Job]:
        """Run the jobs."""
        yield from _with_submitit("local", self.parameters(), folder, jobs, trust, self.n_jobs)


@dataclass(frozen=True, kw_only=True)
class SubmititSlurm(_Submitit):
    """Jobs of Slurm. One that is preempted or out of time is queued again and continues.

    Args:
        nodes: machines of a job: trainer.num_nodes.
        mem_gb: of a job, on each machine.
        partition: of the cluster; account, qos and constraint are Slurm's as well.
        setup: lines for the shell before the job, such as "module load cuda".
        additional_parameters: of sbatch, such as {mail-type: END}.
    """

    n_jobs: Count = 64
    cpus_per_task: Cores = 4
    nodes: Count = 1
    mem_gb: Count = 8
    partition: Text | None = None
    account: Text | None = None
    qos: Text | None = None
    constraint: Text | None = None
    setup: list[str] = field(default_factory=list)
    additional_parameters: Mapping[str, Any] = field(default_factory=dict)
    remote = True

    def run(self, folder: Path, jobs: Iterable[Job], trust: Sequence[str]) -> Iterator[Job]:
        """Run the jobs."""
        yield from _with_submitit("slurm", self.parameters(), folder, jobs, trust, self.n_jobs)

    def parameters(self) -> dict[str, Any]:
        """Those of submitit's executor."""
        names = ("partition", "account", "qos", "constraint", "setup", "additional_parameters")
        of_slurm = {f"slurm_{name}": value for name in names if (value := getattr(self, name))}
        return {**super().parameters(), "nodes": self.nodes, "mem_gb": self.mem_gb, **of_slurm}


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip() not in ("", "-1")]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def divided(devices: Sequence[str], jobs: int) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each of so many jobs at a time.

    >>> divided(["0", "1", "2", "3"], 2), divided(["0", "1"], 3), divided([], 2)
    (['0,1', '2,3'], ['0', '1', '0'], ['', ''])
    """
    each = len(devices) // jobs
    if each:
        return [",".join(devices[job * each : (job + 1) * each]) for job in range(jobs)]
    return [devices[job % len(devices)] if devices else "" for job in range(jobs)]


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
        time.sleep(0.02)
    return ended


def _in_processes(
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
        yield from _several(folder, jobs, submit, len(slots))
    finally:
        for process in filter(None, slots):
            process.kill()


def _in_a_process(job: Job, trust: Sequence[str], command: Sequence[str]) -> str | None:
    """What a worker of Ray does, which is used again and again."""
    from vaelab.sweeps.job import Process

    process = Process(job, trust, command)
    if (died := process.exception()) is not None:
        raise died
    return process.result()


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
        given = ([value] * len(batch) for value in (trust, sys.argv))
        ports = [_free_port() for _ in batch]
        return [_Submitted(job) for job in executor.map_array(_Requeued(), batch, *given, ports)]

    try:
        yield from _several(folder, jobs, submit, slots)
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


def _cores() -> int:
    """Those that this process may use, by its affinity and its cgroup."""
    from joblib import cpu_count

    return int(cpu_count())
