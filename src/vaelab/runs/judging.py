"""Compute the metrics of a run's config at the end of training."""

from dataclasses import replace
from functools import partial

import torch

from vaelab.config.experiment import Experiment
from vaelab.errors import ConfigError
from vaelab.metrics.generation import generation
from vaelab.metrics.registry import Metric, Value, declaration, measured, reason_against
from vaelab.metrics.subject import Subject
from vaelab.models.autoencoder import Autoencoder
from vaelab.training.lightning import generation as generation_callback

OPTIONS = ("features", "weights", "images")  # of the metric, which its callback has too


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


def require_judgeable(experiment: Experiment, *, fetch: bool) -> None:
    """Refuse metrics that cannot be computed for the data or the model, before anything is trained.

    Args:
        experiment: the config's.
        fetch: whether the weights of a network of torchvision may be downloaded.

    Raises:
        ConfigError: there is one.
    """
    wanted = _wanted(experiment)
    if not wanted:
        return
    with torch.device("meta"):
        subject = replace(_subject(experiment, experiment.model()), fetch=fetch)
    mistakes = []
    for key, metric in wanted.items():
        try:
            reason = reason_against(metric, subject)
        except TypeError as error:  # a function that was not registered
            reason = str(error)
        if reason:
            mistakes.append(f"{key}: {reason}")
    if mistakes:
        raise ConfigError(mistakes)


def _subject(experiment: Experiment, model: Autoencoder) -> Subject:
    return Subject.held_out(model, experiment.objective, experiment.data, seed=experiment.seed)


def _wanted(experiment: Experiment) -> dict[str, Metric]:
    """The metrics of a config by their keys, those of its end and those while it trains."""
    found = {f"metrics.{key}": metric for key, metric in (experiment.metrics or {}).items() if metric is not None}
    for key, callback in (experiment.callbacks or {}).items():
        if isinstance(callback, partial) and callback.func is generation_callback:
            given = {name: callback.keywords[name] for name in OPTIONS if name in callback.keywords}
            found[f"callbacks.{key}"] = partial(generation, **given)
    return found
