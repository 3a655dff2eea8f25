"""The deterministic code of a plain autoencoder, and normal and Laplace posteriors."""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from vaelab.models.distributions import Delta, MultivariateNormal, Normal
from vaelab.models.distributions import Laplace as LaplaceDistribution
from vaelab.models.networks.activations import Activation, activation_module
from vaelab.models.networks.projections import CodeProjection, Features, linear
from vaelab.models.parts import Posterior


class Deterministic(Posterior):
    """z = activation(W h + b): a plain autoencoder's code, as a distribution with all its mass in one point.

    Args:
        features: size F of the encoder's output.
        latent_dim: size Z of the code.
        activation: applied to the code; None leaves it linear.
    """

    has_density = False

    def __init__(self, features: Features, latent_dim: int, *, activation: Activation | None = None) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.code = linear(features, latent_dim)
        self.activation = activation_module(activation) if activation else nn.Identity()

    def forward(self, features: Tensor) -> Distribution:
        """q(z|x) = delta(z - code): batch (B,), event (Z,)."""
        return Delta(self.activation(self.code(features)))  # (B, Z)


class Gaussian(Posterior):
    """q(z|x) = N(mean(h), diag(exp(log_variance(h)))) (Kingma & Welling 2014, appendix C.2).

    Args:
        features: size F of the encoder's output.
        latent_dim: size Z of the latent space.
    """

    def __init__(self, features: Features, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.mean_and_log_variance = linear(features, 2 * latent_dim)  # one product, which is faster than two

    def forward(self, features: Tensor) -> Distribution:
        """q(z|x) with independent dimensions: batch (B,), event (Z,)."""
        mean, log_variance = self.mean_and_log_variance(features).chunk(2, -1)  # (B, Z) each
        return Independent(Normal(mean, (0.5 * log_variance).exp(), validate_args=False), 1, validate_args=False)


class GaussianGrid(Posterior):
    """q(z|x) = N(m, diag(s^2)), with `latent_dim` numbers of m and s at each place of the encoder's grid.

    z is the row of all of them, place by place, which decoder.features=null takes for a grid (Rombach et al. 2022).

    Args:
        features: shape (C, H, W) of the encoder's grid.
        latent_dim: numbers a place.

    Raises:
        ValueError: the encoder has no grid.
    """

    def __init__(self, features: Features, latent_dim: int) -> None:
        super().__init__()
        if isinstance(features, int):
            raise ValueError("posterior=gaussian_grid needs the grid of a convolutional encoder: encoder.features=null")
        self.project = CodeProjection(features, 2 * latent_dim)
        self.latent_dim = self.project.codes * latent_dim

    def forward(self, features: Tensor) -> Distribution:
        """q(z|x): batch (B,), event (H W latent_dim,)."""
        mean, log_variance = self.project(features).chunk(2, -1)  # (B, places, latent_dim) each
        scale = (0.5 * log_variance.clamp(-30, 20)).exp()
        return Independent(Normal(mean.flatten(1), scale.flatten(1), validate_args=False), 1, validate_args=False)


class FullCovarianceGaussian(Posterior):
    """q(z|x) = N(mean(h), L L^T), L lower triangular: (Kingma & Welling 2019, section 2.5.1).

    Args:
        features: size F of the encoder's output.
        latent_dim: size Z of the latent space.
    """

    def __init__(self, features: Features, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.mean = linear(features, latent_dim)
        self.triangle = linear(
            features, latent_dim * (latent_dim + 1) // 2
        )  # of L, row by row; its diagonal's logarithm

    def forward(self, features: Tensor) -> Distribution:
        """q(z|x): batch (B,), event (Z,)."""
        mean, triangle = self.mean(features), self.triangle(features)
        scale = mean.new_zeros(*mean.shape, self.latent_dim)  # (B, Z, Z)
        row, column = torch.tril_indices(self.latent_dim, self.latent_dim, device=scale.device)
        scale[:, row, column] = torch.where(row == column, triangle.exp(), triangle)
        return MultivariateNormal(mean, scale_tril=scale, validate_args=False)


class Laplace(Posterior):
    """q(z|x) = prod_j Laplace(mean_j(h), exp(log_scale_j(h))).

    Args:
        features: size F of the encoder's output.
        latent_dim: size Z of the latent space.
    """

    def __init__(self, features: Features, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.mean = linear(features, latent_dim)
        self.log_scale = linear(features, latent_dim)

    def forward(self, features: Tensor) -> Distribution:
        """q(z|x) with independent dimensions: batch (B,), event (Z,)."""
        q = LaplaceDistribution(self.mean(features), self.log_scale(features).exp(), validate_args=False)
        return Independent(q, 1, validate_args=False)
