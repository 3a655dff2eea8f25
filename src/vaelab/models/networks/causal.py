"""Convolutions that see only the pixels before their own, row by row."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CausalConvolutions(nn.Module):
    """Images (N, C, H, W) -> (N, outputs, H, W), each place a function of the pixels before it, row by row.

    Before are the places of the rows above and those to the left (van den Oord et al. 2016, section 3.4): those within
    `reach` rows and columns, but for some to the upper right, which such convolutions do not see.

    Args:
        channels_in: C.
        outputs: at each place.
        channels: of the layers between.
        kernel: width of the first convolution, odd.
        blocks: residual blocks of 3 wide after it.

    Raises:
        ValueError: the kernel is even, or 1.
    """

    def __init__(self, channels_in: int, outputs: int, *, channels: int, kernel: int, blocks: int) -> None:
        super().__init__()
        if kernel % 2 == 0 or kernel == 1:
            raise ValueError(f"kernel={kernel}: should be odd and at least 3, such as 7")
        self.first = CausalConvolution(channels_in, channels, kernel, itself=False)
        self.blocks = nn.ModuleList(CausalConvolution(channels, channels, 3, itself=True) for _ in range(blocks))
        self.last = nn.Conv2d(channels, outputs, 1)
        self.reach = kernel // 2 + blocks

    def forward(self, x: Tensor) -> Tensor:
        """Features of the pixels before each."""
        seen = self.first(x)
        for block in self.blocks:
            seen = seen + block(F.silu(seen))
        features: Tensor = self.last(F.silu(seen))
        return features


class CausalConvolution(nn.Conv2d):
    """A convolution over the rows above, `kernel` wide, and over the row's own places to the left.

    Args:
        channels_in: of its input.
        channels_out: of its output.
        kernel: odd width 2 r + 1; it sees r rows above.
        itself: whether it sees the place itself.
    """

    mask: Tensor

    def __init__(self, channels_in: int, channels_out: int, kernel: int, *, itself: bool) -> None:
        self.radius = radius = kernel // 2
        super().__init__(channels_in, channels_out, (radius + 1, kernel))
        mask = torch.ones(radius + 1, kernel)
        mask[-1, radius + itself :] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels_in, H, W) -> (N, channels_out, H, W)."""
        r = self.radius
        return F.conv2d(F.pad(x, (r, r, r, 0)), self.weight * self.mask, self.bias)
