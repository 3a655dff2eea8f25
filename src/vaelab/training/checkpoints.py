"""Checkpoints that a crash cannot damage and whose loading runs no code."""

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

LAST, BEST = "last.ckpt", "best.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary name, flushes to the disk, renames; loads plain tensors and containers only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the checkpoint whole or not at all."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        """Read a checkpoint with `weights_only=True`, whatever the caller or the environment says."""
        checkpoint: dict[str, Any] = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        return checkpoint


class Checkpoints(Checkpoint):
    """`last.ckpt` after every epoch, and `best.ckpt` after each one whose `monitor` is the lowest so far.

    Args:
        folder: where they go.
        monitor: a logged metric; a run that does not log it (no validation split) has no `best.ckpt`.
    """

    def __init__(self, folder: Path, *, monitor: str = "val/loss") -> None:
        self.folder = folder
        self.monitor = monitor
        self.best: float | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save; Lightning has validated by now."""
        value = trainer.callback_metrics.get(self.monitor)
        improved = value is not None and (self.best is None or value.item() < self.best)
        if value is not None and improved:
            self.best = value.item()
        for logger in trainer.loggers:
            logger.save()
        if improved:
            trainer.save_checkpoint(self.folder / BEST)
        trainer.save_checkpoint(self.folder / LAST)

    def state_dict(self) -> dict[str, Any]:
        """The lowest value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the lowest value so far."""
        self.best = state_dict["best"]
