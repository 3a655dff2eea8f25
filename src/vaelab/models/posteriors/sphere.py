"""A posterior over the unit sphere."""

import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

from vaelab.models.distributions import VonMisesFisher as VonMisesFisherDistribution
from vaelab.models.networks.projections import Features, linear
from vaelab.models.parts import Posterior


class VonMisesFisher(Posterior):
    """q(z|x) on the unit sphere of R^Z, around a direction with a concentration (Davidson et al. 2018).

    direction = d(h) / |d(h)|, concentration = softplus(c(h)) + 1. Goes with prior=hyperspherical_uniform.

    Args:
        features: size F of the encoder's output.
        latent_dim: Z; the sphere has one dimension less.

    Raises:
        ValueError: Z is 1.
    """

    space = "the unit sphere"

    def __init__(self, features: Features, latent_dim: int) -> None:
        super().__init__()
        if latent_dim < 2:
            raise ValueError(
                "posterior=von_mises_fisher needs a sphere, and in one dimension there is none: latent_dim=2"
            )
        self.latent_dim = latent_dim
        self.direction = linear(features, latent_dim)
        self.concentration = linear(features, 1)

    def forward(self, features: Tensor) -> Distribution:
        """q(z|x): batch (B,), event (Z,)."""
        direction = F.normalize(self.direction(features), dim=-1)
        return VonMisesFisherDistribution(direction, F.softplus(self.concentration(features)).squeeze(-1) + 1)
