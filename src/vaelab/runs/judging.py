"""Compute the metrics of a run's config at the end of training."""

from functools import partial

import torch

from vaelab.config.experiment import Experiment
from vaelab.errors import ConfigError
from vaelab.metrics.registry import Value, declaration, measured, reason_against
from vaelab.metrics.subject import Subject, split_images
from vaelab.models.autoencoder import Autoencoder


def judged(experiment: Experiment, model: Autoencoder) -> dict[str, float]:
    """Compute single numbers of a trained model, by name: generation/kid.

    They are computed on the validation images, so that a search does not see the test images; without any, on the test
    images, or else the training images. Noise is f(the run's seed), so that a resumed run finds the same.
    """
    subject, found = _subject(experiment, model.eval()), {}
    for key, metric in (experiment.metrics or {}).items():
        if metric is None:
            continue
        for name, value in measured(metric, subject):
            if isinstance(value, Value) and not isinstance(value.value, list):
                found[f"{key}/{name}"] = float(value.value)
    return found


def reported(experiment: Experiment) -> list[str]:
    """List the names that `judged` may report."""
    metrics = (experiment.metrics or {}).items()
    return [f"{key}/{name}" for key, metric in metrics if metric is not None for name in declaration(metric).names]


def require_judgeable(experiment: Experiment) -> None:
    """Refuse metrics that cannot be computed for the data or the model, before anything is trained.

    Raises:
        ConfigError: there is one.
    """
    if not any(experiment.metrics or {}):
        return
    with torch.device("meta"):
        subject = _subject(experiment, experiment.model())
    mistakes = []
    for key, metric in (experiment.metrics or {}).items():
        if metric is None:
            continue
        try:
            reason = reason_against(metric, subject)
        except TypeError as error:  # a function that was not registered
            reason = str(error)
        if reason:
            mistakes.append(f"metrics.{key}: {reason}")
    if mistakes:
        raise ConfigError(mistakes)


def _subject(experiment: Experiment, model: Autoencoder) -> Subject:
    splits = experiment.data.splits
    return Subject(
        model=model,
        objective=experiment.objective,
        data=experiment.data,
        split=next(name for name in ("validation", "test", "train") if len(getattr(splits, name))),
        of_split=partial(split_images, experiment.data),
        seed=experiment.seed,
    )
