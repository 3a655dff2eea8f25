"""Normalization layers by the names that a config uses."""

from math import gcd
from typing import Literal

from torch import nn

Normalization = Literal["batch", "layer", "group"]

GROUPS = 8  # or the largest divisor of a width that divides 8 as well


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
            return [nn.GroupNorm(gcd(GROUPS, width), width)]


def conv_normalization(name: Normalization | None, channels: int) -> list[nn.Module]:
    """What follows a convolution; `layer` takes all channels and pixels of an image together."""
    match name:
        case None:
            return []
        case "batch":
            return [nn.BatchNorm2d(channels)]
        case "layer":
            return [nn.GroupNorm(1, channels)]
        case "group":
            return [nn.GroupNorm(gcd(GROUPS, channels), channels)]
