"""Distributions that `torch.distributions` does not have.

Shapes are said as torch says them: a distribution has a batch shape (independent draws, one an image)
and an event shape (what one draw is). `log_prob` sums over the event and keeps the batch.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints


class Delta(Distribution):
    """All mass at one point: p(z) = delta(z - value). What a deterministic encoder returns.

    It has no density, so it has neither `log_prob` nor a KL divergence to a prior: KL(Delta || p) is
    infinite for every continuous p, and asking for it raises NotImplementedError.

    Shapes: `value` (*batch, *event), with `event_dims` dimensions of event; samples (*sample, *batch, *event).
    """

    arg_constraints = {"value": constraints.real}  # noqa: RUF012 (as torch declares them)
    has_rsample = True

    def __init__(self, value: Tensor, event_dims: int = 1) -> None:
        self.value = value
        split = value.dim() - event_dims
        super().__init__(value.shape[:split], value.shape[split:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The point itself, (*batch, *event)."""
        return self.value

    @property
    def variance(self) -> Tensor:
        """Zeros, (*batch, *event)."""
        return torch.zeros_like(self.value)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """The point, repeated: (*sample_shape, *batch, *event)."""
        return self.value.expand(self._extended_shape(torch.Size(sample_shape)))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """`rsample`, without its gradient."""
        return self.rsample(sample_shape).detach()
