"""Approximate posteriors q(z|x): the encoder's features -> a distribution over z.

A posterior owns the projection from features to its parameters. Called with features (B, F), it returns a
`torch.distributions.Distribution` with batch shape (B,) and event shape (Z,). Its `has_density` says whether that
distribution has a density, and so a `log_prob` and a finite KL divergence to a continuous prior.
"""

from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from vaelab.distributions import Delta, Normal
from vaelab.networks.activations import Activation, activation_module


class Deterministic(nn.Module):
    """z = activation(W h + b): a plain autoencoder's code, as a distribution with all its mass in one point.

    Args:
        features: size F of the encoder's output.
        latent_dim: size Z of the code.
        activation: applied to the code; None leaves it linear.
    """

    has_density = False

    def __init__(self, features: int, latent_dim: int, *, activation: Activation | None = None) -> None:
        super().__init__()
        self.code = nn.Linear(features, latent_dim)
        self.activation = activation_module(activation) if activation else nn.Identity()

    def forward(self, features: Tensor) -> Distribution:
        """q(z|x) = delta(z - code): batch (B,), event (Z,)."""
        return Delta(self.activation(self.code(features)))  # (B, Z)


class Gaussian(nn.Module):
    """q(z|x) = N(mean(h), diag(exp(log_variance(h)))) (Kingma & Welling 2014, appendix C.2).

    Args:
        features: size F of the encoder's output.
        latent_dim: size Z of the latent space.
    """

    has_density = True

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.mean = nn.Linear(features, latent_dim)
        self.log_variance = nn.Linear(features, latent_dim)

    def forward(self, features: Tensor) -> Distribution:
        """q(z|x) with independent dimensions: batch (B,), event (Z,)."""
        standard_deviation = (0.5 * self.log_variance(features)).exp()  # (B, Z)
        return Independent(Normal(self.mean(features), standard_deviation, validate_args=False), 1, validate_args=False)
