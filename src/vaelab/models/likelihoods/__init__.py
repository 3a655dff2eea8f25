"""Likelihoods p(x|z): the decoder's output -> a distribution over events.

A likelihood (`models.parts.Likelihood`) is made with the shape of an event: (C, H, W) of an image, (C, T) of a signal,
(D,) of a vector. It says in `shape` what that is, in `parameter_shape` what a decoder has to return for one, and in
`normalized_over` what its probabilities or densities add up to one over:

    binary    black and white pixels, 0 and 1: no likelihood of grey images
    levels    the 256 levels of uint8 pixels: probabilities
    counts    0, 1, 2, ...: probabilities
    interval  [0, 1]: a density
    line      all real numbers: a density
    columns   numbers and categories of a table: a density of the ones times probabilities of the others

ELBOs and log-likelihoods may be compared within one of these, not across.

Called with parameters (*batch, *parameter_shape) a likelihood returns a distribution with batch shape (*batch) and
event shape `shape`, whose `mean` is the reconstruction and whose `log_prob` is summed over the event, in nats. The
reconstruction loss of the config group `loss` is -log p(x|z).
"""

from vaelab.models.likelihoods.autoregressive import AutoregressiveBernoulli
from vaelab.models.likelihoods.columns import Columns
from vaelab.models.likelihoods.counts import NegativeBinomial, Poisson
from vaelab.models.likelihoods.images import (
    Bernoulli,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Gaussian,
    Laplace,
    OptimalScaleGaussian,
    PixelScaleGaussian,
    SharedScaleGaussian,
    optimal_log_scale,
    softly_above,
)
from vaelab.models.likelihoods.outliers import StudentT

__all__ = [
    "AutoregressiveBernoulli",
    "Bernoulli",
    "Columns",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Gaussian",
    "Laplace",
    "NegativeBinomial",
    "OptimalScaleGaussian",
    "PixelScaleGaussian",
    "Poisson",
    "SharedScaleGaussian",
    "StudentT",
    "optimal_log_scale",
    "softly_above",
]
