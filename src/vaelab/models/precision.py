"""What keeps all its bits under mixed precision, where the products of networks are in half of them."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def is_mixed(like: Tensor) -> bool:
    """Whether products on the device of `like` are made in half precision just now."""
    return like.device.type != "meta" and torch.is_autocast_enabled(like.device.type)


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Products in the precision of what they are of: densities and distances have no bits to spare."""
    return torch.autocast(like.device.type, enabled=False) if is_mixed(like) else nullcontext()


def in_full(values: Tensor) -> Tensor:
    """What networks have computed in half precision, in float32: losses and densities need it."""
    return values.float() if is_mixed(values) else values
