"""Codes in units of their own mean and standard deviation."""

import torch
from torch import Tensor, nn
from torch.distributions import AffineTransform, Distribution, TransformedDistribution


class Standardisation(nn.Module):
    """z = mean + scale * s for s of a distribution, mean and scale those of codes: 0 and 1 until `start`."""

    mean: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("scale", torch.ones(latent_dim))

    def start(self, codes: Tensor) -> None:
        """Take mean and standard deviation of codes (N, Z), which are at least a thousandth of the largest."""
        scale, mean = torch.std_mean(codes, dim=0, correction=0)
        self.mean.copy_(mean)
        self.scale.copy_(scale.clamp(min=1e-3 * scale.max().item() + torch.finfo(scale.dtype).tiny))

    def forward(self, base: Distribution) -> Distribution:
        """The distribution of z, where `base` is that of s: batch (), event (Z,)."""
        moved = AffineTransform(self.mean, self.scale, event_dim=1)
        return TransformedDistribution(base, [moved], validate_args=False)
