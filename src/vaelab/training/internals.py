"""Everything that we use of Lightning and that is not public, in one place.

Written for Lightning 2.6. tests/training/test_internals.py names what another version lacks.
"""

from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

OF_A_STEP = ("on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad")
HOOK = "_current_fx_name"
"""The attribute of a LightningModule to which Lightning writes the name of the running hook, 40 times a step."""


def batches_begun(trainer: pl.Trainer) -> int:
    """Return the number of training batches begun, in all epochs; part of Lightning's checkpoints."""
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.ready)


def batch_number(trainer: pl.Trainer) -> int:
    """Return the number of the current training batch, counted over all epochs."""
    return int(trainer.fit_loop.epoch_loop.total_batch_idx)


def batch_of_epoch(trainer: pl.Trainer) -> int:
    """Return the number of the current training batch within its epoch."""
    return int(trainer.fit_loop.epoch_loop.batch_idx)


def limit_steps(trainer: pl.Trainer, steps: int) -> None:
    """Set the maximum number of steps of the running loop."""
    trainer.fit_loop.epoch_loop.max_steps = steps


def complete_epochs(trainer: pl.Trainer) -> None:
    """Count epochs as completed also if a checkpoint left nothing to train, as Lightning does otherwise."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    progress.completed = progress.processed


def cluster_environment(trainer: pl.Trainer) -> Any:
    """Return the cluster environment, also with a single process, whose strategy does not have it."""
    return trainer._accelerator_connector.cluster_environment


def starts_processes(trainer: pl.Trainer) -> Any:
    """Return Lightning's launcher if it would start the other processes of a run itself; else None."""
    launcher: Any = trainer.strategy.launcher
    mine = isinstance(launcher, _SubprocessScriptLauncher)
    return launcher if mine and not launcher.cluster_environment.creates_processes_externally else None


def next_batch(trainer: pl.Trainer) -> Any:
    """Advance the training loop by one batch and return that batch."""
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    assert fetcher is not None
    progress = loop.batch_progress
    progress.increment_processed()
    progress.increment_completed()
    loop._batches_that_stepped += 1
    batch, _, _ = next(fetcher)
    batch = trainer.precision_plugin.convert_input(batch)
    progress.increment_ready()
    progress.increment_started()
    progress.is_last_batch = fetcher.done
    return batch


def count_step(trainer: pl.Trainer) -> None:
    """Count a step of an optimizer that the loop has not seen."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    progress.increment_ready()
    progress.increment_completed()


def has_plain_steps(trainer: pl.Trainer) -> bool:
    """Whether a step is backward() and step() and nothing else: no loss scale, no processes, no hook of a callback."""
    return (
        isinstance(trainer.strategy, SingleDeviceStrategy)
        and getattr(trainer.precision_plugin, "scaler", None) is None
        and not any(listens(callback, OF_A_STEP) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    )


def looks_for_anomalies(trainer: pl.Trainer) -> bool:
    """Whether trainer.detect_anomaly has torch look at each gradient."""
    return trainer._detect_anomaly


def listens(callback: pl.Callback, hooks: Iterable[str]) -> bool:
    """Whether a callback has one of these hooks for itself."""
    return any(getattr(type(callback), hook) is not getattr(pl.Callback, hook) for hook in hooks)
