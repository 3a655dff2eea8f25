"""A trained model that takes and gives values in the units of its data, instead of those it was trained in."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.models.autoencoder import Autoencoder
from vaelab.models.parts import Conditional, Likelihood


def in_units(model: Autoencoder, shift: Tensor, scale: Tensor) -> Autoencoder:
    """The same model for values = x * scale + shift, where it was trained on x; the model itself is changed.

    Args:
        model: as it was trained.
        shift: broadcasts against an event.
        scale: above 0; broadcasts against an event.
    """
    if isinstance(model.encoder, Conditional):
        model.encoder = _ConditionalInUnits(model.encoder, shift, scale)
    else:
        model.encoder = _InUnits(model.encoder, shift, scale)
    model.likelihood = _LikelihoodInUnits(model.likelihood, shift, scale)
    return model


class _InUnits(nn.Module):
    """An encoder of values."""

    shift: Tensor
    scale: Tensor

    def __init__(self, encoder: nn.Module, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)

    def forward(self, values: Tensor, *y: Tensor) -> Tensor:
        """Features of values (B, *event)."""
        features: Tensor = self.encoder(((values - self.shift) / self.scale).to(torch.float32), *y)
        return features


class _ConditionalInUnits(_InUnits, Conditional):
    """An encoder of values and labels."""

    def __init__(self, encoder: Conditional, shift: Tensor, scale: Tensor) -> None:
        super().__init__(encoder, shift, scale)
        self.classes, self.network = encoder.classes, encoder.network


class _LikelihoodInUnits(Likelihood):
    """p(value|z) = p(x|z) / prod_i scale_i."""

    shift: Tensor
    scale: Tensor

    def __init__(self, likelihood: Likelihood, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.shape, self.parameter_shape = likelihood.shape, likelihood.parameter_shape
        self.normalized_over = likelihood.normalized_over  # type: ignore[misc]  # of this one
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)

    def forward(self, parameters: Tensor) -> Distribution:
        """p(value|z) from the parameters of p(x|z)."""
        return _InUnitsDistribution(self.likelihood(parameters), self.shift, self.scale)


class _InUnitsDistribution(Distribution):
    """The distribution of x * scale + shift."""

    arg_constraints = {}  # noqa: RUF012 (as torch declares them)

    def __init__(self, base: Distribution, shift: Tensor, scale: Tensor) -> None:
        self.base, self.shift, self.scale = base, shift, scale
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """E[x] * scale + shift."""
        return self.base.mean * self.scale + self.shift

    def log_prob(self, value: Tensor) -> Tensor:
        """Log p((value - shift) / scale) - sum_i log scale_i."""
        log_scale = self.scale.log().expand(self.event_shape).sum()
        return self.base.log_prob((value - self.shift) / self.scale) - log_scale

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Samples of x, scaled back."""
        return self.base.sample(sample_shape) * self.scale + self.shift
