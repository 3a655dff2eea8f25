"""Sparse codes."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.distributions import Distribution

from vaelab.models.distributions import Delta
from vaelab.models.networks.projections import Features, linear
from vaelab.models.parts import Posterior


class KSparse(Posterior):
    """z = the `active` largest numbers of W h + b, and 0 for the others (Makhzani & Frey 2014, section 2).

    Args:
        features: size F of the encoder's output.
        latent_dim: size Z of the code.
        active: k.

    Raises:
        ValueError: k is greater than Z.
    """

    has_density = False

    def __init__(self, features: Features, latent_dim: int, *, active: Annotated[int, Field(gt=0)] = 25) -> None:
        super().__init__()
        if active > latent_dim:
            raise ValueError(f"posterior.active={active} of latent_dim={latent_dim} numbers: there are not so many")
        self.latent_dim = latent_dim
        self.active = active
        self.code = linear(features, latent_dim)

    def forward(self, features: Tensor) -> Distribution:
        """q(z|x) = delta(z - code): batch (B,), event (Z,)."""
        code = self.code(features)  # (B, Z)
        largest = code.topk(self.active, -1)
        return Delta(torch.zeros_like(code).scatter(-1, largest.indices, largest.values))
