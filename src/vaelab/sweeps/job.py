"""One job of a sweep: a fresh process that resumes a run folder."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from multiprocessing.connection import Connection

from omegaconf import OmegaConf

from vaelab.errors import Pruned, StorageError
from vaelab.runs.run import go_on
from vaelab.sweeps.folder import Job
from vaelab.sweeps.tasks import start_server


class Process:
    """A job in a fresh process of this machine, forked from one that has imported torch and Lightning.

    Args:
        job: which.
        trust: packages of one's own whose classes its config may name.
        command: of the sweep, for the manifest.
        environment: variables that differ from this process's.
    """

    def __init__(
        self, job: Job, trust: Sequence[str], command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        start_server()
        context = multiprocessing.get_context("forkserver")
        self._said, said = context.Pipe(duplex=False)
        given = (job, trust, command, {**os.environ, **(environment or {})}, said)
        self._process = context.Process(target=_main, args=given)
        self._process.start()
        said.close()

    def done(self) -> bool:
        """Whether it has ended."""
        return not self._process.is_alive()

    def exception(self) -> BaseException | None:
        """How the process died, where it did."""
        self._process.join()
        code = self._process.exitcode
        return ChildProcessError(f"it ended with exit code {code}") if code else None

    def result(self) -> str | None:
        """The words of a disk that took no more."""
        words: str | None = self._said.recv()
        return words

    def cancel(self) -> None:
        """Nothing: a job that has not begun when its sweep is stopped ends at once."""

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.join()


def run_job(job: Job, trust: Sequence[str], command: Sequence[str]) -> str | None:
    """Train a job from where it stands, in this process, which is its alone and stops when its sweep does.

    A failure stands in the job's folder, where `job.error` finds it; what is printed goes to its train.log.

    Args:
        job: which.
        trust: packages of one's own whose classes its config may name.
        command: of the sweep, for the manifest.

    Returns:
        The words of a disk that took no more, which is no failure of the job's: the sweep has to stop.

    Raises:
        SystemExit: it was stopped; a checkpoint has been written.
    """
    sys.argv = list(command)
    if job.stop.exists():
        return None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=_stop_with, args=(job,), daemon=True).start()
    with job.run.log.open("a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        try:
            config = job.run.config
            OmegaConf.update(config, "callbacks.progress_bar", None)  # the sweep's table shows the progress
            callbacks = [job.watch.callback(job.sweep)] if job.watch is not None else []
            go_on(job.run, config, trust=trust, overrides=job.overrides, callbacks=callbacks, wait=True)
        except Pruned:
            pass
        except StorageError as error:
            return str(error)
        except Exception as error:
            if job.state not in ("failed", "unreadable"):
                job.run.update_status("failed", error=f"{type(error).__name__}: {error}")
    return None


def _main(
    job: Job, trust: Sequence[str], command: Sequence[str], environment: Mapping[str, str], said: Connection
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.setpgrp()  # Ctrl-C in the terminal is for the sweep, which stops its jobs
    try:
        said.send(run_job(job, trust, command))
    except KeyboardInterrupt:  # of a signal to this process alone
        sys.exit(130)


def _stop_with(job: Job, *, every: float = 0.5) -> None:
    """Send this process SIGTERM once its sweep is stopped, or the process that started it is gone.

    A file says that it is stopped, which other machines see as well; a run answers the signal with a checkpoint.
    """
    parent, above = multiprocessing.parent_process(), os.getppid()
    while not job.stop.exists() and (parent.is_alive() if parent else os.getppid() == above):
        time.sleep(every)
    with suppress(ProcessLookupError):
        os.kill(os.getpid(), signal.SIGTERM)
