"""Priors p(z): what the latent variable is like before an image is seen.

A prior is made with the size Z of z. It is called without arguments and returns a distribution with batch shape () and
event shape (Z,). One that is made of the model's other parts takes them in `bind(model)`, called once they are there;
one that begins at the codes of training images, where it is fitted to them, takes these in `start`.
"""

from vaelab.models.priors.basic import HypersphericalUniform, StandardNormal, UniformCodes, VampPrior
from vaelab.models.priors.flow import FlowPrior
from vaelab.models.priors.mixture import Mixture
from vaelab.models.priors.neighbours import NearestNeighbours
from vaelab.models.priors.second_vae import SecondVAE
from vaelab.models.priors.sequence import CodeTransformer

__all__ = [
    "CodeTransformer",
    "FlowPrior",
    "HypersphericalUniform",
    "Mixture",
    "NearestNeighbours",
    "SecondVAE",
    "StandardNormal",
    "UniformCodes",
    "VampPrior",
]
