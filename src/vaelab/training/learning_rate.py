"""How a learning rate changes while a model trains, by a factor of ours or by a scheduler class of torch.

Lightning steps a scheduler that looks at a metric after the checkpoint of the epoch has been written, so that a resumed
run would be one step behind, and none at all where a module takes its steps itself. So the module calls
`step_on_metrics` before that checkpoint and, where it takes its steps itself, `step_after_batch`.
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

if TYPE_CHECKING:
    import pytorch_lightning as pl

FactorOf = Callable[[int, int], Callable[[int], float]]
MONITOR = "val/loss"
NEVER = sys.maxsize  # for Lightning: `step_on_metrics` does it


@dataclass(frozen=True)
class TorchSchedule:
    """A scheduler class of torch with its own arguments.

    Args:
        target: the class.
        keywords: its arguments but for the optimizer; `total_steps` is that of the run where it is not given.
        monitor: the metric that a scheduler such as ReduceLROnPlateau looks at; by default val/loss.
        interval: whether it counts steps of the optimizer or epochs; by default what torch's examples do.
        frequency: after how many of them it steps; by default each or, where it looks at a metric, each validation.
    """

    target: type[LRScheduler]
    keywords: Mapping[str, Any]
    monitor: str | None = None
    interval: Literal["step", "epoch"] | None = None
    frequency: int | None = None

    @property
    def watches(self) -> bool:
        """Whether it looks at a metric."""
        return issubclass(self.target, ReduceLROnPlateau)

    @property
    def needs_length(self) -> bool:
        """Whether its shape depends on the number of steps of the run."""
        return issubclass(self.target, OneCycleLR) and not {"total_steps", "epochs"} & set(self.keywords)

    def __call__(self, optimizer: torch.optim.Optimizer, total_steps: int) -> LRScheduler:
        """The scheduler of `optimizer` in a run of so many steps."""
        length = {"total_steps": total_steps} if self.needs_length else {}
        return self.target(optimizer, **length, **self.keywords)

    def entry(self, optimizer: torch.optim.Optimizer, trainer: "pl.Trainer") -> dict[str, Any]:
        """Lightning's entry of the scheduler."""
        by_steps = issubclass(self.target, OneCycleLR | CyclicLR)
        entry: dict[str, Any] = {
            "scheduler": self(optimizer, steps_of(trainer) if self.needs_length else 0),
            "interval": self.interval or ("step" if by_steps else "epoch"),
            "frequency": self.frequency or 1,
        }
        if self.watches:
            entry |= {"monitor": self.monitor or MONITOR, "interval": "epoch", "frequency": NEVER}
        return entry


def configured(
    optimizer: torch.optim.Optimizer, scheduler: FactorOf | TorchSchedule | None, trainer: "pl.Trainer"
) -> dict[str, Any]:
    """What Lightning's `configure_optimizers` returns.

    Args:
        optimizer: of the run.
        scheduler: a class of torch, or (steps of the run, steps of an epoch) -> the rate's factor as a function of the
            step, or None for a rate that stays as it is.
        trainer: of the run.
    """
    if scheduler is None:
        return {"optimizer": optimizer}
    if isinstance(scheduler, TorchSchedule):
        return {"optimizer": optimizer, "lr_scheduler": scheduler.entry(optimizer, trainer)}
    total = steps_of(trainer)  # which has Lightning count the batches
    per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    schedule = LambdaLR(optimizer, scheduler(total, per_epoch))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def steps_of(trainer: "pl.Trainer") -> int:
    """The optimizer's steps in the whole run."""
    return int(trainer.estimated_stepping_batches)


def step_after_batch(trainer: "pl.Trainer") -> None:
    """Step the schedulers that look at no metric, after a step of the optimizer that Lightning did not take."""
    for config in trainer.lr_scheduler_configs:
        if config.reduce_on_plateau:
            continue
        passed = trainer.global_step if config.interval == "step" else trainer.current_epoch + 1
        if (config.interval == "step" or trainer.is_last_batch) and passed % config.frequency == 0:
            config.scheduler.step()  # type: ignore[call-arg]


def step_on_metrics(trainer: "pl.Trainer", scheduler: FactorOf | TorchSchedule | None) -> None:
    """Step a scheduler that looks at a metric, at the end of an epoch, before its checkpoint is written."""
    if not (isinstance(scheduler, TorchSchedule) and scheduler.watches):
        return
    every = scheduler.frequency or trainer.check_val_every_n_epoch or 1
    value = trainer.callback_metrics.get(scheduler.monitor or MONITOR)
    for config in trainer.lr_scheduler_configs:
        if config.reduce_on_plateau and value is not None and (trainer.current_epoch + 1) % every == 0:
            config.scheduler.step(value)  # type: ignore[arg-type]
