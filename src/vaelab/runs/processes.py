"""Processes of a run on several devices: the first one starts the others and ends them when it ends."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import pytorch_lightning as pl
import torch

from vaelab.runs.companion import PATIENCE
from vaelab.runs.folder import RunFolder
from vaelab.training.internals import starts_processes


@contextmanager
def companions(trainer: pl.Trainer, folder: RunFolder, trust: Sequence[str]) -> Iterator[None]:
    """Start the processes that `trainer` needs besides this one; they have ended when the block is left.

    Each takes its config from the run folder. Lightning itself would start the whole command of this process again,
    leave the others behind if this one is killed, and kill this one within seconds of another's end, before a status
    could be written.
    """
    launcher = starts_processes(trainer)
    if launcher is None:
        yield
        return
    environment = launcher.cluster_environment
    shared = {
        "MASTER_ADDR": environment.main_address,
        "MASTER_PORT": str(environment.main_port),
        "NODE_RANK": str(environment.node_rank()),
        "LOCAL_RANK": "0",
    }
    before = {name: os.environ.get(name) for name in [*shared, "OMP_NUM_THREADS"]}  # Lightning sets the last
    threads = torch.get_num_threads()
    command = [sys.executable, "-m", "vaelab.runs.companion", str(folder.path.absolute()), *trust]
    others: list[subprocess.Popen[bytes]] = []
    over = threading.Event()
    try:
        os.environ.update(shared)
        for rank in range(1, trainer.num_devices):
            own = {"LOCAL_RANK": str(rank), "PYTHONPATH": os.pathsep.join(sys.path)}
            # In a new session, so that Ctrl-C in a terminal reaches this process alone, which tells the others.
            other = subprocess.Popen(command, env=os.environ | own, stdin=subprocess.PIPE, start_new_session=True)
            others.append(other)
            watch = partial(_end_without, other, trainer.global_rank + rank, folder, over, leads=trainer.is_global_zero)
            threading.Thread(target=watch, daemon=True).start()
        yield
    finally:
        over.set()
        for other in others:
            assert other.stdin is not None
            other.stdin.close()  # ends it
            other.wait()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        torch.set_num_threads(threads)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _end_without(
    other: subprocess.Popen[bytes], rank: int, folder: RunFolder, over: threading.Event, *, leads: bool
) -> None:
    """End this process if another one has failed and this one still waits for it, which can take long on a GPU.

    Only the process that leads those of all machines writes the status.
    """
    code = other.wait()
    if code == 0 or over.wait(PATIENCE):
        return
    error = f"process {rank} of the run ended with exit code {code}"
    if leads:
        folder.update_status("failed", error=error)
    os.write(2, f"error: {error}; `vaelab resume {folder.path}` continues it\n".encode())
    os._exit(1)
