"""Priors that are known beforehand, or made of the model's own posterior."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from vaelab.models.distributions import HypersphericalUniform as HypersphericalUniformDistribution
from vaelab.models.distributions import StandardNormal as StandardNormalDistribution
from vaelab.models.distributions import UniformCodes as UniformCodesDistribution
from vaelab.models.parts import CodePosterior, Prior, UnsuitableError, coupling_module
from vaelab.models.posteriors import FiniteScalarQuantizer, Gaussian, GumbelSoftmax, VectorQuantizer
from vaelab.models.priors.mixture import mixture

if TYPE_CHECKING:
    from vaelab.models.autoencoder import Autoencoder

Positive = Annotated[int, Field(gt=0)]
Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]

HALF_A_LEVEL = 0.5 / 255  # pseudo-inputs start no nearer to black and white


class StandardNormal(Prior):
    """p(z) = N(0, I) over `latent_dim` dimensions."""

    zero: Tensor
    one: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        # Buffers, so that the prior lives where the model lives.
        self.register_buffer("zero", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("one", torch.ones(latent_dim), persistent=False)

    def forward(self) -> Distribution:
        """p(z): batch (), event (Z,)."""
        return Independent(StandardNormalDistribution(self.zero, self.one), 1, validate_args=False)

    def extra_repr(self) -> str:
        """What `print(model)` says of it."""
        return f"latent_dim={self.latent_dim}"


class VampPrior(Prior):
    """p(z) = 1/K sum_k q(z|u_k), q the model's own posterior, u_k learned images (Tomczak & Welling 2018, equation 9).

    The pixels are u = sigmoid(logits), so that they stay between 0 and 1 and keep a gradient. Parameters that are
    clamped, as in the paper's code, have none outside of [0, 1], where a few steps of a large learning rate put them.

    Args:
        latent_dim: Z.
        components: K.
        start_mean: mean of the pseudo-inputs' pixels before training.
        start_scale: their standard deviation.
    """

    encode: Callable[[Tensor], Distribution]

    def __init__(
        self,
        latent_dim: int,
        *,
        components: Positive = 500,
        start_mean: Annotated[float, Field(ge=0, le=1)] = 0.05,
        start_scale: Scale = 0.01,
    ) -> None:
        super().__init__()
        self.components = components
        self.start_mean, self.start_scale = start_mean, start_scale

    def bind(self, model: "Autoencoder") -> None:
        """Make the pseudo-inputs, and take the model's encoder and posterior."""
        if model.classes is not None:
            raise UnsuitableError("{} has pseudo-inputs without labels, and the model is conditional on labels", self)
        if not model.posterior.has_density:
            raise UnsuitableError(
                "{} is a mixture of the posterior's densities, and {} has none", self, model.posterior, fits=[Gaussian]
            )
        if (coupling := coupling_module(model.encoder)) is not None:
            raise UnsuitableError(
                "{} encodes its pseudo-inputs apart from the images, and {} would make the code of an image depend on "
                "which of the two it is among: normalization=layer or group does not",
                self,
                coupling,
            )
        noise = torch.randn(self.components, *model.likelihood.shape)
        pixels = self.start_mean + self.start_scale * noise
        self.logits = nn.Parameter(pixels.logit(eps=HALF_A_LEVEL))
        self.space = model.space
        self.encode = model.encode

    @property
    def pseudo_inputs(self) -> Tensor:
        """u, (K, C, H, W)."""
        return self.logits.sigmoid()

    def forward(self) -> Distribution:
        """p(z): batch (), event (Z,)."""
        components = self.encode(self.pseudo_inputs)  # batch (K,)
        return mixture(self.logits.new_zeros(self.components), components)


class HypersphericalUniform(Prior):
    """The uniform distribution over the unit sphere of R^Z. Goes with posterior=von_mises_fisher."""

    space = "the unit sphere"
    like: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def forward(self) -> Distribution:
        """p(z): batch (), event (Z,)."""
        return HypersphericalUniformDistribution(self.like, self.latent_dim)

    def extra_repr(self) -> str:
        """What `print(model)` says of it."""
        return f"latent_dim={self.latent_dim}"


class UniformCodes(Prior):
    """Each of the posterior's codes with the same probability. Goes with posteriors over codes."""

    space = "codes"
    like: Tensor
    vectors: Callable[[Tensor], Tensor]  # of the posterior

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def bind(self, model: "Autoencoder") -> None:
        """Take the posterior's codebook."""
        posterior = model.posterior
        if not isinstance(posterior, CodePosterior):
            raise UnsuitableError(
                "{} needs a posterior over codes, and {} is none",
                self,
                posterior,
                fits=[VectorQuantizer, FiniteScalarQuantizer, GumbelSoftmax],
            )
        self.codes, self.codebook_size = posterior.codes, posterior.codebook_size
        self.vectors = posterior.vectors

    def forward(self) -> Distribution:
        """p(z): batch (), event (L D,)."""
        return UniformCodesDistribution(self.codes, self.codebook_size, self.vectors, self.like)
