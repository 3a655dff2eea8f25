"""Optimizers of `torch.optim`, with the types and ranges of what a config may set.

The parameters to train are positional, the knobs keyword-only. `fused` kernels give the same update in
one pass over the memory, twice as fast or more on small models.
"""

from collections.abc import Iterable
from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import nn

Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Parameters = Iterable[nn.Parameter]


def adam(
    parameters: Parameters,
    *,
    lr: Rate = 1e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: Rate = 1e-8,
    weight_decay: Rate = 0.0,
) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015); `weight_decay` is an L2 penalty in the gradient."""
    return torch.optim.Adam(parameters, lr, betas, eps, weight_decay, fused=True)


def adamw(
    parameters: Parameters,
    *,
    lr: Rate = 1e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: Rate = 1e-8,
    weight_decay: Rate = 0.01,
) -> torch.optim.Optimizer:
    """Adam with weight decay apart from the gradient (Loshchilov & Hutter 2019)."""
    return torch.optim.AdamW(parameters, lr, betas, eps, weight_decay, fused=True)


def sgd(
    parameters: Parameters, *, lr: Rate = 1e-2, momentum: Decay = 0.9, weight_decay: Rate = 0.0
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum."""
    return torch.optim.SGD(parameters, lr, momentum, weight_decay=weight_decay, fused=True)


def soap(
    parameters: Parameters,
    *,
    lr: Rate = 3e-3,
    betas: tuple[Decay, Decay] = (0.95, 0.95),
    eps: Rate = 1e-8,
    weight_decay: Rate = 0.0,
    precondition_frequency: PositiveInt = 20,
    max_precondition_dim: NonNegativeInt = 256,
) -> torch.optim.Optimizer:
    """Adam in the eigenbases of Shampoo's preconditioners (SOAP, Vyas et al. 2024); needs vaelab[pytorch_optimizer].

    A matrix's gradient G is turned into the eigenvectors of running means of G G' and G' G, Adam's step is taken there
    and turned back. Sides longer than `max_precondition_dim` are not turned; the bases move every
    `precondition_frequency` steps. A step costs more than Adam's and makes more progress: it pays for dense layers
    and batches of some hundreds.
    """
    from pytorch_optimizer import SOAP

    return SOAP(
        parameters,
        lr,
        betas,
        eps=eps,
        weight_decay=weight_decay,
        precondition_frequency=precondition_frequency,
        max_precondition_dim=max_precondition_dim,
    )


# The name of the package that has to be installed.
soap.extra = "pytorch_optimizer"  # type: ignore[attr-defined]
