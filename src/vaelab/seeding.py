"""Randomness as a function of (seed, purpose, index), so that no generator's state has to be kept."""

from hashlib import blake2b

import torch


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
