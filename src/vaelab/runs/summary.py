"""Log a run as a whole: its config at the start, its final model at the end."""

import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger, WandbLogger

from vaelab import figures
from vaelab.config.experiment import Experiment
from vaelab.data import Batches, rows_at_once
from vaelab.models.autoencoder import Autoencoder
from vaelab.runs.documents import Manifest
from vaelab.runs.folder import RunFolder
from vaelab.runs.hyperparameters import hyperparameters
from vaelab.seeding import derive_seed
from vaelab.training.pictures import log_pictures, portrait
from vaelab.training.tensorboard import EventFiles


def open_with(loggers: Iterable[Logger], folder: RunFolder, *, resumed: bool) -> None:
    """Log the hyperparameters to every logger, config and command as text to TensorBoard.

    The event files of a `resumed` run have them already.
    """
    config = folder.config
    content: Any = OmegaConf.to_container(config)
    for logger in loggers:
        if isinstance(logger, EventFiles):
            if resumed:
                continue
            logger.log_text("config", OmegaConf.to_yaml(config), language="yaml")
            logger.log_text("command", _command(folder.manifest))
        logger.log_hyperparams(hyperparameters(content))


@contextmanager
def ended(loggers: Iterable[Logger]) -> Iterator[None]:
    """Finish W&B's run of this process when the block is left, so that the next one begins a new run."""
    loggers = list(loggers)
    failed = True
    try:
        yield
        failed = False
    finally:
        if any(isinstance(logger, WandbLogger) for logger in loggers):
            import wandb

            if wandb.run is not None:
                wandb.finish(exit_code=int(failed))


def close_with(loggers: Iterable[Logger], experiment: Experiment, model: Autoencoder, *, step: int) -> None:
    """Log pictures of the final model on test images, and their latents to TensorBoard's projector."""
    loggers = list(loggers)
    rows = experiment.data.splits.shown
    view = figures.View.of(experiment.data.form)
    pictures = portrait(model, rows, view, seed=derive_seed(experiment.seed, "pictures"))
    log_pictures(loggers, pictures, "final", step=step)
    for logger in loggers:
        if isinstance(logger, EventFiles):
            if logger.projector:
                shown = rows.first(logger.projector)
                batches = Batches(shown, batch_size=rows_at_once(shown.shape), device=torch.device("cpu"))
                with torch.no_grad():
                    latents = torch.cat([model.encode(batch.images, batch.labels).mean for batch in batches])
                thumbnails = torch.cat([figures.thumbnails(view(batch.images)) for batch in batches])
                names = experiment.data.names_of(shown.labels)
                logger.log_embedding(latents, thumbnails, names, step)
            logger.close()
        else:
            logger.finalize("success")


def _command(manifest: Manifest | None) -> str:
    """Return the command and, if it differs, the `vaelab train` command of this run alone."""
    if manifest is None:
        return ""
    return "\n\n".join(shlex.join(words) for words in (manifest.command, manifest.repeat) if words)
