"""Approximate posteriors q(z|x): the encoder's features -> a distribution over z.

A posterior is made with the encoder's `features` and `latent_dim`, and owns the projection from features to its
parameters. It says in `latent_dim` how many numbers z has, which a posterior over several codes or layers makes more of
than it was given. Called with features (B, F), or a grid (B, C, H, W), it returns a `torch.distributions.Distribution`
with batch shape (B,) and event shape (Z,). Its `has_density` says whether that distribution has a density (or
probability), and so a `log_prob` and a finite KL divergence to a prior. Where z cannot be any vector of real numbers,
its `space` says what it is: "codes", or on "the unit sphere".
"""

from vaelab.models.posteriors.codes import FiniteScalarQuantizer, GumbelSoftmax, VectorQuantizer
from vaelab.models.posteriors.flow import IAF
from vaelab.models.posteriors.gaussian import Deterministic, FullCovarianceGaussian, Gaussian, Laplace
from vaelab.models.posteriors.sparse import KSparse
from vaelab.models.posteriors.sphere import VonMisesFisher

__all__ = [
    "IAF",
    "Deterministic",
    "FiniteScalarQuantizer",
    "FullCovarianceGaussian",
    "Gaussian",
    "GumbelSoftmax",
    "KSparse",
    "Laplace",
    "VectorQuantizer",
    "VonMisesFisher",
]
