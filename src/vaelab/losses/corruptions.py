"""What a denoising autoencoder's images go through on their way in (Vincent et al. 2010, section 3.3).

Each is called with images (B, C, H, W) and returns such images. What is reconstructed are the images without it.
"""

from typing import Annotated, Protocol, runtime_checkable

from pydantic import Field
from torch import Tensor

from vaelab.seeding import standard_normal_like, uniform_like

Share = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@runtime_checkable
class Corruption(Protocol):
    """Images (B, C, H, W) -> corrupted images."""

    def __call__(self, x: Tensor) -> Tensor:
        """Of the same shape."""


class Masking:
    """Set each pixel to 0 with probability `amount`."""

    def __init__(self, *, amount: Share = 0.25) -> None:
        self.amount = amount

    def __call__(self, x: Tensor) -> Tensor:
        """The images, parts of them black."""
        return x * (uniform_like(x) >= self.amount)


class GaussianNoise:
    """x + scale * noise, noise normal; pixels may leave [0, 1]."""

    def __init__(self, *, scale: Scale = 0.3) -> None:
        self.scale = scale

    def __call__(self, x: Tensor) -> Tensor:
        """The images with noise."""
        return x + self.scale * standard_normal_like(x)


class SaltAndPepper:
    """Set each pixel to 0 or 1, equally likely, with probability `amount`."""

    def __init__(self, *, amount: Share = 0.25) -> None:
        self.amount = amount

    def __call__(self, x: Tensor) -> Tensor:
        """The images with black and white spots."""
        drawn = uniform_like(x)
        return x.where(drawn >= self.amount, (drawn < self.amount / 2).to(x.dtype))
