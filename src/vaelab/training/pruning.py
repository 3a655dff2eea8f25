"""Ending a run that is not going to be among the good ones."""

from collections.abc import Collection
from typing import Protocol

import pytorch_lightning as pl

from vaelab.errors import Pruned


class Trial(Protocol):
    """What keeps a run's values and compares them with those of others: a trial of Optuna."""

    def report(self, value: float, step: int) -> None:
        """Take in a value."""

    def should_prune(self) -> bool:
        """Whether the values so far are so bad that the run should end."""


class Pruning(pl.Callback):
    """Report `monitor` after each validation; end the run before the next epoch where the trial says so.

    By then the epoch's checkpoint has been written, so that the run can be looked at, and gone on with.

    Args:
        trial: whom it is reported to.
        monitor: a logged metric.
        reported: epochs that have been, before the run was cut off.

    Raises:
        Pruned: in training.
    """

    def __init__(self, trial: Trial, monitor: str, reported: Collection[int] = ()) -> None:
        self.trial = trial
        self.monitor = monitor
        self.reported = set(reported)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report."""
        epoch = trainer.current_epoch
        if trainer.is_global_zero and epoch not in self.reported:
            self.trial.report(trainer.callback_metrics[self.monitor].item(), epoch)
            self.reported.add(epoch)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask; of several processes the first one, which takes the others with it."""
        if trainer.is_global_zero and self.trial.should_prune():
            raise Pruned(f"after {trainer.current_epoch} epochs, for its {self.monitor}")
