"""Linear layers by the faster of two libraries.

PyTorch hands float32 products on CPUs to MKL, which on processors that are not Intel's leaves AVX-512 unused. oneDNN,
which PyTorch carries as well, uses it: about twice the speed there, 1.1 times with AVX2, and the same numbers to
rounding.
"""

import platform
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from vaelab.performance.torch_internals import has_onednn_product, onednn_product

# Below it, the call costs what the product saves.
SMALLEST_WEIGHT = 2**15


class Linear(nn.Linear):
    """x W' + b, as torch.nn.Linear has it."""

    def forward(self, x: Tensor) -> Tensor:
        """(*, outputs) of (*, features)."""
        if not _suits_onednn(x, self.weight):
            return F.linear(x, self.weight, self.bias)
        result: Tensor = _OneDNN.apply(x, self.weight, self.bias)
        return result


class _OneDNN(torch.autograd.Function):
    """x W' + b by oneDNN. Its gradients are made of itself, so that they have gradients of their own."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn_product(x, weight, bias)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        of_x, of_weight, of_bias = ctx.needs_input_grad  # type: ignore[attr-defined]
        for_x = _OneDNN.apply(gradient, weight.t(), None) if of_x else None
        for_weight = None
        if of_weight:  # what comes first has to be copied, where it is turned: faster here than by oneDNN
            turned = x.numel() + weight.numel() < gradient.numel()
            first, second = (x, gradient) if turned else (gradient, x)
            product = _OneDNN.apply(first.t().contiguous(), second.t(), None)
            for_weight = product.t() if turned else product
        return for_x, for_weight, gradient.sum(0) if of_bias else None


def _suits_onednn(x: Tensor, weight: Tensor) -> bool:
    """Many weights, float32 and a processor on which it is faster; what is compiled or cast is PyTorch's own affair."""
    return (
        not torch.compiler.is_compiling()  # first: it warns of what is cached below
        and weight.numel() >= SMALLEST_WEIGHT
        and x.ndim == 2
        and _onednn_is_faster()
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


@cache
def _onednn_is_faster() -> bool:
    return (
        torch.backends.mkl.is_available()
        and has_onednn_product()
        and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        and _vendor() != "GenuineIntel"
    )


def _vendor() -> str:
    """As Linux names it, otherwise as Python does."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split()[-1] for line in lines if line.startswith("vendor_id")), platform.processor())
