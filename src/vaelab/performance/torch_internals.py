"""What we use of torch that it does not promise: one place, tested against new versions.

Written for torch 2.14. tests/performance/test_torch_internals.py names what a version no longer has.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

FULL_DISK = "unexpected pos"
"""The message of torch.save where it could not write a file to its end."""


def has_onednn_product() -> bool:
    """Whether this build has oneDNN's linear layer."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W' + b by oneDNN: (N, outputs) of (N, features) and (outputs, features)."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def keep_buffers_of_compiled() -> None:
    """Have what is compiled from now on keep what its backward needs, so that a term may ask for two gradients."""
    import torch._functorch.config

    torch._functorch.config.donated_buffer = False


def copy_each(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy tensors into others of the same shapes, in one call."""
    torch._foreach_copy_(list(targets), list(sources))


def unscales_gradients(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer's kernels divide gradients by the loss scale of 16-mixed themselves."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))
