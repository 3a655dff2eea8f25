"""Write checkpoints that a crash cannot damage, and read them without running code."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from vaelab.training import events
from vaelab.training.bundles import TakesBundles
from vaelab.training.direction import Mode
from vaelab.training.internals import batch_of_epoch, limit_steps
from vaelab.training.module import AutoencoderModule
from vaelab.training.reading import read

LAST, PREVIOUS, BEST, INITIAL = "last.ckpt", "previous.ckpt", "best.ckpt", "initial.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write to a temporary name, flush to the disk, rename; load only plain tensors and containers."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the checkpoint atomically; the earlier `last.ckpt` becomes `previous.ckpt`."""
        target = Path(path)  # in an existing folder: one that somebody has removed is not made again
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if target.name == LAST and target.exists():
                _keep(target, target.with_name(PREVIOUS))
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        """Read a checkpoint with `weights_only=True`, whatever the caller or the environment says."""
        return read(Path(path), map_location or "cpu")


class Checkpoints(TakesBundles, Checkpoint):
    """`last.ckpt` after every epoch, and `best.ckpt` after each one whose `monitor` is the best so far.

    Args:
        folder: of the checkpoints.
        monitor: a logged metric; without it (no validation split) there is no `best.ckpt`.
        mode: whether its lowest or its highest value is the best.
        every_n_steps: steps of the optimizer after which `last.ckpt` is written as well.
    """

    def __init__(
        self, folder: Path, *, monitor: str = "val/loss", mode: Mode = "min", every_n_steps: int | None = None
    ) -> None:
        self.folder = folder
        self.monitor = monitor
        self.mode = mode
        self.every_n_steps = every_n_steps
        self.best: float | None = None
        self.validation: dict[str, float] = {}
        self.stopped = False
        self.max_steps = -1

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Correct how Lightning (2.6) restores progress from a checkpoint.

        It forgets that a run was stopped early; and with `max_steps` it repeats a complete epoch and counts it twice.
        """
        self.folder.mkdir(exist_ok=True)
        trainer.should_stop = self.stopped
        self.max_steps = trainer.max_steps
        limit_steps(trainer, -1)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the limit of steps, now that the progress is restored."""
        limit_steps(trainer, self.max_steps)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save every `every_n_steps`."""
        if self.due(trainer):
            self.save_last(trainer)

    def due(self, trainer: pl.Trainer) -> bool:
        """Whether to save now, and the state can be resumed."""
        return bool(self.every_n_steps) and trainer.global_step % self.every_n_steps == 0 and resumes_after(trainer)  # type: ignore[operator]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the epoch after its validation."""
        value = trainer.callback_metrics.get(self.monitor)
        improved = value is not None and self._improves(value.item())
        if value is not None and improved:
            self.best = value.item()
        self.stopped = trainer.should_stop
        if improved:
            metrics = trainer.callback_metrics.items()
            self.validation = {name: metric.item() for name, metric in metrics if name.startswith("val/")}
            trainer.save_checkpoint(self.folder / BEST)
        self.save_last(trainer)

    def _improves(self, value: float) -> bool:
        if self.best is None:
            return True
        return value < self.best if self.mode == "min" else value > self.best

    def save_last(self, trainer: pl.Trainer) -> None:
        """Write `last.ckpt`."""
        trainer.save_checkpoint(self.folder / LAST)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Flush the loggers before the checkpoint, and save the lengths of their files."""
        if not trainer.is_global_zero:  # it neither logs nor writes
            return
        for logger in trainer.loggers:
            logger.save()
        checkpoint["events"] = events.sizes(trainer.loggers)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far, the terms of that validation, and whether training was stopped early."""
        return {"best": self.best, "validation": self.validation, "stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.best = state_dict["best"]
        self.validation = state_dict["validation"]
        self.stopped = state_dict["stopped"]


def resumes_after(trainer: pl.Trainer) -> bool:
    """Whether a run can be resumed from a checkpoint after this batch: no gradient is pending, the epoch is not over.

    After an epoch's last batch, the checkpoint follows the validation.
    """
    module = trainer.lightning_module
    assert isinstance(module, AutoencoderModule)
    batches = batch_of_epoch(trainer) + 1
    return (
        batches % module.accumulate_grad_batches == 0
        and batches < trainer.num_training_batches
        and not 0 <= trainer.max_steps <= trainer.global_step
    )


def _keep(path: Path, other: Path) -> None:
    """Give a file a second name, replacing the file that had it, atomically."""
    temporary = other.with_name(f".{other.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, temporary)
    try:
        temporary.replace(other)
    finally:
        temporary.unlink(missing_ok=True)
