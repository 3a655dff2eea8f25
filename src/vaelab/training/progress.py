"""The progress bar."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar

from vaelab.training.module import AutoencoderModule


class TermsProgressBar(RichProgressBar):
    """Lightning's rich bar, showing the newest terms that were logged; it never asks a device for more."""

    def __init__(self, *, refresh_rate: int) -> None:
        super().__init__(refresh_rate=refresh_rate)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """The terms of training, and the validation loss, rounded to what a person reads."""
        assert isinstance(pl_module, AutoencoderModule)
        return {
            name.removeprefix("train/"): f"{value:.5g}"
            for name, value in pl_module.shown.items()
            if name.startswith("train/") or name == "val/loss"
        }
