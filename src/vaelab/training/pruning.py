"""Prune unpromising trials."""

from collections.abc import Collection
from typing import Protocol

import pytorch_lightning as pl

from vaelab.errors import Pruned


class Trial(Protocol):
    """A trial of Optuna: keeps a run's values and compares them with those of other runs."""

    def report(self, value: float, step: int) -> None:
        """Report a value."""

    def should_prune(self) -> bool:
        """Whether the run should end, judged by its values so far."""


class Pruning(pl.Callback):
    """Report `monitor` after each validation; end the run before the next epoch if the trial should be pruned.

    The epoch's checkpoint has been written by then, so that the run can be inspected and resumed.

    Args:
        trial: of this run.
        monitor: a logged metric.
        reported: epochs reported before the run was interrupted.

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
        """Ask the trial; the first of several processes does, and ends the others."""
        if trainer.is_global_zero and self.trial.should_prune():
            raise Pruned(f"after {trainer.current_epoch} epochs, for its {self.monitor}")
