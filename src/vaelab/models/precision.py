"""Opt out of autocast: densities and distances need full precision."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def is_mixed(like: Tensor) -> bool:
    """Whether autocast is on for the device of `like`."""
    return like.device.type != "meta" and torch.is_autocast_enabled(like.device.type)


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Turn autocast off for the device of `like`."""
    return torch.autocast(like.device.type, enabled=False) if is_mixed(like) else nullcontext()


def in_full(values: Tensor) -> Tensor:
    """Convert the half-precision output of networks to float32, which losses and densities need."""
    return values.float() if is_mixed(values) else values
