"""Likelihoods of counts 0, 1, 2, ...: the decoder gives the logarithm of the mean, or rate, of each."""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.distributions import NegativeBinomial as TorchNegativeBinomial
from torch.distributions import Poisson as TorchPoisson

from vaelab.models.likelihoods.images import Shape, softly_above
from vaelab.models.parts import Likelihood

LARGEST_LOG_MEAN = 30.0  # beyond it float32 has no counts anyway
LOWEST_LOG_DISPERSION = -10.0


class Poisson(Likelihood):
    """P(x|z) = prod_i r_i^x_i exp(-r_i) / x_i!, with rates r = exp(decoder's output); their variance is their mean."""

    normalized_over = "counts"

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = self.parameter_shape = shape

    def forward(self, log_rate: Tensor) -> Distribution:
        """P(x|z) from logarithms of rates (*batch, *shape)."""
        rate = log_rate.clamp(max=LARGEST_LOG_MEAN).exp()
        return Independent(TorchPoisson(rate, validate_args=False), len(self.shape), validate_args=False)


class NegativeBinomial(Likelihood):
    """Counts with mean m = exp(decoder's output) and variance m + m^2 / r: a Poisson whose rate varies.

        P(x|z) = prod_i Gamma(x_i + r_i) / (x_i! Gamma(r_i)) (r_i / (r_i + m_i))^r_i (m_i / (r_i + m_i))^x_i

    with one learned r for each place of an event, as for genes (Lopez et al. 2018). As r grows it is a Poisson.
    """

    normalized_over = "counts"

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = self.parameter_shape = shape
        self.log_dispersion = nn.Parameter(torch.zeros(shape))  # log r

    def forward(self, log_mean: Tensor) -> Distribution:
        """P(x|z) from logarithms of means (*batch, *shape)."""
        log_mean = log_mean.clamp(max=LARGEST_LOG_MEAN)
        log_r = softly_above(self.log_dispersion, LOWEST_LOG_DISPERSION).to(log_mean)
        counts = TorchNegativeBinomial(log_r.exp(), logits=log_mean - log_r, validate_args=False)
        return Independent(counts, len(self.shape), validate_args=False)
