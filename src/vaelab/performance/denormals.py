"""Optimizers without numbers so small that a CPU computes with them a hundred times slower.

A weight whose gradient is exactly 0, as that of a pixel which is black in nearly every image, has a mean gradient that
Adam multiplies by 0.9 at every step. After some 700 steps it is denormal, below float32's 1.2e-38, and stays there:
Adam's step over the weights of MNIST then takes twice as long.
"""

import torch
from torch import Tensor

EVERY = 32
"""Optimizer steps from one look to the next: at 0.9 a step, what was not taken for 0 is not denormal before it."""

SMALLEST = 2.0**-120  # 7.5e-37


def flush(optimizer: torch.optim.Optimizer) -> None:
    """Set the optimizer's float32 numbers with |s| <= 7.5e-37 to 0 where they are on a CPU.

    Beside Adam's eps of 1e-8 this moves a weight by less than the learning rate times 1e-27, which is no bit of it.
    """
    for state in optimizer.state.values():
        for tensor in state.values():
            if (
                isinstance(tensor, Tensor)
                and tensor.ndim > 0
                and tensor.dtype == torch.float32
                and tensor.device.type == "cpu"
            ):
                torch.hardshrink(tensor, SMALLEST, out=tensor)
