"""Every private name of Lightning that is used, in one place (tests/training/test_internals.py)."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies import SingleDeviceStrategy

OF_A_STEP = ("on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad")


def next_batch(trainer: pl.Trainer) -> Any:
    """The batch after the one that the training loop stands at, which then stands at this one."""
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    assert fetcher is not None
    progress = loop.batch_progress
    progress.increment_processed()
    progress.increment_completed()
    loop._batches_that_stepped += 1
    batch, _, _ = next(fetcher)
    progress.increment_ready()
    progress.increment_started()
    progress.is_last_batch = fetcher.done
    return batch


def count_step(trainer: pl.Trainer) -> None:
    """Have the loop count a step of an optimizer that it has not seen."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    progress.increment_ready()
    progress.increment_completed()


def has_plain_steps(trainer: pl.Trainer) -> bool:
    """Whether a step is backward() and step() and nothing else: no loss scale, no processes, no hook of a callback."""
    return (
        isinstance(trainer.strategy, SingleDeviceStrategy)
        and getattr(trainer.precision_plugin, "scaler", None) is None
        and not any(
            getattr(type(callback), hook) is not getattr(pl.Callback, hook)
            for callback in trainer.callbacks  # type: ignore[attr-defined]
            for hook in OF_A_STEP
        )
    )
