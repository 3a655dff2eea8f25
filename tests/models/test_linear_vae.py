"""A linear VAE learns probabilistic PCA: its subspace, and its likelihood (Lucas et al. 2019, theorem 1)."""

import math

import pytest
import torch
from torch import Tensor

from vaelab.losses import Step, elbo
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.likelihoods import Gaussian as GaussianLikelihood
from vaelab.models.networks import MLPDecoder, MLPEncoder
from vaelab.models.posteriors import Gaussian
from vaelab.models.priors import StandardNormal

SHAPE, PIXELS, LATENT, SCALE = (1, 2, 4), 8, 2, 0.5


@pytest.fixture
def images() -> Tensor:
    """300 points near a plane."""
    generator = torch.Generator().manual_seed(0)
    plane = torch.linalg.qr(torch.randn(PIXELS, LATENT, generator=generator, dtype=torch.float64)).Q
    z = torch.randn(300, LATENT, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 1.5])
    noise = SCALE * torch.randn(300, PIXELS, generator=generator, dtype=torch.float64)
    return (z @ plane.T + noise + 0.3).unflatten(1, SHAPE)


@pytest.mark.slow
def test_a_linear_vae_finds_the_principal_subspace_and_the_likelihood_of_probabilistic_pca(images: Tensor) -> None:
    torch.manual_seed(0)
    model = Autoencoder(
        encoder=MLPEncoder(SHAPE, hidden=[]),
        posterior=Gaussian(PIXELS, LATENT),
        decoder=MLPDecoder(LATENT, SHAPE, hidden=[]),
        likelihood=GaussianLikelihood(SHAPE, scale=SCALE),
        prior=StandardNormal(LATENT),
    ).double()
    with torch.no_grad():  # log-variances are the same for all images
        model.posterior.mean_and_log_variance.weight[LATENT:].zero_()  # type: ignore[union-attr, operator]
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3000)
    for step in range(3000):
        optimizer.zero_grad()
        elbo()(Step(model, images, number=step))["loss"].backward()
        optimizer.step()
        decay.step()

    x = images.flatten(1)
    centred = x - x.mean(0)
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(x))  # ascending
    learned = torch.linalg.qr(model.decoder.layers[0].weight.detach()).Q  # type: ignore[union-attr, index]
    cosines = torch.linalg.svdvals(learned.T @ directions[:, -LATENT:])  # of the angles between the planes
    assert cosines.min() > 0.999

    # The best likelihood of a given scale: covariance U diag(l) U^T in the plane, scale^2 outside (Tipping & Bishop).
    inside, outside = variances[-LATENT:], variances[:-LATENT]
    log_determinant = inside.log().sum() + (PIXELS - LATENT) * math.log(SCALE**2)
    distance = LATENT + outside.sum() / SCALE**2
    best = -0.5 * (PIXELS * math.log(2 * math.pi) + log_determinant + distance)
    with torch.no_grad():
        torch.manual_seed(1)
        bound = -torch.stack([elbo()(Step(model, images, training=False))["loss"] for _ in range(400)]).mean()
    assert bound.item() == pytest.approx(best.item(), abs=0.02)
