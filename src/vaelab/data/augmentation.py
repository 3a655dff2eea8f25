"""Training images that are changed at random each time, by f(seed, epoch, row)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from vaelab.seeding import derive_seed

Pixels = Annotated[int, Field(ge=0)]
Side = Annotated[float, Field(gt=0, le=1)]
GOLDEN, MIX, MIX_AGAIN = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # splitmix64's, signed
FRACTION = 2**53


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Mirror, move and crop images, on the device that they are on.

    Args:
        flip: mirror half of them, left for right.
        shift: move them by up to so many pixels in each direction; the edge is repeated.
        crop: cut out a part with sides of `crop` to 1 of the image's, of its aspect ratio, and scale it back.
    """

    flip: bool = False
    shift: Pixels = 0
    crop: Side = 1.0

    def __call__(self, x: Tensor, rows: Tensor, seed: int, epoch: int) -> Tensor:
        """Images (B, C, H, W) of the rows with numbers (B,) in the store, changed."""
        u = uniform(rows, seed, epoch, 6)  # (6, B)
        if self.crop < 1:
            side = self.crop + (1 - self.crop) * u[0]
            room = 1 - side
            zero = torch.zeros_like(side)
            across, down = room * (2 * u[1] - 1), room * (2 * u[2] - 1)
            theta = torch.stack([side, zero, across, zero, side, down], 1).reshape(-1, 2, 3)
            grid = affine_grid(theta.to(x), list(x.shape), align_corners=False)
            x = grid_sample(x, grid, padding_mode="border", align_corners=False)
        if self.shift:
            for axis, draw in ((-2, u[3]), (-1, u[4])):
                places = torch.arange(x.shape[axis], device=x.device)
                moved = (places + (draw * (2 * self.shift + 1)).long()[:, None] - self.shift).clamp(0, len(places) - 1)
                index = moved[:, None, :, None] if axis == -2 else moved[:, None, None, :]
                x = x.gather(axis, index.expand_as(x))
        if self.flip:
            x = torch.where((u[5] < 0.5)[:, None, None, None], x, x.flip(-1))
        return x


def uniform(rows: Tensor, seed: int, epoch: int, count: int) -> Tensor:
    """`count` numbers in [0, 1) for each row (B,), as f(seed, epoch, row): splitmix64 of them, (count, B), float32.

    They depend neither on the batch that a row is in nor on the device.
    """
    key = derive_seed(seed, "augmentation", epoch)
    key = key - 2**64 if key >= 2**63 else key
    numbers = torch.arange(1, count + 1, device=rows.device)[:, None]
    z = _mixed(rows.long()[None] * GOLDEN + key)
    z = _mixed(z + numbers * GOLDEN)
    # In float32, which would round what is nearest to 1 up to it.
    return ((z >> 11) & (FRACTION - 1)).double().div(FRACTION).float().clamp(max=1 - 2**-24)


def _mixed(z: Tensor) -> Tensor:
    z = (z ^ ((z >> 30) & (2**34 - 1))) * MIX
    z = (z ^ ((z >> 27) & (2**37 - 1))) * MIX_AGAIN
    return z ^ ((z >> 31) & (2**33 - 1))
