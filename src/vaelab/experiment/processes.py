"""The processes of a run on several devices: the first one starts the others and takes them with it when it ends."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from vaelab.experiment.folder import RunFolder


@contextmanager
def companions(trainer: pl.Trainer, folder: RunFolder, trust: Sequence[str]) -> Iterator[None]:
    """Start the processes that `trainer` wants besides this one; they have ended when the block is left.

    Each takes its config from the run folder. Left to itself, Lightning starts the whole command of this process
    again, whatever it was, leaves the others behind where this one is killed, and kills this one within seconds of
    another's end, so that no status could be written.
    """
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher) or launcher.cluster_environment.creates_processes_externally:
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
    command = [sys.executable, "-m", "vaelab.experiment.companion", str(folder.path.absolute()), *trust]
    others = []
    try:
        os.environ.update(shared)
        for rank in range(1, trainer.num_devices):
            own = {"LOCAL_RANK": str(rank), "PYTHONPATH": os.pathsep.join(sys.path)}
            # A session of its own, so that Ctrl-C in a terminal asks this process alone, which tells the others.
            others.append(
                subprocess.Popen(command, env=os.environ | own, stdin=subprocess.PIPE, start_new_session=True)
            )
        yield
    finally:
        for other in others:
            assert other.stdin is not None
            other.stdin.close()  # what it ends with
            other.wait()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        torch.set_num_threads(threads)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
