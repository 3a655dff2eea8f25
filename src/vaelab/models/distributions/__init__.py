"""Distributions that `torch.distributions` does not have.

Shapes are said as torch says them: a distribution has a batch shape (independent draws, one an image)
and an event shape (what one draw is). `log_prob` sums over the event and keeps the batch.
"""

from vaelab.models.distributions.autoregressive import AutoregressiveBernoulliImage
from vaelab.models.distributions.codes import Codes, CodeSequence, OneHotCodes, UniformCodes
from vaelab.models.distributions.columns import MixedColumns
from vaelab.models.distributions.elementary import BernoulliImage, Delta, Normal, StandardNormal
from vaelab.models.distributions.images import (
    ContinuousBernoulliImage,
    DiscretizedLogisticImage,
    DiscretizedLogisticMixtureImage,
    OptimalGaussianImage,
)
from vaelab.models.distributions.latents import Flowed, GaussianChain, Laplace, Mixture, MultivariateNormal, product
from vaelab.models.distributions.sphere import HypersphericalUniform, VonMisesFisher

__all__ = [
    "AutoregressiveBernoulliImage",
    "BernoulliImage",
    "CodeSequence",
    "Codes",
    "ContinuousBernoulliImage",
    "Delta",
    "DiscretizedLogisticImage",
    "DiscretizedLogisticMixtureImage",
    "Flowed",
    "GaussianChain",
    "HypersphericalUniform",
    "Laplace",
    "MixedColumns",
    "Mixture",
    "MultivariateNormal",
    "Normal",
    "OneHotCodes",
    "OptimalGaussianImage",
    "StandardNormal",
    "UniformCodes",
    "VonMisesFisher",
    "product",
]
