"""Where the jobs of a sweep run. A launcher takes jobs as it has room for them and yields each once it has ended.

How a job ended stands in its folder. A process that dies takes nothing with it: its job continues in another one from
its last checkpoint.
"""

import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from vaelab.sweeps.folder import Job
from vaelab.sweeps.tasks import Task, in_a_process, in_processes, several, with_submitit

Count = Annotated[int, Field(gt=0)]
Cores = Annotated[int, Field(gt=0, le=1024)]
AllCores = Literal[-1]
Gpus = Annotated[float, Field(ge=0)]
WholeGpus = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(pattern=r"^[\w.,:=/@+&|()*-]+$", max_length=200)]
"""What goes into a line of a Slurm script."""

OURS = ("_target_", "address", "setup", "additional_parameters")
"""What a sweep's folder has no say in: servers to connect to, and what a cluster executes."""


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
        yield from in_processes(folder, jobs, trust, [{}])


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
        yield from in_processes(folder, jobs, trust, [{"CUDA_VISIBLE_DEVICES": share} for share in shares])


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
            task = ray.remote(num_cpus=self.cpus, num_gpus=gpus, max_retries=0)(in_a_process)

            def submit(batch: Sequence[Job]) -> Sequence[Task]:
                return [task.remote(job, trust, sys.argv).future() for job in batch]

            yield from several(folder, jobs, submit, slots)
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
        yield from with_submitit("local", self.parameters(), folder, jobs, trust, self.n_jobs)


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
        yield from with_submitit("slurm", self.parameters(), folder, jobs, trust, self.n_jobs)

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


def _cores() -> int:
    """Those that this process may use, by its affinity and its cgroup."""
    from joblib import cpu_count

    return int(cpu_count())
