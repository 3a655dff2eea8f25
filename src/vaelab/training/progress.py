"""Show progress: a bar in a terminal, a line per epoch elsewhere."""

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar

from vaelab.training.bundles import TakesBundles
from vaelab.training.internals import batch_of_epoch
from vaelab.training.module import AutoencoderModule


class TermsProgressBar(TakesBundles, RichProgressBar):
    """Lightning's rich bar with the newest logged terms; it never waits for the device.

    Args:
        refresh_rate: redraws per second; between two of them a step costs nothing.
    """

    def __init__(self, *, refresh_rate: int) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._next = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance when a redraw is due."""
        if time.monotonic() >= self._next or trainer.is_last_batch:
            self._next = time.monotonic() + 1 / self.refresh_rate
            number = batch_of_epoch(trainer)  # of the bundle's last batch
            super().on_train_batch_end(trainer, pl_module, outputs, batch, number)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Return the terms of training, and the validation loss, rounded for display."""
        assert isinstance(pl_module, AutoencoderModule)
        return {
            name.removeprefix("train/"): f"{value:.5g}"
            for name, value in pl_module.shown.items()
            if name.startswith("train/") or name == "val/loss"
        }


class LinePerEpoch(pl.Callback):
    """Print the run folder, then a line at the end of each epoch, for a log or a pipe.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the folder."""
        if trainer.is_global_zero:
            print(self.folder, flush=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the newest terms."""
        if trainer.is_global_zero:
            assert isinstance(pl_module, AutoencoderModule)
            of = f"/{trainer.max_epochs}" if trainer.max_epochs not in (None, -1) else ""
            terms = " ".join(f"{name}={value:.5g}" for name, value in pl_module.shown.items())
            print(f"epoch {trainer.current_epoch + 1}{of}, step {trainer.global_step}: {terms}", flush=True)
