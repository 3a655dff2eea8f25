"""A small autoencoder of images of 3 x 4, in float64, for tests of terms and of their sums."""

import torch

from vaelab.models.autoencoder import Autoencoder
from vaelab.models.likelihoods import Gaussian as GaussianLikelihood
from vaelab.models.networks import MLPDecoder, MLPEncoder
from vaelab.models.posteriors import Gaussian
from vaelab.models.priors import StandardNormal

SHAPE, LATENT = (1, 3, 4), 3


def model_of(posterior=Gaussian, *, prior=True):
    torch.manual_seed(0)
    encoder = MLPEncoder(SHAPE, hidden=[7], activation="tanh")
    return Autoencoder(
        encoder=encoder,
        posterior=posterior(encoder.features, LATENT),
        decoder=MLPDecoder(LATENT, SHAPE, hidden=[7], activation="tanh"),
        likelihood=GaussianLikelihood(SHAPE, scale=0.5),
        prior=StandardNormal(LATENT) if prior else None,
    ).double()
