"""Posteriors over codes: z is a row of L vectors, each out of a finite set of K.

`latent_dim` is the size D of one vector, and z has L D numbers; where a vector takes several codes, fewer. Besides what
every posterior has, these have `codes` (L), `codebook_size` (K), `grids` and `vectors(indices)`, from which priors over
codes are made.
"""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.models.distributions import Codes, OneHotCodes
from vaelab.models.networks.projections import CodeProjection, Features
from vaelab.models.parts import CodePosterior
from vaelab.models.schedules import Schedule, at

Positive = Annotated[int, Field(gt=0)]
Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class GumbelSoftmax(CodePosterior):
    """q(z|x): L independent categorical variables of K = latent_dim values each, as one-hot vectors.

    While training, samples are relaxed at a temperature, so that they have a gradient (Jang et al. 2017; Maddison et
    al. 2017); in evaluation they are one-hot, so that an ELBO is one. Goes with prior=uniform_codes.

    Args:
        features: size F of the encoder's output.
        latent_dim: K.
        codes: L; None for as many as the encoder's grid has places, or 1.
        temperature: a number, or a schedule of the training batches seen.
        straight_through: round relaxed samples to one-hot vectors and keep their gradient.
    """

    has_density = True
    relaxes_samples = True

    def __init__(
        self,
        features: Features,
        latent_dim: int,
        *,
        codes: Positive | None = None,
        temperature: Temperature | Schedule = 1.0,
        straight_through: bool = False,
    ) -> None:
        super().__init__()
        if min(at(temperature, 0), at(temperature, math.inf)) <= 0:
            raise ValueError("posterior.temperature has to start and end above 0")
        self.project = CodeProjection(features, latent_dim, codes)
        self.codes, self.grids = self.project.codes, (self.project.grid,)
        self.codebook_size = latent_dim
        self.latent_dim = self.codes * latent_dim
        self.temperature = temperature
        self.straight_through = straight_through
        self.seen = BatchesSeen()

    def forward(self, features: Tensor) -> Distribution:
        """q(z|x): batch (B,), event (L K,)."""
        seen = self.seen()
        temperature = at(self.temperature, seen) if self.training else None
        return OneHotCodes(self.project(features), temperature, straight_through=self.straight_through)

    def vectors(self, indices: Tensor) -> Tensor:
        """One-hot vectors one after the other, (*, L K), of the numbers of codes (*, L)."""
        return F.one_hot(indices, self.codebook_size).to(torch.get_default_dtype()).flatten(-2)

    def numbers(self, z: Tensor) -> Tensor:
        """Where the one-hot vectors have their ones, (*, L)."""
        indices: Tensor = z.unflatten(-1, (self.codes, -1)).argmax(-1)
        return indices


class FiniteScalarQuantizer(CodePosterior):
    """Each number of z is rounded to one of a few levels; no codebook is learned (Mentzer et al. 2024).

    Dimension j takes `levels[j]` values, evenly spaced from -1 to 1: z_j is the one nearest to tanh(e_j), with the
    gradient of tanh. K is the product of the levels. (For an even number of levels the paper shifts the values, so that
    0 is one of them; here they are symmetric.) Goes with objective=vector_quantization, which has nothing to commit.

    Args:
        features: size F of the encoder's output, or shape of its grid, which has a code at each place.
        latent_dim: size D of a code.
        levels: of each of the D dimensions.
        codes: L; None for as many as the encoder's grid has places, or 1.

    Raises:
        ValueError: there are not D levels, or their product is beyond what an index can count.
    """

    steps: Tensor
    bases: Tensor

    def __init__(
        self,
        features: Features,
        latent_dim: int,
        *,
        levels: Annotated[list[Annotated[int, Field(gt=1)]], Field(min_length=1)],
        codes: Positive | None = None,
    ) -> None:
        super().__init__()
        if len(levels) != latent_dim:
            raise ValueError(
                f"posterior.levels has {len(levels)} entries and latent_dim={latent_dim}: each dimension of a code has "
                f"one; latent_dim={len(levels)} fits"
            )
        self.codebook_size = math.prod(levels)
        if self.codebook_size >= 2**63:
            raise ValueError(f"posterior.levels multiply to {self.codebook_size} codes: more than can be numbered")
        self.project = CodeProjection(features, latent_dim, codes)
        self.codes, self.grids = self.project.codes, (self.project.grid,)
        self.latent_dim = self.codes * latent_dim
        self.levels = levels
        self.register_buffer("steps", torch.tensor(levels) - 1, persistent=False)
        bases = [math.prod(levels[:number]) for number in range(len(levels))]
        self.register_buffer("bases", torch.tensor(bases), persistent=False)

    def forward(self, features: Tensor) -> Distribution:
        """The codes: batch (B,), event (L D,)."""
        bounded = self.project(features).tanh()  # (B, L, D)
        digits = ((bounded + 1) / 2 * self.steps).round()  # 0 ... level - 1
        values = digits / self.steps * 2 - 1
        indices = (digits.to(torch.int64) * self.bases).sum(-1)  # (B, L)
        nothing = bounded.new_zeros(bounded.shape[0])
        return Codes(straight_through(bounded, values).flatten(1), indices, self.codebook_size, commitment=nothing)

    def vectors(self, indices: Tensor) -> Tensor:
        """Codes one after the other, (*, L D), of their numbers (*, L)."""
        digits = indices.unsqueeze(-1) // self.bases % (self.steps + 1)
        return (digits / self.steps * 2 - 1).flatten(-2)

    def extra_repr(self) -> str:
        """What `print(model)` says of it."""
        return f"codes={self.codes}, levels={self.levels}"


class BatchesSeen(nn.Module):
    """How many training batches there have been; part of a checkpoint, and never on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self) -> int:
        """The number before this batch, which counts if it is one of training."""
        count = self.count
        self.count += self.training
        return count

    def get_extra_state(self) -> Tensor:
        """The number, for a checkpoint."""
        return torch.tensor(self.count)

    def set_extra_state(self, state: Tensor) -> None:
        """Take it up."""
        self.count = int(state)


def straight_through(vectors: Tensor, codes: Tensor) -> Tensor:
    """The codes to the bit, with the gradient of the vectors."""
    return codes + (vectors - vectors.detach())
