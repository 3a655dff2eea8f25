"""Extend a run to more epochs than it was started with."""

from collections.abc import Callable, Sequence
from typing import Any

from omegaconf import OmegaConf

from vaelab.config.check import checked
from vaelab.config.overrides import parse
from vaelab.errors import ConfigError, RunError
from vaelab.runs.folder import RunFolder
from vaelab.training.checkpoints import LAST
from vaelab.training.learning_rate import TorchSchedule
from vaelab.training.reading import read

KEY = "trainer.max_epochs"


def extend(folder: RunFolder, overrides: Sequence[str], *, trust: Sequence[str] = ()) -> None:
    """Set a run's `trainer.max_epochs` to a larger number, as if it had been started with it.

    Raises:
        ConfigError: another key is set, or a longer run would have differed already.
        RunError: another process is training it, or it has no optimizer's state.
    """
    mistakes: list[str] = []
    epochs: Any = None
    for override in parse(overrides, mistakes):
        if override.key_or_group != KEY or override.is_sweep_override() or override.is_delete():
            mistakes.append(
                f"{override.input_line}: a run is resumed with the config that it was started with; only {KEY} can grow"
            )
        else:
            epochs = override.value()
    if mistakes:
        raise ConfigError(mistakes)
    if folder.done and not (folder.checkpoints / LAST).is_file():
        raise RunError(
            f"{folder.path} has weights and nothing of the optimizer, as a run that was pulled: "
            f"`vaelab train init={folder.path} ...` begins with them"
        )
    config = folder.config
    before = OmegaConf.select(config, KEY)
    OmegaConf.update(config, KEY, epochs)
    experiment = checked(config, trust=trust, own=False).experiment
    if not (isinstance(epochs, int) and isinstance(before, int) and epochs > before > 0):
        raise ConfigError([f"{KEY}={epochs}: the run was started with {before}; give a larger number"])
    if OmegaConf.select(config, "trainer.max_steps") not in (None, -1):
        raise ConfigError([f"{KEY}={epochs}: the run ends with trainer.max_steps={config.trainer.max_steps}"])
    if _was_stopped(folder):
        raise ConfigError([f"{KEY}={epochs}: early stopping ended the run, so more epochs change nothing"])
    if _depends_on_length(experiment.scheduler, before, epochs):
        raise ConfigError(
            [
                f"{KEY}={epochs}: the run's scheduler depends on its length, so a longer run "
                "would have had other rates from the start"
            ]
        )
    with folder.locked():
        folder.update_status("interrupted")
        folder.write_config(config)


def _was_stopped(folder: RunFolder) -> bool:
    last = folder.checkpoints / LAST
    callbacks = read(last).get("callbacks") if last.is_file() else None
    states = callbacks.values() if isinstance(callbacks, dict) else ()
    return any(isinstance(state, dict) and state.get("stopped") is True for state in states)


def _depends_on_length(scheduler: Callable[..., Any] | TorchSchedule | None, before: int, after: int) -> bool:
    """Whether a longer run would have had other rates up to here; compared at some of 100 steps per epoch."""
    if scheduler is None:
        return False
    if isinstance(scheduler, TorchSchedule):
        return scheduler.needs_length
    one, other = (scheduler(100 * epochs, 100) for epochs in (before, after))
    return any(one(step) != other(step) for step in range(0, 100 * before + 1, 7))
