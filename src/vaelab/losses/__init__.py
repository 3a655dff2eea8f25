"""Losses: what is minimized.

An objective is called with a `Step`, which holds what its terms look at, and returns a dict of scalar tensors: "loss",
which is minimized, and every term by its name, unweighted. One reduction everywhere: sum over the dimensions of an
event, mean over the batch, in nats. Most objectives are a `SumOfTerms`: the reconstruction and any terms, each with a
weight and, where it wants them, critics of its own. The importance-weighted bounds are objectives by themselves.

`requires(model)` says with an UnsuitableError, before training starts, that a model cannot have this objective.
"""

from vaelab.losses.adversaries import CriticFeatures, DensityRatioTotalCorrelation, ImageAdversary, LatentAdversary
from vaelab.losses.divergences import KL, MMD, TotalCorrelation
from vaelab.losses.fitting import PriorLikelihood
from vaelab.losses.importance import CIWAE, IWAE, MIWAE, PIWAE
from vaelab.losses.objective import Objective, SumOfTerms, Term, Terms
from vaelab.losses.objectives import adversarial, capacity, elbo, factor_vae, reconstruction, vector_quantization
from vaelab.losses.penalties import (
    DIP,
    CodeEntropy,
    CodeLength,
    CodeNorm,
    CodeUse,
    Commitment,
    DecoderJacobian,
    DecoderNorm,
    EncoderJacobian,
    Sparsity,
)
from vaelab.losses.perceptual import Perceptual
from vaelab.losses.step import Step, kl_per_dimension

__all__ = [
    "CIWAE",
    "DIP",
    "IWAE",
    "KL",
    "MIWAE",
    "MMD",
    "PIWAE",
    "CodeEntropy",
    "CodeLength",
    "CodeNorm",
    "CodeUse",
    "Commitment",
    "CriticFeatures",
    "DecoderJacobian",
    "DecoderNorm",
    "DensityRatioTotalCorrelation",
    "EncoderJacobian",
    "ImageAdversary",
    "LatentAdversary",
    "Objective",
    "Perceptual",
    "PriorLikelihood",
    "Sparsity",
    "Step",
    "SumOfTerms",
    "Term",
    "Terms",
    "TotalCorrelation",
    "adversarial",
    "capacity",
    "elbo",
    "factor_vae",
    "kl_per_dimension",
    "reconstruction",
    "vector_quantization",
]
