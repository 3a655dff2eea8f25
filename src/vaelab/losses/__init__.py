"""Objectives: what is minimised.

An objective is called as `objective(model, x, step)` with images x (B, C, H, W) and returns a dict of scalar
tensors: "loss", which is minimised, and every term by its name, unweighted. One reduction everywhere: sum over
the dimensions of an event, mean over the batch, in nats.

`step` is the optimizer's step, which schedules read. Evaluation passes `math.inf`: weights at their final
values, and nothing that serves training alone, such as free bits or the corruption of images.

`requires(model)` says with a ValueError, before training starts, that a model cannot have this objective.
"""

from vaelab.losses.adversarial import Adversarial, AdversarialAutoencoder, FactorVAE
from vaelab.losses.elbo import ELBO, Capacity, Reconstruction, kl_per_dimension
from vaelab.losses.importance import CIWAE, IWAE, MIWAE, PIWAE
from vaelab.losses.objective import KnowsDataset, Objective, Terms
from vaelab.losses.quantization import VectorQuantization
from vaelab.losses.regularized import Regularized

__all__ = [
    "CIWAE",
    "ELBO",
    "IWAE",
    "MIWAE",
    "PIWAE",
    "Adversarial",
    "AdversarialAutoencoder",
    "Capacity",
    "FactorVAE",
    "KnowsDataset",
    "Objective",
    "Reconstruction",
    "Regularized",
    "Terms",
    "VectorQuantization",
    "kl_per_dimension",
]
