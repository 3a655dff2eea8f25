"""Distributions that `torch.distributions` does not have.

Shapes are said as torch says them: a distribution has a batch shape (independent draws, one an image)
and an event shape (what one draw is). `log_prob` sums over the event and keeps the batch.
"""

from vaelab.distributions.codes import Codes, OneHotCodes, UniformCodes
from vaelab.distributions.elementary import BernoulliImage, Delta, Normal
from vaelab.distributions.images import (
    ContinuousBernoulliImage,
    DiscretizedLogisticImage,
    DiscretizedLogisticMixtureImage,
    OptimalGaussianImage,
)
from vaelab.distributions.latents import Flowed, GaussianChain, Laplace, Mixture, MultivariateNormal, product
from vaelab.distributions.sphere import HypersphericalUniform, VonMisesFisher

__all__ = [
    "BernoulliImage",
    "Codes",
    "ContinuousBernoulliImage",
    "Delta",
    "DiscretizedLogisticImage",
    "DiscretizedLogisticMixtureImage",
    "Flowed",
    "GaussianChain",
    "HypersphericalUniform",
    "Laplace",
    "Mixture",
    "MultivariateNormal",
    "Normal",
    "OneHotCodes",
    "OptimalGaussianImage",
    "UniformCodes",
    "VonMisesFisher",
    "product",
]
