"""How alike samples, reconstructions and images are, while a model trains."""

from functools import partial

import pytorch_lightning as pl

from vaelab.metrics.generation import generation
from vaelab.metrics.registry import Value, measured
from vaelab.metrics.subject import Subject
from vaelab.seeding import noise_of_its_own
from vaelab.training.averaging import evaluated_weights
from vaelab.training.datamodule import ImageDataModule
from vaelab.training.module import AutoencoderModule


class Generation(pl.Callback):
    """The metric `generation` of the validation images every so many epochs, as `generation/<features>/<name>`.

    Names that begin with `reconstruction_` compare reconstructions, so that `reconstruction_frechet` is the rFID in
    that feature space. A function of the weights, the data and the seed; averaged weights where they are averaged.

    Args:
        every_n_epochs: how many.
        features: pixels, classifier, or a network of torchvision.models.
        weights: a file with the weights of torchvision's network; None for torchvision's own.
        images: to sample and to reconstruct, at most.
    """

    def __init__(self, *, every_n_epochs: int, features: str, weights: str | None, images: int) -> None:
        self.every_n_epochs, self.features, self.weights, self.images = every_n_epochs, features, weights, images

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure and log, where it is time to."""
        if not trainer.is_global_zero or (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        assert isinstance(pl_module, AutoencoderModule)
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        model, training = pl_module.model, pl_module.model.training
        subject = Subject.held_out(model.eval(), pl_module.objective, data.data, seed=pl_module.seed)
        metric = partial(generation, features=self.features, weights=self.weights, images=self.images)
        with evaluated_weights(trainer, pl_module), noise_of_its_own(pl_module.device, pl_module.seed):
            found = dict(measured(metric, subject))
        model.train(training)
        numbers = {
            f"generation/{self.features}/{name}": float(value.value)
            for name, value in found.items()
            if isinstance(value, Value) and not isinstance(value.value, list)
        }
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=trainer.global_step)
