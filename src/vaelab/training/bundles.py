"""Many steps a call of Lightning's loop: what a small model pays for between two steps, it pays once a bundle.

Lightning's loop sees the first batch of a bundle. The module takes the others from the loop's own iterator and moves
the loop's counters on by each, so that at the end of the call everything stands as if every batch had been a call of
its own. A bundle ends wherever something has to happen, so its length changes no bit.
"""

import math
import time
from collections.abc import Iterator

import pytorch_lightning as pl

from vaelab.data import Batch, Batches
from vaelab.training.internals import batch_of_epoch, listens, next_batch

SHORT, LONG, MOST = 0.1, 0.2, 256  # seconds that a bundle takes, batches in it
OF_A_BATCH = ("on_train_batch_start", "on_train_batch_end")


class TakesBundles:
    """A callback that need not be told of every batch: a bundle ends where it has something to do."""

    def due(self, trainer: pl.Trainer) -> bool:
        """Whether it has to be told that the batch just trained on has ended."""
        return False


class Bundles:
    """The batches that one call of the training step takes.

    Bundles are of one batch where processes share batches, where these are not vaelab's own, and where a callback
    of other people wants each of them.

    Args:
        trainer: whose loop is crossed.
        log_every: batches whose terms are logged together.
    """

    def __init__(self, trainer: pl.Trainer, log_every: int) -> None:
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        self.trainer = trainer
        self.log_every = log_every
        self.listeners = [callback for callback in callbacks if isinstance(callback, TakesBundles)]
        others = [callback for callback in callbacks if not isinstance(callback, TakesBundles)]
        self.possible = (
            trainer.world_size == 1
            and isinstance(trainer.train_dataloader, Batches)
            and not any(listens(callback, OF_A_BATCH) for callback in others)
        )
        self.length = 1

    def others(self) -> Iterator[Batch]:
        """The batches after the first; the loop's counters stand at each while it is used."""
        if not self.possible:
            return
        started, taken = time.monotonic(), 1
        while taken < self.length and not self._ends():
            yield next_batch(self.trainer)
            taken += 1
        if taken == self.length:
            seconds = time.monotonic() - started
            if seconds < SHORT:
                self.length = min(2 * self.length, MOST)
            elif seconds > LONG:
                self.length = max(self.length // 2, 1)

    def _ends(self) -> bool:
        """Whether something has to happen after the batch that the loop stands at."""
        trainer = self.trainer
        number = batch_of_epoch(trainer) + 1
        return (
            trainer.is_last_batch
            or number % self.log_every == 0
            or number % (trainer.val_check_batch or math.inf) == 0
            or 0 <= trainer.max_steps <= trainer.global_step
            or trainer.should_stop
            or any(listener.due(trainer) for listener in self.listeners)
        )
