"""A few small images, models of them, and Lightning's Trainer as we have it."""

from dataclasses import dataclass

import pytorch_lightning as pl
import torch

from vaelab.data import Form, ImageData, Images, Splits
from vaelab.losses import elbo
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.likelihoods import Bernoulli
from vaelab.models.networks import MLPDecoder, MLPEncoder
from vaelab.models.posteriors import Deterministic, Gaussian
from vaelab.models.priors import StandardNormal
from vaelab.training.checkpoints import AtomicCheckpointIO
from vaelab.training.module import AutoencoderModule
from vaelab.training.optimizers import adam

SHAPE, TRAIN, VALIDATION, TEST, BATCH = (1, 3, 3), 22, 1005, 7, 8


@dataclass(kw_only=True, eq=False)
class Toy(ImageData):
    batch_size: int = BATCH

    def outline(self):
        return Form(shape=SHAPE)

    def read(self):
        generator = torch.Generator().manual_seed(0)
        return Splits(
            *(
                Images(
                    torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, generator=generator), torch.zeros(n).long()
                )
                for n in (TRAIN, VALIDATION, TEST)
            )
        )


class Recorder(pl.loggers.logger.DummyLogger):
    """Keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.logged = []

    def log_metrics(self, metrics, step=None):
        self.logged.append((step, dict(metrics)))


def variational(seed=0):
    torch.manual_seed(seed)
    encoder = MLPEncoder(SHAPE, hidden=[6])
    return Autoencoder(
        encoder=encoder,
        posterior=Gaussian(encoder.features, 2),
        decoder=MLPDecoder(2, SHAPE, hidden=[6]),
        likelihood=Bernoulli(SHAPE),
        prior=StandardNormal(2),
    )


def plain(seed=0):
    torch.manual_seed(seed)
    encoder = MLPEncoder(SHAPE, hidden=[6])
    return Autoencoder(
        encoder=encoder,
        posterior=Deterministic(encoder.features, 2),
        decoder=MLPDecoder(2, SHAPE, hidden=[6]),
        likelihood=Bernoulli(SHAPE),
    )


def module_of(model, objective=None, *, scheduler=None, **knobs):
    return AutoencoderModule(
        model, objective or elbo(), lambda parameters: adam(parameters, lr=0.01), scheduler, **knobs
    )


def trainer_of(epochs=2, recorder=None, plugins=(), **settings):
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=recorder or False,
        plugins=[AtomicCheckpointIO(), *plugins],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=1,
        **settings,
    )


def weights(module):
    """Every number that is trained."""
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
