"""What loggers get of a run as a whole: what it was told, where it ended."""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from vaelab.autoencoder import Autoencoder
from vaelab.experiment.experiment import Experiment
from vaelab.experiment.folder import RunFolder
from vaelab.seeding import derive_seed
from vaelab.training.pictures import log_pictures, portrait
from vaelab.training.tensorboard import EventFiles

# Where and how fast a run is made, not what it makes.
SURROUNDINGS = {"callbacks", "logger", "trainer", "data.root"}
MADE_BY = {"trainer.max_epochs", "trainer.max_steps", "trainer.precision", "trainer.accumulate_grad_batches"}


def open_with(loggers: Iterable[Logger], folder: RunFolder, *, resumed: bool) -> None:
    """Begin a run: its hyperparameters to every logger, its config and command as text to TensorBoard.

    The event files of a `resumed` run have them; W&B and MLflow begin a new run.
    """
    config = folder.config
    for logger in loggers:
        if isinstance(logger, EventFiles):
            if resumed:
                continue
            logger.log_text("config", OmegaConf.to_yaml(config), language="yaml")
            logger.log_text("command", _command(folder.read_json("manifest")))
        logger.log_hyperparams(hyperparameters(config))


def close_with(loggers: Iterable[Logger], experiment: Experiment, model: Autoencoder, *, step: int) -> None:
    """End a run: pictures of its final model on test images, their latents in TensorBoard's projector."""
    loggers = list(loggers)
    test = experiment.data.splits.test
    pictures = portrait(model, test, seed=derive_seed(experiment.seed, "pictures"))
    log_pictures(loggers, pictures, "final", step=step)
    for logger in loggers:
        if isinstance(logger, EventFiles):
            if logger.projector:
                shown = test.first(logger.projector)
                images, labels = shown.pixels.float().div(255), shown.labels
                with torch.no_grad():
                    latents = model.given(labels).encode(images).mean
                logger.log_embedding(latents, images, labels, step)
            logger.close()
        else:
            logger.finalize("success")


def _command(manifest: Mapping[str, Any]) -> str:
    """What was typed and, for one job of a sweep, what would make it alone."""
    typed, overrides = shlex.join(manifest.get("command", [])), manifest.get("overrides", [])
    return f"{typed}\n\nvaelab train {shlex.join(overrides)}" if overrides else typed


def hyperparameters(config: DictConfig) -> dict[str, str | float]:
    """What a person would compare runs by, flat: name -> number or text.

    A part has its class's name, its knobs follow it: {"encoder": "MLPEncoder", "encoder.hidden": "[400]", ...}. What
    is null is left out.
    """
    content: Any = OmegaConf.to_container(config)
    flat = dict(_flat("", content))
    return {name: value for name, value in flat.items() if name in MADE_BY or not _among(SURROUNDINGS, name)}


def _flat(prefix: str, content: Mapping[str, Any]) -> Iterator[tuple[str, str | float]]:
    for key, value in content.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if key == "_target_":
            yield prefix, str(value).rpartition(".")[2]
        elif isinstance(value, Mapping):
            yield from _flat(name, value)
        elif isinstance(value, bool | list):
            yield name, str(value)
        elif value is not None:
            yield name, value


def _among(groups: set[str], name: str) -> bool:
    return any(name == group or name.startswith(f"{group}.") for group in groups)
