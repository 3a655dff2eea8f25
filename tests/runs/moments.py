"""Something that happens to a run at chosen moments, once each: a callback for `--trust moments`.

And to a search before one of its writes.
"""

import itertools
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch

Action = Literal[
    *("SIGKILL", "SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT twice", "full disk", "poison", "hang"),
    *("rename", "remove checkpoints", "remove tensorboard"),
]


def at(folder: Path, /, *, moments: list[str], action: Action = "SIGKILL", rank: int = 0) -> pl.Callback:
    return At(folder, moments, action, rank)


def environment(folder: Path, /) -> pl.Callback:
    return Environment(folder)


class Environment(pl.Callback):
    """Keeps the variables of the environment in which a run is trained."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        (self.folder / "environment.json").write_text(json.dumps(dict(os.environ)))


class At(pl.Callback):
    """Moments are start, end and val, each with the number of the batch or the epoch, and test.

    Of several processes it is the one of that rank that it happens to; each leaves its id in the folder.
    """

    def __init__(self, folder: Path, moments: Sequence[str], action: Action, rank: int) -> None:
        self.folder = folder
        self.moments = moments
        self.action = action
        self.rank = rank

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.world_size > 1:
            (self.folder / f"process_{trainer.global_rank}").write_text(str(os.getpid()))

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        self._act(f"start{trainer.fit_loop.epoch_loop.total_batch_idx}", module)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        self._act(f"end{trainer.fit_loop.epoch_loop.total_batch_idx}", module)

    def on_validation_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        self._act(f"val{trainer.current_epoch}", module)

    def on_test_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._act("test", module)

    def _act(self, moment: str, module: pl.LightningModule) -> None:
        mark = self.folder / f"was_at_{moment}_{self.rank}"
        if moment not in self.moments or mark.exists() or module.global_rank != self.rank:
            return
        mark.touch()
        if self.action == "full disk":
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        elif self.action == "rename":
            self.folder.rename(self.folder.with_name("renamed"))
        elif self.action.startswith("remove "):
            taken = self.folder / self.action.removeprefix("remove ")
            while taken.exists():  # a logger's thread may write there at the same time
                shutil.rmtree(taken, ignore_errors=True)
        elif self.action == "hang":
            time.sleep(600)
        elif self.action == "poison":
            with torch.no_grad():
                next(module.parameters()).fill_(torch.nan)
        else:
            for _ in range(2 if self.action == "SIGINT twice" else 1):
                os.kill(os.getpid(), getattr(signal, self.action.split()[0]))


def kill_before_write(number: int) -> None:
    """End this process before the n-th time it renames or removes a file, makes a folder or commits."""
    import sqlalchemy.engine
    import sqlalchemy.event

    writes = itertools.count(1)

    def count(event: str, _: object) -> None:
        if event in ("os.rename", "os.remove", "os.mkdir") and next(writes) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "commit", lambda connection: count("os.rename", ()))
