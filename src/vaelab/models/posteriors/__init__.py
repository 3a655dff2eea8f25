"""Approximate posteriors q(z|x): the encoder's features -> a distribution over z.

A posterior (`models.parts.Posterior`) is made with the encoder's `features` and `latent_dim`, and owns the projection
from features to its parameters. Its own `latent_dim` says how many numbers z has: more than it was given where it is
over several codes or layers. Called with features (B, F), or a grid (B, C, H, W), it returns a
`torch.distributions.Distribution` with batch shape (B,) and event shape (Z,).
"""

from vaelab.models.posteriors.bits import BinaryQuantizer, BinarySphericalQuantizer, LookupFreeQuantizer
from vaelab.models.posteriors.codebooks import TwoGrids, VectorQuantizer
from vaelab.models.posteriors.codes import FiniteScalarQuantizer, GumbelSoftmax
from vaelab.models.posteriors.flow import IAF
from vaelab.models.posteriors.gaussian import Deterministic, FullCovarianceGaussian, Gaussian, GaussianGrid, Laplace
from vaelab.models.posteriors.sparse import KSparse
from vaelab.models.posteriors.sphere import VonMisesFisher

__all__ = [
    "IAF",
    "BinaryQuantizer",
    "BinarySphericalQuantizer",
    "Deterministic",
    "FiniteScalarQuantizer",
    "FullCovarianceGaussian",
    "Gaussian",
    "GaussianGrid",
    "GumbelSoftmax",
    "KSparse",
    "Laplace",
    "LookupFreeQuantizer",
    "TwoGrids",
    "VectorQuantizer",
    "VonMisesFisher",
]
