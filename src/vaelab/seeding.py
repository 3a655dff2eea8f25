"""Random numbers as a function of (seed, purpose, index), so that no generator state has to be saved."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, NamedTuple

import torch
from torch import Tensor


def derive_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A seed in [0, 2^63) for one purpose and index: independent for any two different ones.

    >>> derive_seed(0, "order", 1) == derive_seed(0, "order", 1) != derive_seed(0, "order", 2)
    True
    """
    digest = blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def seed_noise(device: torch.device, seed: int) -> None:
    """Start torch's generators of the CPU and of `device` at `seed`.

    `torch.manual_seed` would do, but it also formats a traceback for every kind of device that is not in use,
    which costs a small model a tenth of its step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


@contextmanager
def noise_of_its_own(device: torch.device, seed: int) -> Iterator[None]:
    """Draw from `seed` in this block, and restore torch's generators."""
    devices = [] if device.type == "cpu" else [device.index or 0]
    with torch.random.fork_rng(devices, device_type=device.type):
        seed_noise(device, seed)
        yield


def standard_normal_like(parameter: Tensor, sample_shape: Sequence[int] = ()) -> Tensor:
    """Draws of N(0, 1), (*sample, B, *event), for a parameter of a distribution (B, *event), B a batch of images.

    Where processes share a batch (`sharing`), an image's noise does not depend on how many they are.
    """
    return _draw(torch.randn, parameter, sample_shape)


def uniform_like(parameter: Tensor, sample_shape: Sequence[int] = ()) -> Tensor:
    """Draws of the uniform distribution over [0, 1), shaped as those of `standard_normal_like`."""
    return _draw(torch.rand, parameter, sample_shape)


def rademacher_like(parameter: Tensor, sample_shape: Sequence[int] = ()) -> Tensor:
    """Draws of -1 and 1, each with probability 1/2, shaped as those of `standard_normal_like`."""
    return _draw(_signs, parameter, sample_shape)


@contextmanager
def sharing(size: int, *, rank: int, world_size: int, seed: int, device: torch.device) -> Iterator[None]:
    """Let this process draw its part of the noise that one process would draw for a batch of `size` images.

    Its images are number rank, rank + world_size, ... of the batch, or the first where there are none for it. Only
    what is drawn by `standard_normal_like`, `uniform_like` and `rademacher_like` is shared out.
    """
    global _share
    own = torch.arange(rank if rank < size else 0, size if rank < size else 1, world_size, device=device)
    _share = _Share(size, own, torch.Generator(device).manual_seed(seed))
    try:
        yield
    finally:
        _share = None


class _Share(NamedTuple):
    size: int
    own: Tensor
    generator: torch.Generator


_share: _Share | None = None


def _signs(shape: Sequence[int], **where: Any) -> Tensor:
    return torch.randint(2, shape, **where).mul_(2).sub_(1)


def _draw(how: Callable[..., Tensor], parameter: Tensor, sample_shape: Sequence[int]) -> Tensor:
    dtype, device = parameter.dtype, parameter.device
    if _share is None:
        return how((*sample_shape, *parameter.shape), dtype=dtype, device=device)
    shape = (*sample_shape, _share.size, *parameter.shape[1:])
    whole = how(shape, dtype=dtype, device=device, generator=_share.generator)
    return whole.index_select(len(sample_shape), _share.own)
