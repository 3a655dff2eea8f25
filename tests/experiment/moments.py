"""Something that happens to a run at chosen moments, once each: a callback for `--trust moments`, and processes."""

import multiprocessing
import os
import resource
import signal
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from vaelab.cli import main

Action = Literal["SIGKILL", "SIGINT", "SIGTERM", "SIGUSR1", "SIGINT twice", "full disk", "poison"]

# Real processes, forked from one that has imported what takes seconds to import and has done nothing else.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["vaelab.experiment.run", "moments", "sklearn.datasets", "torch.utils.tensorboard", "matplotlib.figure"]
)


def start(*arguments: str | Path, output: Path = Path(os.devnull)) -> BaseProcess:
    """`vaelab ARGUMENTS` in a process of its own, what it prints in `output`."""
    process = PROCESSES.Process(target=_command, args=([*map(str, arguments), "--trust", "moments"], output))
    process.start()
    return process


def finish(process: BaseProcess) -> int:
    """The exit code of a process; -9 after SIGKILL."""
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def run(*arguments: str | Path, output: Path = Path(os.devnull)) -> int:
    return finish(start(*arguments, output=output))


def _command(arguments: Sequence[str], output: Path) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    main(arguments)


def at(folder: Path, /, *, moments: list[str], action: Action = "SIGKILL") -> pl.Callback:
    return At(folder, moments, action)


class At(pl.Callback):
    """Moments are start, end and val, each with the number of the batch or the epoch, and test."""

    def __init__(self, folder: Path, moments: Sequence[str], action: Action) -> None:
        self.folder = folder
        self.moments = moments
        self.action = action

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        self._act(f"start{trainer.fit_loop.epoch_loop.total_batch_idx}", module)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        self._act(f"end{trainer.fit_loop.epoch_loop.total_batch_idx}", module)

    def on_validation_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        self._act(f"val{trainer.current_epoch}", module)

    def on_test_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._act("test", module)

    def _act(self, moment: str, module: pl.LightningModule) -> None:
        mark = self.folder / f"was_at_{moment}"
        if moment not in self.moments or mark.exists():
            return
        mark.touch()
        if self.action == "full disk":
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        elif self.action == "poison":
            with torch.no_grad():
                next(module.parameters()).fill_(torch.nan)
        else:
            for _ in range(2 if self.action == "SIGINT twice" else 1):
                os.kill(os.getpid(), getattr(signal, self.action.split()[0]))
