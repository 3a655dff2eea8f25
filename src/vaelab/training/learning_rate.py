"""Schedule the learning rate, by a factor of ours or by a scheduler class of torch.

Our module takes its own steps, so that Lightning steps no scheduler. The module calls `step_after_batch`, and
`step_on_metrics` at the end of an epoch: before its checkpoint is written, else a resumed run would be one step behind.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from vaelab.errors import ConfigError

if TYPE_CHECKING:
    import pytorch_lightning as pl

FactorOf = Callable[[int, int], Callable[[int], float]]
MONITOR = "val/loss"


@dataclass(frozen=True)
class TorchSchedule:
    """A scheduler class of torch with its own arguments.

    Args:
        target: the class.
        keywords: its arguments except the optimizer; `total_steps` is by default that of the run.
        monitor: the metric of a scheduler such as ReduceLROnPlateau; by default val/loss.
        interval: whether it counts steps of the optimizer or epochs; by default as in torch's examples.
        frequency: after how many of them it steps; by default after each or, with a metric, each validation.
    """

    target: type[LRScheduler]
    keywords: Mapping[str, Any]
    monitor: str | None = None
    interval: Literal["step", "epoch"] | None = None
    frequency: int | None = None

    @property
    def watches(self) -> bool:
        """Whether it monitors a metric."""
        return issubclass(self.target, ReduceLROnPlateau)

    @property
    def needs_length(self) -> bool:
        """Whether its shape depends on the number of steps of the run."""
        return issubclass(self.target, OneCycleLR) and not {"total_steps", "epochs"} & set(self.keywords)

    def __call__(self, optimizer: torch.optim.Optimizer, total_steps: int) -> LRScheduler:
        """Make the scheduler of `optimizer` for a run of `total_steps`."""
        length = {"total_steps": total_steps} if self.needs_length else {}
        return self.target(optimizer, **length, **self.keywords)

    def entry(self, optimizer: torch.optim.Optimizer, trainer: "pl.Trainer", steps: int) -> dict[str, Any]:
        """Make Lightning's configuration of the scheduler."""
        by_steps = issubclass(self.target, OneCycleLR | CyclicLR)
        entry: dict[str, Any] = {
            "scheduler": self(optimizer, steps),
            "interval": self.interval or ("step" if by_steps else "epoch"),
            "frequency": self.frequency or 1,
        }
        if self.watches:
            every = self.frequency or trainer.check_val_every_n_epoch or 1
            entry |= {"interval": "epoch", "frequency": every}
        return entry


def schedules(
    optimizer: torch.optim.Optimizer,
    scheduler: FactorOf | TorchSchedule | None,
    trainer: "pl.Trainer",
    accumulate_grad_batches: int = 1,
) -> list[dict[str, Any]]:
    """Make the schedulers that Lightning's `configure_optimizers` returns.

    Args:
        optimizer: of the run.
        scheduler: a class of torch, or (steps of the run, steps of an epoch) -> the rate's factor as a function of the
            step, or None for a constant rate.
        trainer: of the run.
        accumulate_grad_batches: batches to a step.

    Raises:
        ConfigError: the scheduler depends on the length of the run, which is not limited.
    """
    if scheduler is None:
        return []
    total: float = trainer.estimated_stepping_batches  # makes Lightning count the batches
    per_epoch = math.ceil(trainer.num_training_batches / accumulate_grad_batches)
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        total = min(total, per_epoch * trainer.max_epochs)
    if isinstance(scheduler, TorchSchedule) and not scheduler.needs_length:
        return [scheduler.entry(optimizer, trainer, 0)]
    if math.isinf(total):
        raise ConfigError(
            ["scheduler: it depends on the length of the run: set trainer.max_epochs or trainer.max_steps"]
        )
    if isinstance(scheduler, TorchSchedule):
        return [scheduler.entry(optimizer, trainer, int(total))]
    return [{"scheduler": LambdaLR(optimizer, scheduler(int(total), per_epoch)), "interval": "step"}]


def step_after_batch(trainer: "pl.Trainer") -> None:
    """Step the schedulers that monitor no metric, after a step of the optimizer."""
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, ReduceLROnPlateau):
            continue
        passed = trainer.global_step if config.interval == "step" else trainer.current_epoch + 1
        if (config.interval == "step" or trainer.is_last_batch) and passed % config.frequency == 0:
            config.scheduler.step()


def step_on_metrics(trainer: "pl.Trainer", scheduler: FactorOf | TorchSchedule | None) -> None:
    """Step a scheduler that monitors a metric, at the end of an epoch, before its checkpoint is written."""
    if not isinstance(scheduler, TorchSchedule):
        return
    value = trainer.callback_metrics.get(scheduler.monitor or MONITOR)
    for config in trainer.lr_scheduler_configs:
        due = (trainer.current_epoch + 1) % config.frequency == 0
        if due and value is not None and isinstance(config.scheduler, ReduceLROnPlateau):
            config.scheduler.step(value)
