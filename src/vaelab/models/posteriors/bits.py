"""Posteriors over codes of bits, without a codebook."""

import math
from abc import abstractmethod
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.distributions import Distribution

from vaelab.models.distributions import Codes
from vaelab.models.networks.projections import CodeProjection, Features
from vaelab.models.parts import CodePosterior
from vaelab.models.posteriors.codes import straight_through

Positive = Annotated[int, Field(gt=0)]
Sharpness = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class BinaryQuantizer(CodePosterior):
    """z is +-a in each dimension, the sign of the encoder's vector, and no codebook is learned: K = 2^D.

    Codes carry the logits of soft bits, p(z_j = a | e) = sigmoid(4 t a e_j), which is softmax(-t |e - z|^2) over all K
    codes, one bit at a time. The term code_entropy looks at them.

    Args:
        features: size F of the encoder's output, or shape of its grid, which has a code at each place.
        latent_dim: D, bits of a code.
        codes: L; None for as many as the encoder's grid has places, or 1.
        sharpness: t, of the soft bits.

    Raises:
        ValueError: there are more codes than can be numbered.
    """

    bases: Tensor

    def __init__(
        self, features: Features, latent_dim: int, *, codes: Positive | None = None, sharpness: Sharpness
    ) -> None:
        super().__init__()
        if latent_dim > 62:
            raise ValueError(f"latent_dim={latent_dim} are more bits of a code than can be numbered: at most 62")
        self.project = CodeProjection(features, latent_dim, codes)
        self.codes, self.grids, self.codebook_size = self.project.codes, (self.project.grid,), 2**latent_dim
        self.latent_dim, self.bits = self.codes * latent_dim, latent_dim
        self.sharpness = sharpness
        self.register_buffer("bases", 2 ** torch.arange(latent_dim), persistent=False)

    @property
    @abstractmethod
    def amplitude(self) -> float:
        """A."""

    @abstractmethod
    def placed(self, vectors: Tensor) -> Tensor:
        """Where the vectors (*, D) of the encoder are before they are quantized."""

    def forward(self, features: Tensor) -> Distribution:
        """The codes: batch (B,), event (L D,)."""
        vectors = self.placed(self.project(features))  # (B, L, D)
        positive = vectors > 0
        codes = self._of_bits(positive)
        return Codes(
            straight_through(vectors, codes).flatten(1),
            (positive * self.bases).sum(-1),  # (B, L)
            self.codebook_size,
            commitment=(vectors - codes).square().sum((1, 2)),
            bit_logits=4 * self.sharpness * self.amplitude * vectors,
        )

    def vectors(self, indices: Tensor) -> Tensor:
        """Codes one after the other, (*, L D), of their numbers (*, L)."""
        return self._of_bits(indices.unsqueeze(-1) // self.bases % 2 == 1).flatten(-2)

    def _of_bits(self, positive: Tensor) -> Tensor:
        return torch.where(positive, self.amplitude, -self.amplitude).to(torch.get_default_dtype())

    def extra_repr(self) -> str:
        """What `print(model)` says of it."""
        return f"codes={self.codes}, bits={self.bits}"


class LookupFreeQuantizer(BinaryQuantizer):
    """z_j = sign(e_j) (Yu et al. 2023, section 3.1). See `BinaryQuantizer`."""

    def __init__(
        self, features: Features, latent_dim: int, *, codes: Positive | None = None, sharpness: Sharpness = 1.0
    ) -> None:
        super().__init__(features, latent_dim, codes=codes, sharpness=sharpness)

    @property
    def amplitude(self) -> float:
        """1."""
        return 1.0

    def placed(self, vectors: Tensor) -> Tensor:
        """As they are."""
        return vectors


class BinarySphericalQuantizer(BinaryQuantizer):
    """z_j = sign(u_j) / sqrt(D), u = e / |e| (Zhao et al. 2024, section 3.1): codes on the unit sphere, as u is.

    |u - z|^2 is at most 2 - 2 / sqrt(D), whatever the encoder gives. See `BinaryQuantizer`.
    """

    def __init__(
        self, features: Features, latent_dim: int, *, codes: Positive | None = None, sharpness: Sharpness = 50.0
    ) -> None:
        super().__init__(features, latent_dim, codes=codes, sharpness=sharpness)

    @property
    def amplitude(self) -> float:
        """1 / sqrt(D)."""
        return 1 / math.sqrt(self.bits)

    def placed(self, vectors: Tensor) -> Tensor:
        """On the unit sphere."""
        return F.normalize(vectors, dim=-1)
