"""Probabilistic PCA (Tipping & Bishop 1999): an autoencoder of which all is known in closed form.

x = W z + b + scale * noise with z ~ N(0, I), so that p(x) = N(b, W W^T + scale^2 I), and with M = W^T W + scale^2 I the
posterior is N(M^-1 W^T (x - b), scale^2 M^-1).
"""

import torch
from torch import nn
from torch.distributions import MultivariateNormal

from vaelab.models.autoencoder import Autoencoder
from vaelab.models.likelihoods import Gaussian as GaussianLikelihood
from vaelab.models.parts import Posterior
from vaelab.models.posteriors import Gaussian
from vaelab.models.priors import StandardNormal

SHAPE, PIXELS = (1, 2, 3), 6


class ExactPosterior(Posterior):
    """N(M^-1 W^T (x - b), scale^2 M^-1) with its full covariance."""

    def __init__(self, weight, bias, scale):
        super().__init__()
        self.latent_dim = weight.shape[1]
        m = weight.T @ weight + scale**2 * torch.eye(weight.shape[1], dtype=weight.dtype)
        self.gain = m.inverse() @ weight.T
        self.bias = bias
        self.covariance = scale**2 * m.inverse()

    def forward(self, x):
        return MultivariateNormal((x - self.bias) @ self.gain.T, self.covariance)


def weights(latent_dim, *, orthogonal=False):
    """W (6, Z) and b (6,), in float64, with columns that overlap or are orthogonal."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(PIXELS, latent_dim, generator=generator, dtype=torch.float64)
    if orthogonal:
        weight = torch.linalg.qr(weight).Q * torch.linspace(0.8, 2.0, latent_dim, dtype=torch.float64)
    return weight, torch.randn(PIXELS, generator=generator, dtype=torch.float64)


def model(weight, bias, scale, posterior):
    """The autoencoder, in float64."""
    latent_dim = weight.shape[1]
    linear = nn.Linear(latent_dim, PIXELS, dtype=torch.float64)
    linear.weight.data, linear.bias.data = weight, bias
    return Autoencoder(
        encoder=nn.Flatten(),
        posterior=posterior,
        decoder=nn.Sequential(linear, nn.Unflatten(-1, SHAPE)),
        likelihood=GaussianLikelihood(SHAPE, scale=scale),
        prior=StandardNormal(latent_dim).double(),
    ).double()


def exact(latent_dim=2, scale=0.5):
    """The autoencoder with the exact posterior, its covariance full."""
    weight, bias = weights(latent_dim)
    return model(weight, bias, scale, ExactPosterior(weight, bias, scale))


def diagonal(latent_dim=2, scale=0.5):
    """The autoencoder with orthogonal W, whose exact posterior is one of vaelab's diagonal Gaussians."""
    weight, bias = weights(latent_dim, orthogonal=True)
    m = weight.square().sum(0) + scale**2
    posterior = Gaussian(PIXELS, latent_dim).double()
    gain = weight.T / m[:, None]
    posterior.mean_and_log_variance.weight.data = torch.cat([gain, torch.zeros_like(gain)])
    posterior.mean_and_log_variance.bias.data = torch.cat([-gain @ bias, (scale**2 / m).log()])
    return model(weight, bias, scale, posterior)


def images(autoencoder, n):
    """N images (n, 1, 2, 3) drawn from the model."""
    z = torch.randn(n, autoencoder.prior.latent_dim, dtype=torch.float64)
    with torch.no_grad():
        return autoencoder.decode(z).sample()


def log_likelihood(autoencoder, x):
    """log p(x), exactly."""
    linear = autoencoder.decoder[0]
    weight, bias = linear.weight.detach(), linear.bias.detach()
    covariance = weight @ weight.T + autoencoder.likelihood.scale**2 * torch.eye(PIXELS, dtype=torch.float64)
    return MultivariateNormal(bias, covariance).log_prob(x.flatten(1))
