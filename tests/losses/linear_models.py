"""Linear-Gaussian autoencoders, of which everything is known.

z ~ N(0, I), x|z ~ N(W z + b, s^2 I), so that x ~ N(b, W W^T + s^2 I) and, for the columns of W orthogonal,
z|x ~ N(v * W^T (x - b) / s^2, diag(v)) with v = 1 / (1 + diag(W^T W) / s^2).
"""

import math

import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

from vaelab.losses import Step
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.likelihoods import Gaussian as GaussianLikelihood
from vaelab.models.parts import Posterior
from vaelab.models.priors import StandardNormal

SHAPE, PIXELS, LATENT, SCALE = (1, 2, 3), 6, 2, 0.7


class LinearPosterior(Posterior):
    """q(z|x) = N(A x + c, diag(v))."""

    def __init__(self, weight, bias, variance):
        super().__init__()
        self.latent_dim = len(bias)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.log_variance = nn.Parameter(variance.log())

    def forward(self, features):
        mean = features @ self.weight.T + self.bias
        deviation = (0.5 * self.log_variance).exp().expand_as(mean)
        return Independent(Normal(mean, deviation), 1)


class LinearDecoder(nn.Module):
    """W z + b as an image; `copies` puts it side by side with itself."""

    def __init__(self, weight, bias, shape=SHAPE, copies=1):
        super().__init__()
        self.weight, self.bias, self.shape, self.copies = nn.Parameter(weight), nn.Parameter(bias), shape, copies

    def forward(self, z):
        return (z @ self.weight.T + self.bias).unflatten(-1, self.shape).repeat_interleave(self.copies, -1)


class EveryOtherPixel(nn.Flatten):
    """What `copies=2` has put side by side, once."""

    def forward(self, x):
        return super().forward(x[..., ::2])


def exact_posterior(weight, bias, scale):
    """A, c and v of z|x."""
    variance = 1 / (1 + weight.square().sum(0) / scale**2)
    gain = variance[:, None] * weight.T / scale**2
    return gain, -gain @ bias, variance


def linear_gaussian(*, exact):
    """The model, with its exact posterior or with one that is somewhat off."""
    generator = torch.Generator().manual_seed(0)
    columns = torch.linalg.qr(torch.randn(PIXELS, LATENT, generator=generator, dtype=torch.float64)).Q
    weight = columns * torch.tensor([1.5, 0.8], dtype=torch.float64)
    bias = torch.randn(PIXELS, generator=generator, dtype=torch.float64)
    gain, shift, variance = exact_posterior(weight, bias, SCALE)
    if not exact:
        gain, shift, variance = gain * 0.7, shift + 0.3, variance * 1.6
    return Autoencoder(
        encoder=nn.Flatten(),
        posterior=LinearPosterior(gain, shift, variance),
        decoder=LinearDecoder(weight, bias),
        likelihood=GaussianLikelihood(SHAPE, scale=SCALE),
        prior=StandardNormal(LATENT).double(),
    )


def probabilistic_pca(x, *, latent_dim, scale):
    """Of the first k = 1, 2, ... Z principal components of images x the likeliest linear model, with exact posteriors.

    W = U (L - s^2 I)^(1/2), U and L the first eigenvectors and eigenvalues of the covariance (Tipping & Bishop 1999,
    equation 7). All have Z dimensions: the columns of W for those that are not used are 0, their posterior the prior.
    """
    flat = x.flatten(1)
    mean = flat.mean(0)
    variances, directions = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(x))  # ascending
    weight = directions[:, -latent_dim:].flip(1) * (variances[-latent_dim:].flip(0) - scale**2).sqrt()
    for used in range(1, latent_dim + 1):
        columns = weight.where(torch.arange(latent_dim) < used, 0)
        yield Autoencoder(
            encoder=nn.Flatten(),
            posterior=LinearPosterior(*exact_posterior(columns, mean, scale)),
            decoder=LinearDecoder(columns, mean, x.shape[1:]),
            likelihood=GaussianLikelihood(x.shape[1:], scale=scale),
            prior=StandardNormal(latent_dim).to(x.dtype),
        )


def log_marginal(model, x):
    """log p(x) of a linear-Gaussian model, (B,)."""
    weight, bias = model.decoder.weight, model.decoder.bias
    covariance = weight @ weight.T + SCALE**2 * torch.eye(PIXELS, dtype=torch.float64)
    return MultivariateNormal(bias, covariance).log_prob(x.flatten(1)).detach()


def seeded(objective, model, x, number=0, *, training=False, seed=0):
    """The terms of a step under the noise of a seed."""
    torch.manual_seed(seed)
    return objective(Step(model, x, number=number, training=training))


def repeated(objective, model, x, runs):
    """The mean loss of `runs` evaluations under different noise, and its standard error."""
    with torch.no_grad():
        losses = torch.stack([seeded(objective, model, x, seed=seed)["loss"] for seed in range(runs)])
    return losses.mean().item(), losses.std().item() / math.sqrt(runs)
