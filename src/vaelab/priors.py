"""Priors p(z): what the latent variable is like before an image is seen.

A prior is called without arguments and returns a distribution with batch shape () and event shape (Z,).
"""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal


class StandardNormal(nn.Module):
    """p(z) = N(0, I) over `latent_dim` dimensions."""

    zero: Tensor
    one: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        # Buffers, so that the prior lives where the model lives.
        self.register_buffer("zero", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("one", torch.ones(latent_dim), persistent=False)

    def forward(self) -> Distribution:
        """p(z): batch (), event (Z,)."""
        return Independent(Normal(self.zero, self.one, validate_args=False), 1, validate_args=False)

    def extra_repr(self) -> str:
        """What `print(model)` says of it."""
        return f"latent_dim={self.latent_dim}"
