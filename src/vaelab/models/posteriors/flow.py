"""A Gaussian posterior transformed by a normalizing flow."""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaelab.models.distributions import Flowed, Normal
from vaelab.models.networks.flows import flow
from vaelab.models.networks.projections import Features, linear
from vaelab.models.parts import Posterior

Positive = Annotated[int, Field(gt=0)]


class IAF(Posterior):
    """z = f(u; h), u ~ N(mean(h), diag(variance(h))), f inverse autoregressive (Kingma et al. 2016).

    f is quick to apply, and so to sample from; the density of a z from elsewhere takes Z passes.

    Args:
        features: size F of the encoder's output.
        latent_dim: size Z of the latent space.
        transforms: autoregressive transforms, one after the other, in alternating order of the dimensions.
        hidden: widths of the hidden layers of their networks.
        context: size of what they are told of the features.
    """

    def __init__(
        self,
        features: Features,
        latent_dim: int,
        *,
        transforms: Positive = 2,
        hidden: list[Positive] | None = None,
        context: Positive = 64,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.mean = linear(features, latent_dim)
        self.log_variance = linear(features, latent_dim)
        self.context = linear(features, context)
        # The other way round than in density estimation: the quick direction is that from noise to z.
        widths = hidden or [128]
        self.transform = flow("maf", latent_dim, context=context, transforms=transforms, hidden=widths).transform

    def forward(self, features: Tensor) -> Distribution:
        """q(z|x): batch (B,), event (Z,)."""
        standard_deviation = (0.5 * self.log_variance(features)).exp()  # (B, Z)
        base = Normal(self.mean(features), standard_deviation, validate_args=False)
        return Flowed(Independent(base, 1, validate_args=False), self.transform(self.context(features)))
