"""Log what people watch while a model trains, besides its terms.

Scalars go to every logger. Except for images per second, they are a function of the weights and the step, so that a
resumed run logs the same as an undisturbed one.
"""

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from vaelab.data import Batches
from vaelab.metrics.latents import LatentsOfImages, active_units
from vaelab.models.distributions import Codes
from vaelab.training.bundles import TakesBundles
from vaelab.training.internals import batch_of_epoch
from vaelab.training.module import AutoencoderModule
from vaelab.training.tensorboard import EventFiles
from vaelab.training.term_means import everyones

IMAGES_PER_SECOND = "train/images_per_second"


class Rates(TakesBundles, pl.Callback):
    """Log the learning rate, the weights of the objective's terms, and the speed.

    `train/learning_rate` and every `train/<...>_weight`, as the step at which they are logged will use them, at the
    steps at which the terms are logged; `train/images_per_second` once per epoch, without validation.
    """

    def __init__(self) -> None:
        self._started: tuple[float, int] | None = None  # the time, and the epoch's batch at it

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, number: int) -> None:
        """Start the clock, after a resume also within an epoch."""
        if self._started is None:
            self._started = time.monotonic(), number

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, number: int
    ) -> None:
        """Log at the steps at which the terms are logged."""
        assert isinstance(pl_module, AutoencoderModule)
        number = batch_of_epoch(trainer)  # of the bundle's last batch
        if not (trainer.is_last_batch or (number + 1) % pl_module.log_every == 0):
            return
        metrics = {"train/learning_rate": trainer.optimizers[0].param_groups[0]["lr"]}
        weights = pl_module.objective.weights(trainer.global_step)
        metrics |= {f"train/{name}": weight for name, weight in weights.items()}
        if trainer.is_last_batch:
            metrics[IMAGES_PER_SECOND] = self._speed(trainer, number)
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)

    def _speed(self, trainer: pl.Trainer, last: int) -> float:
        assert self._started is not None
        batches = trainer.train_dataloader
        assert isinstance(batches, Batches)
        (started, first), self._started = self._started, None
        return sum(map(batches.size, range(first, last + 1))) / (time.monotonic() - started)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lay out training and validation of each term in one chart, once the terms are known after the first epoch."""
        assert isinstance(pl_module, AutoencoderModule)
        terms = [name.removeprefix("train/") for name in pl_module.shown if name.startswith("train/")]
        terms.sort(key=lambda term: term == "loss")  # the sum after its terms
        for logger in trainer.loggers:
            if trainer.current_epoch == 0 and isinstance(logger, EventFiles):
                logger.log_layout({term: [f"train/{term}", f"val/{term}"] for term in terms})


class Latents(pl.Callback):
    """Log statistics of the latents of validation images, at every validation.

    `val/active_units` counts the dimensions whose E_q[z_j] has a variance over the images above 0.01 (Burda et al.
    2015, section 5.2); TensorBoard also gets a histogram over the dimensions of their mean KL in nats. A plain
    autoencoder has neither, a model whose KL does not split into dimensions not the second. One whose latents are codes
    has `val/codes_in_use` and `val/perplexity` instead, of the codes of all images.
    """

    def __init__(self) -> None:
        self._latents = LatentsOfImages(None)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start again, with the prior of the evaluated weights."""
        assert isinstance(pl_module, AutoencoderModule)
        model = pl_module.model
        self._latents = LatentsOfImages(model.prior() if model.prior is not None else None)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        number: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the batch, as `validation_step` has encoded it."""
        assert isinstance(pl_module, AutoencoderModule)
        if outputs is None:  # another process takes the batch
            return
        q = outputs["posterior"]
        if isinstance(q, Codes) or pl_module.model.posterior.has_density:
            self._latents.add(q)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log."""
        if trainer.world_size > 1:
            self._latents = LatentsOfImages.of(self._latents.prior, everyones(self._latents.state(), trainer.strategy))
        variances, usage, kl = self._latents.variances, self._latents.usage, self._latents.kl_per_dimension
        metrics: dict[str, float] = {}
        if variances is not None:
            metrics["val/active_units"] = active_units(variances)
        if usage is not None:
            metrics |= {"val/codes_in_use": usage.codes_in_use, "val/perplexity": usage.perplexity}
        for logger in trainer.loggers:
            if metrics:
                logger.log_metrics(metrics, step=trainer.global_step)
            if kl is not None and isinstance(logger, TensorBoardLogger):
                logger.experiment.add_histogram("val/kl_per_dimension", kl, trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Release the tensors."""
        self._latents = LatentsOfImages(None)
