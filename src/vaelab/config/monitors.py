"""Check what callbacks and schedulers monitor: that the metric will exist, and which direction is better."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from vaelab.config.experiment import Experiment
from vaelab.errors import did_you_mean
from vaelab.losses import Step
from vaelab.metrics.likelihood import evaluation_terms
from vaelab.models.autoencoder import Autoencoder
from vaelab.training.direction import direction


class Watch(NamedTuple):
    """A callback or scheduler that monitors a metric.

    Args:
        key: of the config, such as "callbacks.early_stopping".
        metric: such as "val/loss".
        mode: "min" or "max", set by the config or the class; None where it follows from the metric.
        optional: whether a run works without the metric.
    """

    key: str
    metric: str
    mode: str | None
    optional: bool


def unwatchable(experiment: Experiment, model: Autoencoder, terms: Sequence[str] | None) -> list[str]:
    """List monitored metrics that will not exist, or are monitored in the wrong direction.

    Args:
        experiment: whose callbacks and scheduler monitor.
        model: on the meta device.
        terms: of the objective in training; None where they are not known.
    """
    watches = list(_watches(experiment))
    names = _metrics(experiment, model, terms) if watches and terms is not None else None
    mistakes = []
    for watch in watches:
        split = watch.metric.partition("/")[0]
        where = f"{watch.key}.monitor={watch.metric}"
        if names is not None and watch.metric not in names:
            mistakes.append(f"{where}: no such metric{did_you_mean(watch.metric, names)}")
        elif not watch.optional and split == "val" and (reason := _no_validation(experiment)):
            mistakes.append(f"{where}: {watch.key} needs validations, and {reason}; train/loss is always there")
        elif watch.mode is None and direction(watch.metric) is None:
            mistakes.append(f"{where}: say whether lower or higher is better: {watch.key}.mode=min or max")
        elif watch.mode is not None and direction(watch.metric) not in (None, watch.mode):
            mistakes.append(
                f"{where}: of {watch.metric} the {'lowest' if watch.mode == 'min' else 'highest'} is the worst; "
                f"{watch.key}.mode={direction(watch.metric)}"
            )
    return mistakes


def _watches(experiment: Experiment) -> Iterator[Watch]:
    parts = {f"callbacks.{name}": part for name, part in (experiment.callbacks or {}).items() if part is not None}
    for key, part in parts.items():
        known = _arguments(part)
        if isinstance(known.get("monitor"), str):
            mode = known.get("mode")
            yield Watch(key, known["monitor"], mode, optional=getattr(_made(part), "watches_if_there", False))
    schedule = experiment.scheduler
    if schedule is not None and getattr(schedule, "watches", False):
        mode = getattr(schedule, "keywords", {}).get("mode", "min")
        yield Watch("scheduler", getattr(schedule, "monitor", None) or "val/loss", mode, optional=False)


def _made(part: Any) -> Any:
    """Return the function or class that a part will call."""
    return getattr(part, "func", getattr(part, "target", part))


def _arguments(part: Any) -> Mapping[str, Any]:
    """Return the arguments that a part will be made with, including defaults."""
    parameters = inspect.signature(_made(part)).parameters.values()
    defaults = {parameter.name: parameter.default for parameter in parameters}
    return defaults | dict(getattr(part, "keywords", {}))


def _metrics(experiment: Experiment, model: Autoencoder, terms: Sequence[str]) -> list[str] | None:
    """Return the names of metrics that training and validation report; None where validation needs values."""
    x, y = torch.zeros(2, *experiment.data.shape, device="meta"), torch.zeros(2, dtype=torch.int64, device="meta")
    try:
        with torch.no_grad():
            evaluated = evaluation_terms(experiment.objective, Step(model, x, y, training=False))
    except (NotImplementedError, RuntimeError, TypeError, AttributeError, ValueError):
        return None
    return [*(f"val/{name}" for name in evaluated), *(f"train/{name}" for name in terms)]


def _no_validation(experiment: Experiment) -> str | None:
    """Return why there is no validation; None where there is one."""
    if experiment.data.validation == 0:
        return "data.validation=0 leaves no images"
    if getattr(experiment.trainer, "keywords", {}).get("limit_val_batches") == 0:
        return "trainer.limit_val_batches=0 leaves none"
    return None
