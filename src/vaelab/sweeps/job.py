"""Running one job of a sweep, in whatever process it was put."""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import FrameType

import torch
from omegaconf import OmegaConf

from vaelab.errors import Pruned, StorageError
from vaelab.runs.run import go_on
from vaelab.sweeps.folder import Job


def run_job(job: Job, trust: Sequence[str] = ()) -> None:
    """Train a job from where it stands; a failure is left in its folder, where `job.error` finds it.

    What it prints goes to its train.log.

    Args:
        job: which.
        trust: packages of one's own whose classes its config may name.

    Raises:
        StorageError: a disk took no more, which is no failure of this job's; the sweep is to stop.
        KeyboardInterrupt, SystemExit: it was stopped; a checkpoint has been written.
    """
    if job.stop.exists():
        return
    config = job.run.config
    OmegaConf.update(config, "callbacks.progress_bar", None)  # the sweep's table shows the progress
    with job.run.log.open("a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file), unchanged():
        try:
            callbacks = [job.watch.callback(job.sweep)] if job.watch is not None else []
            go_on(job.run, config, trust=trust, overrides=job.overrides, callbacks=callbacks, wait=True)
        except Pruned:
            return
        except StorageError:
            raise
        except Exception as error:
            if job.state not in ("failed", "unreadable"):
                job.run.update_status("failed", error=f"{type(error).__name__}: {error}")


def run_elsewhere(job: Job, trust: Sequence[str], command: Sequence[str]) -> str | None:
    """`run_job` in a process that a launcher has started: it stops when its sweep does.

    Args:
        job: which.
        trust: packages of one's own whose classes its config may name.
        command: that of the sweep, for the manifest.

    Returns:
        What a disk that took no more has stopped it with.
    """
    sys.argv = list(command)
    try:
        with stopping_with(job):
            run_job(job, trust)
    except StorageError as error:
        return str(error)
    return None


@contextmanager
def unchanged() -> Iterator[None]:
    """Put back what a run may change of its process, so that the next one finds it as the first did."""
    threads = torch.get_num_threads()
    dtype = torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    anomaly, check_nan = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
    gradients = torch.is_grad_enabled()
    precision = torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    environment, arguments = dict(os.environ), list(sys.argv)
    with warnings.catch_warnings():
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
            torch.autograd.set_detect_anomaly(anomaly, check_nan)
            torch.set_grad_enabled(gradients)
            torch.set_float32_matmul_precision(precision)
            torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = cudnn
            os.environ.clear()
            os.environ.update(environment)
            sys.argv = arguments


@contextmanager
def stopping_with(job: Job, *, every: float = 0.5) -> Iterator[None]:
    """Send this process SIGTERM once its sweep is stopped, or the process that started it is gone.

    A file tells it, which workers on other machines see as well; a run answers the signal with a checkpoint.
    """
    parent, over = os.getppid(), threading.Event()

    def watch() -> None:
        while not over.wait(every):
            if job.stop.exists() or os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    before = signal.signal(signal.SIGTERM, _exit)  # the process is used again: it must not die of it
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        signal.signal(signal.SIGTERM, before)


def _exit(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)
