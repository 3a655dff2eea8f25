"""Normalization layers by the names that a config uses."""

from typing import Literal

from torch import nn

Normalization = Literal["batch", "layer", "group"]

MOST_GROUPS, SMALLEST_GROUP = 8, 4


def dense_normalization(name: Normalization | None, width: int) -> list[nn.Module]:
    """What follows a linear layer of this width, before its activation: one module, or none."""
    match name:
        case None:
            return []
        case "batch":
            return [nn.BatchNorm1d(width)]
        case "layer":
            return [nn.LayerNorm(width)]
        case "group":
            return [nn.GroupNorm(groups(width), width)]


def conv_normalization(name: Normalization | None, channels: int, places: int = 2) -> list[nn.Module]:
    """What follows a convolution along so many axes; `layer` takes all channels and pixels of an image together."""
    match name:
        case None:
            return []
        case "batch":
            return [{1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[places](channels)]
        case "layer":
            return [nn.GroupNorm(1, channels)]
        case "group":
            return [nn.GroupNorm(groups(channels), channels)]


def groups(width: int) -> int:
    """How many groups of equal size: 8 or as many as leave four numbers in each; fewer would be normalized away.

    >>> groups(64), groups(12), groups(7)
    (8, 3, 1)
    """
    return max((n for n in range(1, MOST_GROUPS + 1) if width % n == 0 and width // n >= SMALLEST_GROUP), default=1)
