"""Prune unpromising trials."""

from collections.abc import Collection
from typing import Protocol

import pytorch_lightning as pl

from vaelab.errors import Pruned


class Trial(Protocol):
    """Keeps a run's values and compares them with those of other runs: a trial of Optuna."""

    def report(self, value: float, step: int) -> None:
        """Report a value."""

    def should_prune(self) -> bool:
        """Whether the run should end, judged by its values so far."""


class Pruning(pl.Callback):
    """Report `monitor` after each validation; end the run before the next epoch where the trial says so.

    The epoch's checkpoint has been written by then, so that the run can be inspected and resumed.

    Args:
        trial: reported to.
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
        """Ask; of several processes the first one, which takes the others with it."""
        if trainer.is_global_zero and self.trial.should_prune():
            raise Pruned(f"after {trainer.current_epoch} epochs, for its {self.monitor}")
