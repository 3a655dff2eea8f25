"""Log pictures while a model trains."""

from collections.abc import Iterable, Mapping

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from vaelab import figures
from vaelab.data import Images
from vaelab.data.images import spread
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.latents import changing
from vaelab.seeding import derive_seed, noise_of_its_own
from vaelab.training.averaging import evaluated_weights
from vaelab.training.datamodule import ImageDataModule
from vaelab.training.module import AutoencoderModule

Portrait = Mapping[str, np.ndarray]

WIDTH = 600  # pixels, about
ENCODED = 1000  # images whose latents determine the standard deviations
ROWS, COLUMNS, REACH = 10, 11, 2.5  # of traversals: dimensions, values of each, standard deviations to either side


class Pictures(pl.Callback):
    """Log reconstructions, samples, traversals and the latent plane after the first epoch and every `every_n_epochs`.

    Reconstructed are validation images, or training images where none are set aside. Samples are drawn from the same
    noise each time, so that each sample can be followed.

    Args:
        every_n_epochs: epochs between pictures.
    """

    def __init__(self, *, every_n_epochs: int) -> None:
        self.every_n_epochs = every_n_epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw in the epochs that are due."""
        epoch = trainer.current_epoch + 1
        if not trainer.is_global_zero or not (epoch == 1 or epoch % self.every_n_epochs == 0):
            return
        assert isinstance(pl_module, AutoencoderModule)
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        train, validation, _ = data.data.splits
        images = validation if len(validation) else train
        view, seed = figures.View.of(data.data.form), derive_seed(pl_module.seed, "pictures")
        with evaluated_weights(trainer, pl_module):
            pictures = portrait(pl_module.model, images, view, seed=seed)
        log_pictures(trainer.loggers, pictures, "epoch", step=trainer.global_step)


def log_pictures(loggers: Iterable[Logger], pictures: Portrait, prefix: str, *, step: int) -> None:
    """Log pictures (H, W, 3) as `prefix`/name to TensorBoard and W&B."""
    for logger in loggers:
        for name, picture in pictures.items():
            tag, large = f"{prefix}/{name}", figures.enlarged(picture, width=WIDTH)
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(tag, large, step, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image(tag, [large], step=step)


@torch.no_grad()
def portrait(model: Autoencoder, images: Images, view: figures.View, *, seed: int) -> Portrait:
    """Draw the pictures that a model can have, by name; `view` turns rows into images.

    `reconstructions` of ten; `samples` of its prior, drawn from `seed`, a column for each label that the
    model is told; of latents that are real vectors `traversals` of the dimensions whose codes vary most, each over
    `REACH` standard deviations around its mean while the others stay at the first image's; and `manifold`, where there
    are two of them, at the quantiles of the codes. The generators' state and the model's mode are left as they were.
    """
    parameter = next(model.parameters())
    images = images.spread(ENCODED)
    x = images.x.to(parameter.device, parameter.dtype)
    labels = images.labels.to(parameter.device)
    training = model.training
    model.eval()
    with noise_of_its_own(parameter.device, seed):
        latents = model.encode(x, labels).mean
        shown = spread(10, len(x))
        reconstructed = model.reconstruct(x[shown], labels[shown])
        pictures = {"reconstructions": figures.reconstructions(view(x[shown]), view(reconstructed))}
        if model.prior is not None:
            pictures["samples"] = figures.samples(view(model.sample(64)), model.sampled_classes)
        if model.space == "real vectors":
            deviation, mean = torch.std_mean(latents, dim=0, correction=0)  # (Z,)
            values = mean[:, None] + deviation[:, None] * torch.linspace(-REACH, REACH, COLUMNS).to(latents)
            order = deviation.argsort(descending=True, stable=True)[: 4 * ROWS]
            z = latents[0].repeat(len(order), COLUMNS, 1)  # (rows, columns, Z)
            z[torch.arange(len(order)), :, order] = values[order]
            rows = model.decode(z, labels[:1]).mean
            pictures["traversals"] = figures.traversals(view(rows[changing(rows)][:ROWS]))
            if latents.shape[1] == 2:
                pictures["manifold"] = figures.manifold(view(model.manifold(20, labels[:1], codes=latents)))
    model.train(training)
    return pictures
